/* SPDX-License-Identifier: Apache-2.0 */
/* The table of sources. One without references stays only while something is held against it; who looks into its bucket after
 * that clears it away. */
#include "data/sources.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { STREAMS_LEAST = 256, WAITING_LEAST = SOURCE_HANDSHAKES_MAX, WAITING_OF = 4 };

struct sources *sources_new(struct loop *l, unsigned workers, unsigned *waiting)
{
	struct sources *all = calloc(1, sizeof *all);

	if (!all)
		return NULL;
	all->loop = l;
	all->all_waiting = waiting;
	for (unsigned i = 0; i < SOURCE_BUCKETS; i++)
		list_init(&all->bucket[i]);
	list_init(&all->turn);
	list_init(&all->asking);
	list_init(&all->waiting);
	all->streams_max = limit_of_files(SOURCE_STREAMS_MAX, 2, workers, STREAMS_LEAST);
	all->waiting_max = limit_of_files(SOURCE_WAITING_MAX, WAITING_OF, 1, WAITING_LEAST);
	all->waiting_all = limit_of_files(UINT_MAX, WAITING_OF, 1, WAITING_LEAST);
	all->waiting_share = limit_of_files(UINT_MAX, WAITING_OF, workers, WAITING_LEAST);
	return all;
}

static void source_free(struct source *s)
{
	list_del(&s->link);
	free(s);
}

static bool is_calm(const struct source *s)
{
	return loop_now(s->all->loop) >= s->calm_at;
}

/* Nothing is held against it. */
static bool is_clean(const struct source *s)
{
	return is_calm(s) && loop_now(s->all->loop) >= s->faults_until;
}

void sources_free(struct sources *all)
{
	for (unsigned i = 0; all && i < SOURCE_BUCKETS; i++)
		list_for_each_safe (pos, tmp, &all->bucket[i])
			source_free(list_entry(pos, struct source, link));
	free(all);
}

/* Of an IPv6 host that nobody vouches for the upper half counts: it has all addresses of its network. */
static struct addr network_of(const struct addr *ip, bool known)
{
	struct addr at = *ip;

	if (!known && !addr_is4(ip))
		memset(at.b + 8, 0, 8);
	return at;
}

struct source *source_get(struct sources *all, const struct addr *ip, bool known)
{
	struct addr at = network_of(ip, known);
	struct list *bucket = &all->bucket[addr_hash(&at) % SOURCE_BUCKETS];
	struct source *s;

	list_for_each_safe (pos, tmp, bucket) {
		s = list_entry(pos, struct source, link);
		if (addr_eq(&s->ip, &at))
			return source_ref(s);
		if (!s->refs && is_clean(s))
			source_free(s);
	}
	s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->all = all;
	s->ip = at;
	list_init(&s->turn);
	list_init(&s->waiting);
	list_init(&s->queued);
	list_init(&s->asking);
	list_init(&s->requests);
	list_add(bucket, &s->link);
	return source_ref(s);
}

struct source *source_ref(struct source *s)
{
	s->refs++;
	return s;
}

void source_put(struct source *s)
{
	if (s && !--s->refs && is_clean(s))
		source_free(s);
}

void source_waiter_init(struct source_waiter *w)
{
	list_init(&w->of_source);
	list_init(&w->of_all);
}

struct source_waiter *source_wait(struct source *s, struct source_waiter *w, enum limit *why)
{
	struct sources *all = s->all;
	bool full = __atomic_add_fetch(all->all_waiting, 1, __ATOMIC_RELAXED) > all->waiting_all;

	list_add_tail(&s->waiting, &w->of_source);
	list_add_tail(&all->waiting, &w->of_all);
	s->n_waiting++;
	all->n_waiting++;
	if (s->n_waiting > all->waiting_max) {
		*why = LIMIT_HANDSHAKES;
		return list_entry(s->waiting.next, struct source_waiter, of_source);
	}
	if (full && all->n_waiting > all->waiting_share) {
		*why = LIMIT_HANDSHAKES_OF_ALL;
		return list_entry(all->waiting.next, struct source_waiter, of_all);
	}
	return NULL;
}

void source_waited(struct source *s, struct source_waiter *w)
{
	if (list_empty(&w->of_all))
		return;
	list_del(&w->of_source);
	list_del(&w->of_all);
	s->n_waiting--;
	s->all->n_waiting--;
	__atomic_sub_fetch(s->all->all_waiting, 1, __ATOMIC_RELAXED);
}

void source_flooded(struct source *s)
{
	s->calm_at = loop_now(s->all->loop) + SOURCE_CALM_MS;
}

void source_fault(struct source *s)
{
	uint64_t now = loop_now(s->all->loop);

	s->faults_until = (s->faults_until > now ? s->faults_until : now) + SOURCE_FAULT_MS;
	if (s->faults_until - now > SOURCE_FAULTS_MAX * SOURCE_FAULT_MS) {
		s->faults_until = now + SOURCE_FAULTS_MAX * SOURCE_FAULT_MS;
		source_flooded(s);
	}
}

bool source_may_begin(const struct source *s)
{
	return s->n_shaking < SOURCE_HANDSHAKES_MAX && is_calm(s);
}
