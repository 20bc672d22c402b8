/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which listener takes what is local and has no connection yet. */
#pragma once
#include "common.h"

static __always_inline int lookup_drop(__u64 pod, __u32 id)
{
	__u32 *busy = asking_get();

	if (!busy || !*busy)
		count(pod, id);
	return SK_DROP;
}

/* All fields are read before the family is looked at: the compiler would fold the two branches into one load
 * through a pointer, which the verifier does not take for the context. */
static __always_inline void lookup_tuple(const volatile struct bpf_sk_lookup *ctx, struct steer_tuple *t)
{
	__u32 dst4 = ctx->local_ip4, src4 = ctx->remote_ip4;

	t->dst.w[0] = ctx->local_ip6[0];
	t->dst.w[1] = ctx->local_ip6[1];
	t->dst.w[2] = ctx->local_ip6[2];
	t->dst.w[3] = ctx->local_ip6[3];
	t->src.w[0] = ctx->remote_ip6[0];
	t->src.w[1] = ctx->remote_ip6[1];
	t->src.w[2] = ctx->remote_ip6[2];
	t->src.w[3] = ctx->remote_ip6[3];
	t->family = ctx->family;
	if (t->family == FAMILY_IPV4) {
		addr_map4(&t->dst, dst4);
		addr_map4(&t->src, src4);
	}
	t->sport = ctx->remote_port;
	t->dport = bpf_htons(ctx->local_port);
}

/* The listener that assign_later() chose, or STEER_LISTENERS. */
static __always_inline __u32 returning_to(const struct steer_returning_key *key)
{
	const struct steer_returning *r = bpf_map_lookup_elem(&returning, key);
	__u32 listener = STEER_LISTENERS;

	if (r && bpf_ktime_get_ns() - r->when < (__u64)STEER_RETURNING_SECONDS * NSEC)
		listener = r->listener;
	if (r)
		bpf_map_delete_elem(&returning, key);
	return listener;
}

/* Runs for what is local and has no connection. It decides by the destination: for the pod's traffic to itself the
 * device given here is not lo but the one that has the address. */
static __always_inline __u64 pod_here(void)
{
	__u64 pod;

	asm volatile("%0 = %1 ll" : "=r"(pod) : "i"(STEER_POD_PLACE));
	return pod;
}

static __always_inline int lookup(struct bpf_sk_lookup *ctx)
{
	__u64 pod = pod_here();
	const struct steer_conf *cf = conf_get(pod);
	struct steer_returning_key key = {.pod = pod};
	struct steer_socket_key listener = {.pod = pod};
	struct steer_tuple *t = &key.tuple;
	struct bpf_sock *sk;
	__u32 which;
	long refused;

	if (!cf)
		return lookup_drop(pod, STEER_C_DROP_NO_CONFIGURATION);
	lookup_tuple(ctx, t);
	if (ctx->protocol == IPPROTO_UDP) {
		/* Of UDP only DNS is ever turned round; the rest may be multicast. */
		if (ctx->local_port != 53 || ctx->ingress_ifindex != IFINDEX_LO || addr_is_exempt(pod, &t->dst))
			return SK_PASS;
		which = STEER_L_DNS_UDP;
	} else if (ctx->ingress_ifindex == IFINDEX_LO && !addr_is_self(pod, &t->dst)) {
		which = listener_of(cf, ctx->local_port); /* turned round */
	} else {
		which = returning_to(&key);
		if (which == STEER_LISTENERS && addr_is_self(pod, &t->dst))
			return SK_PASS;
		/* A local address that the map does not have: new, or one too many. As inbound traffic it would
		 * escape policy. */
		if (which == STEER_LISTENERS)
			return lookup_drop(pod, STEER_C_DROP_LOOKUP_UNKNOWN);
	}
	listener.which = which;
	sk = bpf_map_lookup_elem(&listeners, &listener);
	if (!sk)
		return lookup_drop(pod, STEER_C_DROP_LOOKUP_NO_LISTENER);
	refused = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return refused ? lookup_drop(pod, STEER_C_DROP_LOOKUP_ASSIGN) : SK_PASS;
}
