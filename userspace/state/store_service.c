/* SPDX-License-Identifier: Apache-2.0 */
/* Owns services and their endpoints: a group per service name keeps the description and all members; what readers see
 * is a version that the commit makes of the two. Each group is rebuilt once a batch, however many members changed. */
#include "state/store_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "state/intern.h"

enum { MEMBERS_MIN = 2 };

static void release_service(void *v)
{
	service_unref(v);
}

struct addr addr_masked(const struct addr *ip, unsigned len)
{
	unsigned bits = len + (addr_is4(ip) ? 96 : 0), i = bits / 8;
	struct addr out = *ip;

	if (i < sizeof out.b)
		out.b[i++] &= (uint8_t)(0xff00u >> bits % 8);
	for (; i < sizeof out.b; i++)
		out.b[i] = 0;
	return out;
}

/* Texts of the mesh are mostly shared, and then the same pointer. */
static bool same_text(const char *a, const char *b)
{
	return a == b || strcmp(a, b) == 0;
}

static bool is_of(const struct group *g, const char *ns, const char *hostname)
{
	return same_text(g->hostname, hostname) && same_text(g->ns, ns);
}

/* --- groups --------------------------------------------------------------------------------------------- */

struct group *group_find(struct store *s, const char *ns, const char *hostname)
{
	struct index_cursor c;
	struct group *g;

	index_find(&s->groups, key_two(ns, hostname), &c);
	while ((g = index_next(&c)))
		if (is_of(g, ns, hostname))
			return g;
	return NULL;
}

int group_get(struct store *s, const char *ns, const char *hostname, struct group **out)
{
	struct group *g = group_find(s, ns, hostname);

	if (!g) {
		if (index_reserve(&s->groups, 1, &s->garbage) < 0)
			return -ENOMEM;
		g = calloc(1, sizeof *g);
		if (!g)
			return -ENOMEM;
		g->ns = intern_get(ns, strlen(ns), &g->ns_id);
		g->hostname = g->ns ? intern_get(hostname, strlen(hostname), &g->hostname_id) : NULL;
		if (!g->hostname) {
			group_free(g);
			return -ENOMEM;
		}
		index_add(&s->groups, key_two(ns, hostname), g);
		group_touch(s, g); /* the commit frees it, should it stay empty */
	}
	*out = g;
	return 0;
}

void group_touch(struct store *s, struct group *g)
{
	if (g->dirty)
		return;
	g->dirty = true;
	g->next_dirty = s->dirty;
	s->dirty = g;
}

void group_free(struct group *g)
{
	service_unref(g->description);
	service_unref(g->current);
	if (g->ns)
		intern_put(g->ns_id);
	if (g->hostname)
		intern_put(g->hostname_id);
	free(g->member);
	free(g);
}

int group_reserve(struct group *g, unsigned n)
{
	unsigned size = g->size ? g->size + g->size / 2 : MEMBERS_MIN;
	struct workload **m;

	if (g->n_members + n <= g->size)
		return 0;
	if (size < g->n_members + n)
		size = g->n_members + n;
	m = realloc(g->member, size * sizeof *m);
	if (!m)
		return -ENOMEM;
	g->member = m;
	g->size = size;
	return 0;
}

static void count_staged(struct store *s, const struct group *g, int n)
{
	if (!g->description)
		__atomic_store_n(&s->staged, s->staged + (unsigned)n, __ATOMIC_RELAXED);
}

static struct membership *membership_in(const struct workload *w, const struct group *g)
{
	for (unsigned i = 0; i < w->n_services; i++)
		if (is_of(g, w->services[i].ns, w->services[i].hostname))
			return &w->services[i];
	return NULL;
}

void group_join(struct store *s, struct group *g, struct workload *w, struct membership *m)
{
	m->at = g->n_members;
	g->member[g->n_members++] = w;
	count_staged(s, g, 1);
	group_touch(s, g);
}

void group_leave(struct store *s, const struct membership *m)
{
	struct group *g = group_find(s, m->ns, m->hostname);
	struct workload *last;

	if (!g)
		return;
	last = g->member[--g->n_members];
	g->member[m->at] = last;
	membership_in(last, g)->at = m->at;
	count_staged(s, g, -1);
	group_touch(s, g);
}

void group_forget(struct store *s, struct group *g)
{
	if (!g->description)
		return;
	service_unref(g->description);
	g->description = NULL;
	count_staged(s, g, (int)g->n_members);
	group_touch(s, g);
}

/* --- versions ------------------------------------------------------------------------------------------- */

static struct service *version_build(const struct group *g)
{
	struct service *v = service_version(g->description, g->n_members);
	struct service_head *h;

	if (!v)
		return NULL;
	h = service_head(v);
	h->order = g->order;
	for (unsigned i = 0; i < g->n_members; i++) {
		struct workload *w = g->member[i];
		if (!w->healthy && !v->lb_allow_unhealthy)
			continue;
		h->capacity = !v->n_endpoints || h->capacity == w->capacity ? w->capacity : 0;
		v->endpoints[v->n_endpoints++] = (struct endpoint_ref){workload_ref(w), membership_in(w, g)};
	}
	return v;
}

static void count_cidr(struct store *s, const struct vip *vip, int n)
{
	unsigned *count = &s->cidrs[addr_is4(&vip->addr.ip)][vip_length(vip)];

	if (vip_length(vip) != vip_full_length(&vip->addr.ip))
		__atomic_store_n(count, *count + (unsigned)n, __ATOMIC_RELEASE);
}

static uint32_t vip_key(const struct vip *v)
{
	struct addr ip = addr_masked(&v->addr.ip, vip_length(v));

	return key_vip(v->addr.network, &ip, vip_length(v));
}

/* As workload_show(): what stays is found all the time. */
static void version_show(struct store *s, struct service *v, const struct service *old)
{
	index_put(&s->services, key_two(v->ns, v->hostname), old, v);
	index_put(&s->service_hosts, hash_text(0, v->hostname), old, v);
	for (unsigned i = 0; i < v->n_vips; i++) {
		index_put(&s->service_vips, vip_key(&v->vips[i]), old, v);
		count_cidr(s, &v->vips[i], 1);
	}
}

static void version_hide(struct store *s, struct service *v)
{
	for (unsigned i = 0; i < v->n_vips; i++) {
		count_cidr(s, &v->vips[i], -1);
		index_remove(&s->service_vips, vip_key(&v->vips[i]), v);
	}
	index_remove(&s->service_hosts, hash_text(0, v->hostname), v);
	index_remove(&s->services, key_two(v->ns, v->hostname), v);
	garbage_add(&s->garbage, release_service, v);
}

/* Shows the new version; the old one is left to be hidden. */
static int group_rebuild(struct store *s, struct group *g)
{
	struct service *v = NULL;

	if (g->description) {
		v = version_build(g);
		if (!v)
			return -ENOMEM;
		if (index_reserve(&s->services, 1, &s->garbage) < 0 ||
		    index_reserve(&s->service_hosts, 1, &s->garbage) < 0 ||
		    index_reserve(&s->service_vips, v->n_vips, &s->garbage) < 0) {
			service_unref(v);
			return -ENOMEM;
		}
		version_show(s, v, g->current);
	}
	g->replaced = g->current;
	g->current = v;
	s->changed = s->changed || v || g->replaced;
	return 0;
}

/* Groups for which memory was short stay in the list: the next commit tries again. */
static void group_finish(struct store *s, struct group *g)
{
	if (g->replaced)
		version_hide(s, g->replaced);
	g->replaced = NULL;
	if (g->dirty) {
		g->dirty = false;
		group_touch(s, g);
	} else if (!g->description && !g->n_members) {
		index_remove(&s->groups, key_two(g->ns, g->hostname), g);
		group_free(g);
	}
}

/* All that is new comes before all that is old goes: a VIP that moves between services is known all the time. */
void groups_commit(struct store *s)
{
	struct group *all = s->dirty, *next;

	s->dirty = NULL;
	for (struct group *g = all; g; g = g->next_dirty)
		g->dirty = group_rebuild(s, g) < 0;
	store_taking(s);
	for (; all; all = next) {
		next = all->next_dirty;
		group_finish(s, all);
	}
}
