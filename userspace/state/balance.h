/* SPDX-License-Identifier: Apache-2.0 */
/* Load balancing: which endpoint of a service takes a connection, and at which of its ports and addresses. Pure
 * functions. */
#pragma once
#include "state/mesh.h"
#include "state/why.h"

struct balance_request {
	const struct workload *source;
	uint16_t port;	 /* of the service */
	bool waypoint;	 /* the service is a waypoint: a port that it does not list is good for an application tunnel */
	uint64_t random; /* same value, same choice */
	struct why *why; /* or NULL */
};

struct balance_choice {
	struct workload *workload; /* borrowed from the service; NULL: no endpoint is fit */
	uint16_t port;
};

struct balance_choice balance_pick(const struct service *v, const struct balance_request *q);

/* How many of the service's routing preferences an endpoint meets; a first preference for the network counts for more
 * than all others together. `matched` is the bare count. */
unsigned balance_rank(const struct service *v, const struct workload *source, const struct workload *w,
		      unsigned *matched);
/* Port of an endpoint for a service's port. */
bool balance_port(const struct service *v, const struct workload *w, const struct membership *part, uint16_t port,
		  bool waypoint, uint16_t *out);
/* The address to use of a workload: the one that was asked for, else one that the service's families allow, of the
 * asked family if there is one. NULL: none. `v` may be NULL. */
const struct addr *balance_addr(const struct service *v, const struct workload *w, const struct addr *asked);
/* One of n weighted things. -1: all weights are zero. */
int balance_weighted(const struct weighted_gateway *g, unsigned n, uint64_t random);
/* A further random value from one. */
uint64_t balance_mix(uint64_t random, uint64_t salt);
