/* SPDX-License-Identifier: Apache-2.0 */
/* Devices and addresses of a pod: attached and entered when the pod is enrolled, and again whenever rtnetlink says
 * that something changed (a device that multus adds, an eth0 made anew, a new address). An event only says "look
 * again". */
#include <bpf/bpf.h>
#include <net/if_arp.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/rtnl.h"
#include "steer/steer_internal.h"

/* --- addresses ------------------------------------------------------------------------------------------ */

struct addr_list {
	unsigned n, lost;
	struct addr a[STEER_ADDRS_MAX];
};

static bool listed(const struct addr *list, unsigned n, const struct addr *a)
{
	for (unsigned i = 0; i < n; i++)
		if (addr_eq(&list[i], a))
			return true;
	return false;
}

static void on_addr(void *arg, const struct addr *a)
{
	struct addr_list *l = arg;

	if (addr_is_loopback(a) || listed(l->a, l->n, a))
		return;
	if (l->n < STEER_ADDRS_MAX)
		l->a[l->n++] = *a;
	else
		l->lost++;
}

bool pod_has_addr(const struct steer_pod *p, const struct addr *a)
{
	return listed(p->addr, p->n_addrs, a);
}

static struct steer_pod_addr key_of(const struct steer_pod *p, const struct addr *a)
{
	return (struct steer_pod_addr){p->ns.cookie, to_steer_addr(a)};
}

static bool is_gone(void *arg, const void *key)
{
	const struct steer_pod *p = arg;
	const struct steer_pod_addr *is = key;
	struct addr a;

	memcpy(&a, &is->addr, sizeof a);
	return is->pod == p->ns.cookie && !pod_has_addr(p, &a);
}

void pod_addrs_prune(struct steer_pod *p)
{
	shared_prune(p->steer->shared.map[MAP_ADDRS], is_gone, p);
}

int pod_addrs_read(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct addr_list now = {};
	int e = rtnl_addrs(on_addr, &now);

	if (e)
		return failed(why, e, "cannot read the pod's addresses");
	/* Traffic to an address that does not fit is dropped by steer_lookup, not passed round the agent. */
	if (now.lost)
		log_warn(STEER_LOG, "pod %s has more than %d addresses: %u get no traffic", p->uid, STEER_ADDRS_MAX,
			 now.lost);
	p->n_addrs = now.n;
	memcpy(p->addr, now.a, sizeof p->addr);
	return 0;
}

int pod_addrs(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int map = p->steer->shared.map[MAP_ADDRS], e;
	struct addr old[STEER_ADDRS_MAX];
	unsigned n_old = p->n_addrs;

	memcpy(old, p->addr, sizeof old);
	e = pod_addrs_read(p, why);
	if (e)
		return e;
	for (unsigned i = 0; i < n_old; i++) {
		struct steer_pod_addr key = key_of(p, &old[i]);

		if (!pod_has_addr(p, &old[i]))
			bpf_map_delete_elem(map, &key);
	}
	for (unsigned i = 0; i < p->n_addrs; i++) {
		struct steer_pod_addr key = key_of(p, &p->addr[i]);
		uint32_t one = 1;

		e = bpf_map_update_elem(map, &key, &one, BPF_ANY);
		if (e)
			return failed(why, e, "cannot enter the pod's addresses");
	}
	return 0;
}

/* --- devices -------------------------------------------------------------------------------------------- */

struct look {
	struct steer_pod *p;
	bool late;
	unsigned lost;
};

static void on_link(void *arg, const struct rtnl_link *link)
{
	struct look *look = arg;
	struct steer_pod *p = look->p;
	struct device *d = p->device;

	if (link->loopback)
		return;
	while (d < p->device + p->n_devices && d->ifindex != link->ifindex)
		d++;
	if (d == p->device + p->n_devices) {
		if (p->n_devices == STEER_DEVICES_MAX) {
			look->lost++;
			return;
		}
		p->n_devices++;
		memset(d, 0, sizeof *d);
		d->ifindex = link->ifindex;
		d->ethernet = link->type == ARPHRD_ETHER;
		d->late = look->late;
	}
	memcpy(d->name, link->name, sizeof d->name);
	d->seen = true;
}

static void drop_device(struct steer_pod *p, struct device *d)
{
	for (int i = EGRESS; i >= INGRESS; i--)
		hook_detach(&d->hook[i], &p->pins, d->ifindex, i);
	*d = p->device[--p->n_devices];
}

int pod_prog(const struct steer_pod *p, const struct device *dev, enum direction d)
{
	static const enum steer_prog progs[DIRECTIONS][2] = {
		[INGRESS] = {PROG_INGRESS_L3, PROG_INGRESS}, [EGRESS] = {PROG_EGRESS_L3, PROG_EGRESS}};

	return p->object.prog[progs[d][dev->ethernet]];
}

/* `late`: the pod is steered already, so that a device without a program would talk in plaintext. */
static int attach_direction(struct steer_pod *p, enum direction d, bool late, char why[STEER_WHY_MAX])
{
	int first = 0;

	for (unsigned i = 0; i < p->n_devices; i++) {
		struct device *dev = &p->device[i];
		bool adopted;
		int e;

		if (dev->hook[d].kind != HOOK_NONE)
			continue;
		dev->hook[d].anywhere = late;
		e = dev->ethernet ? 0 : object_load_l3(&p->object, &p->steer->shared, p->ns.cookie, why);
		if (!e)
			e = hook_attach(&dev->hook[d], &p->steer->hook, p->steer->swift && (p->idle || dev->late),
					&p->pins, dev->ifindex, d, pod_prog(p, dev, d), &adopted, why);
		if (e && !first)
			first = e;
		if (dev->hook[d].kind == HOOK_FILTER && p->steer->swift)
			settle_later(p);
		if (!e && !adopted && !dev->late)
			p->adopted = false;
	}
	return first;
}

/* Pins of devices that went away while no keeper looked. */
static void drop_stale_pin(void *arg, const char *name)
{
	struct steer_pod *p = arg;
	const char *dash = strchr(name, '-');
	unsigned ifindex;

	if (!dash || !strncmp(name, "map-", 4) || sscanf(dash + 1, "%u", &ifindex) != 1)
		return;
	for (unsigned i = 0; i < p->n_devices; i++)
		if (p->device[i].ifindex == ifindex)
			return;
	pin_drop(&p->pins, name);
}

int pod_look(struct steer_pod *p, bool late, char why[STEER_WHY_MAX])
{
	struct look look = {p, late, 0};
	int e, second;

	for (unsigned i = 0; i < p->n_devices; i++)
		p->device[i].seen = false;
	e = rtnl_links(on_link, &look);
	if (e)
		return failed(why, e, "cannot read the pod's devices");
	for (unsigned i = p->n_devices; i-- > 0;)
		if (!p->device[i].seen)
			drop_device(p, &p->device[i]);
	if (!late)
		pins_each(&p->pins, drop_stale_pin, p);
	e = attach_direction(p, INGRESS, late, why);
	second = attach_direction(p, EGRESS, late, why);
	if (e || second)
		return e ? e : second;
	return look.lost ? failed(why, -E2BIG, "the pod has more than %d devices", STEER_DEVICES_MAX) : 0;
}

/* --- the watch ------------------------------------------------------------------------------------------ */

static void look_again(struct task *t);

static void on_retry(struct timer *t)
{
	struct steer_pod *p = container_of(t, struct steer_pod, retry);

	loop_defer(p->steer->loop, &p->look, look_again);
}

static void look_again(struct task *t)
{
	struct steer_pod *p = container_of(t, struct steer_pod, look);
	char why[STEER_WHY_MAX];
	int e = pod_enter(p, why);

	/* New addresses before new devices: a SYN for an address that is not known passes ingress. */
	if (!e)
		e = pod_addrs(p, why);
	if (!e)
		e = pod_look(p, true, why);
	if (!e)
		e = pod_conf_write(p, why); /* names of virtual interfaces may mean other devices now */
	if (!e)
		e = pod_route(why); /* IPv6 may have been switched on */
	netns_home();
	if (e) {
		log_error(STEER_LOG, "pod %s: %s", p->uid, why);
		timer_set(p->steer->loop, &p->retry, STEER_RETRY_MS, on_retry);
	}
}

static void on_watch(struct io *io, uint32_t events)
{
	struct steer_pod *p = container_of(io, struct steer_pod, watch);

	unsigned changed = rtnl_watch_drain(io->fd);

	p->touched = p->touched || changed & RTNL_PATHS;
	if (changed & RTNL_DEVICES)
		loop_defer(p->steer->loop, &p->look, look_again);
}

int pod_watch(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int fd = rtnl_watch_open(), e;

	if (fd < 0)
		return failed(why, fd, "cannot watch the pod's devices");
	io_init(&p->watch, fd, on_watch);
	e = io_want(p->steer->loop, &p->watch, EPOLLIN);
	return e ? failed(why, e, "cannot watch the pod's devices") : 0;
}

void pod_unwatch(struct steer_pod *p)
{
	task_cancel(&p->look);
	timer_cancel(&p->retry);
	if (p->watch.fd < 0)
		return;
	io_stop(p->steer->loop, &p->watch);
	close(p->watch.fd);
	p->watch.fd = -1;
}
