/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table of pointers that one thread writes while others read without locks, inside a read section of the store.
 * Open addressing: a reader sees a slot old or new, or the whole table old or new. Several objects may share a key,
 * and one object may be in it under several keys. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "state/garbage.h"

struct index_table;
struct index {
	struct index_table *table; /* NULL while nothing was ever added */
	unsigned live, used;	   /* used: with the slots of removed objects */
};

/* Room for `n` more, so that as many index_add() cannot fail. -ENOMEM. */
int index_reserve(struct index *ix, unsigned n, struct garbage *g);
void index_add(struct index *ix, uint32_t hash, void *object);
void index_remove(struct index *ix, uint32_t hash, const void *object);
/* In the place of `old` if that is there under this hash, so that no reader meets a moment without either; else
 * adds. */
void index_put(struct index *ix, uint32_t hash, const void *old, void *object);
/* Without readers. */
void index_free(struct index *ix);

/* Objects of one hash; the caller compares keys. `for (index_find(...); (x = index_next(...)); )`. */
struct index_cursor {
	const struct index_table *table;
	uint32_t hash, at;
};
void index_find(const struct index *ix, uint32_t hash, struct index_cursor *c);
void *index_next(struct index_cursor *c);
/* All objects, each as often as it has keys; the cursor starts zeroed. NULL: no more. */
void *index_each(const struct index *ix, struct index_cursor *c);
