// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Steering of one pod, in the order in which a packet meets the programs:
 *
 *   app -> steer_egress (device) -> lo -> steer_lookup -> the agent's listener
 *   wire -> steer_ingress (device) -> the agent's listener, or the app
 *
 * A packet is captured by turning it round to lo with a mark; the policy rule for that mark makes every address local
 * there, and steer_lookup picks the listener. Only a SYN begins a capture; what a socket was told then stays in its
 * storage. The agent's replies to the app travel over lo and meet none of this. Devices without an Ethernet header have
 * entry points of their own (_l3). A verdict of "pass" is TC_ACT_UNSPEC: programs of others have their say. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "egress.h"
#include "ingress.h"
#include "lookup.h"

SEC("tc")
int steer_egress(struct __sk_buff *skb)
{
	return egress(skb, ETH_HEADER);
}

SEC("tc")
int steer_egress_l3(struct __sk_buff *skb)
{
	return egress(skb, NO_HEADER);
}

SEC("tc")
int steer_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ETH_HEADER);
}

SEC("tc")
int steer_ingress_l3(struct __sk_buff *skb)
{
	return ingress(skb, NO_HEADER);
}

SEC("sk_lookup")
int steer_lookup(struct bpf_sk_lookup *ctx)
{
	return lookup(ctx);
}

char _license[] SEC("license") = "Dual BSD/GPL";
