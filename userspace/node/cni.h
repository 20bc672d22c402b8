/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's CNI socket (headers/cni_abi.h): pods are steered before a plugin is answered, and whoever asks is answered
 * within CNI_ANSWER_MS. Which pods are in the mesh is for a decider to say: node/kube.h, or on machines without
 * Kubernetes node/cni_plain.h. On the keeper's loop, but for the reading of requests. */
#pragma once
#include "node/cni_request.h"
#include "node/enrol.h"

enum {
	CNI_ANSWER_MS = 4500, /* before CNI_PLUGIN_MS, at which plugins give up */
	CNI_ENROL_MS = 4000,  /* an enrolment is undone then, so that a failed ADD leaves nothing */
	CNI_BEGIN_MS = 2500, /* who has not had its turn by then is told to try again: undoing would cost others time */
	CNI_CALLS_MAX = 100, /* under way at once; more are told to try again */
	CNI_ENROLS_MAX = 2,  /* of these being steered: the others wait, lest all are late */
};

enum cni_verdict {
	CNI_NOT_IN_MESH,
	CNI_ENROL,
	CNI_UNKNOWN_POD, /* nobody knows the pod (yet) */
	CNI_UNDECIDED,	 /* it cannot be told now */
};

struct cni_decision {
	enum cni_verdict verdict;
	const char *sa;	 /* CNI_ENROL: the service account, */
	const char *uid; /* the pod's uid; NULL: what the plugin says, else one made of the namespace's cookie */
	struct pod_overlay overlay; /* and what its annotations ask for */
	const char *why;	    /* one line, for CNI_UNKNOWN_POD and CNI_UNDECIDED */
};

struct cni_question; /* one that waits for its decision */
struct cni_decider {
	/* Answers with cni_decided(), exactly once, at once or later on the loop; a decision that comes after CNI_ANSWER_MS
	 * is too late and does no harm. `pod` is there until then. */
	void (*decide)(void *arg, const struct cni_request *pod, struct cni_question *q);
	/* Why it cannot decide now, one line; NULL: it can. */
	const char *(*unready)(void *arg);
	void *arg;
};
/* The decision's texts are copied. */
void cni_decided(struct cni_question *q, const struct cni_decision *d);

struct cni;
enum { CNI_STATUSES = 6 };
struct cni_answers { /* how many requests were answered so */
	int status;
	uint64_t n;
};
void cni_answers(const struct cni *c, struct cni_answers out[CNI_STATUSES]);
/* Listens at `path`, and for the plugin's log lines at log.sock beside it; plugins wait until cni_serve(). All that is given outlives it. 0, or -errno and a line in `why`. */
int cni_open(struct cni **out, struct loop *l, struct enrol *e, struct zds_server *z, const char *path,
	     const struct cni_decider *d, char why[POD_WHY_MAX]);
int cni_serve(struct cni *c); /* 0 or -errno */
/* Stops serving while the loop goes on; plugins that wait are told to try again. `done` is called on the loop. */
void cni_close(struct cni *c, void (*done)(void *arg), void *arg);
/* After enrol_free() and the end of the decider, and if it was served, after cni_close() is done. Takes NULL. */
void cni_free(struct cni *c);
