/* SPDX-License-Identifier: Apache-2.0 */
/* Outbound: what an application of this node dialled. Accepted -> workload known -> routed -> a plain
 * connection, a CONNECT stream, or, when the destination is a pod of this node as well, its application (local.c).
 * Towards another network the CONNECT stream is within another one (nested.h). */
#include "data/outbound.h"

#include <errno.h>
#include <ports.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/accept.h"
#include "data/hbone.h"

static void lookup_end(struct outbound *o);

/* --- endings -------------------------------------------------------------------------------------------- */

static void bury(struct task *t)
{
	free(container_of(t, struct outbound, bury));
}

void outbound_finish(struct outbound *o, enum traffic_flag flag, const char *why)
{
	struct worker *w = o->conn.w;

	if (!w)
		return;
	if (o->conn.nested) /* recorded once it is known how it went */
		conn_opened(&o->conn);
	workload_wait_cancel(&o->wait);
	lookup_end(o);
	wanted_end(o);
	timer_cancel(&o->timer);
	dial_cancel(&o->dial);
	pool_cancel(&o->request);
	local_end(o, flag, why);
	if (o->carrier == CARRIER_LEG)
		leg_kill(&o->leg, o->answered ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_CANCEL);
	if (o->carrier == CARRIER_RELAY)
		relay_kill(&o->relay);
	nested_close(o->nested);
	o->nested = NULL;
	if (o->socks)
		socks_fail(o);
	if (o->fd >= 0)
		accept_refuse(o->fd);
	o->fd = -1;
	conn_closed(&o->conn, flag, why);
	loop_defer(w->loop, &o->bury, bury);
}

static void kill(struct conn *c, enum traffic_flag flag, const char *why)
{
	outbound_finish(container_of(c, struct outbound, conn), flag, why);
}

static bool revoked(const struct conn *c)
{
	const struct outbound *o = container_of(c, struct outbound, conn);
	const struct h2 *t = o->carrier == CARRIER_LEG ? o->leg.stream.h2 : NULL;

	return (t && h2_is_cut(t)) || local_revoked(o);
}

static const struct conn_ops conn_ops = {.kill = kill, .revoked = revoked};

/* --- plain ---------------------------------------------------------------------------------------------- */

static void relay_moved(void *owner, bool from_a, const struct iovec *iov, size_t n)
{
	struct outbound *o = owner;

	(from_a ? conn_received : conn_sent)(&o->conn, iov, n);
	local_moved(o, from_a, iov, n);
}

static void relay_done(void *owner, int err)
{
	struct outbound *o = owner;

	o->carrier = CARRIER_NONE;
	outbound_finish(o, err ? FLAG_CONNECT : FLAG_NONE, err ? strerror(-err) : NULL);
}

static const struct relay_ops relay_ops = {.moved = relay_moved, .done = relay_done};

void outbound_relay(struct outbound *o, int fd)
{
	int client = o->fd, e;

	if (o->socks)
		socks_succeed(o);
	o->fd = -1;
	o->carrier = CARRIER_RELAY;
	e = relay_start(&o->relay, o->conn.w, client, fd, &relay_ops, o);
	if (e < 0)
		relay_done(o, e);
}

static void dialled(struct dial *d, int fd, int err)
{
	struct outbound *o = container_of(d, struct outbound, dial);

	if (fd < 0)
		outbound_finish(o, FLAG_CONNECT, strerror(-err));
	else
		outbound_relay(o, fd);
}

static void plain(struct outbound *o)
{
	int e;

	conn_opened(&o->conn);
	e = dial_start(&o->dial, o->conn.w, o->conn.pod, &o->conn.dst, dialled);
	if (e < 0)
		outbound_finish(o, FLAG_CONNECT, strerror(-e));
}

/* --- HBONE ---------------------------------------------------------------------------------------------- */

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

static void tunnel(struct outbound *o, struct route *r)
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
	pool_acquire(w->pool, &o->request, c->pod, c->src_identity->text, r, have_tunnel);
}

/* --- the decision --------------------------------------------------------------------------------------- */

/* A repeated request starts from here with the mesh as it is now. */
static void forget_route(struct conn *c)
{
	workload_unref(c->destination);
	service_unref(c->service);
	rstr_unref(c->src_identity);
	rstr_unref(c->dst_identity);
	c->nested = false;
	c->destination = NULL;
	c->service = NULL;
	c->src_identity = c->dst_identity = NULL;
}

static void follow(struct outbound *o, struct route *r)
{
	struct conn *c = &o->conn;

	c->dst = r->next_hop;
	if (r->kind == ROUTE_REJECT)
		outbound_finish(o, FLAG_CONNECT, r->reason);
	else if (r->kind == ROUTE_PASSTHROUGH && !c->opened)
		plain(o);
	else if (r->kind == ROUTE_PASSTHROUGH)
		outbound_finish(o, FLAG_CONNECT, "the destination has left the mesh");
	else
		tunnel(o, r);
}

/* --- a next hop without an address ---------------------------------------------------------------------- */

struct lookup {
	struct names_request request;
	struct outbound *o;
	struct route route;
};

static void lookup_end(struct outbound *o)
{
	struct lookup *l = o->lookup;

	if (!l)
		return;
	o->lookup = NULL;
	names_cancel(&l->request);
	route_release(&l->route);
	free(l);
}

static void looked_up(struct names_request *r, const struct endpoint *at, unsigned n, const char *why)
{
	struct lookup *l = container_of(r, struct lookup, request);
	struct outbound *o = l->o;
	struct worker *w = o->conn.w;
	struct route route = l->route;
	char text[DATA_WHY_MAX];

	o->lookup = NULL;
	free(l);
	if (n) {
		route.next_hop.ip = *names_pick(at, n, &o->conn.original.ip, worker_random(w));
		if (route.kind == ROUTE_HBONE && !route.waypoint)
			route.authority.ip = route.next_hop.ip;
		follow(o, &route);
	} else {
		snprintf(text, sizeof text, "cannot resolve %.150s: %s", route.destination->hostname, why);
		outbound_finish(o, FLAG_CONNECT, text);
	}
	route_release(&route);
}

static void look_up(struct outbound *o, struct route *r)
{
	struct lookup *l = calloc(1, sizeof *l);

	if (!l) {
		outbound_finish(o, FLAG_CONNECT, "out of memory");
		route_release(r);
		return;
	}
	l->o = o;
	l->route = *r;
	o->lookup = l;
	names_ask(o->conn.w, &l->request, o->conn.source, r->destination->hostname, looked_up);
}

static const char *unasked(int e)
{
	return e == -ELOOP	    ? "on demand, one name leads to another without an end"
	       : e == -ENAMETOOLONG ? "the name to ask istiod for is too long"
				    : "out of memory";
}

void outbound_route(struct outbound *o)
{
	struct conn *c = &o->conn;
	struct worker *w = c->w;
	struct route_request q = {c->source, w->o->network, c->original, .random = worker_random(w),
				  .socks = w->o->socks};
	struct route r;
	int waits;

	nested_close(o->nested);
	o->nested = NULL;
	forget_route(c);
	store_read_lock();
	route_outbound(w->o->store, &q, &r);
	waits = r.missing.kind != GATEWAY_NONE ? wanted_ask(o, &r.missing) : 0;
	store_read_unlock();
	if (waits) {
		if (waits < 0)
			outbound_finish(o, FLAG_CONNECT, unasked(waits));
		route_release(&r);
		return;
	}
	c->destination = r.destination ? workload_ref(r.destination) : NULL;
	c->service = r.service ? service_ref(r.service) : NULL;
	if (r.lookup) {
		look_up(o, &r);
		return;
	}
	follow(o, &r);
	route_release(&r);
}

/* Who dialled our loopback port is elsewhere known by the pod's address. */
static void be_seen(struct conn *c)
{
	const struct workload *wl = c->source;

	for (unsigned i = 0; i < wl->n_ips; i++) {
		if (addr_is4(&wl->ips[i]) != addr_is4(&c->original.ip))
			continue;
		c->src.ip = wl->ips[i];
		return;
	}
}

static void have_workload(struct workload_wait *wait, struct workload *wl)
{
	struct outbound *o = container_of(wait, struct outbound, wait);
	char why[POD_STRANGER_MAX];

	o->conn.source = wl;
	if (!wl) {
		outbound_finish(o, FLAG_NONE, pod_stranger(o->conn.pod, why));
		return;
	}
	if (o->socks)
		be_seen(&o->conn);
	outbound_route(o);
}

/* False: it would come back to us. */
static bool head_for(struct outbound *o, const struct endpoint *to)
{
	o->conn.original = o->conn.dst = *to;
	if (!accept_is_loop(o->conn.w, &o->conn.src, to))
		return true;
	outbound_finish(o, FLAG_NONE, "attempted recursive call to ourselves");
	return false;
}

void outbound_begin(struct outbound *o, const struct endpoint *to)
{
	struct post *p = o->post;
	struct workload *wl;

	if (!head_for(o, to))
		return;
	wl = pod_workload(p->w, p->pod);
	if (wl)
		have_workload(&o->wait, wl);
	else
		workload_wait_start(p->w, &o->wait, p->pod, have_workload);
}

struct outbound *outbound_new(struct post *p, int fd, const struct endpoint *peer)
{
	struct outbound *o = calloc(1, sizeof *o);

	if (!o) {
		accept_refuse(fd);
		return NULL;
	}
	o->post = p;
	o->fd = fd;
	o->dial.io.fd = -1;
	o->conn.src = *peer;
	conn_init(&o->conn, p->w, p->pod, false, &conn_ops);
	return o;
}

static struct outbound *captured(struct post *p, int fd, const struct endpoint *peer, uint16_t listener,
				 struct endpoint *to)
{
	struct outbound *o = outbound_new(p, fd, peer);

	if (!o || accept_original_dst(fd, listener, to) == 0)
		return o;
	outbound_finish(o, FLAG_NONE, "the connection has no original destination");
	return NULL;
}

void outbound_accept(struct post *p, int fd, const struct endpoint *peer)
{
	struct endpoint to;
	struct outbound *o = captured(p, fd, peer, PORT_OUTBOUND, &to);

	if (o)
		outbound_begin(o, &to);
}

/* DNS over TCP is forwarded to the resolver that the application asked. */
void outbound_accept_dns(struct post *p, int fd, const struct endpoint *peer)
{
	struct endpoint to;
	struct outbound *o = captured(p, fd, peer, PORT_DNS, &to);

	if (!o || !head_for(o, &to))
		return;
	o->conn.source = pod_workload(p->w, p->pod);
	if (o->conn.original.port != PORT_DNS)
		plain(o);
	else
		outbound_finish(o, FLAG_NONE, "attempted recursive call to ourselves");
}
