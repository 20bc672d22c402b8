// SPDX-License-Identifier: Apache-2.0
/* A worker's post in a pod: it accepts there, side by side with the other workers (EPOLLEXCLUSIVE: one is woken). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "data/accept.h"
#include "data/conn.h"
#include "data/plane.h"
#include "data/pool.h"
#include "net/netns.h"
#include "net/sock.h"

enum {
	ACCEPTS_PER_EVENT = 32, /* then the others' turn */
	REST_MS = 100,		/* without descriptors or memory: SYNs wait in the backlog */
};

enum watched { WATCH_NONE, WATCH_QUERIES, WATCH_ALL };

static void watch(struct post *p, enum watched what)
{
	for (unsigned i = 0; i < POD_SOCKETS; i++) {
		bool on = what == WATCH_ALL || (what == WATCH_QUERIES && i == POD_DNS_UDP);

		if (p->io[i].fd >= 0 && io_want(p->w->loop, &p->io[i], on ? EPOLLIN | EPOLLEXCLUSIVE : 0) < 0)
			log_error("worker", "pod %s/%s: cannot watch a listener: %s", p->pod->ns, p->pod->name,
				  strerror(errno));
	}
}

static void rested(struct timer *t)
{
	struct post *p = container_of(t, struct post, retry);

	p->resting = false;
	watch(p, WATCH_ALL);
}

static void rest(struct post *p, int err)
{
	if (p->resting)
		return;
	p->resting = true;
	log_warn("worker", "pod %s/%s: cannot accept: %s; new connections wait in the backlog", p->pod->ns,
		 p->pod->name, strerror(-err));
	watch(p, WATCH_QUERIES);
	timer_set(p->w->loop, &p->retry, REST_MS, rested);
}

static void accept_some(struct post *p, enum pod_socket which, int max)
{
	static void (*const take[])(struct post * p, int fd, const struct endpoint *peer) = {
		[POD_OUTBOUND] = outbound_accept, [POD_INBOUND] = plain_accept, [POD_HBONE] = server_accept,
		[POD_DNS_TCP] = dns_tcp_accept,	  [POD_SOCKS] = socks_accept,
	};

	for (int i = 0; i < max && !p->resting; i++) {
		struct endpoint peer;
		int fd = sock_accept(p->io[which].fd, &peer);

		if (fd == -EAGAIN)
			return;
		if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM)
			rest(p, fd);
		else if (fd >= 0)
			take[which](p, fd, &peer);
	}
}

static void accept_ready(struct post *p, enum pod_socket which)
{
	accept_some(p, which, ACCEPTS_PER_EVENT);
}

static void outbound_ready(struct io *io, uint32_t events)
{
	accept_ready(container_of(io, struct post, io[POD_OUTBOUND]), POD_OUTBOUND);
}

static void inbound_ready(struct io *io, uint32_t events)
{
	accept_ready(container_of(io, struct post, io[POD_INBOUND]), POD_INBOUND);
}

static void hbone_ready(struct io *io, uint32_t events)
{
	accept_ready(container_of(io, struct post, io[POD_HBONE]), POD_HBONE);
}

static void dns_tcp_ready(struct io *io, uint32_t events)
{
	accept_ready(container_of(io, struct post, io[POD_DNS_TCP]), POD_DNS_TCP);
}

static void socks_ready(struct io *io, uint32_t events)
{
	accept_ready(container_of(io, struct post, io[POD_SOCKS]), POD_SOCKS);
}

static void dns_udp_ready(struct io *io, uint32_t events)
{
	dns_receive(container_of(io, struct post, io[POD_DNS_UDP]));
}

static struct list *slot_of(struct worker *w, const char *ns, const char *name)
{
	uint64_t h = 14695981039346656037ull;

	for (const char *s = ns; *s; s++)
		h = (h ^ (uint8_t)*s) * 1099511628211ull;
	for (const char *s = name; *s; s++)
		h = (h ^ (uint8_t)*s) * 1099511628211ull;
	return &w->pods[h % WORKER_POD_SLOTS];
}

static bool is_workload(const struct post *p, const struct workload *wl)
{
	struct workload *own =
		!strcmp(p->pod->name, wl->name) && !strcmp(p->pod->ns, wl->ns) ? pod_workload(p->w, p->pod) : NULL;
	bool same = own && !strcmp(own->uid, wl->uid);

	workload_unref(own);
	return same;
}

/* The mesh may be ahead of us or behind: what goes to `ip` without a tunnel must not leave the pod. */
static bool has_address(struct post *p, const struct addr *ip)
{
	struct addr *seen = &p->own[addr_is4(ip)];

	if (addr_eq(seen, ip))
		return true;
	if (pod_enter(p->pod) < 0 || !sock_is_own(ip))
		return false;
	*seen = *ip;
	return true;
}

struct post *post_find(struct worker *w, const struct workload *wl, const struct addr *ip)
{
	list_for_each (pos, slot_of(w, wl->ns, wl->name)) {
		struct post *p = list_entry(pos, struct post, link);

		if (is_workload(p, wl) && has_address(p, ip))
			return p;
	}
	return NULL;
}

int post_open(struct worker *w, struct pod *pod)
{
	static void (*const ready[POD_SOCKETS])(struct io * io, uint32_t events) = {
		[POD_OUTBOUND] = outbound_ready, [POD_INBOUND] = inbound_ready, [POD_HBONE] = hbone_ready,
		[POD_DNS_TCP] = dns_tcp_ready,	 [POD_DNS_UDP] = dns_udp_ready, [POD_SOCKS] = socks_ready};
	struct post *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	p->w = w;
	p->pod = pod_ref(pod);
	dns_post_open(p);
	list_add_tail(slot_of(w, pod->ns, pod->name), &p->link);
	for (unsigned i = 0; i < POD_SOCKETS; i++)
		io_init(&p->io[i], ready[i] ? pod->socket[i] : -1, ready[i]);
	watch(p, w->draining ? WATCH_QUERIES : WATCH_ALL);
	return 0;
}

static void accept_waiting(struct post *p, int max)
{
	for (unsigned i = 0; i < POD_SOCKETS; i++)
		if (pod_listens(i) && p->io[i].fd >= 0)
			accept_some(p, i, max);
}

void post_look(struct post *p)
{
	accept_waiting(p, ACCEPTS_PER_EVENT);
}

/* One process is woken for a connection: who watches no more must take those of which he was told. */
void post_drain(struct post *p)
{
	enum watched rest = p->w->plane->handed_over ? WATCH_NONE : WATCH_QUERIES;

	timer_cancel(&p->retry);
	watch(p, rest);
	p->resting = false;
	accept_waiting(p, SOCK_BACKLOG);
	if (rest == WATCH_NONE && p->io[POD_DNS_UDP].fd >= 0)
		dns_receive(p);
	timer_cancel(&p->retry); /* a failure has set it again */
	watch(p, rest);
	p->resting = true;
}

void post_shut(struct post *p)
{
	p->resting = false;
	for (unsigned i = 0; i < POD_SOCKETS; i++) {
		if (!pod_listens(i) || !pod_owns(p->pod, i) || p->io[i].fd < 0)
			continue;
		accept_some(p, i, SOCK_BACKLOG);
		shutdown(p->io[i].fd, SHUT_RD);
	}
	timer_cancel(&p->retry);
	p->resting = true;
}

void post_close(struct post *p)
{
	timer_cancel(&p->retry);
	watch(p, WATCH_NONE);
	p->resting = true;
	list_del(&p->link);
	conns_kill_pod(p->w, p->pod, "connection closed: the pod has gone");
	servers_drop_pod(p->w, p->pod);
	pool_drop_pod(p->w->pool, p->pod);
	dns_post_close(p);
	if (netns_inside(p->pod->netns.inode))
		netns_home();
	pod_unref(p->pod);
	rstr_unref(p->self);
	free(p);
}
