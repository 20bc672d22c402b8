/* SPDX-License-Identifier: Apache-2.0 */
/* rtnetlink's requests by libmnl, each made in the namespace where the thread is. */
#include "steer/rtnl.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "steer/netlink.h"

enum {
	IFINDEX_LO = 1, /* in every namespace */
	REQUEST_BYTES = 1024,
	DUMP_TRIES = 8,
};

static int talk(struct nlmsghdr *h, mnl_cb_t each, void *arg)
{
	return netlink_talk(NETLINK_ROUTE, h, each, arg);
}

/* A list that changed while it was read is read again: `each` may meet an entry twice, or one that is gone. */
static int talk_dump(struct nlmsghdr *h, mnl_cb_t each, void *arg)
{
	int e = -EINTR;

	for (int i = 0; i < DUMP_TRIES && e == -EINTR; i++)
		e = talk(h, each, arg);
	return e;
}

static struct nlmsghdr *request(char *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);

	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	return h;
}

/* --- rule and route ------------------------------------------------------------------------------------- */

int rtnl_rule(int family, uint32_t mark, uint32_t mask, uint32_t table, uint32_t priority, bool add)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h =
		request(buf, add ? RTM_NEWRULE : RTM_DELRULE, NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_EXCL : 0));
	struct fib_rule_hdr *rule = mnl_nlmsg_put_extra_header(h, sizeof *rule);
	int e;

	rule->family = family;
	rule->action = FR_ACT_TO_TBL;
	mnl_attr_put_u32(h, FRA_FWMARK, mark);
	mnl_attr_put_u32(h, FRA_FWMASK, mask);
	mnl_attr_put_u32(h, FRA_TABLE, table);
	mnl_attr_put_u32(h, FRA_PRIORITY, priority);
	e = talk(h, NULL, NULL);
	if (e == (add ? -EEXIST : -ENOENT) || e == -EAFNOSUPPORT || e == -EOPNOTSUPP)
		return 0;
	return e;
}

int rtnl_local_route(int family, uint32_t table, bool add)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h =
		request(buf, add ? RTM_NEWROUTE : RTM_DELROUTE, NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_REPLACE : 0));
	struct rtmsg *rt = mnl_nlmsg_put_extra_header(h, sizeof *rt);
	int e;

	rt->rtm_family = family;
	rt->rtm_table = RT_TABLE_UNSPEC;
	rt->rtm_protocol = RTPROT_STATIC;
	rt->rtm_scope = RT_SCOPE_HOST;
	rt->rtm_type = RTN_LOCAL;
	mnl_attr_put_u32(h, RTA_TABLE, table);
	mnl_attr_put_u32(h, RTA_OIF, IFINDEX_LO);
	e = talk(h, NULL, NULL);
	if (e == -EAFNOSUPPORT || e == -EOPNOTSUPP || (family == AF_INET6 && add && e == -EACCES))
		return 0;
	/* The last route of a table takes the table with it: ENOENT. */
	return !add && (e == -ESRCH || e == -ENOENT || e == -ENODEV) ? 0 : e;
}

struct wanted { /* of one message: attributes and their values */
	uint16_t attr[3];
	uint32_t value[3];
	size_t header;
	bool found;
};

static int on_wanted(const struct nlmsghdr *h, void *arg)
{
	struct wanted *w = arg;
	const struct nlattr *a;
	unsigned hits = 0;

	mnl_attr_for_each(a, h, w->header) for (unsigned i = 0; i < 3; i++) hits +=
		mnl_attr_get_type(a) == w->attr[i] && mnl_attr_get_payload_len(a) == sizeof(uint32_t) &&
		mnl_attr_get_u32(a) == w->value[i];
	w->found = w->found || hits == 3;
	return MNL_CB_OK;
}

/* Is one of a dump `w`? The header of each kind of message begins with the family. */
static int there(uint16_t type, uint8_t family, struct wanted *w)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = request(buf, type, NLM_F_DUMP);
	int e;

	*(uint8_t *)mnl_nlmsg_put_extra_header(h, w->header) = family;
	e = talk_dump(h, on_wanted, w);
	return e ? e : w->found;
}

int rtnl_rule_there(int family, uint32_t mark, uint32_t table, uint32_t priority)
{
	struct wanted w = {{FRA_FWMARK, FRA_TABLE, FRA_PRIORITY}, {mark, table, priority}, sizeof(struct fib_rule_hdr)};

	return there(RTM_GETRULE, (uint8_t)family, &w);
}

int rtnl_local_route_there(int family, uint32_t table)
{
	/* The table counts twice: it is the whole of what names the route beside its device. */
	struct wanted w = {{RTA_TABLE, RTA_TABLE, RTA_OIF}, {table, table, IFINDEX_LO}, sizeof(struct rtmsg)};

	return there(RTM_GETROUTE, (uint8_t)family, &w);
}

/* --- lo ------------------------------------------------------------------------------------------------- */

static int on_inet_conf(const struct nlattr *a, void *arg)
{
	uint32_t *value = arg;
	size_t at = (IPV4_DEVCONF_ACCEPT_LOCAL - 1) * sizeof *value; /* the array begins with number 1 */

	if (mnl_attr_get_type(a) == IFLA_INET_CONF && mnl_attr_get_payload_len(a) >= at + sizeof *value)
		memcpy(value, (const char *)mnl_attr_get_payload(a) + at, sizeof *value);
	return MNL_CB_OK;
}

static int on_lo(const struct nlmsghdr *h, void *arg)
{
	const struct nlattr *a, *family;

	mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
	{
		if (mnl_attr_get_type(a) != IFLA_AF_SPEC)
			continue;
		mnl_attr_for_each_nested(family, a) if (mnl_attr_get_type(family) == AF_INET)
			mnl_attr_parse_nested(family, on_inet_conf, arg);
	}
	return MNL_CB_OK;
}

int rtnl_accept_local_get(uint32_t *value)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = request(buf, RTM_GETLINK, 0);
	struct ifinfomsg *lo = mnl_nlmsg_put_extra_header(h, sizeof *lo);
	uint32_t found = UINT32_MAX;
	int e;

	lo->ifi_index = IFINDEX_LO;
	h->nlmsg_flags |= NLM_F_ACK;
	e = talk(h, on_lo, &found);
	if (!e && found == UINT32_MAX)
		e = -ENODATA;
	if (!e)
		*value = found;
	return e;
}

int rtnl_accept_local_set(uint32_t value)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = request(buf, RTM_SETLINK, NLM_F_ACK);
	struct ifinfomsg *lo = mnl_nlmsg_put_extra_header(h, sizeof *lo);
	struct nlattr *spec, *inet, *conf;

	lo->ifi_index = IFINDEX_LO;
	spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
	inet = mnl_attr_nest_start(h, AF_INET);
	conf = mnl_attr_nest_start(h, IFLA_INET_CONF);
	mnl_attr_put_u32(h, IPV4_DEVCONF_ACCEPT_LOCAL, value);
	mnl_attr_nest_end(h, conf);
	mnl_attr_nest_end(h, inet);
	mnl_attr_nest_end(h, spec);
	return talk(h, NULL, NULL);
}

int rtnl_lo_up(void)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = request(buf, RTM_NEWLINK, NLM_F_ACK);
	struct ifinfomsg *lo = mnl_nlmsg_put_extra_header(h, sizeof *lo);

	lo->ifi_index = IFINDEX_LO;
	lo->ifi_flags = lo->ifi_change = IFF_UP;
	return talk(h, NULL, NULL);
}

/* --- links and addresses -------------------------------------------------------------------------------- */

struct links_call {
	void (*each)(void *arg, const struct rtnl_link *link);
	void *arg;
};

static int on_link(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(h);
	struct links_call *call = arg;
	struct rtnl_link link = {
		.ifindex = info->ifi_index, .type = info->ifi_type, .loopback = info->ifi_flags & IFF_LOOPBACK};
	const struct nlattr *a;

	if (h->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	mnl_attr_for_each(a, h, sizeof *info) if (mnl_attr_get_type(a) == IFLA_IFNAME)
		memcpy(link.name, mnl_attr_get_payload(a), strnlen(mnl_attr_get_payload(a), sizeof link.name - 1));
	call->each(call->arg, &link);
	return MNL_CB_OK;
}

int rtnl_links(void (*each)(void *arg, const struct rtnl_link *link), void *arg)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = request(buf, RTM_GETLINK, NLM_F_DUMP);
	struct links_call call = {each, arg};

	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	return talk_dump(h, on_link, &call);
}

struct addrs_call {
	void (*each)(void *arg, const struct addr *addr);
	void *arg;
};

/* IFA_LOCAL is the address, where there is one: on point-to-point links IFA_ADDRESS is the peer's. */
static int on_addr(const struct nlmsghdr *h, void *arg)
{
	const struct nlattr *a, *local = NULL, *address = NULL;
	struct addrs_call *call = arg;
	struct addr out;

	mnl_attr_for_each(a, h, sizeof(struct ifaddrmsg))
	{
		if (mnl_attr_get_type(a) == IFA_LOCAL)
			local = a;
		else if (mnl_attr_get_type(a) == IFA_ADDRESS)
			address = a;
	}
	if (!local)
		local = address;
	if (local && !addr_from_bytes(&out, mnl_attr_get_payload(local), mnl_attr_get_payload_len(local)))
		call->each(call->arg, &out);
	return MNL_CB_OK;
}

int rtnl_addrs(void (*each)(void *arg, const struct addr *addr), void *arg)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	struct addrs_call call = {each, arg};
	int e = 0;

	for (size_t i = 0; i < sizeof families && !e; i++) {
		char buf[REQUEST_BYTES];
		struct nlmsghdr *h = request(buf, RTM_GETADDR, NLM_F_DUMP);
		struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof *m);

		m->ifa_family = families[i];
		e = talk_dump(h, on_addr, &call);
		if (e == -EAFNOSUPPORT || e == -EOPNOTSUPP)
			e = 0;
	}
	return e;
}

/* --- filters -------------------------------------------------------------------------------------------- */

struct filters_call {
	void (*each)(void *arg, const struct rtnl_filter *f);
	void *arg;
};

static uint32_t bpf_id(const struct nlattr *options)
{
	const struct nlattr *a;

	mnl_attr_for_each_nested(a, options) if (mnl_attr_get_type(a) == TCA_BPF_ID &&
						 mnl_attr_get_payload_len(a) ==
							 sizeof(uint32_t)) return mnl_attr_get_u32(a);
	return 0;
}

static int on_filter(const struct nlmsghdr *h, void *arg)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(h);
	struct rtnl_filter f = {.priority = TC_H_MAJ(tc->tcm_info) >> 16, .handle = tc->tcm_handle};
	const struct nlattr *a, *options = NULL;
	struct filters_call *call = arg;
	bool bpf = false;

	if (!f.handle) /* what filters of one priority have in common */
		return MNL_CB_OK;
	mnl_attr_for_each(a, h, sizeof *tc)
	{
		if (mnl_attr_get_type(a) == TCA_KIND)
			bpf = mnl_attr_validate(a, MNL_TYPE_NUL_STRING) == 0 && !strcmp(mnl_attr_get_str(a), "bpf");
		else if (mnl_attr_get_type(a) == TCA_OPTIONS)
			options = a;
	}
	if (bpf && options)
		f.prog = bpf_id(options);
	call->each(call->arg, &f);
	return MNL_CB_OK;
}

int rtnl_filters(unsigned ifindex, bool egress, void (*each)(void *arg, const struct rtnl_filter *f), void *arg)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = request(buf, RTM_GETTFILTER, NLM_F_DUMP);
	struct tcmsg *tc = mnl_nlmsg_put_extra_header(h, sizeof *tc);
	struct filters_call call = {each, arg};

	tc->tcm_ifindex = ifindex;
	tc->tcm_parent = TC_H_MAKE(TC_H_CLSACT, egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS);
	mnl_attr_put_u32(h, TCA_CHAIN, 0); /* to others a filter of this one has to lead */
	return talk_dump(h, on_filter, &call);
}
