/* SPDX-License-Identifier: Apache-2.0 */
/* A pod as enrol.c (how it joins and leaves), enrol_request.c and enrol_remove.c (what begins that) and enrol_tunnel.c
 * (tunnels that come, pods that are regained) share it. */
#pragma once
#include "node/enrol.h"

struct enrol_pod {
	struct list link; /* of enrol.pods */
	struct enrol *enrol;
	unsigned refs; /* the list's, and one for each request to a tunnel that is under way */
	enum pod_state state;
	struct pod_record record;
	int netns_fd;
	struct netns_id ns;
	struct steer_sockets socks;
	struct steer_pod *steering;
	/* the operation */
	enrol_done done;
	void *arg;
	struct timer wait;  /* for a tunnel */
	struct timer limit; /* of the joining */
	int err;
	/* Of the operation that is being undone, why the pod is not regained, or what cannot be mended. */
	char why[POD_WHY_MAX];
	const struct zds_client *asked; /* a Keep is under way there, and may be elsewhere */
	struct pod_mended mended;
	bool told;     /* the tunnel was asked to add it */
	bool recorded; /* the record of this uid is this pod's */
	bool behind;   /* joins when another of its uid is out */
	bool found;    /* as in the request */
};

struct enrol {
	struct loop *loop;
	struct steer *steer;
	struct pods *pods_folder;
	struct zds_server *zds;
	struct enrol_options o;
	struct list pods;
	unsigned n_pods;
	struct timer recover, collect, sweep, mend;
	unsigned mend_turn;
	uint64_t n_mended;
	struct task behind;
	unsigned collect_ms; /* 0: as at first */
	void (*changed)(void *arg, const char *uid);
	void *changed_arg;
	uint64_t own_inode, init_inode; /* namespaces that are never steered */
};

struct enrol_pod *enrol_pod_new(struct enrol *e, const struct pod_record *r, int netns_fd, const struct netns_id *ns);
struct enrol_pod *enrol_pod_find(struct enrol *e, const char *uid);
void enrol_pod_put(struct enrol_pod *p);
/* What is left of pods that are gone is removed soon: a namespace takes a moment to die. */
void enrol_collect_later(struct enrol *e);
/* Looks now and then for sandboxes that went unnoticed. */
void enrol_sweep_start(struct enrol *e);
/* Looks whether pods' steering is whole, and mends it. */
void enrol_mend_start(struct enrol *e);
/* Tells whoever watches. */
void enrol_changed(struct enrol *e, const char *uid);
/* Opens the sockets that the pod lacks, and steers it. */
int enrol_pod_attach(struct enrol_pod *p, char why[POD_WHY_MAX]);
int enrol_pod_tell(struct enrol_pod *p, struct zds_client *c, zds_done done);
/* Is its DNS to be captured, but its sockets are of a time when it was not? A tunnel takes no more of them for a pod that
 * it serves, and what nobody reads must not get queries: it begins with the next sandbox. */
bool enrol_pod_dns_later(const struct enrol_pod *p);
/* The node's configuration with the pod's overlay, as far as its sockets allow. */
struct steer_config enrol_pod_config(const struct enrol_pod *p);
/* Goes on with an enrolment that waited for this tunnel. */
void enrol_pod_join(struct enrol_pod *p, struct zds_client *c);
/* Begins an enrolment: with the tunnel that is there, or when one comes. */
void enrol_pod_begin(struct enrol_pod *p);
/* Undoes an enrolment; answers it with `err` and the line. */
void enrol_pod_fail(struct enrol_pod *p, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Removes the pod, known as it must be; answers with `err` 0 if all goes well. */
void enrol_pod_leave(struct enrol_pod *p, unsigned drain_ms);
