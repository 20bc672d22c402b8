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
	return object_conf(&p->object, out);
}

int pod_conf_store(struct steer_pod *p, const struct steer_conf *conf)
{
	uint32_t first = 0;
	int e = bpf_map_update_elem(p->object.conf, &first, conf, BPF_ANY);

	return e ? e : bpf_map_update_elem(p->steer->shared.map[MAP_CONFS], &p->ns.cookie, conf, BPF_ANY);
}

static void conf_fill(const struct steer_pod *p, struct steer_conf *out)
{
	const struct steer_config *c = &p->config;
	bool node_probes = p->steer->kubelet.wanted && c->n_node_addrs && c->probe_ports[0];
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

static struct steer_prefix to_steer_prefix(const struct steer_pod *p, const struct prefix *of)
{
	struct steer_prefix out = {.len = STEER_PREFIX_POD + (addr_is4(&of->ip) ? 96 : 0) + of->len,
				   .addr = to_steer_addr(&of->ip)};

	memcpy(out.pod, &p->ns.cookie, sizeof out.pod);
	return out;
}

/* Is it this pod's, and not to be? */
static bool is_stale(void *arg, const void *key)
{
	const struct steer_pod *p = arg;
	const struct steer_config *c = &p->config;
	const struct steer_prefix *is = key;

	if (memcmp(is->pod, &p->ns.cookie, sizeof is->pod) != 0)
		return false;
	for (unsigned i = 0; i < c->n_exclude_outbound && i < STEER_EXCLUDES_MAX; i++) {
		struct steer_prefix want = to_steer_prefix(p, &c->exclude_outbound[i]);

		if (!memcmp(&want, is, sizeof want))
			return false;
	}
	return true;
}

static int excluded_write(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int map = p->steer->shared.map[MAP_EXCLUDED], e = 0;

	shared_prune(map, is_stale, p);
	for (unsigned i = 0; i < p->config.n_exclude_outbound && i < STEER_EXCLUDES_MAX && !e; i++) {
		struct steer_prefix key = to_steer_prefix(p, &p->config.exclude_outbound[i]);
		uint32_t one = 1;

		e = bpf_map_update_elem(map, &key, &one, BPF_ANY);
	}
	return e ? failed(why, e, "cannot write the excluded destinations") : 0;
}

int pod_conf_write(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct steer_conf conf = {};
	int e = pod_conf_read(p, &conf);

	conf.abi = STEER_ABI_VERSION;
	conf.netns_cookie = p->ns.cookie;
	conf.owner = shared_owner(p->uid);
	conf_fill(p, &conf);
	if (!e)
		e = pod_conf_store(p, &conf);
	return e ? failed(why, e, "cannot write the configuration") : excluded_write(p, why);
}
