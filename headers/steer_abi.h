/* SPDX-License-Identifier: Apache-2.0 */
/* What the BPF programs of bpf/ and userspace/steer/ share: configuration, map keys and values, counters. Included
 * by both sides, before the skeletons. A change that an older program or keeper would misread takes a new
 * STEER_ABI_VERSION: pins with another number are replaced, not adopted. Addresses are 16 bytes in network order,
 * IPv4 as ::ffff:a.b.c.d. */
#pragma once
#include <linux/types.h>

#define STEER_ABI_VERSION 2u

enum {
	STEER_ABI_PODS = 4096,	     /* of the node */
	STEER_ABI_PORTS = 16,	     /* each list of ports; 0 ends it */
	STEER_ABI_IFACES = 8,	     /* virtual interfaces; 0 ends the list */
	STEER_ABI_NODE_ADDRS = 8,    /* addresses of the node; all zero ends the list */
	STEER_ABI_ADDRS = 64,	     /* a pod's own addresses, */
	STEER_ABI_ALL_ADDRS = 16384, /* and those of all pods */
	STEER_ABI_PREFIXES = 16,     /* a pod's excluded destinations, */
	STEER_ABI_ALL_PREFIXES = 16384,
	STEER_ABI_AGENTS = 64,	    /* cgroups of the agent */
	STEER_ABI_PROBES = 4096,    /* kubelet's latest connection attempts */
	STEER_ABI_EXISTING = 4096,  /* connections that were there at enrolment */
	STEER_ABI_HEADERS = 8,	    /* IPv6 extension headers that are walked */
	STEER_ABI_RETURNING = 4096, /* SYNs between ingress and the kernel's TIME_WAIT code */
	STEER_PROBE_SECONDS = 60,   /* how long an attempt of the kubelet is remembered */
	STEER_RETURNING_SECONDS = 1,
};

struct steer_addr {
	__u32 w[4];
};

/* A TCP connection, as its first packet says. */
struct steer_tuple {
	struct steer_addr src, dst;
	__u16 sport, dport; /* network order */
	__u32 family;	    /* AF_INET or AF_INET6 as on the wire */
};

/* --- pods ----------------------------------------------------------------------------------------------- */

/* One set of programs on devices serves all pods. Which pod's packet it is they learn from what is attached in the pod: a
 * few instructions that name it, in the first two words of skb->cb, and go on to the program of the node (map "programs").
 * So every key begins with the pod: SO_NETNS_COOKIE of its namespace, which is never used again. Only userspace and the
 * programs write these maps; what a pod sends reaches no key but its own. */
enum steer_program {
	STEER_P_EGRESS,
	STEER_P_EGRESS_L3,
	STEER_P_INGRESS,
	STEER_P_INGRESS_L3,
	STEER_PROGRAMS,
};

/* In the code of steer_lookup, which each pod has for itself, this stands for the pod: it has no skb. */
#define STEER_POD_PLACE 0x706c61636530316cull

enum steer_flags {
	STEER_F_DNS = 1 << 0,		 /* port 53 goes to PORT_DNS */
	STEER_F_BYPASS_INBOUND = 1 << 1, /* plaintext from outside goes to the app */
	STEER_F_STOPPING = 1 << 2,	 /* un-enrolment: no new captures */
	STEER_F_NODE_PROBES = 1 << 3,	 /* node_addr may dial probe_port while the node has no kubelet_cgroup */
	STEER_F_EXCLUDED = 1 << 4,	 /* map "excluded" is not empty */
};

/* Map "confs": pod -> this. Pinned for each pod as well, as map "conf" with one element, for userspace alone. Ports are
 * in host order. */
struct steer_conf {
	__u32 abi;
	__u32 flags;
	__u64 netns_cookie; /* the pod */
	__u64 owner;	    /* by whose UID it is steered, for userspace: who forgets it must be the same */
	__u32 virtual_ifindex[STEER_ABI_IFACES];
	__u16 exclude_out[STEER_ABI_PORTS];
	__u16 exclude_in[STEER_ABI_PORTS];
	__u16 probe_port[STEER_ABI_PORTS];
	struct steer_addr node_addr[STEER_ABI_NODE_ADDRS];
	/* For userspace only: what un-enrolment puts back. */
	__u32 old_accept_local;
	__u32 state_known; /* old_accept_local is valid */
};

/* Map "addrs": the pods' own addresses. */
struct steer_pod_addr {
	__u64 pod;
	struct steer_addr addr;
};

/* Map "excluded": longest prefix match on destinations that stay direct. */
struct steer_prefix {
	__u32 len; /* bits: STEER_PREFIX_POD, and those of the 128 */
	__u32 pod[2];
	struct steer_addr addr;
};
enum { STEER_PREFIX_POD = 64 };

/* Map "listeners": a SOCKHASH. A missing one means: drop. */
struct steer_socket_key {
	__u64 pod;
	__u32 which; /* enum steer_listener */
	__u32 unused;
};

enum steer_listener {
	STEER_L_OUTBOUND,
	STEER_L_INBOUND,
	STEER_L_DNS_TCP,
	STEER_L_DNS_UDP,
	STEER_L_HBONE, /* nothing is assigned to it: whether it is there counts */
	STEER_LISTENERS,
};

/* Map "flows": in the storage of the app's sockets. */
enum steer_flow {
	STEER_FLOW_CAPTURED = 1, /* its peer is the agent: every packet goes to lo */
	STEER_FLOW_DIRECT = 2,	 /* established, and no agent's socket is its peer */
};

/* Map "returning": a SYN whose tuple is in TIME_WAIT -> where it goes. The kernel wants to end the old socket
 * before it asks for a listener: steer_ingress lets the SYN pass, and steer_lookup finds it here. Nothing is
 * evicted: a SYN that was forgotten would reach the app. Those that the kernel answered otherwise stay until the
 * map is full, and are swept then. */
struct steer_returning_key {
	__u64 pod;
	struct steer_tuple tuple;
};
struct steer_returning {
	__u64 when; /* nanoseconds of CLOCK_MONOTONIC */
	__u32 listener, unused;
};

/* --- per node ------------------------------------------------------------------------------------------- */

/* Map "node", one element. */
struct steer_node {
	__u32 abi;
	__u32 mark_only;      /* cgroups cannot be told apart here */
	__u64 kubelet_cgroup; /* 0: none, the kubelet cannot be told apart */
};

/* Map "agents": cgroup id -> a process id of it, with the highest bit for a keeper's: by it the keeper sees whether it is
 * still needed.
 * Map "probes": attempt of the kubelet -> nanoseconds of CLOCK_MONOTONIC. */

/* --- counters ------------------------------------------------------------------------------------------- */

/* X(NAME, KIND, HELP): the name, in lower case, is what operators see. DECISION counts what happened to a connection
 * or datagram, DROP counts packets that ended here. */
#define STEER_COUNTERS_OF(X)                                                                                       \
	X(OUT_CAPTURED, DECISION, "connections of the app that were given to the agent")                           \
	X(OUT_EXEMPT, DECISION, "connections to addresses that are never captured")                                \
	X(OUT_EXCLUDED, DECISION, "connections excluded by the pod's annotations")                                 \
	X(OUT_STOPPING, DECISION, "connections left direct because the pod is being un-enrolled")                  \
	X(OUT_JOINED, DECISION, "sockets of the app recognised as the agent's peers (replies, late packets)")      \
	X(OUT_DIRECT, DECISION,                                                                                    \
	  "established connections without an agent behind them: exempt, or older than enrolment")                 \
	X(OUT_FALSE_MARK, DECISION, "packets with the agent's mark from another cgroup, treated as the app's")     \
	X(OUT_DNS, DECISION, "DNS datagrams that were given to the agent")                                         \
	X(IN_CAPTURED, DECISION, "connections from outside that were given to the agent")                          \
	X(IN_COOKIE, DECISION, "ACKs without a socket given to the agent's listener (SYN cookies)")                \
	X(IN_LIVE, DECISION, "SYNs for connections that exist already, left to the kernel")                        \
	X(IN_KUBELET, DECISION, "connections of the kubelet, direct to the app")                                   \
	X(IN_PROBE_ADDR, DECISION, "connections from a probe address or a node's address to a probe port, direct") \
	X(IN_EXCLUDED, DECISION, "connections to ports excluded by the pod's annotations, direct")                 \
	X(IN_BYPASS, DECISION, "connections direct to the app: inbound capture is off or ends")                    \
	X(IN_VIRTUAL, DECISION, "connections from a virtual interface, given to the agent as outbound")            \
	X(DROP_OUT_MALFORMED, DROP, "outbound: TCP headers that are cut or contradict themselves")                 \
	X(DROP_OUT_HEADERS, DROP, "outbound: more than 8 IPv6 extension headers")                                  \
	X(DROP_OUT_FRAGMENT, DROP, "outbound: fragments that hide a SYN, flags or ports")                          \
	X(DROP_OUT_DNS_FRAGMENT, DROP, "outbound: fragmented DNS queries while DNS is captured")                   \
	X(DROP_OUT_ROUTED, DROP, "outbound: source-routed connections to an exempt address")                       \
	X(DROP_OUT_NO_LISTENER, DROP, "outbound: no listener, the tunnel is not there; the app tries again")       \
	X(DROP_OUT_REDIRECT, DROP, "outbound: packets that could not be turned round to lo (no memory)")           \
	X(DROP_IN_MALFORMED, DROP, "inbound: TCP headers that are cut or contradict themselves")                   \
	X(DROP_IN_HEADERS, DROP, "inbound: more than 8 IPv6 extension headers")                                    \
	X(DROP_IN_FRAGMENT, DROP, "inbound: fragments that hide a SYN, flags or ports")                            \
	X(DROP_IN_NO_LISTENER, DROP, "inbound: no listener, the tunnel is not there; the peer tries again")        \
	X(DROP_IN_NO_HBONE, DROP, "inbound HBONE: no listener, the tunnel is not there; the peer tries again")     \
	X(DROP_IN_ASSIGN, DROP, "inbound: the kernel refused to give the packet to the agent's listener")          \
	X(DROP_IN_UNKNOWN, DROP, "inbound: for a local address that is not known as the pod's (yet)")              \
	X(DROP_NO_CONFIGURATION, DROP, "either way: the configuration cannot be read, which no kernel should do")  \
	X(DROP_LOOKUP_NO_LISTENER, DROP, "of a captured connection whose agent is gone, with no other there")      \
	X(DROP_LOOKUP_ASSIGN, DROP, "captured, but the kernel refused the agent's listener")                       \
	X(DROP_LOOKUP_UNKNOWN, DROP, "for a local address that is not known as the pod's (yet)")

#define STEER_COUNTER_ID(name, kind, help) STEER_C_##name,
enum steer_counter_id { STEER_COUNTERS_OF(STEER_COUNTER_ID) STEER_COUNTERS };
#undef STEER_COUNTER_ID

/* Map "counters": pod -> this, for each processor. */
struct steer_counts {
	__u64 n[STEER_COUNTERS];
};

_Static_assert(sizeof(struct steer_addr) == 16, "address");
_Static_assert(sizeof(struct steer_prefix) == 28, "prefix");
_Static_assert(sizeof(struct steer_pod_addr) == 24, "address of a pod");
_Static_assert(sizeof(struct steer_socket_key) == 16, "listener");
_Static_assert(sizeof(struct steer_returning_key) == 48, "returning");
_Static_assert(sizeof(struct steer_tuple) == 40, "tuple");
_Static_assert(sizeof(struct steer_node) == 16, "node");
_Static_assert(sizeof(struct steer_conf) == 24 + 32 + 3 * 32 + 128 + 8, "conf");
