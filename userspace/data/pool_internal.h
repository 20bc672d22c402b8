/* SPDX-License-Identifier: Apache-2.0 */
/* What pool.c (which connections there are, who gets which) and pool_conn.c (the life of one) share. */
#pragma once
#include "data/client.h"
#include "data/dial.h"
#include "data/pool.h"

enum { POOL_BUCKETS = 256 };

enum pool_stage { STAGE_MAKING, STAGE_UP, STAGE_OVER };

struct pool_conn {
	struct list link; /* bucket */
	struct pool *pool;
	struct pod *pod;
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
	unsigned n_conns;
};

/* pool_conn.c: what becomes of its client, from the first step, which it takes once it is in the table. */
extern const struct client_ops pool_client_ops;
/* Out of the table; freed when the last stream has gone. Who waits is answered. */
void pool_conn_end(struct pool_conn *c, enum traffic_flag flag, const char *why);
/* Ends and frees it at once, with the streams that it has. */
void pool_conn_kill(struct pool_conn *c);

/* pool.c: another connection would do for whatever comes next. */
bool pool_has_sibling(const struct pool_conn *c);
