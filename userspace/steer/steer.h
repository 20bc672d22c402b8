/* SPDX-License-Identifier: Apache-2.0 */
/* Steering of pods: what the keeper's node/ asks for, by BPF or by istio-cni's iptables rules. This folder is the
 * only one that knows BPF, libbpf or iptables. One thread (the keeper's loop); nothing here waits longer than
 * STEER_DEADLINE_MS. Functions return 0 or -errno, and write one line to `why` when they fail. */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "loop/loop.h"
#include "net/netns.h"

enum {
	STEER_WHY_MAX = 256,
	STEER_DEADLINE_MS = 5000,
	STEER_UID_MAX = 64,
	STEER_DEVICES_MAX = 32,
	STEER_ADDRS_MAX = 64,
	STEER_IFACES_MAX = 8,
	STEER_EXCLUDES_MAX = 16,
	STEER_PORTS_MAX = 16,
	STEER_NODE_ADDRS_MAX = 8,
};

enum steer_mode { STEER_BPF, STEER_IPTABLES };

/* The pod's sockets, in the order in which ZDS names them (AddWorkload field 100). */
enum steer_socket {
	STEER_TCP15001,
	STEER_TCP15006,
	STEER_TCP15008,
	STEER_TCP15053,
	STEER_UDP15053,
	STEER_RAW4,
	STEER_RAW6,
	STEER_SOCKETS,
};
struct steer_sockets {
	int fd[STEER_SOCKETS]; /* -1: not there (IPv6 off, DNS capture off) */
};
/* Creates what is missing (-1) in the namespace: marked, transparent, bound, listening, backlog SOCK_BACKLOG. -EBUSY:
 * another process does the same at this moment. */
int steer_sockets_open(struct steer_sockets *s, const struct netns_id *ns, int netns_fd, bool dns,
		       char why[STEER_WHY_MAX]);
void steer_sockets_close(struct steer_sockets *s);

struct steer_config { /* may change while a pod is steered; from annotations */
	bool dns_capture, bypass_inbound;
	char virtual_ifaces[STEER_IFACES_MAX][IFNAMSIZ]; /* traffic that arrives there is outbound */
	struct prefix exclude_outbound[STEER_EXCLUDES_MAX];
	uint16_t exclude_outbound_ports[STEER_EXCLUDES_MAX], exclude_inbound_ports[STEER_EXCLUDES_MAX]; /* 0 ends */
	unsigned n_exclude_outbound;
	/* Where the kubelet cannot be told apart: these addresses may reach these ports directly. */
	struct addr node_addrs[STEER_NODE_ADDRS_MAX];
	unsigned n_node_addrs;
	uint16_t probe_ports[STEER_PORTS_MAX]; /* 0 ends */
	bool reset_existing;		       /* end connections that exist at enrolment (istio-cni's behaviour) */
};

/* --- the node ------------------------------------------------------------------------------------------- */

struct steer; /* what the pods of this node share: the pin directory, agents' cgroups, the kubelet exemption */

/* How programs are attached to devices: AUTO tries TCX (Linux 6.6) and falls back to a clsact filter. */
enum steer_hook { STEER_HOOK_AUTO, STEER_HOOK_TCX, STEER_HOOK_CLSACT };

struct steer_options {
	const char *pin_dir;	    /* CULVERT_BPF_DIR; bpffs is mounted there when missing */
	enum steer_mode mode;	    /* for pods that do not say otherwise */
	const char *kubelet_cgroup; /* NULL: look for it in /proc; "": no exemption */
	const char *cgroup_root;    /* where cgroup2 is mounted; NULL: look for it */
	enum steer_hook hook;
};
struct steer_facts {	/* for status */
	bool mark_only; /* the host cannot tell cgroups apart: the agent's mark alone counts */
	bool tcx, kubelet_exempt;
	char kubelet_how[128];
};
int steer_open(struct steer **out, struct loop *l, const struct steer_options *o, char why[STEER_WHY_MAX]);
/* Leaves pods steered: pins outlive the process. */
void steer_close(struct steer *s);
void steer_facts(const struct steer *s, struct steer_facts *out);
/* A process of the agent (the keeper itself, each tunnel generation): its sockets' packets are the agent's. */
int steer_agent_add(struct steer *s, int pid, char why[STEER_WHY_MAX]);
/* Of pods that `known(arg, uid)` does not know: removes the pins of namespaces that are gone, and finishes un-enrolments
 * that did not end. What lives and was not leaving stays steered, with a warning. Returns how many went; `dying`, unless
 * NULL: how many are in namespaces to which nothing leads any more, but which the kernel still has: collect again. */
int steer_collect(struct steer *s, bool (*known)(void *arg, const char *uid), void *arg, unsigned *dying);

/* --- a pod ---------------------------------------------------------------------------------------------- */

struct steer_pod;

/* Steers the namespace, in this order: maps, rule, route, sysctl, lookup, ingress, egress. Adopts pins that
 * fit (same owner, ABI, program tag), replaces the others atomically. Half a failure is undone. The descriptors stay
 * the caller's; the listeners enter the SOCKMAP. */
int steer_attach(struct steer *s, struct steer_pod **out, const char *uid, enum steer_mode mode, int netns_fd,
		 const struct netns_id *ns, const struct steer_config *c, const struct steer_sockets *socks,
		 char why[STEER_WHY_MAX]);
int steer_configure(struct steer_pod *p, const struct steer_config *c, char why[STEER_WHY_MAX]);
/* Is everything still there that attaching made? 0; -ENOENT and what is missing; or another error. */
int steer_check(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX]);
/* The same, and puts back what is missing, egress last; connections that were made without the mesh meanwhile are reset. 0: it
 * was whole; 1: it was not, and is again, with what was missing in `why`; -errno: it is not. */
int steer_mend(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX]);
/* Is there reason for steer_mend() before its time? A few system calls. */
bool steer_suspect(const struct steer_pod *p);
/* After the listeners were made anew. */
int steer_set_sockets(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX]);
/* Un-enrols: no new captures from now on; captured connections may finish for `drain_ms`, the rest is reset; then
 * every trace goes. `done` is called once, on the loop; the pod is freed then. */
void steer_detach(struct steer_pod *p, unsigned drain_ms, void (*done)(void *arg, int err), void *arg);
/* Forgets the pod without touching the kernel's side (keeper shutdown). */
void steer_pod_free(struct steer_pod *p);

enum steer_counter_kind { STEER_DECISION, STEER_DROP };
struct steer_counter {
	const char *name; /* stable, for metrics and `culvertctl drops` */
	const char *help; /* what it means and what to do */
	enum steer_counter_kind kind;
	uint64_t value;
};
/* Fills up to `max`; returns how many there are. */
unsigned steer_counters(struct steer_pod *p, struct steer_counter *out, unsigned max);

struct steer_pod_status {
	enum steer_mode mode;
	bool adopted;
	unsigned n_devices;
	struct {
		char name[IFNAMSIZ];
		unsigned ifindex;
		bool late; /* appeared after enrolment */
		bool ethernet;
		bool attached;
	} device[STEER_DEVICES_MAX];
	unsigned n_addrs;
	struct addr addr[STEER_ADDRS_MAX];
	unsigned existing; /* connections that predate enrolment and are still direct */
};
void steer_pod_status(struct steer_pod *p, struct steer_pod_status *out);

/* Can this kernel do BPF steering? Tries it in a namespace of its own. 0, or -errno and what is missing. */
int steer_probe(char why[STEER_WHY_MAX]);
