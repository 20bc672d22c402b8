/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the life of a store: creation, batches, watchers, counts. A batch collects what it took out of the indexes and
 * gives it back after a grace period, so whoever finds an object in a read section may take a reference to it. */
#include "state/store_internal.h"

#include <errno.h>
#include <stdlib.h>

struct store *store_new(const char *local_node)
{
	struct store *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->local_node = strdup(local_node);
	if (!s->local_node) {
		free(s);
		return NULL;
	}
	return s;
}

void store_free(struct store *s)
{
	const struct index_cursor start = {0};
	struct index_cursor c;
	void *p;

	if (!s)
		return;
	store_drop_retired(s);
	garbage_flush(&s->garbage);
	garbage_wait();
	for (c = start; (p = index_each(&s->groups, &c));)
		group_free(p);
	for (c = start; (p = index_each(&s->workloads, &c));)
		workload_unref(p);
	for (c = start; (p = index_each(&s->policies, &c));)
		policy_unref(p);
	index_free(&s->workloads);
	index_free(&s->workload_addrs);
	index_free(&s->workload_hosts);
	index_free(&s->local_workloads);
	index_free(&s->services);
	index_free(&s->service_hosts);
	index_free(&s->service_vips);
	index_free(&s->policies);
	index_free(&s->policy_scopes);
	index_free(&s->groups);
	free((char *)s->local_node);
	free(s);
}

static void begin(struct store *s, enum source source, unsigned whole)
{
	s->changed = false;
	s->whole = whole;
	s->generations[FROM_XDS] |= FROM_XDS;
	s->generations[source] += whole ? 2 : 0;
	s->generation = s->generations[source];
}

void store_begin(struct store *s)
{
	begin(s, FROM_FILE, 0);
}

void store_begin_full(struct store *s)
{
	begin(s, FROM_FILE, STORE_ADDRESSES | STORE_POLICIES);
}

void store_begin_xds(struct store *s, unsigned whole)
{
	begin(s, FROM_XDS, whole);
}

void store_keep_rest(struct store *s)
{
	s->whole = 0;
}

bool store_workload_is_xds(const struct workload *w)
{
	return from_xds(arena_of(w));
}

bool store_service_is_xds(struct service *v)
{
	return from_xds(arena_of(service_head(service_description(v))));
}

bool store_policy_is_xds(const struct policy *p)
{
	return from_xds(arena_of(p));
}

static bool is_left(const struct store *s, const struct arena *a)
{
	return a->generation != s->generation && from_xds(a) == (s->generation & 1);
}

/* Takes out what the resync did not bring again. */
static void sweep(struct store *s)
{
	struct workload *w;
	struct policy *p;
	struct group *g;
	const struct index_cursor start = {0};
	struct index_cursor c;

	for (c = start; s->whole & STORE_ADDRESSES && (w = index_each(&s->workloads, &c));)
		if (is_left(s, arena_of(w)))
			store_drop_workload(s, w);
	for (c = start; s->whole & STORE_POLICIES && (p = index_each(&s->policies, &c));)
		if (is_left(s, arena_of(p)))
			store_drop_policy(s, p);
	for (c = start; s->whole & STORE_ADDRESSES && (g = index_each(&s->groups, &c));)
		if (g->description && is_left(s, arena_of(service_head(g->description))))
			group_forget(s, g);
}

void store_commit(struct store *s)
{
	store_drop_retired(s);
	if (s->whole)
		sweep(s);
	s->whole = 0;
	groups_commit(s);
	garbage_flush(&s->garbage);
	if (!s->changed)
		return;
	s->changed = false;
	__atomic_fetch_add(&s->version, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < s->n_watchers; i++)
		s->watcher[i].changed(s->watcher[i].arg);
}

int store_watch(struct store *s, void (*changed)(void *arg), void *arg)
{
	if (s->n_watchers == STORE_WATCHERS_MAX)
		return -ENOSPC;
	s->watcher[s->n_watchers].changed = changed;
	s->watcher[s->n_watchers++].arg = arg;
	return 0;
}

uint64_t store_version(const struct store *s)
{
	return __atomic_load_n(&s->version, __ATOMIC_ACQUIRE);
}

static unsigned live(const struct index *ix)
{
	return __atomic_load_n(&ix->live, __ATOMIC_RELAXED);
}

void store_count(struct store *s, struct store_counts *out)
{
	out->workloads = live(&s->workloads);
	out->services = live(&s->services);
	out->policies = live(&s->policies);
	out->staged_endpoints = __atomic_load_n(&s->staged, __ATOMIC_RELAXED);
}
