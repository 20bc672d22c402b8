/* SPDX-License-Identifier: Apache-2.0 */
/* Pods of this node as Kubernetes tells of them: who is in the mesh, for the CNI socket and for pods that run already.
 * These it enrols and un-enrols as labels change, and it writes their status annotation. On the keeper's loop.
 *
 * Nothing is un-enrolled before the first complete lists of pods and namespaces, nor because of a list alone: a pod
 * that a list lacks is asked for by name first. Pods that were enrolled by hand are none of its business. */
#pragma once
#include "node/cni.h"
#include "node/kube_config.h"
#include "node/kube_rule.h"

enum {
	KUBE_DECIDE_MS = 2500,	     /* a decision takes no longer: the rest of CNI_ANSWER_MS is for steering */
	KUBE_GET_MS = 2000,	     /* nor one question to the API server */
	KUBE_PODS_MAX = PODS_MAX,    /* more are not looked at, which is an error in the log and in status */
	KUBE_NAMESPACES_MAX = 65536, /* likewise */
	KUBE_PATCHES_MAX = 8,	     /* annotations that are written at once */
	KUBE_PATCH_MS = 5000,
	KUBE_ENROLS_MAX = 8, /* enrolments of running pods under way at once */
	KUBE_ENROL_MS = 10000,
	KUBE_BATCH_MS = 24,	 /* pods whose namespaces are to be found are gathered for so long: one look at /proc */
	KUBE_RETRY_MIN_MS = 200, /* what failed is tried again, with growing pauses, */
	KUBE_RETRY_MAX_MS = 15000, /* for ever, no longer than this apart */
	KUBE_PATCH_GAP_MS = 1000,  /* between two patches of one pod: another agent may want it otherwise */
};

struct kube;

struct kube_options {
	const struct kube_config *api;
	const struct kube_rule *rule;
	struct enrol *enrol;
	struct zds_server *zds;
	const char *node; /* this node's name */
	const char *proc; /* the host's /proc */
	unsigned silence_ms;
};

/* All that is given outlives it. 0, or -errno and a line in `why`. Begins at once. */
int kube_open(struct kube **out, struct loop *l, const struct kube_options *o, char why[POD_WHY_MAX]);
/* Pods stay as they are. After enrol_free() and cni_close(): what is under way is forgotten. Takes NULL. */
void kube_close(struct kube *k);

/* Decides by labels. A pod that the watch has not brought yet, or has brought as outside the mesh, is asked for by name,
 * and so is its namespace; of the latter the watch's word counts when there is no answer within KUBE_DECIDE_MS. */
struct cni_decider kube_decider(struct kube *k);
/* A tunnel has come: what waited for one goes on. */
void kube_tunnel_came(struct kube *k);

struct kube_status {
	bool ready;			  /* both lists were complete once, and what they ask for has been tried */
	bool connected;			  /* both watches are open */
	unsigned pods, selected, waiting; /* on this node; in the mesh; of these, not enrolled yet */
	unsigned namespaces;
	uint64_t lists, failures;	  /* of both watches */
	uint64_t added, updated, deleted; /* events */
	uint64_t bad;			  /* objects that could not be read */
	char trouble[POD_WHY_MAX];	  /* what does not work now; "" */
};
void kube_status(const struct kube *k, struct kube_status *out);
