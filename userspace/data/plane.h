/* SPDX-License-Identifier: Apache-2.0 */
/* The whole, as workers, pods (plane.c) and the drain (drain.c) know it. Private to data/. */
#pragma once
#include "data/worker.h"

struct pod;
struct data_plane {
	struct data_options o;
	struct loop *control;
	struct worker *worker[DATA_WORKERS_MAX];
	struct list pods;	 /* struct pod; control thread */
	unsigned n_pods, n_self; /* all; of them of DATA_POD_SELF */
	struct timer drain_timer, close_timer;
	unsigned leaving, resting; /* workers that watch no listener, that accept no more; atomic */
	unsigned waiting;	   /* connections that wait for TLS, in all workers; atomic */
	bool handed_over;	   /* the sockets have another process; set before the workers are told */
	bool closed;		   /* what draining closes is closed */
	void (*drained)(void *arg);
	void *drained_arg;
	uint64_t drain_until;
};

/* Sends `run` to every worker, in order with what was sent before; `pod` (may be NULL) is referenced meanwhile. -ENOMEM:
 * to none. */
int plane_order(struct data_plane *d, void (*run)(struct worker *w, struct pod *pod), struct pod *pod);
