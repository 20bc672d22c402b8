/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What comes in through a device: new connections go to the agent's listener, except those of the kubelet and what
 * annotations exempt. */
#pragma once
#include "common.h"

__noinline int assign(struct __sk_buff *skb, __u64 pod, __u32 listener)
{
	struct steer_socket_key key = {.pod = pod, .which = listener};
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &key);
	long refused;

	/* Nothing to the app around the agent: the peer tries again. */
	if (!sk)
		return drop(pod, STEER_C_DROP_IN_NO_LISTENER);
	refused = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return refused ? drop(pod, STEER_C_DROP_IN_ASSIGN) : PASS;
}

static long sweep_one(void *map, const struct steer_returning_key *key, const struct steer_returning *value, __u64 *now)
{
	if (*now - value->when > (__u64)STEER_RETURNING_SECONDS * NSEC)
		bpf_map_delete_elem(map, key);
	return 0;
}

/* For a SYN whose tuple is in TIME_WAIT: a listener that is assigned here would meet the old socket in the hash and
 * lose. The kernel's TIME_WAIT code ends that one, then asks for a listener. */
__noinline int assign_later(const struct packet *p, __u32 listener)
{
	struct steer_returning value = {.when = bpf_ktime_get_ns(), .listener = listener};
	struct steer_returning_key key = {};
	__u64 now = value.when;

	if (!p)
		return DROP; /* ruled out */
	if (!has_listener(p->pod, listener))
		return drop(p->pod, STEER_C_DROP_IN_NO_LISTENER);
	key.pod = p->pod;
	tuple_of(p, &key.tuple);
	if (!bpf_map_update_elem(&returning, &key, &value, BPF_ANY))
		return PASS;
	bpf_for_each_map_elem(&returning, sweep_one, &now, 0);
	return bpf_map_update_elem(&returning, &key, &value, BPF_ANY) ? drop(p->pod, STEER_C_DROP_IN_ASSIGN) : PASS;
}

__noinline int is_virtual(const struct steer_conf *cf, __u32 ifindex)
{
	int i;

	if (!cf)
		return 0; /* ruled out */
	for (i = 0; i < STEER_ABI_IFACES; i++) {
		if (!cf->virtual_ifindex[i])
			return 0;
		if (cf->virtual_ifindex[i] == ifindex)
			return 1;
	}
	return 0;
}

static __always_inline int is_kubelets(const struct packet *p)
{
	struct steer_tuple key = {};
	const __u64 *when;

	tuple_of(p, &key);
	when = bpf_map_lookup_elem(&probes, &key);

	return when && bpf_ktime_get_ns() - *when < (__u64)STEER_PROBE_SECONDS * NSEC;
}

/* The node is asked at each: its kubelet comes and goes while pods' configurations stay. */
static __always_inline int is_node_probe(const struct steer_conf *cf, const struct packet *p)
{
	const struct steer_node *n;
	__u32 key = 0;
	int i;

	if (!(cf->flags & STEER_F_NODE_PROBES) || !port_listed(&cf->probe_port, p->dport))
		return 0;
	n = bpf_map_lookup_elem(&node, &key);
	if (!n || n->kubelet_cgroup)
		return 0;
	for (i = 0; i < STEER_ABI_NODE_ADDRS; i++) {
		if (!(cf->node_addr[i].w[2] | cf->node_addr[i].w[3]))
			return 0;
		if (addr_equal(&cf->node_addr[i], &p->src))
			return 1;
	}
	return 0;
}

/* Which counter says what becomes of a new connection; STEER_C_IN_CAPTURED for capture. */
__noinline __u32 decide_in(const struct steer_conf *cf, const struct packet *p)
{
	if (!cf || !p)
		return STEER_C_IN_CAPTURED; /* ruled out */
	if (cf->flags & (STEER_F_STOPPING | STEER_F_BYPASS_INBOUND))
		return STEER_C_IN_BYPASS;
	if (port_listed(&cf->exclude_in, p->dport))
		return STEER_C_IN_EXCLUDED;
	if (addr_is_probe(&p->src) || is_node_probe(cf, p))
		return STEER_C_IN_PROBE_ADDR;
	if (is_kubelets(p))
		return STEER_C_IN_KUBELET;
	return STEER_C_IN_CAPTURED;
}

/* What a guest or bridge behind a virtual interface sends is the pod's outbound traffic. The mark makes its
 * destination local for this packet. */
static __always_inline int in_virtual(struct __sk_buff *skb, const struct packet *p, int syn, int state)
{
	if (!state || (syn && state == STATE_TIME_WAIT)) {
		if (!syn && (p->flags & (TCP_SYN_ | TCP_RST_ | TCP_ACK_)) != TCP_ACK_)
			return PASS; /* nothing begins with it */
		if (p->fragment)
			return drop(p->pod, STEER_C_DROP_IN_FRAGMENT);
		count(p->pod, syn ? STEER_C_IN_VIRTUAL : STEER_C_IN_COOKIE);
		make_local(skb);
		return state ? assign_later(p, STEER_L_OUTBOUND) : assign(skb, p->pod, STEER_L_OUTBOUND);
	}
	make_local(skb);
	return PASS;
}

/* A SYN, or an ACK without a socket, for the pod. A bare ACK may end a handshake with a SYN cookie, of which only the
 * listener knows: without this the app's own listener would take it. */
static __always_inline int in_new(struct __sk_buff *skb, const struct steer_conf *cf, const struct packet *p, int syn,
				  int state)
{
	__u32 decision = decide_in(cf, p);

	if (decision != STEER_C_IN_CAPTURED) {
		if (syn)
			count(p->pod, decision);
		return PASS;
	}
	if (p->fragment)
		return drop(p->pod, STEER_C_DROP_IN_FRAGMENT);
	count(p->pod, syn ? STEER_C_IN_CAPTURED : STEER_C_IN_COOKIE);
	return state ? assign_later(p, STEER_L_INBOUND) : assign(skb, p->pod, STEER_L_INBOUND);
}

/* Would the kernel keep it here, rather than forward it? */
static __always_inline int is_local_route(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup f = {.family = p->family, .ifindex = skb->ifindex, .l4_protocol = IPPROTO_TCP};
	long r;

	if (p->family == FAMILY_IPV4) {
		f.ipv4_src = p->src.w[3];
		f.ipv4_dst = p->dst.w[3];
	} else {
		__builtin_memcpy(f.ipv6_src, &p->src, sizeof f.ipv6_src);
		__builtin_memcpy(f.ipv6_dst, &p->dst, sizeof f.ipv6_dst);
	}
	r = bpf_fib_lookup(skb, &f, sizeof f, 0);
	return r == BPF_FIB_LKUP_RET_NOT_FWDED || r == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* Not for an address that the map has. If egress captured its connection, it is for the agent's socket, and IP does
 * not forward what has a socket; a source that is the pod's own is a lie, for which IPv6 has no martian check. A
 * SYN for a local address that is new, or one too many, waits: answered by steer_lookup it would be refused. */
static __always_inline int in_forwarded(struct __sk_buff *skb, const struct packet *p, int syn)
{
	if (addr_is_pods(p->pod, &p->src))
		return PASS;
	if (peer_state(skb, p))
		make_local(skb);
	else if (syn && is_local_route(skb, p))
		return drop(p->pod, STEER_C_DROP_IN_UNKNOWN);
	return PASS;
}

static __always_inline int in_tcp(struct __sk_buff *skb, const struct packet *p)
{
	const struct steer_conf *cf = conf_get(p->pod);
	int syn = (p->flags & (TCP_SYN_ | TCP_ACK_ | TCP_RST_)) == TCP_SYN_, state;

	if (!cf)
		return drop(p->pod, STEER_C_DROP_NO_CONFIGURATION);
	if (is_virtual(cf, skb->ifindex) && !(cf->flags & STEER_F_STOPPING))
		return in_virtual(skb, p, syn, peer_state(skb, p));
	if (!addr_is_pods(p->pod, &p->dst))
		return in_forwarded(skb, p, syn);
	/* SYN-ACKs and RSTs begin nothing, nor does a segment without ACK. */
	if (!syn && (p->flags & (TCP_SYN_ | TCP_RST_ | TCP_ACK_)) != TCP_ACK_)
		return PASS;
	/* A plain listener; without it the kernel would refuse, and the peer not try again. */
	if (p->dport == bpf_htons(PORT_HBONE))
		return syn && !has_listener(p->pod, STEER_L_HBONE) ? drop(p->pod, STEER_C_DROP_IN_NO_HBONE) : PASS;
	state = peer_state(skb, p);
	if (!state || (syn && state == STATE_TIME_WAIT))
		return in_new(skb, cf, p, syn, state);
	if (syn)
		count(p->pod, STEER_C_IN_LIVE);
	return PASS;
}

static __always_inline int ingress(struct __sk_buff *skb, __u32 header)
{
	struct packet p = {.pod = pod_of(skb)};

	switch (parse(skb, header, &p)) {
	case PARSE_TCP:
		return in_tcp(skb, &p);
	case PARSE_TCP_LATER: {
		const struct steer_conf *cf = conf_get(p.pod);

		/* Its first part was made local, this one would be forwarded. */
		return cf && is_virtual(cf, skb->ifindex) ? drop(p.pod, STEER_C_DROP_IN_FRAGMENT) : PASS;
	}
	case PARSE_MALFORMED:
		return drop(p.pod, STEER_C_DROP_IN_MALFORMED);
	case PARSE_HEADERS:
		return drop(p.pod, STEER_C_DROP_IN_HEADERS);
	case PARSE_FRAGMENT:
		return drop(p.pod, STEER_C_DROP_IN_FRAGMENT);
	case PARSE_UDP:
	case PARSE_OTHER:
		break;
	}
	return PASS;
}
