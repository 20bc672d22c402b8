/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's cache of what resolvers have answered. An answer is given to the pod that asked for it and to no other, from
 * the resolver that it asks, and loses lifetime while it lies here. Bounded for the worker, and for each pod, so that no
 * pod's names drive out everybody's. Private to data/. */
#pragma once
#include "base/list.h"
#include "data/dns_message.h"

enum {
	DNS_CACHE_BYTES = 4 << 20,	 /* of a worker */
	DNS_CACHE_POD_BYTES = 256 << 10, /* of a pod in it */
	DNS_CACHE_TTL_MAX_S = 300,	 /* however long they would be good for */
};

/* A pod's part, embedded in its post. */
struct dns_share {
	struct list entries; /* the least recently used first */
	size_t bytes;
};
void dns_share_init(struct dns_share *s);

struct dns_cache;
struct dns_cache *dns_cache_new(void);	  /* NULL: no memory */
void dns_cache_free(struct dns_cache *c); /* takes NULL */

/* Writes the answer to `q` as this resolver gave it, for at most `cap` bytes. Its length; 0: there is none. */
size_t dns_cache_get(struct dns_cache *c, struct dns_share *pod, const struct endpoint *resolver,
		     const struct dns_question *q, uint64_t now_ms, size_t cap, uint8_t *out);
/* `r` is what the answer was read as. What may not be kept is passed over. */
void dns_cache_put(struct dns_cache *c, struct dns_share *pod, const struct endpoint *resolver,
		   const struct dns_question *q, const struct dns_reply *r, uint64_t now_ms, const uint8_t *msg,
		   size_t len);
/* The pod goes. */
void dns_cache_drop(struct dns_cache *c, struct dns_share *pod);
size_t dns_cache_bytes(const struct dns_cache *c);
