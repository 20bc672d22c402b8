/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Headers of IPv4 and IPv6 down to the ports. The only file of bpf/ in which the families differ. Everything is
 * read by bpf_skb_load_bytes(), so it works on packets whose headers are not in the linear part. What cannot be
 * told is PARSE_MALFORMED or PARSE_HEADERS, never "something else". */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer_abi.h"

enum {
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,
	IP_MORE_FRAGMENTS = 0x2000,
	IP_OFFSET = 0x1fff,

	TCP_FLAGS_BYTE = 13,
	TCP_FIN_ = 0x01,
	TCP_SYN_ = 0x02,
	TCP_RST_ = 0x04,
	TCP_ACK_ = 0x10,

	NEXT_HOPBYHOP = 0,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_AUTH = 51,
	NEXT_DESTOPTS = 60,
	NEXT_MOBILITY = 135,
	NEXT_HIP = 139,
	NEXT_SHIM6 = 140,
};

enum parsed {
	PARSE_OTHER, /* neither TCP nor UDP: not ours */
	PARSE_TCP,
	PARSE_UDP,
	PARSE_TCP_LATER, /* a fragment behind the one with the ports */
	PARSE_MALFORMED,
	PARSE_HEADERS,	/* more extension headers than we walk: TCP may hide behind them */
	PARSE_FRAGMENT, /* a fragment that hides, or could overwrite, flags: never let through */
};

struct packet {
	__u64 pod; /* whose it is; not read here */
	struct steer_addr src, dst;
	__u16 sport, dport; /* network order */
	__u8 family, flags;
	__u8 fragment; /* the first of several */
	__u8 routed;   /* IPv4 options or an IPv6 routing header: the destination may not be the last */
};

static __always_inline void tuple_of(const struct packet *p, struct steer_tuple *t)
{
	t->src = p->src;
	t->dst = p->dst;
	t->sport = p->sport;
	t->dport = p->dport;
	t->family = p->family;
}

struct cursor { /* the transport header */
	__u32 at;
	__u16 fragment; /* offset in units of 8 bytes */
	__u8 more;	/* fragments follow */
	__u8 protocol;
};

static __always_inline void addr_map4(struct steer_addr *a, __u32 net_order)
{
	a->w[0] = a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = net_order;
}

static __always_inline enum parsed parse_ipv4(struct __sk_buff *skb, __u32 at, struct packet *p, struct cursor *c)
{
	struct iphdr ip;
	__u16 fragment;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip) || ip.version != 4 || ip.ihl < 5)
		return PARSE_MALFORMED;
	p->family = FAMILY_IPV4;
	addr_map4(&p->src, ip.saddr);
	addr_map4(&p->dst, ip.daddr);
	p->routed = ip.ihl > 5;
	fragment = bpf_ntohs(ip.frag_off);
	c->at = at + ip.ihl * 4;
	c->fragment = fragment & IP_OFFSET;
	c->more = !!(fragment & IP_MORE_FRAGMENTS);
	c->protocol = ip.protocol;
	return PARSE_TCP;
}

static __always_inline int is_extension(__u8 next)
{
	const __u64 low = 1ull << NEXT_HOPBYHOP | 1ull << NEXT_ROUTING | 1ull << NEXT_FRAGMENT | 1ull << NEXT_AUTH |
			  1ull << NEXT_DESTOPTS;
	const __u64 high = 1ull << (NEXT_MOBILITY - 128) | 1ull << (NEXT_HIP - 128) | 1ull << (NEXT_SHIM6 - 128);

	/* Without a comparison for each, which the verifier would follow one by one. */
	return (next & 64 ? 0 : next & 128 ? high : low) >> (next & 63) & 1;
}

enum extension {
	EXTENSION_NONE, /* another header, or in a later fragment the middle of something */
	EXTENSION_CUT,
	EXTENSION_PAST,
};

/* Past an extension header, if there is one. */
__noinline enum extension parse_extension(struct __sk_buff *skb, struct packet *p, struct cursor *c)
{
	__u8 h[4];

	if (!p || !c)
		return EXTENSION_CUT; /* ruled out */
	if (!is_extension(c->protocol))
		return EXTENSION_NONE;
	if (bpf_skb_load_bytes(skb, c->at, h, sizeof h))
		return EXTENSION_CUT;
	if (c->protocol == NEXT_ROUTING && h[3])
		p->routed = 1;
	if (c->protocol == NEXT_FRAGMENT) {
		c->fragment = (h[2] << 8 | h[3]) >> 3;
		c->more = h[3] & 1;
	}
	c->at += c->protocol == NEXT_FRAGMENT ? 8 : c->protocol == NEXT_AUTH ? (h[1] + 2) * 4 : (h[1] + 1) * 8;
	c->protocol = h[0];
	return c->fragment ? EXTENSION_NONE : EXTENSION_PAST;
}

static __always_inline enum parsed parse_ipv6(struct __sk_buff *skb, __u32 at, struct packet *p, struct cursor *c)
{
	struct ipv6hdr ip;
	int i;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip) || ip.version != 6)
		return PARSE_MALFORMED;
	p->family = FAMILY_IPV6;
	__builtin_memcpy(&p->src, &ip.saddr, sizeof p->src);
	__builtin_memcpy(&p->dst, &ip.daddr, sizeof p->dst);
	c->at = at + sizeof ip;
	c->protocol = ip.nexthdr;
	for (i = 0; i < STEER_ABI_HEADERS; i++) {
		enum extension e = parse_extension(skb, p, c);

		if (e != EXTENSION_PAST)
			return e == EXTENSION_NONE ? PARSE_TCP : PARSE_MALFORMED;
	}
	return is_extension(c->protocol) ? PARSE_HEADERS : PARSE_TCP;
}

static __always_inline enum parsed parse_tcp(struct __sk_buff *skb, struct packet *p, const struct cursor *c)
{
	__u8 h[sizeof(struct tcphdr)];

	/* At offset 8 a fragment overwrites the flags of the first, as some stacks put them together. */
	if (c->fragment)
		return c->fragment == 1 ? PARSE_FRAGMENT : PARSE_TCP_LATER;
	p->fragment = c->more;
	if (bpf_skb_load_bytes(skb, c->at, h, sizeof h))
		return c->more ? PARSE_FRAGMENT : PARSE_MALFORMED;
	p->sport = *(__u16 *)&h[0];
	p->dport = *(__u16 *)&h[2];
	p->flags = h[TCP_FLAGS_BYTE];
	if (h[12] >> 4 < 5)
		return PARSE_MALFORMED;
	/* No stack sends a SYN in pieces. */
	return c->more && (p->flags & TCP_SYN_) ? PARSE_FRAGMENT : PARSE_TCP;
}

static __always_inline enum parsed parse_udp(struct __sk_buff *skb, struct packet *p, const struct cursor *c)
{
	__u16 ports[2];

	if (c->fragment)
		return PARSE_OTHER;
	p->fragment = c->more;
	/* Cut datagrams carry no query: the kernel drops them. */
	if (bpf_skb_load_bytes(skb, c->at, ports, sizeof ports))
		return PARSE_OTHER;
	p->sport = ports[0];
	p->dport = ports[1];
	return PARSE_UDP;
}

/* `at`: where the IP header is. Not inlined: the verifier looks at it once, and does not follow each way through the
 * headers to the end of each program, which made them take several times as long to load. */
__noinline enum parsed parse(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct cursor c = {};
	enum parsed r;

	if (!p)
		return PARSE_MALFORMED; /* no caller does that, but it has to be ruled out */
	if (skb->protocol == bpf_htons(ETH_P_IP))
		r = parse_ipv4(skb, at, p, &c);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		r = parse_ipv6(skb, at, p, &c);
	else
		return PARSE_OTHER;
	if (r != PARSE_TCP)
		return r;
	if (c.protocol == IPPROTO_TCP)
		return parse_tcp(skb, p, &c);
	if (c.protocol == IPPROTO_UDP)
		return parse_udp(skb, p, &c);
	return PARSE_OTHER;
}
