/* SPDX-License-Identifier: Apache-2.0 */
/* The HBONE pool. A connection's life: credential -> TCP connect -> TLS handshake -> HTTP/2 -> closing. Whoever asks
 * for a connection that is being made waits in its list; a failure at any step answers them all, and the
 * next one who asks starts anew.
 *
 * A connection without streams is closed after `pool_idle_ms`, or soon when a sibling would do. One that the peer is
 * leaving, or whose window is used up, gets no new streams; a sibling is made. */
#include "data/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/certs.h"
#include "data/dial.h"
#include "data/limits.h"
#include "data/offload.h"
#include "data/revoke.h"

enum { BUCKETS = 256, KEY_MAX = 4096 };

enum stage { STAGE_CERT, STAGE_DIAL, STAGE_TLS, STAGE_UP, STAGE_OVER };

struct pool_conn {
	struct list link; /* bucket */
	struct pool *pool;
	struct pod *pod;
	struct endpoint to;
	char *expect; /* accepted identities, each ended by '\n' */
	enum stage stage;
	struct cert_request *cert;
	struct tls_id *id;
	struct dial dial;
	struct io io;
	struct tls_handshake *tls;
	struct h2 *h2;
	struct rstr *peer;
	struct crl_path *path; /* of the peer; or NULL */
	struct timer timer;    /* handshake, then idleness */
	struct list waiters;
	unsigned n_waiters;
	struct task bury;
};

struct pool {
	struct worker *w;
	struct list bucket[BUCKETS];
	unsigned n_conns;
};

/* --- the end of a connection ---------------------------------------------------------------------------- */

static void conn_free(struct pool_conn *c)
{
	h2_free(c->h2);
	tls_handshake_free(c->tls);
	tls_id_unref(c->id);
	rstr_unref(c->peer);
	crl_path_free(c->path);
	pod_unref(c->pod);
	free(c->expect);
	free(c);
}

static void bury(struct task *t)
{
	conn_free(container_of(t, struct pool_conn, bury));
}

static void answer_all(struct pool_conn *c, struct h2 *h, enum traffic_flag flag, const char *why)
{
	struct list now;

	list_init(&now);
	list_move_all(&now, &c->waiters);
	c->n_waiters = 0;
	while (!list_empty(&now)) {
		struct pool_request *r = list_entry(now.next, struct pool_request, link);

		list_del(&r->link);
		r->fresh = true;
		r->done(r, h, flag, why);
	}
}

/* Out of the table; freed when the last stream has gone. */
static void conn_end(struct pool_conn *c, enum traffic_flag flag, const char *why)
{
	struct worker *w = c->pool->w;

	if (c->stage != STAGE_OVER) {
		if (c->stage == STAGE_TLS)
			io_close(w->loop, &c->io);
		if (c->stage == STAGE_UP)
			worker_tunnels(w, -1);
		c->stage = STAGE_OVER;
		list_del(&c->link);
		c->pool->n_conns--;
		timer_cancel(&c->timer);
		dial_cancel(&c->dial);
		if (c->cert)
			c->cert->owner = NULL;
		c->cert = NULL;
		answer_all(c, NULL, flag, why);
	}
	if (!c->h2 || !h2_streams(c->h2))
		loop_defer(w->loop, &c->bury, bury);
}

/* --- HTTP/2 --------------------------------------------------------------------------------------------- */

static void idle_late(struct timer *t)
{
	struct pool_conn *c = container_of(t, struct pool_conn, timer);

	if (!h2_streams(c->h2))
		h2_shutdown(c->h2, false);
}

static void on_closed(struct h2 *h, const char *why)
{
	conn_end(h2_owner(h), FLAG_H2_FAILURE, why);
}

static struct list *bucket_of(struct pool *p, const struct pod *pod, const struct endpoint *to)
{
	uint64_t h = addr_hash(&to->ip) ^ ((uintptr_t)pod >> 6) * 0x9e3779b97f4a7c15ull ^ to->port;

	return &p->bucket[(h ^ h >> 32) % BUCKETS];
}

static bool has_sibling(const struct pool_conn *c)
{
	list_for_each (pos, bucket_of(c->pool, c->pod, &c->to)) {
		struct pool_conn *k = list_entry(pos, struct pool_conn, link);

		if (k != c && k->pod == c->pod && endpoint_eq(&k->to, &c->to) && !strcmp(k->expect, c->expect) &&
		    k->stage == STAGE_UP && h2_open_for_streams(k->h2, c->pool->w->o->pool_streams))
			return true;
	}
	return false;
}

static void on_idle(struct h2 *h)
{
	struct pool_conn *c = h2_owner(h);
	unsigned idle_ms = c->pool->w->o->pool_idle_ms;

	if (c->stage == STAGE_OVER)
		loop_defer(c->pool->w->loop, &c->bury, bury);
	else if (c->pool->w->draining)
		h2_shutdown(h, false);
	else
		timer_set(c->pool->w->loop, &c->timer,
			  idle_ms > POOL_SPARE_MS && has_sibling(c) ? POOL_SPARE_MS : idle_ms, idle_late);
}

static void on_leaving(struct h2 *h)
{
	if (!h2_streams(h))
		h2_shutdown(h, false);
}

static void on_limited(struct h2 *h, enum h2_limit what)
{
	limit_reached(LIMIT_H2 + what);
}

static const struct h2_ops h2_ops = {
	.closed = on_closed, .leaving = on_leaving, .idle = on_idle, .limited = on_limited};

/* --- the steps up to there ------------------------------------------------------------------------------ */

static void handshake_done(struct pool_conn *c)
{
	struct worker *w = c->pool->w;
	struct record *r;

	io_stop(w->loop, &c->io);
	if (!revoke_follow(REPORT_SOURCE, c->tls, &c->path)) {
		conn_end(c, FLAG_CERT_REVOKED, REVOKED_TEXT);
		return;
	}
	c->peer = rstr_new(tls_peer(c->tls));
	r = offload_finish(w, c->tls);
	if (!r) {
		conn_end(c, FLAG_TLS_FAILURE, "out of memory");
		return;
	}
	tls_handshake_free(c->tls);
	c->tls = NULL;
	c->stage = STAGE_UP;
	worker_tunnels(w, 1);
	timer_cancel(&c->timer);
	c->h2 = c->peer ? h2_new(w->loop, r, false, NULL, &h2_ops, c) : NULL;
	if (!c->h2) {
		record_free(r);
		conn_end(c, FLAG_H2_FAILURE, "out of memory");
		return;
	}
	answer_all(c, c->h2, FLAG_NONE, NULL);
	if (!h2_streams(c->h2)) /* who asked has gone */
		on_idle(c->h2);
}

static void handshake_step(struct pool_conn *c)
{
	uint32_t want = 0;
	int e = tls_handshake_step(c->tls, &want);
	char why[POOL_WHY_MAX];

	if (e == 0) {
		handshake_done(c);
	} else if (e == -EAGAIN && io_want(c->pool->w->loop, &c->io, want) == 0) {
		return;
	} else {
		revoke_refused(REPORT_SOURCE, c->tls);
		snprintf(why, sizeof why, "TLS handshake failed: %s", tls_reason(c->tls));
		conn_end(c, FLAG_TLS_FAILURE, why);
	}
}

static void tls_ready(struct io *io, uint32_t events)
{
	handshake_step(container_of(io, struct pool_conn, io));
}

static void tls_late(struct timer *t)
{
	conn_end(container_of(t, struct pool_conn, timer), FLAG_TLS_FAILURE, "TLS handshake timed out");
}

static struct tls_handshake *client_of(struct pool_conn *c, int fd)
{
	const char *expect[TLS_EXPECT_MAX];
	unsigned n = 0;
	char *text = strdup(c->expect), *save = NULL;
	struct tls_handshake *h;

	if (!text)
		return NULL;
	for (char *p = strtok_r(text, "\n", &save); p && n < TLS_EXPECT_MAX; p = strtok_r(NULL, "\n", &save))
		expect[n++] = p;
	h = tls_client(fd, c->id, expect, n);
	free(text);
	return h;
}

static void dialled(struct dial *d, int fd, int err)
{
	struct pool_conn *c = container_of(d, struct pool_conn, dial);
	char why[POOL_WHY_MAX];

	if (fd < 0) {
		if (err == -ETIMEDOUT)
			conn_end(c, FLAG_NETWORK_POLICY,
				 "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008");
		else {
			snprintf(why, sizeof why, "connect to the next hop: %s", strerror(-err));
			conn_end(c, FLAG_CONNECT, why);
		}
		return;
	}
	c->tls = client_of(c, fd);
	if (!c->tls) {
		close(fd);
		conn_end(c, FLAG_TLS_FAILURE, "out of memory");
		return;
	}
	c->stage = STAGE_TLS;
	io_init(&c->io, fd, tls_ready);
	timer_set(c->pool->w->loop, &c->timer, DATA_HANDSHAKE_MS, tls_late);
	handshake_step(c);
}

static void connect_now(struct pool_conn *c)
{
	char why[POOL_WHY_MAX];
	int e;

	c->stage = STAGE_DIAL;
	e = dial_start(&c->dial, c->pool->w, c->pod, &c->to, dialled);
	if (e < 0) {
		snprintf(why, sizeof why, "connect to the next hop: %s", strerror(-e));
		conn_end(c, FLAG_CONNECT, why);
	}
}

static void have_cert(struct cert_request *r)
{
	struct pool_conn *c = cert_owner(r);
	char why[CERT_ANSWER_MAX];

	if (!c)
		return;
	c->cert = NULL;
	c->id = cert_answer(r, why);
	if (c->id)
		connect_now(c);
	else
		conn_end(c, FLAG_IDENTITY, why);
}

static void start(struct pool_conn *c, const char *self)
{
	struct worker *w = c->pool->w;

	if (cert_ask(w->o->certs, self, w->loop, c, have_cert, &c->id, &c->cert) < 0)
		conn_end(c, FLAG_IDENTITY, "out of memory");
	else if (c->id)
		connect_now(c);
}

/* --- the table ------------------------------------------------------------------------------------------ */

static char *expect_text(const struct route *route)
{
	size_t len = 1;
	char *text, *p;

	for (unsigned i = 0; i < route->expect.n; i++)
		len += strlen(route->expect.id[i]) + 1;
	text = p = malloc(len);
	if (!text)
		return NULL;
	for (unsigned i = 0; i < route->expect.n; i++)
		p = stpcpy(stpcpy(p, route->expect.id[i]), "\n");
	*p = '\0';
	return text;
}

static bool expect_same(const char *text, const struct route *route)
{
	for (unsigned i = 0; i < route->expect.n; i++) {
		size_t n = strlen(route->expect.id[i]);

		if (strncmp(text, route->expect.id[i], n) != 0 || text[n] != '\n')
			return false;
		text += n + 1;
	}
	return !*text;
}

static struct pool_conn *conn_new(struct pool *p, struct list *bucket, struct pod *pod, const struct route *route)
{
	struct pool_conn *c = p->n_conns < POOL_CONNS_MAX ? calloc(1, sizeof *c) : NULL;

	if (!c)
		return NULL;
	c->expect = expect_text(route);
	if (!c->expect) {
		free(c);
		return NULL;
	}
	c->pool = p;
	c->pod = pod_ref(pod);
	c->to = route->next_hop;
	c->io.fd = c->dial.io.fd = -1;
	list_init(&c->waiters);
	list_add(bucket, &c->link);
	p->n_conns++;
	return c;
}

static bool usable(const struct pool_conn *c, unsigned max)
{
	if (c->stage == STAGE_UP)
		return h2_open_for_streams(c->h2, max);
	return c->n_waiters < max;
}

void pool_acquire(struct pool *p, struct pool_request *r, struct pod *pod, const char *self, const struct route *route,
		  void (*done)(struct pool_request *r, struct h2 *h, enum traffic_flag flag, const char *why))
{
	struct list *bucket = bucket_of(p, pod, &route->next_hop);
	struct pool_conn *c = NULL;

	r->w = p->w;
	r->done = done;
	list_init(&r->link);
	list_for_each (pos, bucket) {
		struct pool_conn *k = list_entry(pos, struct pool_conn, link);

		if (k->pod == pod && endpoint_eq(&k->to, &route->next_hop) && expect_same(k->expect, route) &&
		    usable(k, p->w->o->pool_streams)) {
			c = k;
			break;
		}
	}
	if (c && c->stage == STAGE_UP) {
		timer_cancel(&c->timer);
		r->fresh = !h2_greeted(c->h2);
		r->done(r, c->h2, FLAG_NONE, NULL);
		return;
	}
	if (c) {
		list_add_tail(&c->waiters, &r->link);
		c->n_waiters++;
		return;
	}
	c = conn_new(p, bucket, pod, route);
	if (!c) {
		r->done(r, NULL, FLAG_CONNECT, "no more HBONE connections can be made");
		return;
	}
	list_add_tail(&c->waiters, &r->link);
	c->n_waiters++;
	start(c, self);
}

void pool_cancel(struct pool_request *r)
{
	if (r->w)
		list_del(&r->link); /* its place in the connection's count stays used: harmless */
}

struct rstr *pool_peer(const struct h2 *h)
{
	return ((struct pool_conn *)h2_owner(h))->peer;
}

static void each_conn(struct pool *p, void (*each)(struct pool_conn *c, const void *arg), const void *arg)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		list_for_each_safe (pos, tmp, &p->bucket[i])
			each(list_entry(pos, struct pool_conn, link), arg);
}

static void drop(struct pool_conn *c, const void *pod)
{
	if (c->pod != pod)
		return;
	if (c->stage == STAGE_UP)
		h2_shutdown(c->h2, false);
	else
		conn_end(c, FLAG_CONNECT, "the pod is being removed");
}

void pool_drop_pod(struct pool *p, const struct pod *pod)
{
	each_conn(p, drop, pod);
}

static void cut_if_due(struct pool_conn *c, const void *arg)
{
	if (c->stage == STAGE_UP && !h2_is_cut(c->h2) && revoke_due(REPORT_SOURCE, c->path))
		h2_cut(c->h2);
}

void pool_revoke(struct pool *p)
{
	each_conn(p, cut_if_due, NULL);
}

static void leave(struct pool_conn *c, const void *arg)
{
	if (c->stage == STAGE_UP && !h2_streams(c->h2))
		h2_shutdown(c->h2, false);
}

void pool_drain(struct pool *p)
{
	each_conn(p, leave, NULL);
}

struct pool *pool_new(struct worker *w)
{
	struct pool *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->w = w;
	for (unsigned i = 0; i < BUCKETS; i++)
		list_init(&p->bucket[i]);
	return p;
}

static void destroy(struct pool_conn *c, const void *arg)
{
	if (c->stage == STAGE_UP)
		h2_free(c->h2); /* answers its streams */
	c->h2 = NULL;
	conn_end(c, FLAG_CONNECT, "shutting down");
	task_cancel(&c->bury);
	conn_free(c);
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	each_conn(p, destroy, NULL);
	free(p);
}
