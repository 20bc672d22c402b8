// SPDX-License-Identifier: Apache-2.0
/* Plaintext that comes to a pod (15006): policy without an identity, then the application with the client's address. */
#include <ports.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/accept.h"
#include "data/conn.h"
#include "data/dial.h"
#include "data/relay.h"
#include "state/route.h"

struct plain {
	struct conn conn;
	int fd; /* the client's, until the relay has it; else -1 */
	struct workload_wait wait;
	struct dial dial;
	struct relay relay;
	struct task bury;
	bool relayed, port_held;
};

static void bury(struct task *t)
{
	free(container_of(t, struct plain, bury));
}

static void plain_end(struct plain *p, enum traffic_flag flag, const char *why)
{
	struct worker *w = p->conn.w;

	if (!w)
		return;
	workload_wait_cancel(&p->wait);
	dial_cancel(&p->dial);
	if (p->relayed)
		relay_kill(&p->relay);
	if (p->fd >= 0)
		accept_refuse(p->fd);
	p->fd = -1;
	if (p->port_held)
		dial_port_release(p->conn.pod, p->conn.src.port);
	conn_closed(&p->conn, flag, why);
	loop_defer(w->loop, &p->bury, bury);
}

static void kill(struct conn *c, enum traffic_flag flag, const char *why)
{
	plain_end(container_of(c, struct plain, conn), flag, why);
}

static const struct conn_ops conn_ops = {.kill = kill};

static void moved(void *owner, bool from_a, const struct iovec *iov, size_t n)
{
	struct plain *p = owner;

	(from_a ? conn_received : conn_sent)(&p->conn, iov, n);
}

static void done(void *owner, int err)
{
	struct plain *p = owner;

	p->relayed = false;
	plain_end(p, err ? FLAG_CONNECT : FLAG_NONE, err ? strerror(-err) : NULL);
}

static const struct relay_ops relay_ops = {.moved = moved, .done = done};

static void dialled(struct dial *d, int fd, int err)
{
	struct plain *p = container_of(d, struct plain, dial);
	int client = p->fd, e;

	if (fd < 0) {
		plain_end(p, FLAG_CONNECT, strerror(-err));
		return;
	}
	p->fd = -1;
	e = relay_start(&p->relay, p->conn.w, client, fd, &relay_ops, p);
	p->relayed = e == 0;
	if (e < 0)
		plain_end(p, FLAG_CONNECT, strerror(-e));
}

static void have_workload(struct workload_wait *wait, struct workload *wl)
{
	struct plain *p = container_of(wait, struct plain, wait);
	struct conn *c = &p->conn;
	struct store *s = c->w->o->store;
	struct workload *src;
	struct service *svc;
	char why[256], stranger[POD_STRANGER_MAX];
	int e;

	if (!wl) {
		plain_end(p, FLAG_NONE, pod_stranger(c->pod, stranger));
		return;
	}
	c->destination = wl;
	store_read_lock();
	src = store_workload_by_addr(s, c->w->o->network, &c->src.ip);
	c->source = src ? workload_ref(src) : NULL;
	svc = route_service_by_port(s, wl, c->original.port);
	c->service = svc ? service_ref(svc) : NULL;
	store_read_unlock();
	conn_opened(c);
	if (!conn_allowed(c, why, sizeof why)) {
		plain_end(p, FLAG_DENY, why);
		return;
	}
	e = dial_application(&p->dial, c->w, c->pod, &c->original, &c->src, dialled);
	if (e < 0)
		plain_end(p, FLAG_CONNECT, strerror(-e));
}

void plain_accept(struct post *post, int fd, const struct endpoint *peer)
{
	struct plain *p = calloc(1, sizeof *p);

	if (!p) {
		accept_refuse(fd);
		return;
	}
	p->fd = fd;
	p->dial.io.fd = -1;
	p->conn.src = *peer;
	conn_init(&p->conn, post->w, post->pod, true, &conn_ops);
	p->port_held = dial_port_hold(post->pod, peer->port);
	if (accept_original_dst(fd, PORT_INBOUND, &p->conn.original) < 0) {
		plain_end(p, FLAG_NONE, "the connection has no original destination");
		return;
	}
	p->conn.dst = p->conn.original;
	if (route_illegal_port(p->conn.original.port, post->w->o->socks)) {
		plain_end(p, FLAG_NONE, "attempted recursive call to ourselves");
		return;
	}
	workload_await(post->w, &p->wait, post->pod, have_workload);
}
