// SPDX-License-Identifier: Apache-2.0
/* Pods: made on the control thread, shared by the workers, let go when the last one has left the namespace. */
#include "data/pod.h"

#include <errno.h>
#include <netinet/in.h>
#include <ports.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "data/plane.h"
#include "net/sock.h"
#include "state/identity.h"

static const char target[] = "worker";

bool pod_listens(enum pod_socket which)
{
	return which <= POD_DNS_TCP || which == POD_SOCKS;
}

bool pod_owns(const struct pod *p, enum pod_socket which)
{
	return p->own_sockets || which == POD_SOCKS;
}

/* --- sockets -------------------------------------------------------------------------------------------- */

/* Behind rules, istio-cni's or others, the sockets are ours to open. */
static bool is_wanted(const struct pod *p, const struct data_options *o, enum pod_socket which)
{
	switch (which) {
	case POD_HBONE:
		return p->own_sockets;
	case POD_OUTBOUND:
	case POD_INBOUND:
		return p->own_sockets && p->kind != DATA_POD_SELF;
	case POD_DNS_TCP:
	case POD_DNS_UDP:
		return p->own_sockets && p->kind != DATA_POD_SELF && o->dns;
	case POD_SOCKS:
		return o->socks && p->kind != DATA_POD_SELF;
	default:
		return false;
	}
}

static int open_one(struct pod *p, const struct data_options *o, enum pod_socket which, uint16_t port)
{
	const struct addr *at = which == POD_SOCKS ? &addr_loopback4 : o->ipv4_only ? &addr_any4 : &addr_any6;
	struct sock_listen how = {.at = {*at, port},
				  .mark = p->kind == DATA_POD_NODE ? p->mark : 0,
				  .transparent =
					  o->spoof != SPOOF_NEVER && p->kind != DATA_POD_SELF && which != POD_SOCKS,
				  .reuseport = o->port_reuse};
	int (*open)(const struct sock_listen *how) = which == POD_DNS_UDP ? sock_bind_udp : sock_listen_tcp;
	int fd = open(&how);

	if (fd != -EPERM || !how.transparent || o->spoof != SPOOF_AUTO)
		return fd;
	if (p->spoof)
		log_warn(target, "pod %s/%s: IP_TRANSPARENT is not permitted: clients' addresses are not shown", p->ns,
			 p->name);
	p->spoof = false;
	how.transparent = false;
	return open(&how);
}

static int open_sockets(struct pod *p, const struct data_options *o, char why[DATA_WHY_MAX])
{
	static const uint16_t port[POD_SOCKETS] = {
		[POD_OUTBOUND] = PORT_OUTBOUND, [POD_INBOUND] = PORT_INBOUND, [POD_HBONE] = PORT_HBONE,
		[POD_DNS_TCP] = PORT_DNS,	[POD_DNS_UDP] = PORT_DNS,     [POD_SOCKS] = PORT_SOCKS};

	for (int i = 0; i < POD_SOCKETS; i++) {
		if (!is_wanted(p, o, i))
			continue;
		p->socket[i] = open_one(p, o, i, port[i]);
		if (p->socket[i] < 0) {
			snprintf(why, DATA_WHY_MAX, "pod %s/%s: listen on port %u: %s", p->ns, p->name, port[i],
				 strerror(-p->socket[i]));
			return p->socket[i];
		}
	}
	return 0;
}

static int open_inside(struct pod *p, const struct data_options *o, char why[DATA_WHY_MAX])
{
	int e = pod_enter(p);

	if (e < 0)
		snprintf(why, DATA_WHY_MAX, "pod %s/%s: enter its namespace: %s", p->ns, p->name, strerror(-e));
	else
		e = open_sockets(p, o, why);
	netns_home();
	return e;
}

/* Sockets come from a keeper whose programs tell our connections by this mark: others would be captured again. */
static int check_mark(const struct pod *p, const struct data_options *o, char why[DATA_WHY_MAX])
{
	if ((o->mark & CULVERT_MARK_MASK) == CULVERT_MARK_AGENT)
		return 0;
	snprintf(why, DATA_WHY_MAX, "pod %s/%s: PACKET_MARK is %u; under a keeper it must be %u", p->ns, p->name,
		 o->mark, CULVERT_MARK_AGENT);
	return -EINVAL;
}

static bool option_is(int fd, int name, int want)
{
	int value = 0;
	socklen_t len = sizeof value;

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 && value == want;
}

/* Is it what it came as, and of the pod's namespace? */
static bool fits(const struct pod *p, enum pod_socket which)
{
	int fd = p->socket[which];
	bool is;

	if (which == POD_RAW4 || which == POD_RAW6)
		is = option_is(fd, SO_TYPE, SOCK_RAW);
	else if (which == POD_DNS_UDP)
		is = option_is(fd, SO_PROTOCOL, IPPROTO_UDP);
	else
		is = option_is(fd, SO_PROTOCOL, IPPROTO_TCP) && option_is(fd, SO_ACCEPTCONN, 1);
	return is && netns_cookie_of(fd) == p->netns.cookie;
}

static int own_namespace(const struct pod *p, char why[DATA_WHY_MAX])
{
	snprintf(why, DATA_WHY_MAX, "pod %s/%s: its network namespace is the tunnel's own", p->ns, p->name);
	return -EINVAL;
}

static int check_sent(const struct pod *p, char why[DATA_WHY_MAX])
{
	for (int i = 0; i < DATA_SOCKETS; i++)
		if (p->socket[i] >= 0 && !fits(p, i)) {
			snprintf(why, DATA_WHY_MAX, "pod %s/%s: socket %d is no listener, or not of its namespace",
				 p->ns, p->name, i);
			return -EINVAL;
		}
	return 0;
}

/* What is accepted inherits it. Connections to 15001 come from the pod itself, those to 15008 have HTTP/2's pings. */
static void tune_listeners(const struct pod *p, const struct data_options *o)
{
	for (int i = 0; i < POD_SOCKETS; i++)
		if (pod_listens(i) && p->socket[i] >= 0)
			sock_listener_tune(p->socket[i], i == POD_INBOUND ? &o->keepalive : NULL);
}

/* --- life ----------------------------------------------------------------------------------------------- */

/* In our own namespace replies to clients' addresses come back to us by rules that know our mark, if at all. */
static bool may_spoof(const struct pod *p, const struct data_options *o)
{
	if (p->kind == DATA_POD_SELF || o->spoof == SPOOF_NEVER)
		return false;
	return p->kind == DATA_POD_NODE || o->spoof == SPOOF_ALWAYS || o->mark;
}

struct pod *pod_new(const struct data_plane *d, const struct data_pod *spec, char why[DATA_WHY_MAX])
{
	struct pod *p = calloc(1, sizeof *p);
	int e;

	if (!p) {
		snprintf(why, DATA_WHY_MAX, "out of memory");
		close(spec->netns_fd);
		for (int i = 0; i < DATA_SOCKETS; i++)
			if (spec->socket[i] >= 0)
				close(spec->socket[i]);
		return NULL;
	}
	p->refs = 1;
	list_init(&p->link);
	snprintf(p->uid, sizeof p->uid, "%s", spec->uid);
	snprintf(p->name, sizeof p->name, "%s", spec->name);
	snprintf(p->ns, sizeof p->ns, "%s", spec->ns);
	snprintf(p->sa, sizeof p->sa, "%s", spec->sa);
	p->netns_fd = spec->netns_fd;
	p->kind = spec->kind;
	p->waits = spec->waits;
	p->mark = p->kind == DATA_POD_SELF ? 0 : d->o.mark;
	p->spoof = may_spoof(p, &d->o);
	memcpy(p->socket, spec->socket, sizeof spec->socket);
	p->socket[POD_SOCKS] = -1;
	p->own_sockets = !spec->sockets_sent;
	e = netns_identify(p->netns_fd, &p->netns);
	if (e < 0)
		snprintf(why, DATA_WHY_MAX, "pod %s/%s: not a network namespace: %s", p->ns, p->name, strerror(-e));
	else if (p->kind == DATA_POD_NODE && netns_inside(p->netns.inode))
		e = own_namespace(p, why);
	else if (!p->own_sockets)
		e = check_mark(p, &d->o, why);
	if (!e && !p->own_sockets)
		e = check_sent(p, why);
	if (!e && (p->own_sockets || d->o.socks))
		e = open_inside(p, &d->o, why);
	if (e < 0) {
		pod_unref(p);
		return NULL;
	}
	tune_listeners(p, &d->o);
	return p;
}

const char *pod_stranger(const struct pod *p, char out[POD_STRANGER_MAX])
{
	snprintf(out, POD_STRANGER_MAX,
		 "failed to fetch information about local workload: the mesh has no %s/%s with service account %s",
		 p->ns, p->name, p->sa);
	return out;
}

struct pod *pod_ref(struct pod *p)
{
	__atomic_add_fetch(&p->refs, 1, __ATOMIC_RELAXED);
	return p;
}

void pod_unref(struct pod *p)
{
	if (!p || __atomic_sub_fetch(&p->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (int i = 0; i < POD_SOCKETS; i++)
		if (p->socket[i] >= 0)
			close(p->socket[i]);
	if (p->netns_fd >= 0)
		close(p->netns_fd);
	free(p->taken);
	free(p);
}

int pod_enter(const struct pod *p)
{
	return netns_enter(p->netns_fd, p->netns.inode);
}

struct workload *pod_workload(struct worker *w, const struct pod *p)
{
	struct workload *wl;

	store_read_lock();
	wl = store_local_workload(w->o->store, p->ns, p->sa, p->name);
	if (wl)
		workload_ref(wl);
	store_read_unlock();
	return wl;
}

struct rstr *post_identity(struct post *p, const struct workload *wl)
{
	char text[IDENTITY_MAX];

	if (identity_format(text, wl->trust_domain, p->pod->ns, p->pod->sa) < 0)
		return NULL;
	if (!p->self || strcmp(p->self->text, text) != 0) {
		rstr_unref(p->self);
		p->self = rstr_new(text);
	}
	return p->self;
}

/* --- waiting for the mesh to know a pod ----------------------------------------------------------------- */

static void wait_late(struct timer *t)
{
	struct workload_wait *wait = container_of(t, struct workload_wait, timer);

	list_del(&wait->link);
	wait->done(wait, NULL);
}

void workload_wait_start(struct worker *w, struct workload_wait *wait, struct pod *p,
			 void (*done)(struct workload_wait *wait, struct workload *wl))
{
	wait->w = w;
	wait->pod = p;
	wait->done = done;
	list_add_tail(&w->waiting, &wait->link);
	timer_set(w->loop, &wait->timer, DATA_WORKLOAD_MS, wait_late);
}

void workload_await(struct worker *w, struct workload_wait *wait, struct pod *p,
		    void (*done)(struct workload_wait *wait, struct workload *wl))
{
	struct workload *wl = pod_workload(w, p);

	if (wl)
		done(wait, wl);
	else
		workload_wait_start(w, wait, p, done);
}

void workload_wait_cancel(struct workload_wait *wait)
{
	if (!wait->w)
		return;
	list_del(&wait->link);
	timer_cancel(&wait->timer);
}

void workload_wait_wake(struct worker *w)
{
	struct list now;

	list_init(&now);
	list_move_all(&now, &w->waiting);
	while (!list_empty(&now)) {
		struct workload_wait *wait = list_entry(now.next, struct workload_wait, link);
		struct workload *wl = pod_workload(w, wait->pod);

		list_del(&wait->link);
		if (wl) {
			timer_cancel(&wait->timer);
			wait->done(wait, wl);
		} else {
			list_add_tail(&w->waiting, &wait->link);
		}
	}
}
