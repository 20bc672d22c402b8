// SPDX-License-Identifier: Apache-2.0
/* No two workloads, services or policies of a file are the same: of two with one name, or one address, only one would be
 * found, and which does not show. Pods of the host's network share its address, and so may WorkloadEntries. */
#include <stdlib.h>
#include <string.h>

#include "control/local_parts.h"
#include "state/hash.h"

enum { FIRST_ROOM = 64, IP_BITS = 6 };

/* --- places: that in the list plus 1; of a workload that in the list, then that of the address, plus 1 --------------- */

static const struct workload *workload_at(const struct local_state *s, uint32_t place)
{
	return ((struct workload *const *)s->workloads.p)[(place - 1) >> IP_BITS];
}

static const struct net_addr *addr_at(const struct local_state *s, uint32_t place, struct net_addr *out)
{
	const struct workload *w = workload_at(s, place);

	*out = (struct net_addr){w->network, w->ips[(place - 1) & ((1u << IP_BITS) - 1)]};
	return out;
}

static uint32_t hash_uid(const struct local_state *s, uint32_t place)
{
	return hash_text(0, workload_at(s, place)->uid);
}

static uint32_t hash_addr(const struct local_state *s, uint32_t place)
{
	struct net_addr a;

	addr_at(s, place, &a);
	return hash_bytes(hash_text(0, a.network), (const char *)&a.ip, sizeof a.ip);
}

static bool same_uid(const struct local_state *s, uint32_t a, uint32_t b)
{
	return !strcmp(workload_at(s, a)->uid, workload_at(s, b)->uid);
}

static bool same_addr(const struct local_state *s, uint32_t a, uint32_t b)
{
	struct net_addr x, y;

	addr_at(s, a, &x);
	addr_at(s, b, &y);
	return addr_eq(&x.ip, &y.ip) && !strcmp(x.network, y.network);
}

static const struct service *service_at(const struct local_state *s, uint32_t place)
{
	return ((struct service *const *)s->services.p)[place - 1];
}

static uint32_t hash_service(const struct local_state *s, uint32_t place)
{
	return hash_text(hash_text(0, service_at(s, place)->ns), service_at(s, place)->hostname);
}

static bool same_service(const struct local_state *s, uint32_t a, uint32_t b)
{
	const struct service *x = service_at(s, a), *y = service_at(s, b);

	return !strcmp(x->hostname, y->hostname) && !strcmp(x->ns, y->ns);
}

static const struct policy *policy_at(const struct local_state *s, uint32_t place)
{
	return ((struct policy *const *)s->policies.p)[place - 1];
}

static uint32_t hash_policy(const struct local_state *s, uint32_t place)
{
	return hash_text(hash_text(0, policy_at(s, place)->ns), policy_at(s, place)->name);
}

static bool same_policy(const struct local_state *s, uint32_t a, uint32_t b)
{
	const struct policy *x = policy_at(s, a), *y = policy_at(s, b);

	return !strcmp(x->name, y->name) && !strcmp(x->ns, y->ns);
}

/* --- sets of places -------------------------------------------------------------------------------------- */

struct kind {
	uint32_t (*hash)(const struct local_state *s, uint32_t place);
	bool (*same)(const struct local_state *s, uint32_t a, uint32_t b);
};
static const struct kind uids = {hash_uid, same_uid}, addrs = {hash_addr, same_addr},
			 services = {hash_service, same_service}, policies = {hash_policy, same_policy};

/* Where one of this hash is that is the same as `place`, or where it would be. */
static struct local_slot *slot_find(const struct local_state *s, const struct local_set *t, const struct kind *k,
				    uint32_t hash, uint32_t place)
{
	uint32_t i = hash & (t->room - 1);

	while (t->slot[i].place && (t->slot[i].hash != hash || !k->same(s, t->slot[i].place, place)))
		i = (i + 1) & (t->room - 1);
	return &t->slot[i];
}

/* They are all different. */
static void move(struct local_set *to, const struct local_slot *one)
{
	uint32_t i = one->hash & (to->room - 1);

	while (to->slot[i].place)
		i = (i + 1) & (to->room - 1);
	to->slot[i] = *one;
}

/* At most half full. */
static int make_room(struct local_set *t)
{
	struct local_set more = {.n = t->n, .room = t->room ? 2 * t->room : FIRST_ROOM};

	if (2 * (t->n + 1) <= t->room)
		return 0;
	more.slot = calloc(more.room, sizeof *more.slot);
	if (!more.slot)
		return -1;
	for (uint32_t i = 0; i < t->room; i++)
		if (t->slot[i].place)
			move(&more, &t->slot[i]);
	free(t->slot);
	*t = more;
	return 0;
}

/* The place of the one that is there already, or 0. */
static uint32_t enter(struct doc *d, const struct local_state *s, struct local_set *t, const struct kind *k,
		      uint32_t place)
{
	uint32_t hash = k->hash(s, place);
	struct local_slot *at;

	if (make_room(t) < 0) {
		doc_no_memory(d);
		return 0;
	}
	at = slot_find(s, t, k, hash, place);
	if (at->place)
		return at->place;
	*at = (struct local_slot){hash, place};
	t->n++;
	return 0;
}

/* --- the object that was read last ------------------------------------------------------------------------ */

static bool may_share(const struct workload *w)
{
	return w->network_mode == NETWORK_HOST || strstr(w->uid, "/WorkloadEntry/");
}

void local_unique_workload(struct doc *d, struct local_state *s, size_t line)
{
	uint32_t first = (uint32_t)((s->workloads.n - 1) << IP_BITS) + 1, at = enter(d, s, &s->uids, &uids, first);
	const struct workload *w = workload_at(s, first), *other;
	char text[ADDR_STRLEN];

	if (at)
		doc_fail_at(d, line, "the uid \"%s\" is that of workload %s/%s as well", w->uid, workload_at(s, at)->ns,
			    workload_at(s, at)->name);
	for (unsigned i = 0; i < w->n_ips && i < 1u << IP_BITS && !d->error && !may_share(w); i++) {
		at = enter(d, s, &s->addrs, &addrs, first + i);
		other = at ? workload_at(s, at) : w;
		if (other != w)
			doc_fail_at(d, line, "the address %s is that of workload %s/%s as well",
				    addr_str(&w->ips[i], text), other->ns, other->name);
	}
}

void local_unique_service(struct doc *d, struct local_state *s, size_t line)
{
	uint32_t last = (uint32_t)s->services.n;
	const struct service *v = service_at(s, last);

	if (enter(d, s, &s->service_names, &services, last))
		doc_fail_at(d, line, "there is a service %s/%s already", v->ns, v->hostname);
}

void local_unique_policy(struct doc *d, struct local_state *s, size_t line)
{
	uint32_t last = (uint32_t)s->policies.n;
	const struct policy *p = policy_at(s, last);

	if (enter(d, s, &s->policy_names, &policies, last))
		doc_fail_at(d, line, "there is a policy %s/%s already", p->ns, p->name);
}
