/* SPDX-License-Identifier: Apache-2.0 */
/* One worker: a thread with a loop, the connections that it accepted, and what they share. Private to data/. */
#pragma once
#include <pthread.h>

#include "data/data.h"
#include "loop/loop.h"
#include "net/record.h"

enum {
	WORKER_BUFFER = 256 << 10, /* what one read of a plain relay takes at most */
	WORKER_POD_SLOTS = 64,
	WORKER_RECORD_KEEP = 16,
};

struct pool;
struct names;
struct dns_cache;
struct dns_conf;
struct failures;
struct sources;
struct worker {
	struct data_plane *plane;
	const struct data_options *o;
	struct loop *loop;
	struct record_pool *records;
	struct pool *pool;
	struct names *names;
	struct failures *failures;
	struct sources *sources;
	uint8_t *buffer;     /* of the callback that runs */
	struct list conns;   /* struct conn */
	struct list servers; /* struct server: accepted HBONE connections */
	struct list shaking; /* servers whose handshake is under way, the oldest first */
	unsigned n_shaking;
	struct list stepping; /* of these, whose handshake can go on */
	struct task shaking_turn;
	bool shaking_begins; /* the last step was a new handshake's */
	struct timer shaking_timer;
	struct list waiting;		    /* struct workload_wait */
	struct list pods[WORKER_POD_SLOTS]; /* struct post, by namespace and name */
	struct list nested;		    /* struct nested */
	struct list queries;		    /* of dns_pending.c */
	struct dns_cache *dns_cache;
	struct dns_conf *dns_conf;
	unsigned n_conns, n_queries, n_tunnels; /* the control thread reads them */
	unsigned n_large;			/* of client.h */
	struct list taps;			/* struct tap_post */
	uint64_t serial;			/* of the next connection */
	uint64_t random[2];
	bool draining;
	unsigned index;
	pthread_t thread;
	bool started;
	struct msg store_changed; /* posted while `behind` is set */
	bool behind;		  /* atomic */
	struct msg lists_changed; /* the same of revocation lists */
	bool lists_behind;
};

struct worker *worker_new(struct data_plane *plane, const struct data_options *o, unsigned index);
int worker_start(struct worker *w);
/* Waits for the end of a thread whose loop was told to stop. */
void worker_join(struct worker *w);
void worker_free(struct worker *w);

uint64_t worker_random(struct worker *w);
/* `n` more tunnels, in either role, whose end a drain waits for. */
void worker_tunnels(struct worker *w, int n);
