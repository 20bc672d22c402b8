// SPDX-License-Identifier: Apache-2.0
/* Whether this kernel can steer, found by doing it: a thread goes into a namespace of its own and there loads and
 * attaches the programs and tries the sock_diag operations on which un-enrolment rests. The first failure names
 * what is missing. All of it goes with the thread. */
#include <bpf/bpf.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "net/sock.h"
#include "steer/diag.h"
#include "steer/rtnl.h"
#include "steer/steer_internal.h"

struct probe {
	struct shared shared;
	int lookup, entry; /* programs */
	int link, listener, result;
	bool found;
	char *why;
};

/* Any pod: nothing of it is entered. */
static int probe_load(struct probe *p)
{
	int e = shared_open(&p->shared, NULL, p->why);

	if (!e)
		e = p->lookup = template_prog(p->shared.template, PROG_LOOKUP, 0, p->shared.map, p->why);
	if (e >= 0)
		e = p->entry = template_entry(PROG_INGRESS, 0, p->shared.map[MAP_PROGRAMS], p->why);
	return e < 0 ? e : 0;
}

static int probe_attach(struct probe *p)
{
	int netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), e;

	if (netns < 0)
		return failed(p->why, -errno, "cannot open a network namespace in /proc");
	p->link = bpf_link_create(p->lookup, netns, BPF_SK_LOOKUP, NULL);
	e = p->link < 0 ? -errno : 0;
	close(netns);
	if (e)
		return failed(p->why, e, "this kernel has no sk_lookup programs (Linux 5.9)");
	return hook_probe(p->entry, p->why);
}

static int probe_listener(struct probe *p)
{
	struct sock_listen how = {{addr_any6, PORT_OUTBOUND}, CULVERT_MARK_AGENT, true, false};
	struct steer_socket_key key = {.which = STEER_L_OUTBOUND};
	uint64_t value;
	int e;

	p->listener = sock_listen_tcp(&how);
	if (p->listener < 0)
		return failed(p->why, p->listener, "cannot open a marked, transparent listener");
	value = p->listener;
	e = bpf_map_update_elem(p->shared.map[MAP_LISTENERS], &key, &value, BPF_ANY);
	return e ? failed(p->why, e, "this kernel takes no listener into a SOCKMAP (Linux 5.7)") : 0;
}

static bool on_listener(void *arg, const struct diag_socket *s)
{
	struct probe *p = arg;

	p->found = true;
	p->result = diag_destroy(s);
	return false;
}

static int probe_diag(struct probe *p)
{
	int e = diag_each(p->shared.map[MAP_FLOWS], 1u << DIAG_LISTEN, on_listener, p);

	if (!e && !p->found)
		e = -ENOENT;
	if (e)
		return failed(p->why, e, "sock_diag does not list sockets (CONFIG_INET_TCP_DIAG)");
	return p->result ? failed(p->why, p->result, "sock_diag does not end sockets (CONFIG_INET_DIAG_DESTROY)") : 0;
}

static int probe_routes(struct probe *p)
{
	uint32_t value;
	int e = rtnl_lo_up();

	if (e)
		return failed(p->why, e, "cannot bring lo up");
	e = rtnl_accept_local_get(&value);
	if (!e)
		e = rtnl_accept_local_set(1);
	if (e)
		return failed(p->why, e, "cannot set net.ipv4.conf.lo.accept_local");
	return pod_route(p->why);
}

static void *probe_thread(void *arg)
{
	struct probe *p = arg;
	int e;

	if (unshare(CLONE_NEWNET) < 0)
		e = failed(p->why, -errno, "cannot make a network namespace (root is needed)");
	else
		e = probe_load(p);
	if (!e)
		e = probe_routes(p);
	if (!e)
		e = probe_attach(p);
	if (!e)
		e = probe_listener(p);
	if (!e)
		e = probe_diag(p);
	p->result = e;
	return NULL;
}

int steer_probe(char why[STEER_WHY_MAX])
{
	struct probe p = {.lookup = -1, .entry = -1, .link = -1, .listener = -1, .why = why};
	pthread_t thread;
	int e;

	shared_init(&p.shared);
	e = pthread_create(&thread, NULL, probe_thread, &p);
	if (e)
		return failed(why, -e, "cannot start a thread");
	pthread_join(thread, NULL);
	if (p.link >= 0)
		close(p.link);
	if (p.listener >= 0)
		close(p.listener);
	if (p.lookup >= 0)
		close(p.lookup);
	if (p.entry >= 0)
		close(p.entry);
	shared_close(&p.shared);
	return p.result;
}
