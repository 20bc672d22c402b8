/* SPDX-License-Identifier: Apache-2.0 */
/* The last connections that failed, each with its reason: what an error line of the access log says, kept in fixed
 * memory. Workers write, each to a ring of its own; whoever asks (another thread) holds a ring's lock for the copy of
 * one entry, so that a worker never waits for him. */
#pragma once
#include <time.h>

#include "data/data.h"
#include "data/traffic.h"
#include "state/identity.h"

enum {
	FAILURES_MAX = 1024,	  /* of all workers together; the oldest go */
	FAILURES_WORKER_MIN = 64, /* but each worker has so many */
	FAILURE_WHY_MAX = 256,
	FAILURE_IDENTITY_MAX = 256,
};

struct failure {
	uint64_t number;    /* 1 and up, of its worker; 0: none */
	struct timespec at; /* wall clock */
	enum traffic_flag flag;
	bool inbound, hbone, opened;	    /* as in struct conn; not opened: refused before it was counted */
	struct endpoint src, dst, next_hop; /* `dst`: what the application dialled, or its own address */
	char pod_ns[DUMP_NAME_MAX], pod_name[DUMP_NAME_MAX];
	char src_identity[FAILURE_IDENTITY_MAX],
		dst_identity[FAILURE_IDENTITY_MAX]; /* "" : not known; cut when longer */
	char service[DUMP_NAME_MAX];		    /* host name, or "" */
	char why[FAILURE_WHY_MAX];
};

/* One worker's ring. NULL: no memory. */
struct failures;
struct failures *failures_new(unsigned entries);
void failures_free(struct failures *f);
/* Its `number` is given here. Any thread. */
void failures_add(struct failures *f, const struct failure *one);
/* What is there, oldest first, as an array for free(); `seen`: of how many since the start. -ENOMEM. Any thread. */
int failures_copy(struct failures *f, struct failure **out, unsigned *n, uint64_t *seen);

/* Of all workers, by time. */
struct failures_list {
	struct failure *all;
	unsigned n;
	uint64_t seen; /* since the start, also those that are gone */
};
int data_failures(struct data_plane *d, struct failures_list *out);
