/* SPDX-License-Identifier: Apache-2.0 */
/* One inbound CONNECT: checks in ztunnel's order, the application, 200, bytes.
 *
 * What a request costs is its policies and its connection. So it begins at the end of the turn in which it came, and of
 * a crowd only some do, each source's in its turn: those that are reset at once never cost more than they did, and others
 * do not wait for all of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "data/accept.h"
#include "data/dial.h"
#include "data/hbone.h"
#include "data/headers.h"
#include "data/inbound.h"
#include "data/leg.h"
#include "data/limits.h"
#include "data/plane.h"
#include "data/proxyproto.h"
#include "data/server.h"

struct stream {
	struct conn conn;
	struct dial dial;
	struct leg leg;
	struct task bury;
	struct inbound_target target;
	struct source *source; /* of whose share it is */
	struct list turn;      /* of the source's requests, until it begins */
};

static void bury(struct task *t)
{
	free(container_of(t, struct stream, bury));
}

static void stream_end(struct stream *s, enum traffic_flag flag, const char *why)
{
	struct worker *w = s->conn.w;

	if (!w)
		return;
	s->source->n_streams--;
	list_del(&s->turn);
	if (list_empty(&s->source->requests))
		list_del(&s->source->asking);
	source_put(s->source);
	dial_cancel(&s->dial);
	leg_kill(&s->leg, NGHTTP2_INTERNAL_ERROR);
	conn_closed(&s->conn, flag, why);
	loop_defer(w->loop, &s->bury, bury);
}

static void kill(struct conn *c, enum traffic_flag flag, const char *why)
{
	stream_end(container_of(c, struct stream, conn), flag, why);
}

static bool revoked(const struct conn *c)
{
	const struct h2 *tunnel = container_of(c, struct stream, conn)->leg.stream.h2;

	/* One that is over is not cut, and its last bytes may be on their way to the application. */
	return tunnel && (h2_is_cut(tunnel) || crl_path_revoked(((struct server *)h2_owner(tunnel))->path));
}

static const struct conn_ops conn_ops = {.kill = kill, .revoked = revoked};

static void refuse(struct stream *s, int status, enum traffic_flag flag, const char *why)
{
	leg_refuse(&s->leg, status);
	stream_end(s, flag, why);
}

static void moved(void *owner, bool from_app, const struct iovec *iov, size_t n)
{
	struct stream *s = owner;

	/* The accepted side is the tunnel: what the application sends goes the other way. */
	(from_app ? conn_sent : conn_received)(&s->conn, iov, n);
}

static void done(void *owner, const char *why, bool refused)
{
	stream_end(owner, why ? FLAG_CONNECT : FLAG_NONE, why);
}

static const struct leg_ops leg_ops = {.moved = moved, .done = done};

static int write_proxy_header(const struct stream *s, int fd)
{
	uint8_t buf[PROXYPROTO_MAX];
	size_t n = proxyproto_write(buf, &s->conn.src, &s->target.advertised, rstr_text(s->conn.src_identity));

	/* Into the empty buffer of a fresh socket: it fits. */
	return send(fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n ? 0 : -EPIPE;
}

static void dialled(struct dial *d, int fd, int err)
{
	struct stream *s = container_of(d, struct stream, dial);
	struct worker *w = s->conn.w;
	struct hbone_fields f;

	if (fd < 0) {
		refuse(s, 503, FLAG_CONNECT, strerror(-err));
		return;
	}
	hbone_response(&f, w->o->response_baggage ? s->conn.destination : NULL);
	if (h2_stream_accepted(&s->leg.stream, f.nv, f.n) < 0 ||
	    (s->target.proxy_header && write_proxy_header(s, fd) < 0)) {
		accept_refuse(fd);
		stream_end(s, FLAG_CONNECT, "the client has gone");
		return;
	}
	leg_join(&s->leg, fd);
}

static void read_headers(struct conn *c, const struct h2_headers *hd)
{
	char host[DUMP_NAME_MAX];

	if (forwarded_parse(hd->forwarded, strlen(hd->forwarded), host, sizeof host) > 0)
		c->host = rstr_new(host);
	if (*hd->baggage)
		c->baggage = rstr_new(hd->baggage);
	c->foreign = hd->has_network && strcasecmp(hd->network, c->w->o->network) != 0;
}

static void admit(struct stream *s)
{
	struct server *srv = h2_owner(s->leg.stream.h2);
	struct conn *c = &s->conn;
	char why[256];
	int status = inbound_target(c, srv->w, srv->dst.ip, rstr_text(c->named), &s->target, why, sizeof why);

	if (status != 200) {
		refuse(s, status, FLAG_CONNECT, why);
		return;
	}
	if (c->source) { /* known from the mesh: the peer's own word is not needed */
		rstr_unref(c->baggage);
		c->baggage = NULL;
	}
	conn_opened(c);
	if (!conn_allowed(c, why, sizeof why)) {
		refuse(s, 401, FLAG_DENY, why);
		return;
	}
	status = dial_application(&s->dial, srv->w, srv->pod, &c->original, &c->src, dialled);
	if (status < 0)
		refuse(s, 503, FLAG_CONNECT, strerror(-status));
}

static void begin(struct task *t)
{
	struct sources *all = container_of(t, struct sources, begin);

	for (int i = 0; i < SOURCE_REQUESTS_MAX && !list_empty(&all->asking); i++) {
		struct source *source = list_entry(all->asking.next, struct source, asking);
		struct stream *s = list_entry(source->requests.next, struct stream, turn);

		list_del(&s->turn);
		list_del(&source->asking);
		if (!list_empty(&source->requests))
			list_add_tail(&all->asking, &source->asking);
		admit(s); /* which may be the end of its source */
	}
	if (!list_empty(&all->asking))
		loop_next_turn(all->loop, &all->begin, begin);
}

static void await_turn(struct stream *s)
{
	struct source *source = s->source;

	list_add_tail(&source->requests, &s->turn);
	list_del(&source->asking);
	list_add_tail(&source->all->asking, &source->asking);
	loop_defer(s->conn.w->loop, &source->all->begin, begin);
}

static void reject(struct server *srv, int32_t id, int status, const char *why)
{
	conn_rejected(srv->w, srv->pod, &srv->src, &srv->dst, rstr_text(srv->peer), why);
	h2_refuse(srv->h2, id, status);
}

void stream_request(struct server *srv, int32_t id, const struct h2_headers *hd)
{
	char buf[HBONE_AUTHORITY_MAX];
	const char *host = NULL;
	struct endpoint authority;
	struct stream *s;

	if (!hd->connect) {
		reject(srv, id, 400, "unsupported method: only CONNECT is");
		return;
	}
	if (hbone_authority(hd->authority, &authority, &host, buf) < 0) {
		reject(srv, id, 400, "invalid authority");
		return;
	}
	if (srv->source->n_streams >= srv->w->sources->streams_max) {
		limit_reached(LIMIT_STREAMS);
		reject(srv, id, 503, "too many requests of this source");
		return;
	}
	s = calloc(1, sizeof *s);
	if (!s || leg_accept(&s->leg, srv->w, srv->h2, id, &leg_ops, s) < 0) {
		free(s);
		reject(srv, id, 503, "out of memory");
		return;
	}
	s->source = source_ref(srv->source);
	s->source->n_streams++;
	list_init(&s->turn);
	s->dial.io.fd = -1;
	conn_init(&s->conn, srv->w, srv->pod, true, &conn_ops);
	s->conn.hbone = true;
	conn_tunnelled(&s->conn, srv->h2);
	s->conn.src = srv->src;
	s->conn.dst = srv->dst;
	s->conn.authority = authority;
	s->conn.original = authority;
	s->conn.src_identity = rstr_ref(srv->peer);
	s->conn.dst_identity = rstr_ref(srv->self);
	s->conn.named = host ? rstr_new(host) : NULL;
	read_headers(&s->conn, hd);
	if (host && !s->conn.named)
		refuse(s, 503, FLAG_CONNECT, "out of memory");
	else
		await_turn(s);
}
