/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the layout of an index: one array of pointers and one of their hashes, which a search walks alone until a hash
 * fits. A removed object leaves a tombstone that a later one may take; nothing ever moves inside a table, growing makes
 * a new one. */
#include "state/index.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
	SLOTS_MIN = 16,
	MAPPED_MIN = 8 << 10, /* bytes of a table from which on it is mapped: freed, it leaves no hole in the heap */
};

struct index_table {
	size_t size;
	uint32_t n;
	uint32_t *hash; /* behind the slots; 0: never used, so every search ends here */
	void *slot[];
};

static char tombstone;

static void *slot_get(const struct index_table *t, uint32_t i)
{
	return __atomic_load_n(&t->slot[i], __ATOMIC_ACQUIRE);
}

static void slot_set(struct index_table *t, uint32_t i, void *p)
{
	__atomic_store_n(&t->slot[i], p, __ATOMIC_RELEASE);
}

static uint32_t hash_get(const struct index_table *t, uint32_t i)
{
	return __atomic_load_n(&t->hash[i], __ATOMIC_RELAXED);
}

static const struct index_table *table_get(const struct index *ix)
{
	return __atomic_load_n(&ix->table, __ATOMIC_ACQUIRE);
}

static uint32_t used_hash(uint32_t hash)
{
	return hash ? hash : 1;
}

static uint32_t home(const struct index_table *t, uint32_t hash)
{
	return (uint32_t)((uint64_t)hash * t->n >> 32);
}

static uint32_t after(const struct index_table *t, uint32_t i)
{
	return i + 1 < t->n ? i + 1 : 0;
}

static void *pages(size_t size)
{
	/* cppcheck-suppress invalidFunctionArg ; -1: no file */
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	return p;
}

static struct index_table *table_new(uint32_t slots)
{
	size_t size = sizeof(struct index_table) + slots * (sizeof(void *) + sizeof(uint32_t));
	struct index_table *t = size < MAPPED_MIN ? calloc(1, size) : pages(size);

	if (!t)
		return NULL;
	t->size = size;
	t->n = slots;
	t->hash = (uint32_t *)&t->slot[slots];
	return t;
}

static void table_free(void *p)
{
	struct index_table *t = p;

	if (t && t->size >= MAPPED_MIN)
		munmap(t, t->size);
	else
		free(t);
}

/* Returns whether it took a slot that was never used. */
static bool table_put(struct index_table *t, uint32_t hash, void *object)
{
	uint32_t i = home(t, hash);
	bool fresh;

	while (t->hash[i] && t->slot[i] != &tombstone)
		i = after(t, i);
	fresh = !t->hash[i];
	__atomic_store_n(&t->hash[i], hash, __ATOMIC_RELAXED);
	slot_set(t, i, object);
	return fresh;
}

/* Seven eighths of the slots at most are in use; a new table has seven tenths of them taken. */
static uint32_t limit(const struct index_table *t)
{
	return t->n - t->n / 8;
}

int index_reserve(struct index *ix, unsigned n, struct garbage *g)
{
	struct index_table *old = ix->table, *t;

	if (old && ix->used + n <= limit(old))
		return 0;
	t = table_new(SLOTS_MIN + (uint32_t)((uint64_t)(ix->live + n) * 10 / 7));
	if (!t)
		return -ENOMEM;
	for (uint32_t i = 0; old && i < old->n; i++)
		if (old->hash[i] && old->slot[i] != &tombstone)
			table_put(t, old->hash[i], old->slot[i]);
	ix->used = ix->live;
	__atomic_store_n(&ix->table, t, __ATOMIC_RELEASE);
	if (old) {
		garbage_add(g, table_free, old);
		garbage_flush(g); /* tables are large, and each is several times replaced while a mesh arrives */
	}
	return 0;
}

void index_add(struct index *ix, uint32_t hash, void *object)
{
	ix->used += table_put(ix->table, used_hash(hash), object);
	ix->live++;
}

static bool find_slot(const struct index *ix, uint32_t hash, const void *object, uint32_t *at)
{
	const struct index_table *t = ix->table;

	if (!t)
		return false;
	hash = used_hash(hash);
	for (uint32_t i = home(t, hash); t->hash[i]; i = after(t, i))
		if (t->hash[i] == hash && t->slot[i] == object) {
			*at = i;
			return true;
		}
	return false;
}

void index_remove(struct index *ix, uint32_t hash, const void *object)
{
	uint32_t i;

	if (!find_slot(ix, hash, object, &i))
		return;
	slot_set(ix->table, i, &tombstone);
	ix->live--;
}

void index_put(struct index *ix, uint32_t hash, const void *old, void *object)
{
	uint32_t i;

	if (old && find_slot(ix, hash, old, &i))
		slot_set(ix->table, i, object);
	else
		index_add(ix, hash, object);
}

void index_free(struct index *ix)
{
	table_free(ix->table);
	*ix = (struct index){0};
}

void index_find(const struct index *ix, uint32_t hash, struct index_cursor *c)
{
	c->table = table_get(ix);
	c->hash = used_hash(hash);
	c->at = c->table ? home(c->table, c->hash) : 0;
}

void *index_next(struct index_cursor *c)
{
	uint32_t hash;

	while (c->table && (hash = hash_get(c->table, c->at))) {
		void *p = hash == c->hash ? slot_get(c->table, c->at) : NULL;
		c->at = after(c->table, c->at);
		if (p && p != &tombstone)
			return p;
	}
	return NULL;
}

void *index_each(const struct index *ix, struct index_cursor *c)
{
	void *p;

	if (!c->table)
		c->table = table_get(ix);
	while (c->table && c->at < c->table->n) {
		p = slot_get(c->table, c->at++);
		if (p && p != &tombstone)
			return p;
	}
	return NULL;
}
