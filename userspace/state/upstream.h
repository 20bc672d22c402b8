/* SPDX-License-Identifier: Apache-2.0 */
/* From a name or an address to one workload and port: what routes are made of. Inside a read section;
 * everything is borrowed. */
#pragma once
#include "state/store.h"
#include "state/why.h"

struct upstream_query {
	const struct workload *source;
	struct addr asked; /* the address that the application dialled; its family is preferred */
	uint64_t random;
	struct why *why; /* or NULL */
};

struct upstream {
	struct workload *workload;
	struct service *service; /* by which it was found, or NULL */
	struct endpoint at;
	bool has_addr; /* else `at` has a port alone: the workload is known by host name, or behind a gateway */
};

enum upstream_result {
	UPSTREAM_FOUND,
	UPSTREAM_UNKNOWN,     /* nothing has this address or name */
	UPSTREAM_PASSTHROUGH, /* a service that wants the original destination */
	UPSTREAM_NONE,	      /* a service without a fit endpoint */
};

/* `waypoint`: see balance.h. */
enum upstream_result upstream_by_addr(struct store *s, const struct upstream_query *q, const char *network,
				      const struct endpoint *target, bool waypoint, struct upstream *out);
/* A waypoint's or a network gateway's address. UPSTREAM_FOUND or something else. */
enum upstream_result upstream_by_gateway(struct store *s, const struct upstream_query *q, const struct gateway *g,
					 bool waypoint, struct upstream *out);
/* Is the workload what the reference leads to, or one of the endpoints behind it? */
bool upstream_gateway_is(struct store *s, const struct gateway *g, const struct workload *w);
