/* SPDX-License-Identifier: Apache-2.0 */
/* rtnetlink in the namespace in which the calling thread is: policy rule, local route, lo, links, addresses and
 * filters, and a watch of them. Requests wait STEER_DEADLINE_MS at most. 0 or -errno. */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

/* `fwmark mark/mask lookup table`. Idempotent: what is there already, or gone already, is success; so is a family
 * that the kernel does not have. */
int rtnl_rule(int family, uint32_t mark, uint32_t mask, uint32_t table, uint32_t priority, bool add);
/* `local default dev lo table TABLE`. Idempotent likewise; IPv6 switched off on lo is success (no packet either). */
int rtnl_local_route(int family, uint32_t table, bool add);

/* Is it there? 1, 0 or -errno. */
int rtnl_rule_there(int family, uint32_t mark, uint32_t table, uint32_t priority);
int rtnl_local_route_there(int family, uint32_t table);

/* net.ipv4.conf.lo.accept_local, without /proc/sys (which may be read-only). */
int rtnl_accept_local_get(uint32_t *value);
int rtnl_accept_local_set(uint32_t value);
int rtnl_lo_up(void);

struct rtnl_link {
	unsigned ifindex;
	char name[IFNAMSIZ];
	uint16_t type; /* ARPHRD_ */
	bool loopback;
};
int rtnl_links(void (*each)(void *arg, const struct rtnl_link *link), void *arg);
int rtnl_addrs(void (*each)(void *arg, const struct addr *addr), void *arg);

/* Filters of the clsact qdisc of the device, as they are asked: the first comes first. */
struct rtnl_filter {
	uint16_t priority;
	uint32_t handle;
	uint32_t prog; /* the id of its BPF program; 0: it has none */
};
int rtnl_filters(unsigned ifindex, bool egress, void (*each)(void *arg, const struct rtnl_filter *f), void *arg);

/* rtnl_watch.c: a descriptor that becomes readable when something changes, or -errno. It stays with its namespace. */
int rtnl_watch_open(void);
enum {
	RTNL_DEVICES = 1, /* links or addresses: look again with rtnl_links() and rtnl_addrs() */
	RTNL_PATHS = 2,	  /* rules, routes, qdiscs or filters */
};
/* Takes what there is. Bits of what changed; all of them when something was lost. */
unsigned rtnl_watch_drain(int fd);
