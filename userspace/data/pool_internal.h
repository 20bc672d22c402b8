/* SPDX-License-Identifier: Apache-2.0 */
/* What pool.c (which connections there are, who gets which) and pool_conn.c (the life of one) share. */
#pragma once
#include "data/dial.h"
#include "data/pool.h"

enum { POOL_BUCKETS = 256 };

enum pool_stage { STAGE_CERT, STAGE_DIAL, STAGE_TLS, STAGE_UP, STAGE_OVER };

struct pool_conn {
	struct list link; /* bucket */
	struct pool *pool;
	struct pod *pod;
	struct endpoint to;
	char *expect; /* accepted identities, each ended by '\n' */
	enum pool_stage stage;
	struct cert_request *cert;
	struct tls_id *id;
	struct dial dial;
	struct io io;
	struct tls_handshake *tls;
	struct h2 *h2;
	struct rstr *peer;
	struct crl_path *path; /* of the peer; or NULL */
	struct timer timer;    /* handshake, then idleness */
	struct list waiters;
	unsigned n_waiters;
	struct task bury;
};

struct pool {
	struct worker *w;
	struct list bucket[POOL_BUCKETS];
	unsigned n_conns;
};

/* pool_conn.c: its first step, once it is in the table; it may be over when this returns. */
void pool_conn_start(struct pool_conn *c, const char *self);
/* Out of the table; freed when the last stream has gone. Who waits is answered. */
void pool_conn_end(struct pool_conn *c, enum traffic_flag flag, const char *why);
/* Ends and frees it at once, with the streams that it has. */
void pool_conn_kill(struct pool_conn *c);

/* pool.c: another connection would do for whatever comes next. */
bool pool_has_sibling(const struct pool_conn *c);
