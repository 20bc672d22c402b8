// SPDX-License-Identifier: Apache-2.0
/* Owns the life of one connection of the pool: credential -> TCP connect -> TLS handshake -> HTTP/2 -> closing. Whoever
 * asks for a connection that is being made waits in its list; a failure at any step answers them all, and the
 * next one who asks starts anew.
 *
 * A connection without streams is closed after `pool_idle_ms`, or soon when a sibling would do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/certs.h"
#include "data/limits.h"
#include "data/offload.h"
#include "data/pool_internal.h"
#include "data/revoke.h"

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

void pool_conn_end(struct pool_conn *c, enum traffic_flag flag, const char *why)
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

void pool_conn_kill(struct pool_conn *c)
{
	if (c->stage == STAGE_UP)
		h2_free(c->h2); /* answers its streams */
	c->h2 = NULL;
	pool_conn_end(c, FLAG_CONNECT, "shutting down");
	task_cancel(&c->bury);
	conn_free(c);
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
	pool_conn_end(h2_owner(h), FLAG_H2_FAILURE, why);
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
			  idle_ms > POOL_SPARE_MS && pool_has_sibling(c) ? POOL_SPARE_MS : idle_ms, idle_late);
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
		pool_conn_end(c, FLAG_CERT_REVOKED, REVOKED_TEXT);
		return;
	}
	c->peer = rstr_new(tls_peer(c->tls));
	r = offload_finish(w, c->tls);
	if (!r) {
		pool_conn_end(c, FLAG_TLS_FAILURE, "out of memory");
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
		pool_conn_end(c, FLAG_H2_FAILURE, "out of memory");
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
		pool_conn_end(c, FLAG_TLS_FAILURE, why);
	}
}

static void tls_ready(struct io *io, uint32_t events)
{
	handshake_step(container_of(io, struct pool_conn, io));
}

static void tls_late(struct timer *t)
{
	pool_conn_end(container_of(t, struct pool_conn, timer), FLAG_TLS_FAILURE, "TLS handshake timed out");
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
			pool_conn_end(c, FLAG_NETWORK_POLICY,
				      "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008");
		else {
			snprintf(why, sizeof why, "connect to the next hop: %s", strerror(-err));
			pool_conn_end(c, FLAG_CONNECT, why);
		}
		return;
	}
	c->tls = client_of(c, fd);
	if (!c->tls) {
		close(fd);
		pool_conn_end(c, FLAG_TLS_FAILURE, "out of memory");
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
		pool_conn_end(c, FLAG_CONNECT, why);
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
		pool_conn_end(c, FLAG_IDENTITY, why);
}

void pool_conn_start(struct pool_conn *c, const char *self)
{
	struct worker *w = c->pool->w;

	if (cert_ask(w->o->certs, self, w->loop, c, have_cert, &c->id, &c->cert) < 0)
		pool_conn_end(c, FLAG_IDENTITY, "out of memory");
	else if (c->id)
		connect_now(c);
}
