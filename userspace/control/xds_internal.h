/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the xDS client share: xds.c has its life, xds_stream.c one stream, xds_request.c what is sent. */
#pragma once
#include <pthread.h>

#include "base/log.h"
#include "control/xds.h"

struct xds_refused {
	struct list all; /* the oldest first */
	unsigned n;
};

struct xds {
	struct loop *loop;
	struct store *store;
	struct grpc_options server; /* strings are ours, as all of these */
	char *token, *cluster_id, *node_name;
	struct grpc_header headers[XDS_HEADERS_MAX];
	unsigned n_headers;
	uint8_t *node;
	size_t node_len, message_max;
	unsigned message_ms, first_ms, demand_ms;
	void (*told_warm)(void *arg);
	void *arg;

	/* The stream. A channel serves one: the next one is to meet new roots and perhaps another istiod. */
	struct grpc_channel *channel;
	struct grpc_call *call; /* NULL: none */
	struct timer first;	/* until each type has been answered */
	unsigned messages;
	unsigned whole;	   /* types (bits) whose first answer has everything */
	unsigned answered; /* types (bits) that were */
	uint64_t opened_at;

	/* Between streams. */
	struct timer again;
	unsigned backoff_ms;
	unsigned complete;  /* types (bits) that once came without anything left out */
	bool claim_nothing; /* istiod takes no long requests */
	bool warm;
	struct timer trim;
	struct xds_demands *demands; /* NULL: everything is pushed */

	struct log_limit refusals;
	struct xds_refused refused;
	pthread_mutex_t lock; /* of `status` */
	struct xds_status status;
};

enum { XDS_ALL = (1u << XDS_TYPES) - 1 };

/* xds_request.c: each queues one request on the stream. 0, -ENOMEM, or -ENOBUFS: istiod does not read. */
int xds_request_first(struct xds *x, enum xds_type t);
/* ACK, or NACK where something was wrong. */
int xds_request_answer(struct xds *x, const struct xds_result *r);

/* Names of addresses that are wanted, or not any more. */
int xds_request_names(struct xds *x, const char *const *subscribe, size_t n, const char *const *unsubscribe, size_t m);

/* xds_demand.c */
struct xds_demands *xds_demands_new(struct xds *x); /* NULL: no memory */
void xds_demands_free(struct xds_demands *d);	    /* takes NULL */
void xds_demand_named(struct xds_demands *d, const char *name, bool removed);
/* A new stream is about to open: what it needs is named by xds_demand_each_pending(). */
void xds_demand_restart(struct xds_demands *d);
int xds_demand_each_pending(struct xds_demands *d, int (*each)(void *arg, const char *name), void *arg);

/* xds_refused.c. As xds_listener's `judged` hears it; names are told apart by so many bytes. */
enum { XDS_REFUSED_NAME_MAX = 512 };
void xds_refused_init(struct xds_refused *r);
void xds_refused_clear(struct xds_refused *r);
void xds_refused_judged(struct xds_refused *r, enum xds_type type, const char *name, const char *line, bool closed);
/* A new stream has begun: what was left out is not claimed, so that it comes again or is gone. `whole`: types (bits) of
 * which everything comes. */
void xds_refused_restart(struct xds_refused *r, unsigned whole);
/* Returns how many of them are closed. */
unsigned xds_refused_say(const struct xds_refused *r, char out[XDS_WHY_MAX]);

/* xds_stream.c. A stream that ends by itself is told to xds_ended(); one that was closed is not. -errno with one line in
 * `why`. */
int xds_stream_open(struct xds *x, char why[XDS_WHY_MAX]);
void xds_stream_close(struct xds *x);

/* xds.c */
void xds_answered(struct xds *x, const struct xds_result *r, uint64_t took_us);
void xds_ended(struct xds *x, enum grpc_status status, const char *why);
