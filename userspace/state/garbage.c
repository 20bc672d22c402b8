/* SPDX-License-Identifier: Apache-2.0 */
/* Owns deferred release and the store's read sections: liburcu, QSBR flavour. */
#define URCU_INLINE_SMALL_FUNCTIONS
#include <urcu-qsbr.h>

#include "state/garbage.h"

#include <stdlib.h>

#include "state/store.h"

enum { BAG_MIN = 16, BAG_MAX = 1024 };

struct garbage_bag {
	struct rcu_head rcu;
	unsigned n, size;
	struct {
		void (*release)(void *p);
		void *p;
	} item[];
};

static void bag_release(struct rcu_head *head)
{
	struct garbage_bag *b = caa_container_of(head, struct garbage_bag, rcu);

	for (unsigned i = 0; i < b->n; i++)
		b->item[i].release(b->item[i].p);
	free(b);
}

static struct garbage_bag *bag_with_room(struct garbage *g)
{
	struct garbage_bag *b = g->bag;
	unsigned size = b ? b->size * 2 : BAG_MIN;

	if (b && b->n < b->size)
		return b;
	if (size > BAG_MAX) {
		garbage_flush(g);
		b = NULL;
		size = BAG_MAX;
	}
	b = realloc(b, sizeof *b + size * sizeof b->item[0]);
	if (!b)
		return NULL;
	if (!g->bag)
		b->n = 0;
	b->size = size;
	g->bag = b;
	return b;
}

void garbage_add(struct garbage *g, void (*release)(void *p), void *p)
{
	struct garbage_bag *b = bag_with_room(g);

	if (!b) {
		synchronize_rcu();
		release(p);
		return;
	}
	b->item[b->n].release = release;
	b->item[b->n++].p = p;
}

void garbage_flush(struct garbage *g)
{
	if (g->bag)
		call_rcu(&g->bag->rcu, bag_release);
	g->bag = NULL;
}

void garbage_wait(void)
{
	rcu_barrier();
}

void store_thread_register(void)
{
	rcu_register_thread();
}

void store_thread_unregister(void)
{
	rcu_unregister_thread();
}

void store_thread_offline(void)
{
	rcu_thread_offline();
}

/* A busy thread never goes offline: it has passed a quiescent state all the same, and writers are told. */
void store_thread_online(void)
{
	if (rcu_read_ongoing())
		rcu_quiescent_state();
	else
		rcu_thread_online();
}

void store_read_lock(void)
{
	rcu_read_lock();
}

void store_read_unlock(void)
{
	rcu_read_unlock();
}
