/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the pod sends through a device: the agent's own packets pass, new connections are decided, captured ones are
 * turned round to lo, and so is DNS. */
#pragma once
#include "common.h"

/* The mark alone can be set by whoever has CAP_NET_RAW; the cgroup of the sending socket cannot. */
static __always_inline int is_agents(struct __sk_buff *skb, __u64 pod)
{
	const struct steer_node *n;
	__u32 key = 0;
	__u64 cgroup;

	if ((skb->mark & CULVERT_MARK_MASK) != CULVERT_MARK_AGENT)
		return 0;
	n = bpf_map_lookup_elem(&node, &key);
	if (n && n->mark_only)
		return 1;
	cgroup = bpf_skb_cgroup_id(skb);
	if (bpf_map_lookup_elem(&agents, &cgroup))
		return 1;
	count(pod, STEER_C_OUT_FALSE_MARK);
	return 0;
}

/* The packet enters again through lo, whole (GSO included). Its Ethernet destination becomes lo's own address, zeros:
 * otherwise the packet is somebody else's for IP. */
__noinline int turn_round(struct __sk_buff *skb, __u64 pod, __u32 header)
{
	struct ethhdr eth = {};

	make_local(skb);
	if (header == NO_HEADER) {
		eth.h_proto = skb->protocol;
		if (bpf_skb_change_head(skb, sizeof eth, 0) || bpf_skb_store_bytes(skb, 0, &eth, sizeof eth, 0))
			return drop(pod, STEER_C_DROP_OUT_REDIRECT);
	} else if (bpf_skb_store_bytes(skb, 0, eth.h_dest, sizeof eth.h_dest, 0)) {
		return drop(pod, STEER_C_DROP_OUT_REDIRECT);
	}
	return bpf_redirect(IFINDEX_LO, BPF_F_INGRESS);
}

/* Which counter says what becomes of a new connection; STEER_C_OUT_CAPTURED for capture. */
__noinline __u32 decide_out(const struct steer_conf *cf, const struct packet *p)
{
	struct steer_prefix key = {.len = STEER_PREFIX_POD + 128};

	if (!cf || !p)
		return STEER_C_OUT_CAPTURED; /* ruled out */
	key.pod[0] = (__u32)p->pod;
	key.pod[1] = (__u32)(p->pod >> 32);
	key.addr = p->dst;
	if (cf->flags & STEER_F_STOPPING)
		return STEER_C_OUT_STOPPING;
	if (addr_is_exempt(p->pod, &p->dst))
		return p->routed ? STEER_C_DROP_OUT_ROUTED : STEER_C_OUT_EXEMPT;
	if (port_listed(&cf->exclude_out, p->dport) ||
	    ((cf->flags & STEER_F_EXCLUDED) && bpf_map_lookup_elem(&excluded, &key)))
		return STEER_C_OUT_EXCLUDED;
	return STEER_C_OUT_CAPTURED;
}

static __always_inline void remember(struct bpf_sock *sk, __u32 flow)
{
	__u32 *f = bpf_sk_storage_get(&flows, sk, &flow, BPF_SK_STORAGE_GET_F_CREATE);

	if (f)
		*f = flow;
}

/* A SYN decides anew, whatever its socket did before. */
static __always_inline int out_syn(struct __sk_buff *skb, struct bpf_sock *sk, const struct packet *p, __u32 header)
{
	const struct steer_conf *cf = conf_get(p->pod);
	__u32 decision;

	if (!cf)
		return drop(p->pod, STEER_C_DROP_NO_CONFIGURATION);
	decision = decide_out(cf, p);
	if (decision == STEER_C_OUT_CAPTURED && p->family == FAMILY_IPV6 &&
	    !has_listener(p->pod, listener_of(cf, bpf_ntohs(p->dport))))
		return drop(p->pod, STEER_C_DROP_OUT_NO_LISTENER);
	count(p->pod, decision);
	if (decision == STEER_C_OUT_CAPTURED) {
		if (sk)
			remember(sk, STEER_FLOW_CAPTURED);
		return turn_round(skb, p->pod, header);
	}
	if (sk)
		bpf_sk_storage_delete(&flows, sk);
	return decision == STEER_C_DROP_OUT_ROUTED ? DROP : PASS;
}

/* No SYN and no memory: a reply to the agent's connection with a client's address, a RST or ACK that the kernel sends
 * without the app's socket, or a connection that is none of ours. */
static __always_inline int out_unknown(struct __sk_buff *skb, struct bpf_sock *sk, const struct packet *p, __u32 header)
{
	if (peer_state(skb, p)) {
		if (sk) {
			remember(sk, STEER_FLOW_CAPTURED);
			count(p->pod, STEER_C_OUT_JOINED);
		}
		return turn_round(skb, p->pod, header);
	}
	/* Earlier the agent's socket may still be on its way. */
	if (sk && sk->state == STATE_ESTABLISHED) {
		remember(sk, STEER_FLOW_DIRECT);
		count(p->pod, STEER_C_OUT_DIRECT);
	}
	return PASS;
}

static __always_inline int out_dns(struct __sk_buff *skb, const struct packet *p, __u32 header)
{
	const struct steer_conf *cf;

	if (p->dport != bpf_htons(53))
		return PASS;
	cf = conf_get(p->pod);
	if (!cf)
		return drop(p->pod, STEER_C_DROP_NO_CONFIGURATION);
	if (!(cf->flags & STEER_F_DNS) || decide_out(cf, p) != STEER_C_OUT_CAPTURED)
		return PASS;
	if (p->fragment)
		return drop(p->pod, STEER_C_DROP_OUT_DNS_FRAGMENT);
	if (!has_listener(p->pod, STEER_L_DNS_UDP))
		return drop(p->pod, STEER_C_DROP_OUT_NO_LISTENER);
	count(p->pod, STEER_C_OUT_DNS);
	return turn_round(skb, p->pod, header);
}

/* The app's TCP socket of this packet, if it is one that can hold a memory: not a listener (whose SYN-ACKs with
 * cookies carry it), not the kernel's own socket for RSTs. */
static __always_inline struct bpf_sock *stream_of(struct bpf_sock *sk)
{
	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->type != SOCKET_STREAM || sk->protocol != IPPROTO_TCP || sk->state == STATE_LISTEN)
		return NULL;
	return sk;
}

static __always_inline int egress(struct __sk_buff *skb, __u32 header)
{
	struct packet p = {.pod = pod_of(skb)};
	struct bpf_sock *sk;
	__u32 *flow = NULL;

	if (is_agents(skb, p.pod))
		return PASS;
	sk = stream_of(skb->sk);
	if (sk) {
		flow = bpf_sk_storage_get(&flows, sk, NULL, 0);
		/* A socket sends SYNs in this state only, so no header needs to be read in others. */
		if (flow && sk->state != STATE_SYN_SENT)
			return *flow == STEER_FLOW_CAPTURED ? turn_round(skb, p.pod, header) : PASS;
	}
	switch (parse(skb, header, &p)) {
	case PARSE_TCP:
		if ((p.flags & (TCP_SYN_ | TCP_ACK_)) == TCP_SYN_)
			return out_syn(skb, sk, &p, header);
		if (flow && *flow == STEER_FLOW_CAPTURED)
			return turn_round(skb, p.pod, header);
		return out_unknown(skb, sk, &p, header);
	case PARSE_UDP:
		return out_dns(skb, &p, header);
	case PARSE_TCP_LATER:
		/* Without a socket it is forwarded, and nobody knows whether its beginning was captured. */
		return sk ? PASS : drop(p.pod, STEER_C_DROP_OUT_FRAGMENT);
	case PARSE_MALFORMED:
		return drop(p.pod, STEER_C_DROP_OUT_MALFORMED);
	case PARSE_HEADERS:
		return drop(p.pod, STEER_C_DROP_OUT_HEADERS);
	case PARSE_FRAGMENT:
		return drop(p.pod, STEER_C_DROP_OUT_FRAGMENT);
	case PARSE_OTHER:
		break;
	}
	return PASS;
}
