/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the pool of shared texts: a table by identifier and a hash table of identifiers, behind one lock. It shrinks
 * to nothing when the last text goes. */
#include "state/intern.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "state/hash.h"

struct text {
	uint32_t refs, hash;
	char s[];
};

enum { NOTHING = UINT32_MAX, SLOTS_MIN = 64 };

/* Free identifiers are chained through `free_next`. */
union entry {
	struct text *text;
	uintptr_t free_next;
};

static struct {
	pthread_mutex_t lock;
	union entry *entry;
	uint32_t *slot; /* identifier + 1, 0: empty */
	uint32_t n_entries, mask, free, live;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .free = NOTHING};

static uint32_t slot_of(const char *s, size_t len, uint32_t hash)
{
	uint32_t i = hash & pool.mask;

	for (; pool.slot[i]; i = (i + 1) & pool.mask) {
		const struct text *t = pool.entry[pool.slot[i] - 1].text;
		if (t->hash == hash && strncmp(t->s, s, len) == 0 && !t->s[len])
			break;
	}
	return i;
}

static bool grow_slots(void)
{
	uint32_t n = pool.slot ? (pool.mask + 1) * 2 : SLOTS_MIN, old_n = pool.slot ? pool.mask + 1 : 0;
	uint32_t *old = pool.slot, *slot = calloc(n, sizeof *slot);

	if (!slot)
		return false;
	pool.slot = slot;
	pool.mask = n - 1;
	for (uint32_t i = 0; i < old_n; i++)
		if (old[i]) {
			uint32_t at = pool.entry[old[i] - 1].text->hash & pool.mask;
			while (slot[at])
				at = (at + 1) & pool.mask;
			slot[at] = old[i];
		}
	free(old);
	return true;
}

static bool grow_entries(void)
{
	uint32_t n = pool.n_entries ? pool.n_entries + pool.n_entries / 2 : SLOTS_MIN;
	union entry *e = realloc(pool.entry, n * sizeof *e);

	if (!e)
		return false;
	for (uint32_t i = pool.n_entries; i < n; i++)
		e[i].free_next = i + 1 < n ? i + 1 : NOTHING;
	pool.free = pool.n_entries;
	pool.entry = e;
	pool.n_entries = n;
	return true;
}

static const char *add(const char *s, size_t len, uint32_t hash, uint32_t *id)
{
	struct text *t;

	if ((!pool.slot || pool.live * 4 >= pool.mask * 3) && !grow_slots())
		return NULL;
	if (pool.free == NOTHING && !grow_entries())
		return NULL;
	t = malloc(sizeof *t + len + 1);
	if (!t)
		return NULL;
	t->refs = 1;
	t->hash = hash;
	memcpy(t->s, s, len);
	t->s[len] = 0;
	*id = pool.free;
	pool.free = (uint32_t)pool.entry[*id].free_next;
	pool.entry[*id].text = t;
	pool.slot[slot_of(s, len, hash)] = *id + 1;
	pool.live++;
	return t->s;
}

const char *intern_get(const char *s, size_t len, uint32_t *id)
{
	uint32_t hash = hash_bytes(0, s, len), i;
	const char *out;

	pthread_mutex_lock(&pool.lock);
	i = pool.slot ? slot_of(s, len, hash) : 0;
	if (pool.slot && pool.slot[i]) {
		*id = pool.slot[i] - 1;
		pool.entry[*id].text->refs++;
		out = pool.entry[*id].text->s;
	} else {
		out = add(s, len, hash, id);
	}
	pthread_mutex_unlock(&pool.lock);
	return out;
}

/* Closes the gap that a removed slot leaves, so that no search stops short. */
static void slot_remove(uint32_t hole)
{
	for (uint32_t i = (hole + 1) & pool.mask; pool.slot[i]; i = (i + 1) & pool.mask) {
		uint32_t home = pool.entry[pool.slot[i] - 1].text->hash & pool.mask;
		if (((i - home) & pool.mask) >= ((i - hole) & pool.mask)) {
			pool.slot[hole] = pool.slot[i];
			hole = i;
		}
	}
	pool.slot[hole] = 0;
}

static void pool_empty(void)
{
	free(pool.slot);
	free(pool.entry);
	pool.slot = NULL;
	pool.entry = NULL;
	pool.n_entries = pool.mask = 0;
	pool.free = NOTHING;
}

void intern_put(uint32_t id)
{
	struct text *t;

	pthread_mutex_lock(&pool.lock);
	t = pool.entry[id].text;
	if (--t->refs == 0) {
		slot_remove(slot_of(t->s, strlen(t->s), t->hash));
		free(t);
		pool.entry[id].free_next = pool.free;
		pool.free = id;
		if (--pool.live == 0)
			pool_empty();
	}
	pthread_mutex_unlock(&pool.lock);
}

unsigned intern_count(void)
{
	unsigned n;

	pthread_mutex_lock(&pool.lock);
	n = pool.live;
	pthread_mutex_unlock(&pool.lock);
	return n;
}
