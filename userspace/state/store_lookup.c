/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the lookups: which object wins when several fit. Readers only; nothing here locks or waits. */
#include "state/store_internal.h"

#include <stdlib.h>

/* --- workloads ------------------------------------------------------------------------------------------ */

struct workload *store_workload_by_uid(struct store *s, const char *uid)
{
	struct index_cursor c;
	struct workload *w;

	index_find(&s->workloads, hash_text(0, uid), &c);
	while ((w = index_next(&c)))
		if (strcmp(w->uid, uid) == 0)
			return w;
	return NULL;
}

static bool workload_has(const struct workload *w, const char *network, const struct addr *ip)
{
	if (strcmp(w->network, network) != 0)
		return false;
	for (unsigned i = 0; i < w->n_ips; i++)
		if (addr_eq(&w->ips[i], ip))
			return true;
	return false;
}

static unsigned workload_rank(const struct workload *w)
{
	return (strstr(w->uid, "//Pod/") ? 2u : 0u) + (w->protocol == PROTO_HBONE ? 1u : 0u);
}

/* Higher rank first, then the one that came last. */
static bool workload_wins(const struct workload *w, const struct workload *best)
{
	unsigned a = workload_rank(w), b = best ? workload_rank(best) : 0;

	return !best || a > b || (a == b && arena_of(w)->order > arena_of(best)->order);
}

/* An address that moves to another object while a lookup is under way may be taken from where the lookup has yet to
 * look after it was put where the lookup has already been. So who finds nothing looks again if anything has been taken:
 * what was put before is seen then. */
static bool looks_again(const struct store *s, unsigned *takings)
{
	unsigned before = *takings;

	*takings = __atomic_load_n(&s->takings, __ATOMIC_ACQUIRE);
	return *takings != before;
}

static struct workload *workload_by_addr(struct store *s, const char *network, const struct addr *ip)
{
	struct workload *w, *best = NULL;
	struct index_cursor c;

	index_find(&s->workload_addrs, key_addr(network, ip), &c);
	while ((w = index_next(&c)))
		if (workload_has(w, network, ip) && workload_wins(w, best))
			best = w;
	return best;
}

struct workload *store_workload_by_addr(struct store *s, const char *network, const struct addr *ip)
{
	unsigned takings = __atomic_load_n(&s->takings, __ATOMIC_ACQUIRE);
	struct workload *w;

	do {
		w = workload_by_addr(s, network, ip);
	} while (!w && looks_again(s, &takings));
	return w;
}

struct workload *store_local_workload(struct store *s, const char *ns, const char *sa, const char *name)
{
	struct workload *w, *best = NULL;
	struct index_cursor c;

	index_find(&s->local_workloads, key_local(ns, sa, name), &c);
	while ((w = index_next(&c)))
		if (strcmp(w->name, name) == 0 && strcmp(w->ns, ns) == 0 && strcmp(w->service_account, sa) == 0 &&
		    workload_wins(w, best))
			best = w;
	return best;
}

struct workload *store_workload_by_host(struct store *s, const char *ns, const char *hostname)
{
	struct workload *w, *first = NULL;
	struct index_cursor c;

	index_find(&s->workload_hosts, key_two(ns, hostname), &c);
	while ((w = index_next(&c)))
		if (strcmp(w->hostname, hostname) == 0 && strcmp(w->ns, ns) == 0 &&
		    (!first || arena_of(w)->order < arena_of(first)->order))
			first = w;
	return first;
}

/* --- services ------------------------------------------------------------------------------------------- */

struct candidate {
	struct service *v;
	bool own_ns, preferred;
	unsigned len; /* of the VIP's prefix */
};

static bool visible(const struct service *v, const char *client_ns)
{
	return v->visibility != VISIBLE_NAMESPACE || !client_ns || strcmp(v->ns, client_ns) == 0;
}

/* The client's namespace, the longer prefix, canonical, preferred, the older one; `newest` turns the last round for canonical
 * ones. */
static bool service_wins(const struct candidate *a, const struct candidate *b, bool newest)
{
	uint32_t x = service_head(a->v)->order, y = b->v ? service_head(b->v)->order : 0;

	if (!b->v)
		return true;
	if (a->own_ns != b->own_ns)
		return a->own_ns;
	if (a->len != b->len)
		return a->len > b->len;
	if (a->v->canonical != b->v->canonical)
		return a->v->canonical;
	if (!a->v->canonical && a->preferred != b->preferred)
		return a->preferred;
	return newest && a->v->canonical ? x > y : x < y;
}

static void consider(struct candidate *best, struct service *v, const char *client_ns, unsigned len, bool newest)
{
	struct candidate c = {.v = v, .own_ns = client_ns && strcmp(v->ns, client_ns) == 0, .len = len};

	if (visible(v, client_ns) && service_wins(&c, best, newest))
		*best = c;
}

static bool service_has(const struct service *v, const char *network, const struct addr *ip, unsigned len)
{
	for (unsigned i = 0; i < v->n_vips; i++) {
		struct addr own = addr_masked(&v->vips[i].addr.ip, len);
		if (vip_length(&v->vips[i]) == len && addr_eq(&own, ip) &&
		    strcmp(v->vips[i].addr.network, network) == 0)
			return true;
	}
	return false;
}

static void consider_vip(struct store *s, struct candidate *best, const char *network, const struct addr *ip,
			 unsigned len, const char *client_ns)
{
	struct addr masked = addr_masked(ip, len);
	struct index_cursor c;
	struct service *v;

	index_find(&s->service_vips, key_vip(network, &masked, len), &c);
	while ((v = index_next(&c)))
		if (service_has(v, network, &masked, len))
			consider(best, v, client_ns, len, false);
}

static struct service *service_by_vip(struct store *s, const char *network, const struct addr *ip,
				      const char *client_ns)
{
	unsigned full = vip_full_length(ip);
	const unsigned *cidrs = s->cidrs[addr_is4(ip)];
	struct candidate best = {0};

	consider_vip(s, &best, network, ip, full, client_ns);
	if (best.v)
		return best.v;
	for (unsigned len = 0; len < full; len++)
		if (__atomic_load_n(&cidrs[len], __ATOMIC_ACQUIRE))
			consider_vip(s, &best, network, ip, len, client_ns);
	return best.v;
}

struct service *store_service_by_vip(struct store *s, const char *network, const struct addr *ip, const char *client_ns)
{
	unsigned takings = __atomic_load_n(&s->takings, __ATOMIC_ACQUIRE);
	struct service *v;

	do {
		v = service_by_vip(s, network, ip, client_ns);
	} while (!v && looks_again(s, &takings));
	return v;
}

struct service *store_service_by_host(struct store *s, const char *hostname, const char *client_ns)
{
	struct candidate best = {0};
	struct index_cursor c;
	struct service *v;

	index_find(&s->service_hosts, hash_text(0, hostname), &c);
	while ((v = index_next(&c)))
		if (strcmp(v->hostname, hostname) == 0)
			consider(&best, v, client_ns, 0, true);
	return best.v;
}

struct service *store_service_for_name(struct store *s, const char *hostname, const struct name_choice *n)
{
	struct candidate best = {0};
	struct index_cursor c;
	struct service *v;

	index_find(&s->service_hosts, hash_text(0, hostname), &c);
	while ((v = index_next(&c))) {
		struct candidate x = {v, strcmp(v->ns, n->client_ns) == 0, strcmp(v->ns, n->preferred_ns) == 0, 0};

		if (strcmp(v->hostname, hostname) == 0 && visible(v, n->client_ns) && n->fits(v, n->arg) &&
		    service_wins(&x, &best, true))
			best = x;
	}
	return best.v;
}

struct service *store_service_exact(struct store *s, const char *ns, const char *hostname)
{
	struct index_cursor c;
	struct service *v;

	index_find(&s->services, key_two(ns, hostname), &c);
	while ((v = index_next(&c)))
		if (strcmp(v->hostname, hostname) == 0 && strcmp(v->ns, ns) == 0)
			return v;
	return NULL;
}

/* --- policies ------------------------------------------------------------------------------------------- */

struct policy *store_policy_exact(struct store *s, const char *ns, const char *name)
{
	struct index_cursor c;
	struct policy *p;

	index_find(&s->policies, key_two(ns, name), &c);
	while ((p = index_next(&c)))
		if (strcmp(p->name, name) == 0 && strcmp(p->ns, ns) == 0)
			return p;
	return NULL;
}

/* Names come split by the first slash; keys are hashed without joining the parts. */
struct policy *store_policy(struct store *s, const char *name)
{
	const char *slash = strchr(name, '/');
	struct index_cursor c;
	struct policy *p;
	size_t n;

	if (!slash)
		return NULL;
	n = (size_t)(slash - name);
	index_find(&s->policies, hash_text(hash_bytes(1, name, n), slash + 1), &c);
	while ((p = index_next(&c)))
		if (strcmp(p->name, slash + 1) == 0 && strncmp(p->ns, name, n) == 0 && !p->ns[n])
			return p;
	return NULL;
}

struct policies {
	struct policy **out;
	unsigned n, max;
};

static void add_once(struct policies *l, struct policy *p)
{
	unsigned have = l->n < l->max ? l->n : l->max;

	for (unsigned i = 0; i < have; i++)
		if (l->out[i] == p)
			return;
	if (l->n < l->max)
		l->out[l->n] = p;
	l->n++;
}

static void add_scope(struct store *s, struct policies *l, const char *ns)
{
	struct index_cursor c;
	struct policy *p;

	index_find(&s->policy_scopes, hash_text(0, ns), &c);
	while ((p = index_next(&c)))
		if (p->scope == POLICY_GLOBAL ? !ns[0] : strcmp(p->ns, ns) == 0)
			add_once(l, p);
}

unsigned store_policies_for(struct store *s, const struct workload *w, struct policy **out, unsigned max,
			    unsigned *missing)
{
	struct policies l = {out, 0, max};

	*missing = 0;
	add_scope(s, &l, w->ns);
	if (w->ns[0])
		add_scope(s, &l, "");
	for (unsigned i = 0; i < w->n_policies; i++) {
		struct policy *p = store_policy(s, w->policies[i]);
		if (p)
			add_once(&l, p);
		else
			++*missing;
	}
	return l.n;
}
