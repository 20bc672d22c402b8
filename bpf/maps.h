/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* All maps, which are the node's: pinned once, and shared by the programs of all pods (MAPS_OF_POD) and, the first two,
 * the kubelet's. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "steer_abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_node);
} node SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, STEER_ABI_PROBES);
	__type(key, struct steer_tuple);
	__type(value, __u64);
} probes SEC(".maps");

#ifdef MAPS_OF_POD
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_ABI_AGENTS);
	__type(key, __u64);
	__type(value, __u32);
} agents SEC(".maps"); /* the node's as well, but the kubelet's program has no use for it */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_ABI_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct steer_conf);
} confs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_ABI_ALL_ADDRS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct steer_pod_addr);
	__type(value, __u32);
} addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, STEER_ABI_ALL_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct steer_prefix);
	__type(value, __u32);
} excluded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, STEER_ABI_PODS *STEER_LISTENERS);
	__type(key, struct steer_socket_key);
	__type(value, __u64);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, STEER_ABI_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct steer_counts);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_ABI_RETURNING);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct steer_returning_key);
	__type(value, struct steer_returning);
} returning SEC(".maps");

/* Not zero while a program of this CPU asks for a socket: bpf_skc_lookup_tcp() runs steer_lookup, which must not
 * count that question as a packet. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} asking SEC(".maps");

/* What the pods' own instructions go on to. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STEER_PROGRAMS);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");
#endif
