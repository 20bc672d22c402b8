// SPDX-License-Identifier: Apache-2.0
/* A pod's configuration as the programs read it: map conf, excluded destinations. Both change while packets pass. */
#include <bpf/bpf.h>
#include <net/if.h>
#include <unistd.h>

#include "steer/steer_internal.h"

_Static_assert((int)STEER_EXCLUDES_MAX == (int)STEER_ABI_PORTS && (int)STEER_PORTS_MAX == (int)STEER_ABI_PORTS,
	       "ports");
_Static_assert((int)STEER_EXCLUDES_MAX == (int)STEER_ABI_PREFIXES, "prefixes");
_Static_assert((int)STEER_IFACES_MAX == (int)STEER_ABI_IFACES, "interfaces");
_Static_assert((int)STEER_NODE_ADDRS_MAX == (int)STEER_ABI_NODE_ADDRS, "node addresses");
_Static_assert((int)STEER_ADDRS_MAX == (int)STEER_ABI_ADDRS, "addresses");

struct steer_addr to_steer_addr(const struct addr *a)
{
	struct steer_addr out;

	memcpy(&out, a, sizeof out);
	return out;
}

int pod_conf_read(const struct steer_pod *p, struct steer_conf *out)
{
	uint32_t first = 0;

	if (p->object.map[MAP_CONF] < 0)
		return -ENOENT;
	/* Another version's, pinned: the kernel would write past `out`. */
	if (!map_has_size(p->object.map[MAP_CONF], sizeof *out))
		return -EINVAL;
	return bpf_map_lookup_elem(p->object.map[MAP_CONF], &first, out);
}

static void conf_fill(const struct steer_pod *p, struct steer_conf *out)
{
	const struct steer_config *c = &p->config;
	bool node_probes =
		p->steer->kubelet.wanted && !p->steer->kubelet.exempt && c->n_node_addrs && c->probe_ports[0];
	unsigned n = 0;

	out->flags = (c->dns_capture ? STEER_F_DNS : 0) | (c->bypass_inbound ? STEER_F_BYPASS_INBOUND : 0) |
		     (p->stopping ? STEER_F_STOPPING : 0) | (node_probes ? STEER_F_NODE_PROBES : 0) |
		     (c->n_exclude_outbound ? STEER_F_EXCLUDED : 0);
	memset(out->virtual_ifindex, 0, sizeof out->virtual_ifindex);
	for (unsigned i = 0; i < STEER_IFACES_MAX; i++) {
		unsigned ifindex = c->virtual_ifaces[i][0] ? if_nametoindex(c->virtual_ifaces[i]) : 0;

		if (ifindex)
			out->virtual_ifindex[n++] = ifindex;
	}
	memcpy(out->exclude_out, c->exclude_outbound_ports, sizeof out->exclude_out);
	memcpy(out->exclude_in, c->exclude_inbound_ports, sizeof out->exclude_in);
	memcpy(out->probe_port, c->probe_ports, sizeof out->probe_port);
	memset(out->node_addr, 0, sizeof out->node_addr);
	for (unsigned i = 0; i < c->n_node_addrs && i < STEER_NODE_ADDRS_MAX; i++)
		out->node_addr[i] = to_steer_addr(&c->node_addrs[i]);
}

static struct steer_prefix to_steer_prefix(const struct prefix *p)
{
	return (struct steer_prefix){(addr_is4(&p->ip) ? 96 : 0) + p->len, to_steer_addr(&p->ip)};
}

static bool wanted(const struct steer_config *c, const struct steer_prefix *key)
{
	for (unsigned i = 0; i < c->n_exclude_outbound && i < STEER_EXCLUDES_MAX; i++) {
		struct steer_prefix want = to_steer_prefix(&c->exclude_outbound[i]);

		if (!memcmp(&want, key, sizeof want))
			return true;
	}
	return false;
}

/* First what goes: the map is no larger than the list. */
static int excluded_write(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int map = p->object.map[MAP_EXCLUDED], e = 0;
	struct steer_prefix key, stale[STEER_ABI_PREFIXES];
	void *at = NULL;
	unsigned n = 0;

	while (n < STEER_ABI_PREFIXES && bpf_map_get_next_key(map, at, &key) == 0) {
		if (!wanted(&p->config, &key))
			stale[n++] = key;
		at = &key;
	}
	while (n)
		bpf_map_delete_elem(map, &stale[--n]);
	for (unsigned i = 0; i < p->config.n_exclude_outbound && i < STEER_EXCLUDES_MAX && !e; i++) {
		uint32_t one = 1;

		key = to_steer_prefix(&p->config.exclude_outbound[i]);
		e = bpf_map_update_elem(map, &key, &one, BPF_ANY);
	}
	return e ? failed(why, e, "cannot write the excluded destinations") : 0;
}

int pod_conf_write(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct steer_conf conf = {};
	uint32_t first = 0;
	int e = pod_conf_read(p, &conf);

	conf.abi = STEER_ABI_VERSION;
	conf.netns_cookie = p->ns.cookie;
	conf_fill(p, &conf);
	if (!e)
		e = bpf_map_update_elem(p->object.map[MAP_CONF], &first, &conf, BPF_ANY);
	return e ? failed(why, e, "cannot write the configuration") : excluded_write(p, why);
}
