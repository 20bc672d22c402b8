/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the programs of all three hooks share: verdicts, counters, addresses that are never captured, questions about
 * sockets. */
#pragma once
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "ports.h"
#include "steer_abi.h"
#define MAPS_OF_POD
#include "maps.h"
#include "parse.h"

enum {
	IFINDEX_LO = 1,
	SOCKET_STREAM = 1, /* SOCK_STREAM */
	STATE_ESTABLISHED = 1,
	STATE_SYN_SENT = 2,
	STATE_TIME_WAIT = 6,
	STATE_LISTEN = 10,
	PASS = TC_ACT_UNSPEC,
	DROP = TC_ACT_SHOT,
	ETH_HEADER = 14,
	NO_HEADER = 0,
	NSEC = 1000000000,
};

/* The pod's own instructions have written it there. */
static __always_inline __u64 pod_of(const struct __sk_buff *skb)
{
	return (__u64)skb->cb[1] << 32 | skb->cb[0];
}

static __always_inline const struct steer_conf *conf_get(__u64 pod)
{
	return bpf_map_lookup_elem(&confs, &pod);
}

static __always_inline __u32 *asking_get(void)
{
	__u32 key = 0; /* on the stack: a constant would be a map of its own */

	return bpf_map_lookup_elem(&asking, &key);
}

/* Like parse() a function of its own for the verifier's sake, as the others that are not inlined. */
__noinline int count(__u64 pod, __u32 id)
{
	struct steer_counts *c = bpf_map_lookup_elem(&counters, &pod);
	__u64 at = id;

	asm volatile("" : "+r"(at)); /* the verifier must see that what is compared is what is used */
	if (c && at < STEER_COUNTERS)
		c->n[at] += 1;
	return 0;
}

static __always_inline int drop(__u64 pod, __u32 id)
{
	count(pod, id);
	return DROP;
}

/* --- addresses and ports ------------------------------------------------------------------------------- */

/* Here and below in one comparison each: the verifier follows every branch. */
static __always_inline int addr_equal(const struct steer_addr *a, const struct steer_addr *b)
{
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]));
}

static __always_inline int addr_is4(const struct steer_addr *a)
{
	return !(a->w[0] | a->w[1] | (a->w[2] ^ bpf_htonl(0xffff)));
}

static __always_inline int addr_is_pods(__u64 pod, const struct steer_addr *a)
{
	struct steer_pod_addr key = {.pod = pod, .addr = *a};

	return bpf_map_lookup_elem(&addrs, &key) != NULL;
}

/* Loopback or the pod's own: the agent has no part in it. */
__noinline int addr_is_self(__u64 pod, const struct steer_addr *a)
{
	if (!a)
		return 0; /* ruled out */
	if (addr_is4(a)) {
		if ((a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000))
			return 1;
	} else if (!a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == bpf_htonl(1)) {
		return 1;
	}
	return addr_is_pods(pod, a);
}

/* 169.254.7.127 and fd16:9254:7127:1337:ffff:ffff:ffff:ffff: what istio-cni's host rules make of the kubelet. */
static __always_inline int addr_is_probe(const struct steer_addr *a)
{
	if (addr_is4(a))
		return a->w[3] == bpf_htonl(0xa9fe077f);
	return !((a->w[0] ^ bpf_htonl(0xfd169254)) | (a->w[1] ^ bpf_htonl(0x71271337)) | ~a->w[2] | ~a->w[3]);
}

static __always_inline int addr_is_exempt(__u64 pod, const struct steer_addr *a)
{
	__u32 top = bpf_ntohl(a->w[3]) >> 24;

	if (addr_is4(a)) {
		if (top == 0 || (top >= 224 && top < 240) || a->w[3] == 0xffffffff)
			return 1;
	} else if ((a->w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) ||
		   (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000)) {
		return 1;
	}
	return addr_is_probe(a) || addr_is_self(pod, a);
}

__noinline int port_listed(const __u16 (*list)[STEER_ABI_PORTS], __u16 net_order)
{
	__u16 port = bpf_ntohs(net_order);
	int i;

	if (!list)
		return 0; /* ruled out */
	for (i = 0; i < STEER_ABI_PORTS; i++) {
		if (!(*list)[i])
			return 0;
		if ((*list)[i] == port)
			return 1;
	}
	return 0;
}

/* --- sockets ------------------------------------------------------------------------------------------- */

/* The state of the socket for which this packet would be if it came in, or 0. Listeners are no answer: the question
 * falls through to them, and to steer_lookup, for every packet. */
__noinline int peer_state(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 *busy = asking_get(), size;
	int state = 0;

	if (!p)
		return 0; /* ruled out */
	if (addr_is4(&p->src)) {
		t.ipv4.saddr = p->src.w[3];
		t.ipv4.daddr = p->dst.w[3];
		t.ipv4.sport = p->sport;
		t.ipv4.dport = p->dport;
		size = sizeof t.ipv4;
	} else {
		__builtin_memcpy(t.ipv6.saddr, &p->src, sizeof t.ipv6.saddr);
		__builtin_memcpy(t.ipv6.daddr, &p->dst, sizeof t.ipv6.daddr);
		t.ipv6.sport = p->sport;
		t.ipv6.dport = p->dport;
		size = sizeof t.ipv6;
	}
	if (busy)
		*busy = 1;
	sk = bpf_skc_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (busy)
		*busy = 0;
	if (sk) {
		state = sk->state;
		bpf_sk_release(sk);
	}
	return state == STATE_LISTEN ? 0 : state;
}

/* The policy rule delivers it here, whatever its destination. Bits above the mask are others'. */
static __always_inline void make_local(struct __sk_buff *skb)
{
	skb->mark = (skb->mark & ~CULVERT_MARK_MASK) | CULVERT_MARK_LOCAL;
}

/* Without a listener steer_lookup drops a packet, but IPv6 then answers a SYN with a RST, or a datagram with an
 * ICMP error, and the app would not try again. IPv4 has no route for such an answer. */
__noinline int has_listener(__u64 pod, __u32 which)
{
	struct steer_socket_key key = {.pod = pod, .which = which};
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &key);

	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

/* Which listener takes a new connection to this port. */
static __always_inline __u32 listener_of(const struct steer_conf *cf, __u16 port)
{
	return port == 53 && (cf->flags & STEER_F_DNS) ? STEER_L_DNS_TCP : STEER_L_OUTBOUND;
}
