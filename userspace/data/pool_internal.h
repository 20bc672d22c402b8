/* SPDX-License-Identifier: Apache-2.0 */
/* What pool.c (which connections there are, who gets which), pool_share.c (how many, and whose) and pool_conn.c (the life
 * of one) share. */
#pragma once
#include "data/client.h"
#include "data/dial.h"
#include "data/pool.h"

enum { POOL_BUCKETS = 256, POOL_CONNS_LEAST = 64 };

enum pool_stage { STAGE_MAKING, STAGE_UP, STAGE_OVER };

/* A pod's part of a pool; referenced by its connections. */
struct pool_share {
	struct list link; /* bucket */
	struct pod *pod;
	unsigned refs, n_conns;
	struct list idle;
};

struct pool_conn {
	struct list link;	       /* bucket */
	struct list idle, idle_of_pod; /* the pool's and the share's without streams, who is so longest first */
	struct pool *pool;
	struct pool_share *share;
	struct rstr *self;
	struct endpoint to;
	enum pool_stage stage;
	struct client client;
	struct dial dial;
	struct timer timer; /* of idleness */
	struct list waiters;
	unsigned n_waiters;
	struct task bury;
};

struct pool {
	struct worker *w;
	struct list bucket[POOL_BUCKETS];
	struct list share[POOL_BUCKETS];
	struct list idle;
	unsigned n_conns;   /* in the table, with those that linger */
	unsigned conns_max; /* POOL_CONNS_MAX, or what descriptors allow */
};

/* pool_conn.c: what becomes of its client, from the first step, which it takes once it is in the table. */
extern const struct client_ops pool_client_ops;
/* Out of the table; freed when the last stream has gone. Who waits is answered. */
void pool_conn_end(struct pool_conn *c, enum traffic_flag flag, const char *why);
/* Ends and frees it at once, with the streams that it has. */
void pool_conn_kill(struct pool_conn *c);

/* pool_share.c. A reference; NULL: no memory. */
struct pool_share *pool_share_get(struct pool *p, struct pod *pod);
/* Takes NULL. */
void pool_share_put(struct pool_share *s);
/* Is there room for one more of this pod's? Perhaps since another one was ended for it. */
bool pool_make_room(struct pool *p, struct pool_share *s);
/* `n` (1 or -1) more in the table. */
void pool_conn_count(struct pool_conn *c, int n);
/* It has no streams; it is about to have one, or ends. */
void pool_conn_idle(struct pool_conn *c);
void pool_conn_busy(struct pool_conn *c);

/* pool.c: another connection would do for whatever comes next. */
bool pool_has_sibling(const struct pool_conn *c);
