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
	struct template *template;
	struct object object;
	int node_map[NODE_MAPS];
	int link, listener, result;
	bool found;
	char *why;
};

static int probe_load(struct probe *p)
{
	int e = template_make(&p->template, p->why);

	for (unsigned i = 0; i < NODE_MAPS && !e; i++) {
		p->node_map[i] = template_map(p->template, POD_MAPS + i);
		if (p->node_map[i] < 0)
			e = failed(p->why, p->node_map[i], "cannot make the BPF map %s",
				   template_map_name(POD_MAPS + i));
	}
	return e ? e : object_load_new(&p->object, p->template, p->node_map, p->why);
}

static int probe_attach(struct probe *p)
{
	int netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), e;

	if (netns < 0)
		return failed(p->why, -errno, "cannot open a network namespace in /proc");
	p->link = bpf_link_create(p->object.prog[PROG_LOOKUP], netns, BPF_SK_LOOKUP, NULL);
	e = p->link < 0 ? -errno : 0;
	close(netns);
	if (e)
		return failed(p->why, e, "this kernel has no sk_lookup programs (Linux 5.9)");
	return hook_probe(p->object.prog[PROG_INGRESS], p->why);
}

static int probe_listener(struct probe *p)
{
	struct sock_listen how = {{addr_any6, PORT_OUTBOUND}, CULVERT_MARK_AGENT, true, false};
	uint32_t key = STEER_L_OUTBOUND;
	uint64_t value;
	int e;

	p->listener = sock_listen_tcp(&how);
	if (p->listener < 0)
		return failed(p->why, p->listener, "cannot open a marked, transparent listener");
	value = p->listener;
	e = bpf_map_update_elem(p->object.map[MAP_LISTENERS], &key, &value, BPF_ANY);
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
	int e = diag_each(p->object.map[MAP_FLOWS], 1u << DIAG_LISTEN, on_listener, p);

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
	struct probe p = {.link = -1, .listener = -1, .why = why};
	pthread_t thread;
	int e;

	object_init(&p.object);
	memset(p.node_map, -1, sizeof p.node_map);
	e = pthread_create(&thread, NULL, probe_thread, &p);
	if (e)
		return failed(why, -e, "cannot start a thread");
	pthread_join(thread, NULL);
	if (p.link >= 0)
		close(p.link);
	if (p.listener >= 0)
		close(p.listener);
	object_close(&p.object);
	for (unsigned i = 0; i < NODE_MAPS; i++)
		if (p.node_map[i] >= 0)
			close(p.node_map[i]);
	template_free(p.template);
	return p.result;
}
