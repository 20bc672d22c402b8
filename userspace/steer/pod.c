// SPDX-License-Identifier: Apache-2.0
/* Steering one pod. Attaching is a ladder: listeners (the caller's), maps, rule, route and sysctl, lookup, ingress,
 * egress; each rung is safe without the next, since egress without lookup would land the app's SYN on its own port.
 * pod_unwind() is the same ladder from the top, and is also how a failed attachment ends. What a predecessor pinned
 * is kept where it fits, and replaced in place where not: the pod is never unsteered in between. */
#include <bpf/bpf.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/iptables.h"
#include "steer/rtnl.h"
#include "steer/steer_internal.h"

static const int families[] = {AF_INET, AF_INET6};

int pod_enter(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int e = netns_init_thread();

	if (!e)
		e = netns_enter(p->netns, p->ns.inode);
	return e ? failed(why, e, "cannot enter the network namespace of %s", p->uid) : 0;
}

/* --- the ladder ----------------------------------------------------------------------------------------- */

static int set_sockets(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	static const enum steer_socket which[STEER_LISTENERS] = {
		[STEER_L_OUTBOUND] = STEER_TCP15001, [STEER_L_INBOUND] = STEER_TCP15006,
		[STEER_L_DNS_TCP] = STEER_TCP15053,  [STEER_L_DNS_UDP] = STEER_UDP15053,
		[STEER_L_HBONE] = STEER_TCP15008,
	};

	struct steer_socket_key key = {.pod = p->ns.cookie};
	int map = p->steer->shared.map[MAP_LISTENERS];

	for (; key.which < STEER_LISTENERS; key.which++) {
		uint64_t fd = socks->fd[which[key.which]];
		int e = 0;

		if (socks->fd[which[key.which]] >= 0)
			e = bpf_map_update_elem(map, &key, &fd, BPF_ANY);
		else
			bpf_map_delete_elem(map, &key);
		if (e < 0)
			return failed(why, e, "listener %u cannot enter the socket map", key.which);
	}
	return 0;
}

/* The old value of the sysctl is written down before it is changed: whoever un-enrols later puts it back. */
static int set_accept_local(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct steer_conf conf;
	uint32_t value;
	int e = rtnl_accept_local_get(&value);

	if (!e)
		e = pod_conf_read(p, &conf);
	if (!e && !conf.state_known) {
		conf.old_accept_local = value;
		conf.state_known = 1;
		e = pod_conf_store(p, &conf);
	}
	if (!e && !value)
		e = rtnl_accept_local_set(1);
	return e ? failed(why, e, "cannot set net.ipv4.conf.lo.accept_local") : 0;
}

int pod_route(char why[STEER_WHY_MAX])
{
	int e = 0;

	for (unsigned i = 0; i < 2 && !e; i++) {
		e = rtnl_local_route(families[i], STEER_TABLE, true);
		if (!e)
			e = rtnl_rule(families[i], CULVERT_MARK_LOCAL, CULVERT_MARK_MASK, STEER_TABLE, STEER_PRIORITY,
				      true);
	}
	return e ? failed(why, e, "cannot add policy rule and route for captured packets") : 0;
}

/* Where a lookup link is, it knows; else the configuration does. */
static bool pins_are_here(const struct steer_pod *p)
{
	struct steer_conf conf;
	uint64_t inode = 0;

	if (lookup_pinned(&p->pins, &inode) >= 0)
		return inode == p->ns.inode;
	return object_conf_read(&p->pins, &conf) == 0 && conf.abi == STEER_ABI_VERSION &&
	       conf.netns_cookie == p->ns.cookie;
}

/* Pins of the same UID for another namespace (a sandbox made anew) hold nothing up here, and their links must not
 * be taken for ours: devices have the same numbers everywhere. But that namespace may live, and stays steered. */
static int part_from_strangers(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct steer_conf conf;
	uint64_t inode = 0;
	int e;

	if (!p->pins.existed || pins_are_here(p))
		return 0;
	if (lookup_pinned(&p->pins, &inode) >= 0 && inode) {
		e = pins_set_aside(&p->pins, p->steer->pin_dir, p->uid, inode, why);
		return e ? e : pins_open(&p->pins, p->steer->pin_dir, p->uid, why);
	}
	if (object_conf_read(&p->pins, &conf) == 0)
		shared_forget(&p->steer->shared, conf.netns_cookie, conf.owner);
	pins_each(&p->pins, pins_drop_one, &p->pins);
	p->pins.existed = false;
	return 0;
}

static int climb(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	int e = pins_open(&p->pins, p->steer->pin_dir, p->uid, why);

	if (e)
		return e;
	e = pod_enter(p, why);
	if (e)
		return e;
	e = part_from_strangers(p, why);
	if (!e)
		e = lookup_refuse_second(p, why);
	if (!e)
		e = object_load(&p->object, &p->steer->shared, &p->pins, p->ns.cookie, &p->adopted, why);
	if (!e)
		e = pod_conf_write(p, why);
	if (!e)
		e = counters_begin(p, p->adopted, why);
	if (!e)
		e = object_pin(&p->object, &p->pins, why);
	if (!e)
		e = set_sockets(p, socks, why);
	if (!e)
		e = pod_addrs(p, why);
	if (!e && p->pins.existed)
		pod_addrs_prune(p);
	if (!e)
		e = existing_note(p, socks, why);
	if (!e) {
		e = rtnl_lo_up();
		if (e)
			failed(why, e, "cannot bring lo up");
	}
	if (!e) {
		p->routed = true; /* what the undoing of an earlier failure must leave alone: it may be another's */
		e = set_accept_local(p, why);
	}
	if (!e)
		e = pod_route(why);
	if (!e)
		e = lookup_attach(p, why);
	if (!e)
		e = pod_watch(p, why); /* before the look, so that nothing falls between them */
	if (!e)
		e = pod_look(p, false, why);
	return e;
}

void pod_unwind(struct steer_pod *p)
{
	char ignored[STEER_WHY_MAX];
	struct steer_conf conf;

	if (p->pins.dir < 0 || pod_enter(p, ignored) < 0)
		return;
	pod_unwatch(p);
	for (int d = EGRESS; d >= INGRESS; d--)
		for (unsigned i = 0; i < p->n_devices; i++)
			hook_detach(&p->device[i].hook[d], &p->pins, p->device[i].ifindex, d);
	if (p->lookup >= 0)
		bpf_link_detach(p->lookup);
	if (pod_conf_read(p, &conf) == 0 && conf.state_known && !conf.old_accept_local)
		rtnl_accept_local_set(0);
	for (unsigned i = 0; i < 2 && p->routed; i++) {
		rtnl_rule(families[i], CULVERT_MARK_LOCAL, CULVERT_MARK_MASK, STEER_TABLE, STEER_PRIORITY, false);
		rtnl_local_route(families[i], STEER_TABLE, false);
	}
	shared_forget(&p->steer->shared, p->ns.cookie, shared_owner(p->uid));
	pins_remove(&p->pins);
	netns_home();
}

void pod_release(struct steer_pod *p)
{
	if (!p)
		return;
	timer_cancel(&p->drain);
	list_del(&p->settle);
	pod_unwatch(p);
	for (unsigned i = 0; i < p->n_devices; i++)
		for (int d = INGRESS; d < DIRECTIONS; d++)
			hook_forget(&p->device[i].hook[d]);
	if (p->lookup >= 0)
		close(p->lookup);
	if (p->existing >= 0)
		close(p->existing);
	object_close(&p->object);
	pins_close(&p->pins);
	if (p->netns >= 0)
		close(p->netns);
	free(p);
}

/* --- what the keeper calls ------------------------------------------------------------------------------ */

struct steer_pod *pod_new(struct steer *s, const char *uid, enum steer_mode mode, const struct netns_id *ns,
			  const struct steer_config *c)
{
	struct steer_pod *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->steer = s;
	snprintf(p->uid, sizeof p->uid, "%.*s", STEER_UID_MAX - 1, uid);
	p->mode = mode;
	p->ns = *ns;
	p->config = *c;
	p->netns = p->lookup = p->existing = p->pins.dir = p->watch.fd = -1;
	object_init(&p->object);
	list_init(&p->settle);
	return p;
}

int steer_attach(struct steer *s, struct steer_pod **out, const char *uid, enum steer_mode mode, int netns_fd,
		 const struct netns_id *ns, const struct steer_config *c, const struct steer_sockets *socks,
		 char why[STEER_WHY_MAX])
{
	struct steer_pod *p = pod_new(s, uid, mode, ns, c);
	int e;

	if (!p)
		return failed(why, -ENOMEM, "%s", uid);
	p->netns = fcntl(netns_fd, F_DUPFD_CLOEXEC, 3);
	if (p->netns < 0) {
		e = failed(why, -errno, "cannot keep the namespace of %s", uid);
		pod_release(p);
		return e;
	}
	if (mode == STEER_IPTABLES) {
		e = iptables_apply(p->netns, ns, c, true, why);
	} else if (!ns->cookie) {
		e = failed(why, -EOPNOTSUPP, "%s: this kernel does not number namespaces (Linux 5.14)", uid);
	} else {
		e = climb(p, socks, why);
		/* A pod that was steered before stays so: better an old configuration than plaintext. */
		if (e && !p->pins.existed)
			pod_unwind(p);
		netns_home();
	}
	if (e) {
		pod_release(p);
		return e;
	}
	*out = p;
	return 0;
}

int steer_configure(struct steer_pod *p, const struct steer_config *c, char why[STEER_WHY_MAX])
{
	struct steer_config old = p->config;
	int e;

	p->config = *c;
	if (p->mode == STEER_IPTABLES) {
		e = iptables_apply(p->netns, &p->ns, c, true, why);
	} else {
		e = pod_enter(p, why);
		if (!e)
			e = pod_conf_write(p, why);
		netns_home();
	}
	if (e)
		p->config = old;
	return e;
}

int steer_set_sockets(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	return p->mode == STEER_IPTABLES ? 0 : set_sockets(p, socks, why);
}

void steer_pod_free(struct steer_pod *p)
{
	pod_release(p);
}

void steer_pod_status(struct steer_pod *p, struct steer_pod_status *out)
{
	memset(out, 0, sizeof *out);
	out->mode = p->mode;
	out->adopted = p->adopted;
	for (unsigned i = 0; i < p->n_devices; i++) {
		const struct device *d = &p->device[i];

		memcpy(out->device[i].name, d->name, sizeof d->name);
		out->device[i].ifindex = d->ifindex;
		out->device[i].late = d->late;
		out->device[i].ethernet = d->ethernet;
		out->device[i].attached = d->hook[INGRESS].kind != HOOK_NONE && d->hook[EGRESS].kind != HOOK_NONE;
	}
	out->n_devices = p->n_devices;
	memcpy(out->addr, p->addr, sizeof p->addr);
	out->n_addrs = p->n_addrs;
	if (p->mode == STEER_BPF)
		out->existing = existing_count(p);
}
