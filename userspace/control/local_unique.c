// SPDX-License-Identifier: Apache-2.0
/* No two workloads of a file are the same: of two with one uid, or one address, only one would be found, and which does not
 * show. Pods of the host's network share its address, and so may WorkloadEntries. */
#include <stdlib.h>
#include <string.h>

#include "control/local_parts.h"
#include "state/hash.h"

enum { FIRST_ROOM = 64, IP_BITS = 6 }; /* a place: that in the list, then that of the address, plus 1 */

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

struct kind {
	uint32_t (*hash)(const struct local_state *s, uint32_t place);
	bool (*same)(const struct local_state *s, uint32_t a, uint32_t b);
};
static const struct kind uids = {hash_uid, same_uid}, addrs = {hash_addr, same_addr};

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

/* The one that is there already, or NULL. */
static const struct workload *enter(struct doc *d, const struct local_state *s, struct local_set *t,
				    const struct kind *k, uint32_t place)
{
	uint32_t hash = k->hash(s, place);
	struct local_slot *at;

	if (make_room(t) < 0) {
		doc_no_memory(d);
		return NULL;
	}
	at = slot_find(s, t, k, hash, place);
	if (at->place)
		return workload_at(s, at->place);
	*at = (struct local_slot){hash, place};
	t->n++;
	return NULL;
}

static bool may_share(const struct workload *w)
{
	return w->network_mode == NETWORK_HOST || strstr(w->uid, "/WorkloadEntry/");
}

void local_unique(struct doc *d, struct local_state *s, size_t line)
{
	uint32_t first = (uint32_t)((s->workloads.n - 1) << IP_BITS) + 1;
	const struct workload *w = workload_at(s, first), *other = enter(d, s, &s->uids, &uids, first);
	char text[ADDR_STRLEN];

	if (other)
		doc_fail_at(d, line, "the uid \"%s\" is that of workload %s/%s as well", w->uid, other->ns,
			    other->name);
	for (unsigned i = 0; i < w->n_ips && i < 1u << IP_BITS && !d->error && !may_share(w); i++) {
		other = enter(d, s, &s->addrs, &addrs, first + i);
		if (other && other != w)
			doc_fail_at(d, line, "the address %s is that of workload %s/%s as well",
				    addr_str(&w->ips[i], text), other->ns, other->name);
	}
}
