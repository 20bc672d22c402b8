/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of steer/ share: the node, a pod, its devices and its BPF objects. */
#pragma once
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/list.h"
#include "ports.h"
#include "steer/pins.h"
#include "steer/steer.h"
#include "steer_abi.h"

#define STEER_LOG "steer"

enum {
	STEER_TABLE = 1337,	    /* routing table; istio-cni removes what is in its own, 100 */
	STEER_PRIORITY = 9,	    /* of the policy rule: before those that CNIs make */
	STEER_FILTER_PRIORITY = 1,  /* of the clsact filters: the first; with */
	STEER_FILTER_HANDLE = 1337, /* or one of the next */
	STEER_DRAIN_TICK_MS = 50,
	STEER_DRAIN_QUIET = 4,	/* ticks in a row without anything to wait for: bytes may be in the agent's memory */
	STEER_RETRY_MS = 2000,	/* after devices or addresses could not be followed */
	STEER_SETTLE_MS = 1000, /* from the first filter that is to become a link to the first that does, */
	STEER_SETTLE_STEP_MS = 100, /* and from that to the next: each holds up the loop, and rtnetlink */
};

/* Writes the line and the error's text; returns `e`. */
static inline int __attribute__((format(printf, 3, 4))) failed(char why[STEER_WHY_MAX], int e, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(why, STEER_WHY_MAX, fmt, ap);
	va_end(ap);
	if (n >= 0 && n < STEER_WHY_MAX)
		snprintf(why + n, STEER_WHY_MAX - n, ": %s", strerror(-e));
	return e;
}

/* --- maps and programs as the kernel takes them (template.c) ---------------------------------------------- */

enum steer_prog { PROG_EGRESS, PROG_EGRESS_L3, PROG_INGRESS, PROG_INGRESS_L3, PROG_LOOKUP, PROGS };
enum node_map {
	MAP_NODE,
	MAP_PROBES,
	MAP_AGENTS,
	MAP_CONFS,
	MAP_ADDRS,
	MAP_EXCLUDED,
	MAP_LISTENERS,
	MAP_FLOWS,
	MAP_COUNTERS,
	MAP_ASKING,
	MAP_RETURNING,
	MAP_PROGRAMS,
	NODE_MAPS
};

struct template;
/* Loads all programs once, over maps that go again. */
int template_make(struct template **out, char why[STEER_WHY_MAX]);
void template_free(struct template *t); /* takes NULL */
const char *template_map_name(enum node_map map);
/* A new one: descriptor or -errno. */
int template_map(const struct template *t, enum node_map map);
bool template_map_fits(const struct template *t, enum node_map map, int fd); /* type and sizes */
/* A program over the NODE_MAPS of `maps`; `pod` is of interest to steer_lookup only. Descriptor or -errno. */
int template_prog(const struct template *t, enum steer_prog prog, uint64_t pod, const int *maps,
		  char why[STEER_WHY_MAX]);
/* What is attached to a pod's devices: it names the pod, and goes on to the program of the node. */
int template_entry(enum steer_prog prog, uint64_t pod, int programs, char why[STEER_WHY_MAX]);

/* --- what pods share (shared.c) -------------------------------------------------------------------------- */

struct shared {
	struct template *template;
	int map[NODE_MAPS]; /* -1: not there */
};
void shared_init(struct shared *s);
/* Makes, or finds pinned below `pin_dir`, the maps, and brings the programs to this version. NULL: nothing is pinned. */
int shared_open(struct shared *s, const char *pin_dir, char why[STEER_WHY_MAX]);
void shared_close(struct shared *s);
/* Calls `drop` for each key of `map`; those for which it says so are deleted. */
void shared_prune(int map, bool (*drop)(void *arg, const void *key), void *arg);
/* Forgets all of a pod, if it is this owner's. Nothing of it may be attached any more. */
void shared_forget(const struct shared *s, uint64_t pod, uint64_t owner);
uint64_t shared_owner(const char *uid);

/* --- BPF objects of a pod (object.c) -------------------------------------------------------------------- */

struct object {
	int prog[PROGS], conf; /* -1: not there; conf: the map of that name, for userspace */
};
/* Loads the pod's own programs; its configuration is kept if it fits (size, ABI), which `kept` tells, else begins anew.
 * Programs for devices without Ethernet headers are left out until they are needed. */
int object_load(struct object *o, const struct shared *s, const struct pins *pins, uint64_t pod, bool *kept,
		char why[STEER_WHY_MAX]);
int object_load_l3(struct object *o, const struct shared *s, uint64_t pod, char why[STEER_WHY_MAX]);
/* Loads the programs for devices once more: the kernel takes each once at a place. */
int object_renew(struct object *o, const struct shared *s, uint64_t pod, char why[STEER_WHY_MAX]);
/* Are the two the same program (tag) over the same maps? 1, 0 or -errno. */
int object_same(int prog_fd, uint32_t other_id);
bool prog_is_ours(uint32_t id);
/* Pins the configuration, and removes what an earlier version had. */
int object_pin(const struct object *o, const struct pins *pins, char why[STEER_WHY_MAX]);
bool object_pinned(const struct pins *pins);
/* The pinned configuration alone, for un-enrolling what a predecessor left. */
void object_open(struct object *o, const struct pins *pins);
void object_close(struct object *o);
void object_init(struct object *o);
/* The configuration, if it has the size: the object's, or what is pinned. */
int object_conf(const struct object *o, struct steer_conf *out);
int object_conf_read(const struct pins *pins, struct steer_conf *out);

/* --- the node (steer.c, agents.c, kubelet.c) ------------------------------------------------------------ */

/* A process of the agent that this keeper was told of. */
struct steer_agent {
	int pid;
	uint64_t cgroup;
};

struct steer {
	struct loop *loop;
	char *pin_dir, *cgroup_root, *kubelet_cgroup;
	enum steer_mode mode;
	enum steer_hook hook;  /* AUTO until the first attachment has told */
	bool swift;	       /* programs are attached by filters first, which become links soon */
	struct list unsettled; /* pods with such filters */
	struct timer settle;
	struct shared shared;
	bool mark_only;
	bool agents_known; /* node_write() has what it needs */
	unsigned n_agents;
	struct steer_agent agent[STEER_ABI_AGENTS];
	struct {
		bool wanted, exempt;
		uint64_t cgroup;
		int link;
		struct timer check;
		char how[128];
	} kubelet;
};

int node_write(struct steer *s, char why[STEER_WHY_MAX]);
/* The cgroup2 folder of a process and its id (1: the root). -ENOENT where there is no cgroup2. */
int cgroup_of(const struct steer *s, int pid, char path[PATH_MAX], uint64_t *id);
int cgroup_id(const char *path, uint64_t *id);
void agents_see_node(void); /* this thread does, from now on */
void agents_prune(struct steer *s);
void kubelet_start(struct steer *s);
void kubelet_stop(struct steer *s);

/* --- hooks of a device (tc.c) --------------------------------------------------------------------------- */

enum direction { INGRESS, EGRESS, DIRECTIONS };

struct hook {
	enum { HOOK_NONE, HOOK_LINK, HOOK_FILTER } kind;
	int link;      /* HOOK_LINK */
	bool qdisc;    /* the device has a clsact that is ours: of both its hooks */
	bool anywhere; /* attach it behind others rather than not at all */
};
/* Attaches `prog` before all others, or adopts or replaces what our pin says is attached, if it is the first. `swift`: by a
 * filter, unless a link is there. In the pod's namespace. `prog` must not be what is attached there behind another. */
int hook_attach(struct hook *h, enum steer_hook *how, bool swift, const struct pins *pins, unsigned ifindex,
		enum direction d, int prog, bool *adopted, char why[STEER_WHY_MAX]);
/* Detaches at once and removes the pin. The device may be gone. */
void hook_detach(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d);
/* Takes over what a predecessor pinned for a device, only to detach it. */
void hook_adopt(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d);
void hook_forget(struct hook *h);
/* Pins what is attached, where pins are missing. */
int hook_pin(const struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog,
	     char why[STEER_WHY_MAX]);
bool hook_pinned(const struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d);
/* Is the link attached to anything? */
bool link_attached(int link);
/* NULL: the program is where it was attached, and first. Or what it is: others can detach both kinds, and attach theirs
 * before them. */
#define HOOK_GONE   "is gone"
#define HOOK_BEHIND "is behind another, which may let all pass"
const char *hook_trouble(const struct hook *h, unsigned ifindex, enum direction d);
/* Has this kernel tcx? */
bool hook_has_tcx(void);
/* Can programs be attached to devices here? Tries it on lo. */
int hook_probe(int prog, char why[STEER_WHY_MAX]);

/* tc_filter.c: as the functions above, for HOOK_FILTER. `links`: there are some, which are asked before filters. */
int filter_attach(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog, bool *adopted,
		  char why[STEER_WHY_MAX]);
void filter_detach(unsigned ifindex, enum direction d);
void qdisc_detach(const struct pins *pins, unsigned ifindex, enum direction d);
const char *filter_trouble(unsigned ifindex, enum direction d, bool links);
int filter_probe(unsigned ifindex, int prog);
void hook_pin_name(char name[PIN_NAME_MAX], const char *what, unsigned ifindex);

/* --- a pod (pod.c, watch.c, detach.c) ------------------------------------------------------------------- */

struct device {
	unsigned ifindex;
	char name[IFNAMSIZ];
	bool ethernet, late, seen;
	struct hook hook[DIRECTIONS];
};

struct steer_pod {
	struct steer *steer;
	char uid[STEER_UID_MAX];
	enum steer_mode mode;
	int netns;
	struct netns_id ns;
	struct steer_config config;
	struct pins pins;
	struct object object;
	int lookup; /* link */
	bool adopted, stopping;
	bool idle;	    /* had no connection when it was enrolled: nobody misses a packet */
	struct list settle; /* in steer.unsettled */
	bool routed;	    /* rule and route are ours to remove */
	unsigned n_devices;
	struct device device[STEER_DEVICES_MAX];
	unsigned n_addrs;
	struct addr addr[STEER_ADDRS_MAX];
	int existing; /* map of socket cookies; -1: none */

	struct io watch;
	struct task look; /* devices or addresses changed */
	bool touched;	  /* rules, routes or filters did: steer_mend() looks */
	struct timer retry;

	struct timer drain;
	uint64_t drain_until;
	unsigned quiet;
	void (*done)(void *arg, int err);
	void *done_arg;
};

/* Each runs in the pod's namespace (pod_enter). */
int pod_conf_write(struct steer_pod *p, char why[STEER_WHY_MAX]);
int pod_conf_read(const struct steer_pod *p, struct steer_conf *out);
int pod_enter(struct steer_pod *p, char why[STEER_WHY_MAX]);
/* Devices and addresses as they are now. `late`: after enrolment. */
int pod_look(struct steer_pod *p, bool late, char why[STEER_WHY_MAX]);
bool pod_has_addr(const struct steer_pod *p, const struct addr *a);
/* Into p->addr, and into the map as well. */
int pod_addrs_read(struct steer_pod *p, char why[STEER_WHY_MAX]);
int pod_addrs(struct steer_pod *p, char why[STEER_WHY_MAX]);
int pod_route(char why[STEER_WHY_MAX]);
int pod_watch(struct steer_pod *p, char why[STEER_WHY_MAX]);
void pod_unwatch(struct steer_pod *p);
/* Removes what is attached in the mirrored order, then the pins. */
void pod_unwind(struct steer_pod *p);
/* Finishes the un-enrolment of a pod that nobody knows, in the namespace `netns` (negative: it was not found). Takes
 * `pins`. Returns 1 if it is gone. */
unsigned pod_abandon(struct steer *s, const char *uid, struct pins *pins, int netns);
/* Resets captured connections and the agent's own. */
int pod_reset(struct steer_pod *p);
struct steer_pod *pod_new(struct steer *s, const char *uid, enum steer_mode mode, const struct netns_id *ns,
			  const struct steer_config *c);
void pod_release(struct steer_pod *p);

struct steer_addr to_steer_addr(const struct addr *a);
/* The pod's configuration: for the programs and, pinned, for the next keeper. */
int pod_conf_store(struct steer_pod *p, const struct steer_conf *conf);
/* What an earlier keeper entered, and is not there any more. */
void pod_addrs_prune(struct steer_pod *p);

/* The program of a device. */
int pod_prog(const struct steer_pod *p, const struct device *dev, enum direction d);

/* --- from filters to links (settle.c) ---------------------------------------------------------------- */

void settle_later(struct steer_pod *p);
void settle_stop(struct steer *s);

/* --- the lookup program (lookup.c) ------------------------------------------------------------------ */

/* The program of the pinned link, and the inode of its namespace (0: gone); or -errno. */
int lookup_pinned(const struct pins *pins, uint64_t *inode);
int lookup_refuse_second(struct steer_pod *p, char why[STEER_WHY_MAX]);
/* Adopts what is pinned; where it does not fit, replaces it and clears p->adopted. */
int lookup_attach(struct steer_pod *p, char why[STEER_WHY_MAX]);
/* Is it attached to this namespace? */
bool lookup_holds(const struct steer_pod *p);
/* Attaches it again if it was detached. */
int lookup_renew(struct steer_pod *p, char why[STEER_WHY_MAX]);

/* --- counters (counters.c) ------------------------------------------------------------------------------ */

/* Makes room for them; `kept`: those that are there go on. */
int counters_begin(const struct steer_pod *p, bool kept, char why[STEER_WHY_MAX]);

/* --- connections (existing.c) --------------------------------------------------------------------------- */

/* Writes down (or ends, with reset_existing) the connections that predate enrolment. */
int existing_note(struct steer_pod *p, const struct steer_sockets *ours, char why[STEER_WHY_MAX]);
unsigned existing_count(struct steer_pod *p);
int existing_pin(const struct steer_pod *p, char why[STEER_WHY_MAX]);
/* A map of the connections that our programs saw and left direct, by cookie; the caller closes it. */
int existing_direct(struct steer_pod *p, char why[STEER_WHY_MAX]);
/* Ends what is neither captured, nor older than enrolment, nor in the map `spared` (-1: none). */
int existing_reset_others(struct steer_pod *p, int spared, char why[STEER_WHY_MAX]);
