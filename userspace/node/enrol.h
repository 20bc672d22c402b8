/* SPDX-License-Identifier: Apache-2.0 */
/* Enrolment: brings a pod into the mesh and out of it, and back after a restart of the keeper. Order: record, listening
 * sockets, steering, tunnel; a failure is undone in reverse. At most one operation a pod is under way. On the keeper's
 * loop. */
#pragma once
#include "node/pods.h"
#include "node/zds_server.h"

enum {
	ENROL_TUNNEL_MS = 5000,		/* an enrolment waits so long for a tunnel to connect */
	ENROL_RECOVER_MS = 2000,	/* between attempts to regain a pod */
	ENROL_COLLECT_MS = 2000,	/* from a pod's end to the removal of what may be left of it */
	ENROL_COLLECT_MAX_MS = 20000,	/* while its namespace does not end: each time twice as long, up to this */
	ENROL_SWEEP_MS = 10000,		/* between looks for sandboxes that went unnoticed */
	ENROL_MEND_MS = 1000,		/* between looks whether steering shows that it was removed; of these */
	ENROL_MEND_TURNS = 10,		/* each so manieth looks at all of a pod's, a tenth of a millisecond, */
	ENROL_MEND_TURNS_IPTABLES = 60, /* or at its rules, ten milliseconds */
};

enum pod_state {
	POD_JOINING,
	POD_RECOVERING, /* of an earlier keeper; its steering stands, its sockets are not ours yet */
	POD_ENROLLED,
	POD_LEAVING,
};

struct enrol;
struct enrol_pod; /* as others may see it */

struct enrol_options {
	enum steer_mode mode;
	struct steer_config config;
	unsigned drain_ms; /* for captured connections, at un-enrolment */
};

/* The operation has ended; `err` 0 or -errno with a line in `why`. */
typedef void (*enrol_done)(void *arg, int err, const char *why);

/* NULL: no memory. */
struct enrol *enrol_new(struct loop *l, struct steer *s, struct pods *p, const struct enrol_options *o);
/* Pods stay steered; operations that are under way are forgotten. After zds_server_free(). */
void enrol_free(struct enrol *e);
/* Once, before anything below. */
void enrol_serve(struct enrol *e, struct zds_server *z);

/* Takes up the records of an earlier keeper; drops those of namespaces that are gone, and their pins. */
int enrol_load(struct enrol *e, char why[POD_WHY_MAX]);
/* No tunnel has come that could have the sockets: regains the pods with new ones, and goes on trying. */
void enrol_recover(struct enrol *e);
/* The keeper ends and takes its tunnel along. First attempts to connect are dropped, to be tried again by their clients,
 * while the tunnel takes those that are waiting already; then the sockets go. Behind iptables only the latter. */
void enrol_hold(struct enrol *e);
void enrol_close_sockets(struct enrol *e);

struct enrol_request {		      /* texts are copied */
	const char *netns, *identity; /* NAMESPACE/NAME/SERVICEACCOUNT */
	/* Kubernetes'; NULL: made of the namespace's cookie. A pod that is enrolled under this uid in another namespace, or
	 * that leaves, makes room first: its sandbox was made anew. */
	const char *uid;
	const struct pod_attachment *attachment; /* NULL: not by CNI */
	const struct pod_overlay *overlay;	 /* NULL: as the node */
	unsigned deadline_ms;			 /* then it fails, and is undone; 0: none */
	bool found; /* it ran unsteered though it should not have: connections that it has are reset */
};
/* `done` may be called before these return. Adding what is enrolled already is done at once; a new overlay takes effect. */
void enrol_add(struct enrol *e, const struct enrol_request *r, enrol_done done, void *arg);
/* `pod`: uid, path of the namespace, or NAMESPACE/NAME where no other has it. Captured connections may finish. */
void enrol_remove(struct enrol *e, const char *pod, enrol_done done, void *arg);
/* The pod's sandbox goes: it leaves at once, also if it is joining, which fails then. */
void enrol_end(struct enrol *e, const struct enrol_pod *p, enrol_done done, void *arg);
/* By uid; NULL: there is none. */
const struct enrol_pod *enrol_find(struct enrol *e, const char *uid);
/* `changed` is told when a pod has joined, is regained, or is out. */
void enrol_watch(struct enrol *e, void (*changed)(void *arg, const char *uid), void *arg);
/* The node's addresses: where the kubelet cannot be told apart, its probes come from them. */
void enrol_node(struct enrol *e, const struct addr *addrs, unsigned n);
/* Is the steering of an enrolled pod whole? 0, or -errno and what is missing in `why`. */
int enrol_check(struct enrol *e, const struct enrol_pod *p, char why[POD_WHY_MAX]);

/* What the ZDS server asks; `arg` is the enrol. */
int enrol_describe(void *arg, const char *uid, struct zds_workload *out);
void enrol_hello(struct enrol *e, struct zds_client *c);
/* This one serves again, since its successor has gone: it is told of all pods, also of those that it has. */
void enrol_again(struct enrol *e, struct zds_client *c);
void enrol_live(struct enrol *e);

/* A pod whose sockets a tunnel is asked for, or with `all` any that is not regained yet; NULL: none. */
const struct enrol_pod *enrol_recovering(const struct enrol *e, bool all);
unsigned enrol_count(const struct enrol *e, enum pod_state state);
void enrol_each(struct enrol *e, void (*each)(void *arg, const struct enrol_pod *p), void *arg);
const struct pod_record *enrol_pod_record(const struct enrol_pod *p);
enum pod_state enrol_pod_state(const struct enrol_pod *p);
const struct steer_sockets *enrol_pod_sockets(const struct enrol_pod *p);
struct steer_pod *enrol_pod_steering(const struct enrol_pod *p); /* NULL: not attached by this process */
/* Why it is not regained yet, or what its steering lacks and cannot be put back; "". */
const char *enrol_pod_trouble(const struct enrol_pod *p);
struct pod_mended { /* what somebody removed or came before, and was put back */
	unsigned times;
	char what[STEER_WHY_MAX];
};
const struct pod_mended *enrol_pod_mended(const struct enrol_pod *p);
uint64_t enrol_mended(const struct enrol *e); /* of all pods that there ever were */
unsigned enrol_broken(const struct enrol *e); /* enrolled pods with trouble */
