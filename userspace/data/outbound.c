/* SPDX-License-Identifier: Apache-2.0 */
/* Outbound: what an application of this node dialled. Accepted -> workload known -> routed -> a plain
 * connection, a CONNECT stream (outbound_hbone.c), or, when the destination is a pod of this node as well, its
 * application (local.c). */
#include "data/outbound.h"

#include <errno.h>
#include <ports.h>
#include <stdlib.h>
#include <string.h>

#include "data/accept.h"
#include "data/client.h"

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
	outbound_lookup_end(o);
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

	/* One that is over is not cut, and its last bytes may be on their way to the application. */
	return (t && (h2_is_cut(t) || crl_path_revoked(((struct client *)h2_owner(t))->path))) || local_revoked(o);
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

void outbound_follow(struct outbound *o, struct route *r)
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
		outbound_tunnel(o, r);
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
		outbound_look_up(o, &r);
		return;
	}
	outbound_follow(o, &r);
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

	if (head_for(o, to))
		workload_await(p->w, &o->wait, p->pod, have_workload);
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
