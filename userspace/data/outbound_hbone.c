// SPDX-License-Identifier: Apache-2.0
/* Owns an outbound connection's way through HBONE: tunnel of the pool -> CONNECT -> answer -> bytes. Towards another
 * network the CONNECT stream is within another one (nested.h). */
#include <stdio.h>
#include <string.h>

#include "data/hbone.h"
#include "data/outbound.h"

static void leg_moved(void *owner, bool from_app, const struct iovec *iov, size_t n)
{
	struct outbound *o = owner;

	(from_app ? conn_received : conn_sent)(&o->conn, iov, n);
}

/* What was chosen here is not who answered over there: that one says who it is. */
static void beyond_gateway(struct conn *c, const struct h2_headers *h)
{
	workload_unref(c->destination);
	c->destination = NULL;
	c->baggage = *h->baggage ? rstr_new(h->baggage) : NULL;
	conn_opened(c);
}

static void leg_response(void *owner, const struct h2_headers *h)
{
	struct outbound *o = owner;
	char why[64];
	int fd;

	timer_cancel(&o->timer);
	o->answered = true;
	if (h->status != 200) {
		snprintf(why, sizeof why, "http status: %d", h->status);
		outbound_finish(o, FLAG_CONNECT, why);
		return;
	}
	if (o->nested)
		beyond_gateway(&o->conn, h);
	if (o->socks)
		socks_succeed(o);
	fd = o->fd;
	o->fd = -1;
	leg_join(&o->leg, fd);
}

/* Nothing was sent and nothing answered: a stale or leaving connection. The request may be repeated, once. A fresh
 * connection that fails will do so again. */
static bool repeat(struct outbound *o, bool refused)
{
	if (o->answered || o->repeated || o->fd < 0 || (!refused && o->request.fresh))
		return false;
	o->repeated = true;
	outbound_route(o);
	return true;
}

static void leg_done(void *owner, const char *why, bool refused)
{
	struct outbound *o = owner;

	o->carrier = CARRIER_NONE;
	timer_cancel(&o->timer);
	if (!why)
		outbound_finish(o, FLAG_NONE, NULL);
	else if (!repeat(o, refused))
		outbound_finish(o, o->leg.unheard ? FLAG_H2_FAILURE : FLAG_CONNECT, why);
}

static const struct leg_ops leg_ops = {.moved = leg_moved, .response = leg_response, .done = leg_done};

static void response_late(struct timer *t)
{
	outbound_finish(container_of(t, struct outbound, timer), FLAG_CONNECT, "no answer to CONNECT in time");
}

/* A CONNECT's header fields; `from_network` as hbone_request() has it. */
static void describe(struct outbound *o, const char *from_network, struct hbone_fields *f)
{
	struct conn *c = &o->conn;
	struct worker *w = c->w;
	uint64_t random[3] = {worker_random(w), worker_random(w), worker_random(w)};

	hbone_request(f, c->source, &c->src, c->service ? c->service->hostname : NULL, from_network, random);
}

/* CONNECT in the tunnel whose other end knows the destination. */
static void open_stream(struct outbound *o, struct h2 *h, struct rstr *peer)
{
	struct conn *c = &o->conn;
	struct worker *w = c->w;
	char authority[HBONE_AUTHORITY_MAX];
	struct hbone_fields f;
	int e;

	rstr_unref(c->dst_identity);
	c->dst_identity = rstr_ref(peer);
	describe(o, c->nested ? w->o->network : NULL, &f);
	e = leg_connect(&o->leg, w, h, conn_authority(c, authority), f.nv, f.n, &leg_ops, o);
	if (e < 0) {
		outbound_finish(o, FLAG_H2_FAILURE, strerror(-e));
		return;
	}
	o->carrier = CARRIER_LEG;
	conn_tunnelled(c, h);
	timer_set(w->loop, &o->timer, DATA_RESPONSE_MS, response_late);
}

static void nested_up(void *owner, struct h2 *h, struct rstr *peer)
{
	struct outbound *o = owner;

	o->request.fresh = true;
	open_stream(o, h, peer);
}

static void nested_failed(void *owner, enum traffic_flag flag, const char *why, bool refused)
{
	struct outbound *o = owner;

	o->nested = NULL;
	if (!repeat(o, refused))
		outbound_finish(o, flag, why);
}

static const struct nested_ops nested_ops = {.up = nested_up, .failed = nested_failed};

/* To the network gateway: it is told what the inner tunnel's end is told. */
static void open_outer(struct outbound *o, struct h2 *h)
{
	char authority[HBONE_AUTHORITY_MAX];
	struct hbone_fields f;
	int e;

	describe(o, NULL, &f);
	e = nested_start(o->nested, h, conn_authority(&o->conn, authority), f.nv, f.n);
	if (e < 0)
		outbound_finish(o, FLAG_H2_FAILURE, strerror(-e));
}

static void have_tunnel(struct pool_request *r, struct h2 *h, enum traffic_flag flag, const char *why)
{
	struct outbound *o = container_of(r, struct outbound, request);

	if (!h)
		outbound_finish(o, flag, why);
	else if (o->nested)
		open_outer(o, h);
	else
		open_stream(o, h, pool_peer(h));
}

void outbound_tunnel(struct outbound *o, struct route *r)
{
	struct conn *c = &o->conn;
	struct worker *w = c->w;

	c->hbone = true;
	c->nested = r->kind == ROUTE_HBONE_NESTED;
	c->authority = r->authority;
	c->src_identity = rstr_ref(post_identity(o->post, c->source));
	c->dst_identity = r->expect.n ? rstr_new(r->expect.id[0]) : NULL;
	if (!c->src_identity) {
		outbound_finish(o, FLAG_IDENTITY, "the pod's identity is too long");
		return;
	}
	if (c->nested) {
		o->nested = nested_new(w, c->src_identity->text, &r->inner, &nested_ops, o);
		if (!o->nested) {
			outbound_finish(o, FLAG_CONNECT, "out of memory");
			return;
		}
	} else if (!r->waypoint && !w->o->local_hbone && local_start(o, r)) {
		return;
	} else {
		conn_opened(c);
	}
	pool_acquire(w->pool, &o->request, c->pod, c->src_identity, r, have_tunnel);
}
