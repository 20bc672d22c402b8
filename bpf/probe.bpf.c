// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The kubelet's connection attempts, written down for steer_ingress of the pods: attached to the kubelet's cgroup,
 * and exact about it, since cgroups below may hold others. Lets every packet pass. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "steer_abi.h"
#include "maps.h"
#include "parse.h"

enum { ALLOW = 1 };

SEC("cgroup_skb/egress")
int probe_egress(struct __sk_buff *skb)
{
	__u32 first = 0;
	const struct steer_node *n = bpf_map_lookup_elem(&node, &first);
	struct packet p = {};
	struct steer_tuple key = {};
	__u64 now;

	if (!n || !n->kubelet_cgroup || n->kubelet_cgroup != bpf_skb_cgroup_id(skb))
		return ALLOW;
	if (parse(skb, 0, &p) != PARSE_TCP || (p.flags & (TCP_SYN_ | TCP_ACK_)) != TCP_SYN_)
		return ALLOW;
	tuple_of(&p, &key);
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&probes, &key, &now, BPF_ANY);
	return ALLOW;
}

char _license[] SEC("license") = "Dual BSD/GPL";
