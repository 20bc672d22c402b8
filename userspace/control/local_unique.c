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

static const struct service *service_at(const struct local_state *s, uint32_t place)
{
	return ((struct service *const *)s->services.p)[place - 1];
}

static const struct policy *policy_at(const struct local_state *s, uint32_t place)
{
	return ((struct policy *const *)s->policies.p)[place - 1];
}

/* --- what two objects must not have in common ------------------------------------------------------------ */

struct key {
	const char *ns, *name;
	struct addr ip;
};

static struct key uid_of(const struct local_state *s, uint32_t place)
{
	return (struct key){.ns = "", .name = workload_at(s, place)->uid};
}

static struct key addr_of(const struct local_state *s, uint32_t place)
{
	const struct workload *w = workload_at(s, place);

	return (struct key){.ns = w->network, .name = "", .ip = w->ips[(place - 1) & ((1u << IP_BITS) - 1)]};
}

static struct key service_of(const struct local_state *s, uint32_t place)
{
	return (struct key){.ns = service_at(s, place)->ns, .name = service_at(s, place)->hostname};
}

static struct key policy_of(const struct local_state *s, uint32_t place)
{
	return (struct key){.ns = policy_at(s, place)->ns, .name = policy_at(s, place)->name};
}

typedef struct key key_of(const struct local_state *s, uint32_t place);

static uint32_t hash_key(struct key k)
{
	return hash_bytes(hash_text(hash_text(0, k.ns), k.name), (const char *)&k.ip, sizeof k.ip);
}

static bool same_key(struct key a, struct key b)
{
	return !strcmp(a.name, b.name) && !strcmp(a.ns, b.ns) && addr_eq(&a.ip, &b.ip);
}

/* --- sets of places -------------------------------------------------------------------------------------- */

/* Where one of this hash is that is the same as `place`, or where it would be. */
static struct local_slot *slot_find(const struct local_state *s, const struct local_set *t, key_of *of, uint32_t hash,
				    uint32_t place)
{
	uint32_t i = hash & (t->room - 1);

	while (t->slot[i].place && (t->slot[i].hash != hash || !same_key(of(s, t->slot[i].place), of(s, place))))
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
static uint32_t enter(struct doc *d, const struct local_state *s, struct local_set *t, key_of *of, uint32_t place)
{
	uint32_t hash = hash_key(of(s, place));
	struct local_slot *at;

	if (make_room(t) < 0) {
		doc_no_memory(d);
		return 0;
	}
	at = slot_find(s, t, of, hash, place);
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
	uint32_t first = (uint32_t)((s->workloads.n - 1) << IP_BITS) + 1, at = enter(d, s, &s->uids, uid_of, first);
	const struct workload *w = workload_at(s, first), *other;
	char text[ADDR_STRLEN];

	if (at)
		doc_fail_at(d, line, "the uid \"%s\" is that of workload %s/%s as well", w->uid, workload_at(s, at)->ns,
			    workload_at(s, at)->name);
	for (unsigned i = 0; i < w->n_ips && i < 1u << IP_BITS && !d->error && !may_share(w); i++) {
		at = enter(d, s, &s->addrs, addr_of, first + i);
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

	if (enter(d, s, &s->service_names, service_of, last))
		doc_fail_at(d, line, "there is a service %s/%s already", v->ns, v->hostname);
}

void local_unique_policy(struct doc *d, struct local_state *s, size_t line)
{
	uint32_t last = (uint32_t)s->policies.n;
	const struct policy *p = policy_at(s, last);

	if (enter(d, s, &s->policy_names, policy_of, last))
		doc_fail_at(d, line, "there is a policy %s/%s already", p->ns, p->name);
}
