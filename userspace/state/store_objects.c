/* SPDX-License-Identifier: Apache-2.0 */
/* Owns insertion and removal of workloads, services and policies. All memory is reserved first: from the first index
 * that changes to the last nothing can fail. */
#include "state/store_internal.h"

#include <errno.h>
#include <stdlib.h>

enum { RETIRED_MIN = 16 };

static void release_workload(void *w)
{
	workload_unref(w);
}

static void release_policy(void *p)
{
	policy_unref(p);
}

/* --- workloads ------------------------------------------------------------------------------------------ */

static bool is_local(const struct store *s, const struct workload *w)
{
	return !s->local_node[0] || strcmp(s->local_node, w->node) == 0;
}

/* The node's address is shared by all pods of the host's network. */
static unsigned found_ips(const struct workload *w)
{
	return w->network_mode == NETWORK_HOST ? 0 : w->n_ips;
}

static int workload_reserve(struct store *s, const struct workload *w)
{
	struct group *g;

	if (index_reserve(&s->workloads, 1, &s->garbage) < 0 ||
	    index_reserve(&s->workload_addrs, found_ips(w), &s->garbage) < 0 ||
	    index_reserve(&s->workload_hosts, 1, &s->garbage) < 0 ||
	    index_reserve(&s->local_workloads, 1, &s->garbage) < 0)
		return -ENOMEM;
	for (unsigned i = 0; i < w->n_services; i++)
		if (group_get(s, w->services[i].ns, w->services[i].hostname, &g) < 0 || group_reserve(g, 1) < 0)
			return -ENOMEM;
	return 0;
}

static bool first_of_service(const struct workload *w, unsigned i)
{
	for (unsigned j = 0; j < i; j++)
		if (strcmp(w->services[j].hostname, w->services[i].hostname) == 0 &&
		    strcmp(w->services[j].ns, w->services[i].ns) == 0)
			return false;
	return true;
}

/* What has the key that the old one had takes its place at once: a pod that is known all the time is found all the
 * time, or a connection to it would go out in plaintext. */
static void workload_show(struct store *s, struct workload *w, struct workload *old)
{
	struct group *g;

	index_put(&s->workloads, hash_text(0, w->uid), old, w);
	for (unsigned i = 0; i < found_ips(w); i++)
		index_put(&s->workload_addrs, key_addr(w->network, &w->ips[i]), old, w);
	if (w->hostname[0])
		index_put(&s->workload_hosts, key_two(w->ns, w->hostname), old, w);
	if (is_local(s, w))
		index_put(&s->local_workloads, key_local(w->ns, w->service_account, w->name), old, w);
	for (unsigned i = 0; i < w->n_services; i++)
		if (first_of_service(w, i) && group_get(s, w->services[i].ns, w->services[i].hostname, &g) == 0)
			group_join(s, g, w, &w->services[i]);
}

/* Wherever it still is. */
void store_drop_workload(struct store *s, struct workload *w)
{
	index_remove(&s->workloads, hash_text(0, w->uid), w);
	for (unsigned i = 0; i < found_ips(w); i++)
		index_remove(&s->workload_addrs, key_addr(w->network, &w->ips[i]), w);
	if (w->hostname[0])
		index_remove(&s->workload_hosts, key_two(w->ns, w->hostname), w);
	if (is_local(s, w))
		index_remove(&s->local_workloads, key_local(w->ns, w->service_account, w->name), w);
	for (unsigned i = 0; i < w->n_services; i++)
		if (first_of_service(w, i))
			group_leave(s, &w->services[i]);
	garbage_add(&s->garbage, release_workload, w);
	s->changed = true;
}

void store_drop_retired(struct store *s)
{
	store_taking(s);
	while (s->retired_workloads.n)
		store_drop_workload(s, s->retired_workloads.p[--s->retired_workloads.n]);
	while (s->retired_policies.n)
		store_drop_policy(s, s->retired_policies.p[--s->retired_policies.n]);
	free(s->retired_workloads.p);
	free(s->retired_policies.p);
	s->retired_workloads = s->retired_policies = (struct retired){0};
}

static int retire(struct retired *r, void *object)
{
	if (r->n == r->size) {
		unsigned size = r->size * 2 + RETIRED_MIN;
		void **p = realloc(r->p, size * sizeof *p);

		if (!p)
			return -ENOMEM;
		r->p = p;
		r->size = size;
	}
	r->p[r->n++] = object;
	return 0;
}

/* It is gone by its name, but by address and the rest only with the commit: an address that moves from one pod to another
 * in a batch is somebody's all the time. Without memory it goes at once. */
static void workload_retire(struct store *s, struct workload *w)
{
	index_remove(&s->workloads, hash_text(0, w->uid), w);
	s->changed = true;
	if (retire(&s->retired_workloads, w) < 0)
		store_drop_workload(s, w);
}

int store_insert_workload(struct store *s, struct workload *w)
{
	struct workload *old = store_workload_by_uid(s, w->uid);

	if (workload_reserve(s, w) < 0) {
		workload_unref(w);
		return -ENOMEM;
	}
	arena_of(w)->order = ++s->order;
	arena_of(w)->generation = s->generation;
	workload_show(s, w, old);
	if (old)
		workload_retire(s, old);
	s->changed = true;
	return 0;
}

/* --- services ------------------------------------------------------------------------------------------- */

int store_insert_service(struct store *s, struct service *v)
{
	struct group *g;

	if (group_get(s, v->ns, v->hostname, &g) < 0) {
		service_unref(v);
		return -ENOMEM;
	}
	if (!g->description) {
		g->order = ++s->order;
		__atomic_store_n(&s->staged, s->staged - g->n_members, __ATOMIC_RELAXED);
	}
	service_unref(g->description);
	g->description = v;
	arena_of(service_head(v))->generation = s->generation;
	group_touch(s, g);
	return 0;
}

/* By "NAMESPACE/HOSTNAME". */
static struct group *group_of(struct store *s, const char *name)
{
	const char *slash = strchr(name, '/');
	struct group *g;
	char *ns;

	if (!slash || strchr(slash + 1, '/'))
		return NULL;
	ns = strndup(name, (size_t)(slash - name));
	if (!ns)
		return NULL;
	g = group_find(s, ns, slash + 1);
	free(ns);
	return g;
}

void store_remove_address(struct store *s, const char *name)
{
	struct workload *w = store_workload_by_uid(s, name);
	struct group *g = w ? NULL : group_of(s, name);

	if (w)
		workload_retire(s, w);
	else if (g)
		group_forget(s, g);
}

bool store_keep_address(struct store *s, const char *name, uint64_t version)
{
	struct workload *w = store_workload_by_uid(s, name);
	struct group *g = w ? NULL : group_of(s, name);
	struct arena *a = w ? arena_of(w) : g && g->description ? arena_of(service_head(g->description)) : NULL;

	if (!a || !version || a->version != version || !from_xds(a) || a->generation == s->generation)
		return false;
	a->generation = s->generation;
	return true;
}

/* --- policies ------------------------------------------------------------------------------------------- */

/* The namespace whose workloads a policy is for; NULL: those that name it. */
static const char *policy_applies_to(const struct policy *p)
{
	return p->scope == POLICY_SELECTOR ? NULL : p->scope == POLICY_GLOBAL ? "" : p->ns;
}

void store_drop_policy(struct store *s, struct policy *p)
{
	const char *ns = policy_applies_to(p);

	index_remove(&s->policies, key_two(p->ns, p->name), p);
	if (ns)
		index_remove(&s->policy_scopes, hash_text(0, ns), p);
	garbage_add(&s->garbage, release_policy, p);
	s->changed = true;
}

int store_insert_policy(struct store *s, struct policy *p)
{
	const char *ns = policy_applies_to(p);
	struct policy *old = store_policy_exact(s, p->ns, p->name);

	if (index_reserve(&s->policies, 1, &s->garbage) < 0 || index_reserve(&s->policy_scopes, 1, &s->garbage) < 0) {
		policy_unref(p);
		return -ENOMEM;
	}
	arena_of(p)->order = ++s->order;
	arena_of(p)->generation = s->generation;
	index_put(&s->policies, key_two(p->ns, p->name), old, p);
	if (ns)
		index_put(&s->policy_scopes, hash_text(0, ns), old, p);
	/* A policy may now reach by a workload's name for it what it reached by its scope: until that workload has come, too,
	 * the old one applies. */
	if (old && retire(&s->retired_policies, old) < 0)
		store_drop_policy(s, old);
	s->changed = true;
	return 0;
}

void store_remove_policy(struct store *s, const char *name)
{
	struct policy *p = store_policy(s, name);

	if (p)
		store_drop_policy(s, p);
}
