/* SPDX-License-Identifier: Apache-2.0 */
/* Where an object of the mesh lives with all that it owns. The object follows the arena's own fields, so that the one
 * is found from the other. */
#pragma once
#include "state/mesh.h"

struct chunk {
	struct chunk *next;	    /* of the first: the newest one, or NULL */
	uint32_t size, used, n_ids; /* identifiers of shared texts grow down from the end */
	_Alignas(8) char bytes[];
};

struct arena {
	uint32_t order;	     /* of insertion into the store */
	uint32_t generation; /* of the last full resync of its source that had this object */
	uint64_t version;    /* what xDS calls the object as it is; 0: nothing */
	struct chunk first;
};

/* Room for an object of `size` bytes, zeroed, and `more` bytes for what it will own. NULL: no memory. */
struct arena *arena_new(size_t size, size_t more);
/* Takes NULL. */
void arena_free(struct arena *a);

static inline void *arena_object(struct arena *a)
{
	return a->first.bytes;
}
static inline struct arena *arena_of(const void *object)
{
	return (struct arena *)((char *)object - offsetof(struct arena, first.bytes));
}

/* What precedes each service: it is either the description as it was given, in an arena, or a version that the store
 * made of one by adding endpoints. A version's texts and arrays are its description's. */
struct service_head {
	struct service *description; /* referenced; NULL: this is one */
	uint32_t order, capacity;    /* capacity: of every endpoint, or 0 when they differ */
	struct service v;
};

static inline struct service_head *service_head(const struct service *v)
{
	return (struct service_head *)((char *)v - offsetof(struct service_head, v));
}

/* What a service is without its endpoints. Who keeps a service for long keeps this: a version would keep every workload
 * that was behind it at that moment. */
static inline struct service *service_description(struct service *v)
{
	struct service *d = service_head(v)->description;

	return d ? d : v;
}

/* A version of `description` with room for `n` endpoints, which the caller fills. NULL: no memory. */
struct service *service_version(struct service *description, unsigned n);
