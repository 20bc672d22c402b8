/* SPDX-License-Identifier: Apache-2.0 */
/* A pod's query, from when it has been received: the mesh's answer, the cache's, or a resolver's. Private to data/. */
#pragma once
#include "data/dns_answer.h"
#include "data/dns_message.h"

enum {
	DNS_QUERIES_MAX =
		1024, /* under way, of a worker; more are dropped, as a full socket buffer would, and counted */
	DNS_QUERIES_POD_MAX = 256, /* of them, a pod's on all workers */
	DNS_WORKLOAD_MS = 2000,	   /* until the mesh knows the pod; then the resolver is asked all the same */
	DNS_LIMIT_LINES = 1,	   /* a second and thread, about queries that are dropped */
};

struct dns_conn;
/* Who asked, and whereto the answer goes. */
struct dns_client {
	struct dns_path path;
	struct dns_conn *conn; /* NULL: over UDP */
};

/* Takes a copy of what it needs. */
void dns_query_take(struct post *p, const struct dns_client *from, const uint8_t *msg, size_t len);
/* Ends those that are under way, unanswered: the post's, or of those the connection's. */
void dns_queries_end(struct post *p, const struct dns_conn *conn);

/* dns_tcp.c */
enum {
	DNS_CONNS_POD_MAX = 64,	      /* connections of a pod; more are reset */
	DNS_CONN_QUERIES_MAX = 32,    /* under way, of a connection: no more are read meanwhile */
	DNS_CONN_OUT_MAX = 128 << 10, /* bytes of answers that the client does not take: the same */
	DNS_OUT_POD_MAX = 4 << 20,    /* of all of a pod's, on a worker; one more answer is its connection's end */
	DNS_CONN_IDLE_MS = 5000,      /* without a query and without an answer that is taken whole */
};
void dns_conn_answer(struct dns_conn *c, const uint8_t *msg, size_t len);
/* A query of it is under way; it is over. */
void dns_conn_hold(struct dns_conn *c);
void dns_conn_release(struct dns_conn *c);
void dns_conns_close(struct post *p);
