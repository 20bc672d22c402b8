/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at a pod's steering from outside: programs at their places, by name; rule, route and sysctl; or iptables rules. */
#include "steer/seen.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "steer/bpf_call.h"
#include "steer/iptables.h"
#include "steer/rtnl.h"
#include "steer/steer_internal.h"

enum { PROGS_MAX = 64, TCX_INGRESS = 46, TCX_EGRESS = 47 /* not in Debian 12's headers */ };

int seen_missing(char why[STEER_WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, STEER_WHY_MAX, fmt, ap);
	va_end(ap);
	return -ENOENT;
}

/* --- rule, route, sysctl -------------------------------------------------------------------------------- */

int seen_route(bool ipv6, uint32_t table, uint32_t priority, char why[STEER_WHY_MAX])
{
	for (int i = 0; i < (ipv6 ? 2 : 1); i++) {
		int family = i ? AF_INET6 : AF_INET, v = i ? 6 : 4;
		int e = rtnl_rule_there(family, CULVERT_MARK_LOCAL, table, priority);

		if (e == 0)
			return seen_missing(why, "the IPv%d policy rule of captured packets is gone", v);
		if (e > 0)
			e = rtnl_local_route_there(family, table);
		if (e == 0)
			return seen_missing(why, "the IPv%d route of captured packets is gone", v);
		if (e < 0)
			return failed(why, e, "cannot read the pod's rules and routes");
	}
	return 0;
}

int seen_accept_local(char why[STEER_WHY_MAX])
{
	uint32_t value = 0;
	int e = rtnl_accept_local_get(&value);

	if (e)
		return failed(why, e, "cannot read net.ipv4.conf.lo.accept_local");
	return value ? 0 : seen_missing(why, "net.ipv4.conf.lo.accept_local is off");
}

/* --- programs ------------------------------------------------------------------------------------------- */

static bool is_named(uint32_t id, const char *name)
{
	struct bpf_prog_info info = {.type = 0};
	union bpf_attr by_id = {.prog_id = id}, ask;
	int fd = bpf_call(BPF_PROG_GET_FD_BY_ID, &by_id), e;

	if (fd < 0)
		return false;
	ask = (union bpf_attr){.info = {.bpf_fd = (unsigned)fd, .info_len = sizeof info, .info = (uintptr_t)&info}};
	e = bpf_call(BPF_OBJ_GET_INFO_BY_FD, &ask);
	close(fd);
	return !e && !strncmp(info.name, name, strlen(name));
}

/* A row of programs, as they are asked. */
struct place {
	const char *name;
	int n, at; /* so many so far; where the one of that name is, -1: nowhere */
};

static void place_take(struct place *p, uint32_t id)
{
	if (p->at < 0 && is_named(id, p->name))
		p->at = p->n;
	p->n++;
}

static void on_filter(void *arg, const struct rtnl_filter *f)
{
	place_take(arg, f->prog);
}

/* What is attached there; 0 or -errno. `target`: a descriptor, or a device's number. */
static int take_attached(struct place *p, unsigned target, unsigned attach)
{
	uint32_t id[PROGS_MAX] = {0};
	union bpf_attr a = {
		.query = {
			.target_fd = target, .attach_type = attach, .prog_ids = (uintptr_t)id, .prog_cnt = PROGS_MAX}};
	int e = bpf_call(BPF_PROG_QUERY, &a);

	for (unsigned i = 0; !e && i < a.query.prog_cnt; i++)
		place_take(p, id[i]);
	return e;
}

struct look {
	char *why;
	int e;
};

/* Filters are asked after links, of which a kernel below 6.6 knows nothing. */
static void on_link(void *arg, const struct rtnl_link *link)
{
	static const struct {
		unsigned attach;
		const char *name, *word;
	} sides[] = {{TCX_INGRESS, "steer_ingress", "ingress"}, {TCX_EGRESS, "steer_egress", "egress"}};
	struct look *look = arg;

	for (unsigned i = 0; i < 2 && !link->loopback && !look->e; i++) {
		struct place p = {sides[i].name, 0, -1};
		int e = take_attached(&p, link->ifindex, sides[i].attach);

		if (e && e != -EINVAL)
			look->e = failed(look->why, e, "cannot look at device %s", link->name);
		else if (p.at < 0 && (e = rtnl_filters(link->ifindex, i == 1, on_filter, &p)))
			look->e = failed(look->why, e, "cannot look at the filters of device %s", link->name);
		else if (p.at)
			look->e = seen_missing(look->why, "the %s program of device %s %s", sides[i].word, link->name,
					       p.at < 0 ? HOOK_GONE : HOOK_BEHIND);
	}
}

static int seen_programs(int netns_fd, char why[STEER_WHY_MAX])
{
	struct place lookup = {"steer_lookup", 0, -1};
	struct look look = {why, 0};
	int e = take_attached(&lookup, (unsigned)netns_fd, BPF_SK_LOOKUP);

	if (e)
		return failed(why, e, "cannot ask for the lookup program");
	if (lookup.at < 0)
		return seen_missing(why, "the lookup program is gone");
	e = rtnl_links(on_link, &look);
	return e ? failed(why, e, "cannot read the pod's devices") : look.e;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static void on_addr(void *arg, const struct addr *a)
{
	*(bool *)arg |= !addr_is4(a) && !addr_is_loopback(a);
}

static int seen_bpf(int netns_fd, char why[STEER_WHY_MAX])
{
	int e = seen_programs(netns_fd, why);

	return e ? e : seen_accept_local(why);
}

int steer_seen(int netns_fd, const struct netns_id *ns, enum steer_mode mode, char why[STEER_WHY_MAX])
{
	static const struct steer_config least = {.bypass_inbound = true}; /* the pod's is not known here */
	bool bpf = mode == STEER_BPF, ipv6 = false;
	int e = bpf ? 0 : iptables_whole(netns_fd, ns, &least, why);

	if (e)
		return e;
	e = netns_init_thread();
	if (!e)
		e = netns_enter(netns_fd, ns->inode);
	if (e)
		return failed(why, e, "cannot enter the pod's namespace");
	e = bpf ? seen_bpf(netns_fd, why) : 0;
	if (!e && rtnl_addrs(on_addr, &ipv6) == 0)
		e = seen_route(ipv6, bpf ? STEER_TABLE : IPTABLES_TABLE, bpf ? STEER_PRIORITY : IPTABLES_PRIORITY, why);
	netns_home();
	return e;
}
