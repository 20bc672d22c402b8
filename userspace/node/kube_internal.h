/* SPDX-License-Identifier: Apache-2.0 */
/* The cache of pods and namespaces, as kube*.c share it.
 *
 * kube.c          begin and end, what the watches bring, status
 * kube_cache.c    entries
 * kube_get.c      questions by name, and what is taken of their answers
 * kube_decide.c   questions of the CNI socket
 * kube_enrol.c    pods that run: what is to be done about each
 * kube_seek.c     where their namespaces are, and whether they are gone
 * kube_annotate.c the status annotation */
#pragma once
#include "node/enrol.h"
#include "node/kube.h"
#include "node/kube_api.h"
#include "node/kube_watch.h"

enum { KUBE_BUCKETS = 1024 };

struct kube_namespace {
	struct kube_namespace *next; /* in its bucket */
	unsigned seen;		     /* in which list */
	uint64_t told;		     /* kube.told when the watch last told of it */
	uint64_t version;
	uint32_t selected;
	char name[];
};

/* A question by name. */
struct kube_get {
	struct kube_call *call; /* NULL: none is under way */
	uint64_t since;		/* kube.told when it began */
};

struct kube_pod {
	struct list link; /* of kube.pods */
	struct kube *kube;
	struct kube_pod_facts facts;
	unsigned seen; /* in which list */
	uint64_t told; /* kube.told when the watch last told of it */
	bool missing;  /* a list lacks it: it is to be asked for */
	bool gone;     /* it is not there any more; the entry stays until it is un-enrolled */
	bool outside;  /* when it was last looked at, it was outside the mesh */
	bool known;    /* it has been looked at */
	bool found;    /* it should have been in the mesh from its beginning */
	bool busy;     /* an operation on it is under way */
	struct timer retry;
	unsigned failed;     /* in a row */
	char trouble[128];   /* the last failure, for the log to say it once */
	struct kube_get get; /* of one that is missing */
	/* Finding its namespace: */
	struct list sought; /* of kube.sought, or of kube.to_enrol */
	uint32_t verified;  /* facts.sandbox when the enrolled namespace was last found to be the pod's */
	bool is_verified;
	bool dns_later; /* said in the log */
	char netns[64];
	uint64_t cookie;
	/* The annotation: */
	struct list patching; /* of kube.to_patch */
	struct kube_call *patch;
	enum kube_redirection patched;
	struct timer patch_retry;
	unsigned patch_failed;
	uint64_t patched_ms;
};

struct kube {
	struct loop *loop;
	struct kube_options o;
	struct kube_api *api;
	struct kube_watch *pod_watch, *namespace_watch;
	char pod_query[1024];
	struct list pods;
	unsigned n_pods, n_namespaces, pod_list, namespace_list; /* lists: the number of the newest */
	struct kube_namespace *bucket[KUBE_BUCKETS];
	/* What the watches told, counted: and when they last told that any pod, any namespace is not there any more. */
	uint64_t told, pod_gone, namespace_gone;
	bool listing_pods, listing_namespaces;
	bool settled; /* both lists were complete */
	bool tried;   /* the first look at /proc after that is over */
	struct timer batch;
	uint64_t batch_gap_ms; /* before the next look at /proc, by what the last one took */
	struct task go_on;
	struct list sought, to_enrol, to_patch, questions;
	unsigned n_enrolling, n_patching;
	uint64_t added, updated, deleted, bad, too_many;
	bool no_tunnel;	 /* said in the log */
	bool node_known; /* its addresses */
};

/* --- kube_cache.c --- */
struct kube_pod *kube_pod_find(struct kube *k, const char *uid);
/* Does this uid, as the kubelet and the runtime know it, name it? "": they did not say. */
bool kube_pod_is(const struct kube_pod *p, const char *uid);
/* Of those that are there: the newest, or with a uid the one that it names. */
struct kube_pod *kube_pod_named(struct kube *k, const char *ns, const char *name, const char *uid);
/* NULL: no memory, or too many. */
struct kube_pod *kube_pod_new(struct kube *k, const struct kube_pod_facts *facts);
void kube_pod_free(struct kube_pod *p);
struct kube_namespace *kube_namespace_find(struct kube *k, const char *name);
/* Looks at its pods, if it is another than it was for them. NULL: no memory, or too many. */
struct kube_namespace *kube_namespace_put(struct kube *k, const struct kube_namespace_facts *facts);
void kube_namespace_drop(struct kube *k, const char *name);
/* Those that the newest list lacks. */
void kube_namespaces_sweep(struct kube *k);
void kube_namespaces_free(struct kube *k);
/* Reads an object into the cache; NULL, with a line in `why`, when it cannot be. `is_new`, when set, tells. */
struct kube_pod *kube_pod_take(struct kube *k, const json_t *o, bool *is_new, char why[POD_WHY_MAX]);

/* --- kube_get.c --- */
/* Asks for a pod; `name` NULL: for the namespace. `done` sets g->call to NULL. 0, or -errno and a line in `why`. */
int kube_get_begin(struct kube_get *g, struct kube *k, const char *ns, const char *name,
		   void (*done)(void *arg, const struct kube_reply *r), void *arg, char why[POD_WHY_MAX]);
/* Takes the answer into the cache. -ENOENT: there is no such object, or it is not of this node; -EAGAIN: the watches
 * told of it meanwhile, so the answer may be older than what is known; or another -errno. With a line in `why`. */
int kube_get_pod(struct kube *k, const struct kube_get *g, const struct kube_reply *r, struct kube_pod **out,
		 char why[POD_WHY_MAX]);
int kube_get_namespace(struct kube *k, const struct kube_get *g, const struct kube_reply *r, char why[POD_WHY_MAX]);

/* --- kube_enrol.c --- */
/* Is it in the mesh? -ENOENT: its namespace is not known. */
int kube_pod_decide(struct kube *k, const struct kube_pod_facts *facts, enum kube_reason *out);
/* Looks at a pod and does what is to be done. It may be freed. */
void kube_pod_look(struct kube_pod *p);
void kube_look_all(struct kube *k);
void kube_look_in(struct kube *k, const char *ns);
/* Goes on with pods that wait to be enrolled. */
void kube_enrol_more(struct kube *k);
/* Both lists are there: also pods of an earlier keeper that they lack are looked at. */
void kube_settle(struct kube *k);
void kube_enrol_changed(void *arg, const char *uid);
/* What was tried with it has failed, and is tried again; or it has not. */
void kube_pod_fails(struct kube_pod *p, const char *why);
void kube_pod_works(struct kube_pod *p);
/* Un-enrols what has no processes any more. */
void kube_pod_end(struct kube_pod *p);
/* What annotations ask for, as far as a pod that is enrolled as `e` can have it. `e` may be NULL. */
struct pod_overlay kube_pod_overlay(struct kube_pod *p, const struct enrol_pod *e);

/* --- kube_seek.c --- */
/* Looks for its namespace, soon; or, of one that is gone, whether processes of it live. */
void kube_pod_seek(struct kube_pod *p);
/* Asks for it by name: a list lacks it. */
void kube_pod_ask(struct kube_pod *p);

/* --- kube_annotate.c --- */
/* Brings the annotation to what is true. */
void kube_annotate(struct kube_pod *p);

/* --- kube_decide.c --- */
void kube_questions_free(struct kube *k);
const char *kube_unready(void *arg);
