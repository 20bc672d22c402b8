/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's names: a table, and a list from the least recently used to the latest. A name is being looked up, or has an
 * answer that is fresh or not; one that somebody waits for does not make room for others. */
#include "data/names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/traffic.h"
#include "net/netns.h"
#include "state/hash.h"

enum { BUCKETS = 256 };

struct name {
	struct list link, used;
	struct worker *w;
	struct resolve *lookup;
	struct timer late;
	struct list waiters;
	uint64_t good_until;
	struct endpoint at[RESOLVE_ADDRS_MAX];
	unsigned n;
	const char *why;
	uint32_t hash;
	char host[];
};

struct names {
	struct list bucket[BUCKETS], used;
	unsigned n;
};

static void name_free(struct name *x)
{
	resolve_cancel(x->lookup);
	timer_cancel(&x->late);
	list_del(&x->link);
	list_del(&x->used);
	free(x);
}

struct names *names_new(void)
{
	struct names *n = calloc(1, sizeof *n);

	for (unsigned i = 0; n && i < BUCKETS; i++)
		list_init(&n->bucket[i]);
	if (n)
		list_init(&n->used);
	return n;
}

void names_free(struct names *n)
{
	while (n && !list_empty(&n->used))
		name_free(list_entry(n->used.next, struct name, used));
	free(n);
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* Whoever is told may ask again, and what he asks for may take the name's place: the answer is a copy. */
static void answer_all(struct name *x)
{
	struct endpoint at[RESOLVE_ADDRS_MAX];
	const char *why = x->why;
	unsigned n = x->n;
	struct list now;

	memcpy(at, x->at, n * sizeof *at);
	list_init(&now);
	list_move_all(&now, &x->waiters);
	while (!list_empty(&now)) {
		struct names_request *r = list_entry(now.next, struct names_request, link);

		list_del(&r->link);
		r->waits = false;
		r->done(r, at, n, why);
	}
}

static void settle(struct name *x, const struct endpoint *at, unsigned n, const char *why)
{
	timer_cancel(&x->late);
	x->lookup = NULL;
	x->n = n;
	x->why = why;
	if (n)
		memcpy(x->at, at, n * sizeof *at);
	x->good_until = loop_now(x->w->loop) + (n ? NAMES_FRESH_MS : NAMES_FAILED_MS);
	answer_all(x);
}

static void looked_up(void *arg, const struct endpoint *at, unsigned n, const char *why)
{
	settle(arg, at, n, why);
}

static void late(struct timer *t)
{
	struct name *x = container_of(t, struct name, late);

	resolve_cancel(x->lookup);
	settle(x, NULL, 0, "no answer in time");
}

/* --- the table ------------------------------------------------------------------------------------------ */

static void make_room(struct names *n)
{
	list_for_each_safe (pos, tmp, &n->used) {
		struct name *x = list_entry(pos, struct name, used);

		if (n->n < NAMES_MAX)
			return;
		if (x->lookup)
			continue;
		name_free(x);
		n->n--;
	}
}

static struct name *name_of(struct worker *w, const char *host)
{
	struct names *n = w->names;
	uint32_t hash = hash_text(0, host);
	struct name *x;

	list_for_each (pos, &n->bucket[hash % BUCKETS]) {
		x = list_entry(pos, struct name, link);
		if (x->hash == hash && !strcmp(x->host, host)) {
			list_del(&x->used);
			list_add_tail(&n->used, &x->used);
			return x;
		}
	}
	make_room(n);
	x = n->n < NAMES_MAX ? calloc(1, sizeof *x + strlen(host) + 1) : NULL;
	if (!x)
		return NULL;
	x->w = w;
	x->hash = hash;
	strcpy(x->host, host);
	list_init(&x->waiters);
	list_add(&n->bucket[hash % BUCKETS], &x->link);
	list_add_tail(&n->used, &x->used);
	n->n++;
	return x;
}

void names_ask(struct worker *w, struct names_request *r, const struct workload *source, const char *host,
	       void (*done)(struct names_request *r, const struct endpoint *at, unsigned n, const char *why))
{
	struct name *x = name_of(w, host);

	if (source)
		traffic_lookup(source, host);
	r->done = done;
	if (!x) {
		done(r, NULL, 0, "too many host names are being looked up");
		return;
	}
	if (!x->lookup && loop_now(w->loop) < x->good_until) {
		r->done(r, x->at, x->n, x->why);
		return;
	}
	r->waits = true;
	list_add_tail(&x->waiters, &r->link);
	if (x->lookup)
		return;
	netns_home(); /* the helper thread begins where this one is */
	x->lookup = resolve_new(w->loop, host, 0, looked_up, x);
	if (x->lookup)
		timer_set(w->loop, &x->late, NAMES_WAIT_MS, late);
	else
		settle(x, NULL, 0, "out of memory");
}

void names_cancel(struct names_request *r)
{
	if (r->waits)
		list_del(&r->link);
	r->waits = false;
}

const struct addr *names_pick(const struct endpoint *at, unsigned n, const struct addr *like, uint64_t random)
{
	unsigned fit = 0, k;

	for (unsigned i = 0; i < n; i++)
		fit += addr_is4(&at[i].ip) == addr_is4(like);
	k = (unsigned)(random % (fit ? fit : n));
	for (unsigned i = 0; i < n; i++)
		if ((!fit || addr_is4(&at[i].ip) == addr_is4(like)) && k-- == 0)
			return &at[i].ip;
	return &at[0].ip;
}
