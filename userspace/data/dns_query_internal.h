/* SPDX-License-Identifier: Apache-2.0 */
/* What dns_query.c (what becomes of a query) and dns_pending.c (those under way) share. */
#pragma once
#include "data/dns_query.h"
#include "data/dns_upstream.h"

/* A query where it was received. */
struct asked {
	struct post *post;
	const struct dns_client *from;
	const uint8_t *msg;
	size_t len;
	struct dns_question q;
};

/* One that is under way. */
struct query {
	struct list link;
	struct post *post;
	struct dns_client from;
	struct dns_question q;
	struct workload *source; /* referenced, or NULL: unknown */
	struct workload_wait wait;
	struct timer late; /* of the wait */
	struct dns_resolvers to;
	struct dns_upstream up;
	struct task bury;
	uint64_t since_ns;
	bool plain;   /* passed on unread */
	bool counted; /* among the pod's */
	size_t len;
	uint8_t msg[];
};

/* A copy, in its worker's list. NULL: no room, which is counted and said, or no memory. */
struct query *query_new(const struct asked *a);
/* Its answer is about to go out: who has it may ask again at once, of another worker too, and has room for that. */
void query_answered(struct query *q);
/* Whatever it waits for. */
void query_end(struct query *q);
