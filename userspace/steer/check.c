/* SPDX-License-Identifier: Apache-2.0 */
/* Is a pod's steering whole? Programs, rule, route and sysctl can be removed by whoever has the capabilities, and nothing
 * tells the keeper; here it is looked at, and nothing is changed. */
#include <bpf/bpf.h>
#include <sys/socket.h>
#include <unistd.h>

#include "steer/iptables.h"
#include "steer/rtnl.h"
#include "steer/seen.h"
#include "steer/steer_internal.h"

struct look {
	struct steer_pod *p;
	char *why;
	int e;
};

static void on_link(void *arg, const struct rtnl_link *link)
{
	static const char *const words[DIRECTIONS] = {[INGRESS] = "ingress", [EGRESS] = "egress"};
	struct look *look = arg;
	struct steer_pod *p = look->p;
	const struct device *d = p->device;
	const char *trouble;

	if (link->loopback || look->e)
		return;
	while (d < p->device + p->n_devices && d->ifindex != link->ifindex)
		d++;
	for (int i = INGRESS; i < DIRECTIONS && !look->e; i++) {
		trouble = d == p->device + p->n_devices ? HOOK_GONE : hook_trouble(&d->hook[i], link->ifindex, i);
		if (trouble)
			look->e = seen_missing(look->why, "the %s program of device %s %s", words[i], link->name,
					       trouble);
	}
}

static int check_devices(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct look look = {p, why, 0};
	int e = rtnl_links(on_link, &look);

	return e ? failed(why, e, "cannot read the pod's devices") : look.e;
}

static int check_pins(const struct steer_pod *p, char why[STEER_WHY_MAX])
{
	bool whole = pins_hold(&p->pins) && object_pinned(&p->pins) && pin_there(&p->pins, PIN_LOOKUP) &&
		     (p->existing < 0 || pin_there(&p->pins, PIN_EXISTING));

	for (unsigned i = 0; i < p->n_devices; i++)
		for (int d = INGRESS; d < DIRECTIONS && whole; d++)
			whole = hook_pinned(&p->device[i].hook[d], &p->pins, p->device[i].ifindex, d);
	return whole ? 0 : seen_missing(why, "pins are gone from %.128s", p->pins.path);
}

/* The socket map tells cookies. */
static int check_listeners(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	static const struct {
		enum steer_socket socket;
		uint32_t at;
		unsigned port;
		bool dns;
	} all[] = {{STEER_TCP15001, STEER_L_OUTBOUND, PORT_OUTBOUND, false},
		   {STEER_TCP15006, STEER_L_INBOUND, PORT_INBOUND, false},
		   {STEER_TCP15008, STEER_L_HBONE, PORT_HBONE, false},
		   {STEER_TCP15053, STEER_L_DNS_TCP, PORT_DNS, true},
		   {STEER_UDP15053, STEER_L_DNS_UDP, PORT_DNS, true}};

	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		struct steer_socket_key key = {.pod = p->ns.cookie, .which = all[i].at};
		uint64_t there = 0, ours = 0;
		socklen_t len = sizeof ours;
		int fd = socks->fd[all[i].socket];

		if (all[i].dns && !p->config.dns_capture)
			continue;
		if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_COOKIE, &ours, &len) < 0 ||
		    bpf_map_lookup_elem(p->steer->shared.map[MAP_LISTENERS], &key, &there) < 0 || there != ours)
			return seen_missing(why, "the listener of port %u is gone", all[i].port);
	}
	return 0;
}

static bool has_ipv6(const struct steer_pod *p)
{
	for (unsigned i = 0; i < p->n_addrs; i++)
		if (!addr_is4(&p->addr[i]))
			return true;
	return false;
}

static int check_bpf(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	int e = lookup_holds(p) ? 0 : seen_missing(why, "the lookup program is gone");

	if (!e)
		e = check_listeners(p, socks, why);
	if (!e)
		e = check_devices(p, why);
	if (!e)
		e = seen_accept_local(why);
	if (!e)
		e = check_pins(p, why);
	return e ? e : seen_route(has_ipv6(p), STEER_TABLE, STEER_PRIORITY, why);
}

int steer_check(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	int e;

	if (p->mode == STEER_IPTABLES) {
		e = iptables_whole(p->netns, &p->ns, &p->config, why);
		if (e)
			return e;
	}
	e = pod_enter(p, why);
	if (!e)
		e = p->mode == STEER_BPF ? check_bpf(p, socks, why)
					 : seen_route(has_ipv6(p), IPTABLES_TABLE, IPTABLES_PRIORITY, why);
	netns_home();
	return e;
}
