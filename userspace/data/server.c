/* SPDX-License-Identifier: Apache-2.0 */
/* HBONE servers. The credential is the pod's own: it belongs to the listener, whatever the client asks for. Everything
 * from accept to the end of the handshake has a deadline: a long one while the client is silent, since to hold it costs less
 * than its next connection would, a short one from then on. HTTP/2 has its own. */
#include "data/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/accept.h"
#include "data/conn.h"
#include "data/limits.h"
#include "data/offload.h"
#include "data/revoke.h"
#include "data/traffic.h"
#include "net/sock.h"
#include "net/tls.h"
#include "state/identity.h"

enum { SERVER_WHY_MAX = 256 };

static void server_free(struct server *s)
{
	h2_free(s->h2);
	tls_id_unref(s->id);
	rstr_unref(s->self);
	rstr_unref(s->peer);
	crl_path_free(s->path);
	pod_unref(s->pod);
	source_put(s->source);
	free(s);
}

static void bury(struct task *t)
{
	server_free(container_of(t, struct server, bury));
}

void server_end(struct server *s, const char *why)
{
	if (!s->over) {
		s->over = true;
		list_del(&s->link);
		worker_tunnels(s->w, -1);
		workload_wait_cancel(&s->wait);
		timer_cancel(&s->timer);
		if (s->cert)
			s->cert->owner = NULL;
		s->cert = NULL;
		if (why)
			conn_rejected(s->w, s->pod, &s->src, &s->dst, rstr_text(s->peer), why);
		traffic_sockets(REPORT_DESTINATION, -1);
		if (!s->h2 && s->io.fd >= 0)
			io_close(s->w->loop, &s->io);
		turn_leave(s);
		s->source->n_conns--;
	}
	if (!s->h2 || !h2_streams(s->h2))
		loop_defer(s->w->loop, &s->bury, bury);
}

/* --- HTTP/2 --------------------------------------------------------------------------------------------- */

static void on_request(struct h2 *h, int32_t id, const struct h2_headers *hd)
{
	struct server *s = h2_owner(h);

	if (s->over || h2_is_cut(h))
		h2_refuse(h, id, 503);
	else
		stream_request(s, id, hd);
}

static void on_closed(struct h2 *h, const char *why)
{
	struct server *s = h2_owner(h);

	server_end(s, s->limited ? why : NULL);
}

static void on_limited(struct h2 *h, enum h2_limit what)
{
	struct server *s = h2_owner(h);
	bool flood = what == H2_LIMIT_CONTROL || what == H2_LIMIT_RESETS || what == H2_LIMIT_BLOCK;

	limit_reached(LIMIT_H2 + what);
	s->limited |= flood || what == H2_LIMIT_UNREAD || what == H2_LIMIT_PROTOCOL;
	if (flood)
		source_flooded(s->source);
	else if (what == H2_LIMIT_PROTOCOL)
		source_fault(s->source);
	if (what == H2_LIMIT_HEADERS)
		traffic_reject(REPORT_DESTINATION, &s->src, &s->dst, "header fields beyond the limit",
			       loop_now(s->w->loop));
}

static void on_idle(struct h2 *h)
{
	struct server *s = h2_owner(h);

	if (s->over)
		loop_defer(s->w->loop, &s->bury, bury);
}

static const struct h2_ops h2_ops = {
	.request = on_request, .closed = on_closed, .idle = on_idle, .limited = on_limited};

/* --- TLS ------------------------------------------------------------------------------------------------ */

/* TLS has checked the trust domain. Policies know nobody who is no service account: he would pass every DENY. */
static bool peer_is_known(struct server *s, char why[SERVER_WHY_MAX])
{
	struct identity id;

	if (identity_parse(&id, tls_peer(s->tls)) == 0)
		return true;
	snprintf(why, SERVER_WHY_MAX, "certificate refused: %.120s is no service account's", tls_peer(s->tls));
	return false;
}

static void handshake_done(struct server *s)
{
	char why[SERVER_WHY_MAX];
	struct record *r;

	io_stop(s->w->loop, &s->io);
	if (!peer_is_known(s, why)) {
		server_end(s, why);
		return;
	}
	if (!revoke_follow(REPORT_DESTINATION, s->tls, &s->path)) {
		server_end(s, REVOKED_TEXT);
		return;
	}
	s->peer = rstr_new(tls_peer(s->tls));
	r = s->peer ? offload_finish(s->w, s->tls) : NULL;
	if (!r) {
		server_end(s, "out of memory");
		return;
	}
	turn_leave(s);
	timer_cancel(&s->timer);
	s->h2 = h2_new(s->w->loop, r, H2_SERVER, &s->source->share, &h2_ops, s);
	if (!s->h2) {
		s->io.fd = -1;
		record_free(r);
		server_end(s, "out of memory");
	} else if (s->w->draining) {
		h2_shutdown(s->h2, true);
	}
}

void server_step(struct server *s)
{
	char why[SERVER_WHY_MAX];
	uint32_t want = 0;
	int e = tls_handshake_step(s->tls, &want);

	if (e == 0) {
		handshake_done(s);
	} else if (e != -EAGAIN || io_want(s->w->loop, &s->io, want) < 0) {
		revoke_refused(REPORT_DESTINATION, s->tls);
		snprintf(why, sizeof why, "TLS handshake failed: %s", tls_reason(s->tls));
		server_end(s, why);
	}
}

static void tls_ready(struct io *io, uint32_t events)
{
	turn_step(container_of(io, struct server, io));
}

static void late(struct timer *t)
{
	server_end(container_of(t, struct server, timer), "TLS handshake timed out");
}

void server_shake(struct server *s)
{
	s->tls = tls_server(s->io.fd, s->id);
	if (!s->tls) {
		server_end(s, "out of memory");
		return;
	}
	turn_begin(s);
	timer_set(s->w->loop, &s->timer, DATA_HANDSHAKE_MS, late);
	s->io.ready = tls_ready;
	server_step(s);
}

/* --- the pod's credential ------------------------------------------------------------------------------- */

static void have_cert(struct cert_request *r)
{
	struct server *s = cert_owner(r);
	char why[CERT_ANSWER_MAX];

	if (!s)
		return;
	s->cert = NULL;
	s->id = cert_answer(r, why);
	if (s->id)
		hello_await(s);
	else
		server_end(s, why);
}

static void have_workload(struct workload_wait *wait, struct workload *wl)
{
	struct server *s = container_of(wait, struct server, wait);
	struct worker *w = s->w;

	s->self = wl ? rstr_ref(post_identity(s->post, wl)) : NULL;
	workload_unref(wl);
	if (!s->self) {
		server_end(s, "failed to fetch information about local workload");
		return;
	}
	if (cert_ask(w->o->certs, s->self->text, w->loop, s, have_cert, &s->id, &s->cert) < 0)
		server_end(s, "out of memory");
	else if (s->id)
		hello_await(s);
}

/* Does the mesh vouch for the address? */
static bool is_known(struct worker *w, const struct addr *ip)
{
	bool known;

	store_read_lock();
	known = store_workload_by_addr(w->o->store, w->o->network, ip);
	store_read_unlock();
	return known;
}

static void set_silent_deadline(struct server *s)
{
	struct worker *w = s->w;
	uint64_t ms = w->draining ? DATA_HANDSHAKE_MS : SERVER_SILENT_MS - worker_random(w) % (SERVER_SILENT_MS / 4);

	timer_set(w->loop, &s->timer, ms, late);
}

/* Takes its share of what its source may have; false: there is none left. */
static bool share_take(struct server *s)
{
	struct source *source = s->source;
	struct source_waiter *victim;
	enum limit why;

	if (source->n_conns > SOURCE_CONNS_MAX) {
		limit_reached(LIMIT_CONNECTIONS);
		server_end(s, "too many connections of this source");
		return false;
	}
	victim = source_wait(source, &s->pending, &why);
	if (victim) {
		limit_reached(why);
		server_end(container_of(victim, struct server, pending),
			   why == LIMIT_HANDSHAKES ? "too many connections of this source wait for TLS"
						   : "too many connections wait for TLS");
	}
	return true;
}

void server_accept(struct post *p, int fd, const struct endpoint *peer)
{
	struct server *s = calloc(1, sizeof *s);

	if (s)
		s->source = source_get(p->w->sources, &peer->ip, is_known(p->w, &peer->ip));
	if (!s || !s->source) {
		free(s);
		accept_refuse(fd);
		return;
	}
	s->w = p->w;
	s->post = p;
	s->pod = pod_ref(p->pod);
	s->src = *peer;
	io_init(&s->io, fd, NULL);
	list_init(&s->turn);
	list_init(&s->step);
	source_waiter_init(&s->pending);
	list_add_tail(&p->w->servers, &s->link);
	s->source->n_conns++;
	worker_tunnels(p->w, 1);
	traffic_sockets(REPORT_DESTINATION, 1);
	if (sock_local(fd, &s->dst) < 0 || addr_eq(&s->dst.ip, &peer->ip)) {
		/* From the pod to itself: captured traffic never comes that way. */
		server_end(s, "attempted recursive call to ourselves");
		return;
	}
	if (!share_take(s))
		return;
	set_silent_deadline(s);
	workload_await(p->w, &s->wait, p->pod, have_workload);
}

/* --- all of them ---------------------------------------------------------------------------------------- */

static void shut(struct worker *w, const struct pod *pod, bool graceful)
{
	list_for_each_safe (pos, tmp, &w->servers) {
		struct server *s = list_entry(pos, struct server, link);

		if (pod && s->pod != pod)
			continue;
		if (s->h2)
			h2_shutdown(s->h2, graceful);
		else if (!graceful)
			server_end(s, NULL);
		else if (!s->tls) /* told to leave once it is up, which may not take long now */
			set_silent_deadline(s);
	}
}

void servers_drop_pod(struct worker *w, const struct pod *pod)
{
	shut(w, pod, false);
}

void servers_shutdown(struct worker *w)
{
	shut(w, NULL, true);
}

void servers_revoke(struct worker *w)
{
	list_for_each (pos, &w->servers) {
		struct server *s = list_entry(pos, struct server, link);

		if (s->h2 && !h2_is_cut(s->h2) && revoke_due(REPORT_DESTINATION, s->path))
			h2_cut(s->h2);
	}
}

void servers_free(struct worker *w)
{
	while (!list_empty(&w->servers)) {
		struct server *s = list_entry(w->servers.next, struct server, link);

		server_end(s, NULL);
		task_cancel(&s->bury);
		server_free(s);
	}
}
