// SPDX-License-Identifier: Apache-2.0
/* On-demand xDS: what the store lacks is asked for by name, when a connection wants it.
 *
 * A name is subscribed to when it is first asked for, and waited for; istiod's answer says what it is or that there is
 * nothing. Nothing is believed for a while only, and while there is room, then the name is given up: who scans the network
 * is in nobody's way. So is what the mesh has lost meanwhile, since istiod does not repeat what it once said on a stream.
 * With a new stream all that was answered is forgotten: what the store has of it is claimed by its own name. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/xds_internal.h"
#include "state/hash.h"

enum { BUCKETS = 4096, TICK_MS = 500, GIVE_UP_MAX = 256 };

enum state { PENDING, THERE, NOTHING };

struct name {
	struct list link;  /* of the bucket */
	struct list order; /* among its kind: by age */
	enum state state;
	uint64_t since;
	struct list waiting; /* struct demand_request */
	char text[];
};

struct xds_demands {
	struct demand demand; /* first: workers know this */
	struct xds *x;
	struct list bucket[BUCKETS];
	struct list pending, nothing; /* by age */
	unsigned n;
	struct timer tick;
	struct log_limit full;
};

/* --- names ---------------------------------------------------------------------------------------------- */

static struct list *bucket(struct xds_demands *d, const char *text)
{
	return &d->bucket[hash_text(0, text) % BUCKETS];
}

static struct name *find(struct xds_demands *d, const char *text)
{
	list_for_each (p, bucket(d, text)) {
		struct name *n = list_entry(p, struct name, link);

		if (!strcmp(n->text, text))
			return n;
	}
	return NULL;
}

static void give_up_old(struct xds_demands *d, struct list *head, unsigned ms);

/* May free others, of which there is nothing. */
static struct name *name_new(struct xds_demands *d, const char *text)
{
	size_t len = strlen(text) + 1;
	struct name *n;

	if (d->n == XDS_DEMANDS_MAX)
		give_up_old(d, &d->nothing, 0);
	n = d->n < XDS_DEMANDS_MAX ? malloc(sizeof *n + len) : NULL;
	if (!n)
		return NULL;
	list_init(&n->order);
	list_init(&n->waiting);
	memcpy(n->text, text, len);
	list_add(bucket(d, text), &n->link);
	d->n++;
	return n;
}

static void answer(struct demand_request *r, bool answered);

static void name_answer(struct name *n, bool answered)
{
	while (!list_empty(&n->waiting)) {
		struct demand_request *r = list_entry(n->waiting.next, struct demand_request, link);

		list_del(&r->link);
		answer(r, answered);
	}
}

static void name_free(struct xds_demands *d, struct name *n)
{
	name_answer(n, false);
	list_del(&n->link);
	list_del(&n->order);
	free(n);
	d->n--;
}

static void name_becomes(struct xds_demands *d, struct name *n, enum state state)
{
	n->state = state;
	n->since = loop_now(d->x->loop);
	list_del(&n->order);
	if (state != THERE)
		list_add_tail(state == PENDING ? &d->pending : &d->nothing, &n->order);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void done(struct loop *l, struct msg *m)
{
	struct demand_request *r = container_of(m, struct demand_request, msg);

	r->done(r);
}

static void answer(struct demand_request *r, bool answered)
{
	r->answered = answered;
	loop_post(r->loop, &r->msg, done);
}

/* istiod says nothing about a name that it has said something about: it is given up first. */
static void subscribe(struct xds_demands *d, struct name *n, bool again)
{
	const char *name = n->text;

	name_becomes(d, n, PENDING);
	if (!d->x->call)
		return; /* the next stream's first request has it */
	if ((again && xds_request_names(d->x, NULL, 0, &name, 1)) || xds_request_names(d->x, &name, 1, NULL, 0))
		name_answer(n, false);
}

static void refuse(struct xds_demands *d, struct demand_request *r)
{
	uint64_t more;

	if (log_allowed(&d->full, loop_now(d->x->loop), &more))
		log_warn("xds", "%s is not asked for: %u names are, or memory is short", r->name, d->n);
	answer(r, false);
}

static void asked(struct loop *l, struct msg *m)
{
	struct demand_request *r = container_of(m, struct demand_request, msg);
	struct xds_demands *d = container_of(r->demand, struct xds_demands, demand);
	struct name *n = find(d, r->name);
	bool again = n && n->state == THERE;

	if (n && n->state == NOTHING) {
		answer(r, true);
		return;
	}
	if (!n)
		n = name_new(d, r->name);
	if (!n) {
		refuse(d, r);
		return;
	}
	list_add_tail(&n->waiting, &r->link);
	if (again || list_empty(&n->order))
		subscribe(d, n, again);
}

static void ask(struct demand *demand, struct demand_request *r)
{
	struct xds_demands *d = container_of(demand, struct xds_demands, demand);

	r->demand = demand;
	list_init(&r->link);
	loop_post(d->x->loop, &r->msg, asked);
}

/* --- what istiod says ----------------------------------------------------------------------------------- */

/* A pod of this node may be called by its services' names, and is counted under them. */
static void want_services(struct xds_demands *d, const struct workload *w)
{
	for (unsigned i = 0; i < w->n_services; i++) {
		char text[DEMAND_NAME_MAX];
		struct name *n;

		if (snprintf(text, sizeof text, "%s/%s", w->services[i].ns, w->services[i].hostname) >=
			    (int)sizeof text ||
		    store_service_exact(d->x->store, w->services[i].ns, w->services[i].hostname) || find(d, text))
			continue;
		n = name_new(d, text);
		if (n)
			subscribe(d, n, false);
	}
}

static bool is_ours(const struct xds *x, const struct workload *w)
{
	return x->node_name && !strcmp(x->node_name, w->node);
}

void xds_demand_named(struct xds_demands *d, const char *text, bool removed)
{
	struct workload *w = removed ? NULL : store_workload_by_uid(d->x->store, text);
	struct name *n;

	if (w && is_ours(d->x, w))
		want_services(d, w);
	n = find(d, text);
	if (!n)
		return;
	name_becomes(d, n, removed ? NOTHING : THERE);
	name_answer(n, true);
}

static bool is_old(const struct xds_demands *d, const struct list *head, unsigned ms)
{
	return !list_empty(head) && loop_now(d->x->loop) - list_entry(head->next, struct name, order)->since >= ms;
}

/* Whoever wants them next asks anew. */
static void give_up_old(struct xds_demands *d, struct list *head, unsigned ms)
{
	const char *text[GIVE_UP_MAX];
	size_t n = 0;

	while (n < GIVE_UP_MAX && is_old(d, head, ms)) {
		struct name *old = list_entry(head->next, struct name, order);

		list_del(&old->order);
		text[n++] = old->text;
	}
	if (d->x->call && n)
		xds_request_names(d->x, NULL, 0, text, n);
	while (n)
		name_free(d, container_of(text[--n], struct name, text));
}

static void tick(struct timer *t)
{
	struct xds_demands *d = container_of(t, struct xds_demands, tick);

	timer_set(d->x->loop, t, TICK_MS, tick);
	while (is_old(d, &d->pending, d->x->demand_ms))
		give_up_old(d, &d->pending, d->x->demand_ms);
	while (is_old(d, &d->nothing, XDS_NOTHING_MS))
		give_up_old(d, &d->nothing, XDS_NOTHING_MS);
}

/* --- streams -------------------------------------------------------------------------------------------- */

void xds_demand_restart(struct xds_demands *d)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		list_for_each_safe (p, tmp, &d->bucket[i]) {
			struct name *n = list_entry(p, struct name, link);

			if (n->state != PENDING)
				name_free(d, n);
		}
}

int xds_demand_each_pending(struct xds_demands *d, int (*each)(void *arg, const char *name), void *arg)
{
	int e = 0;

	list_for_each (p, &d->pending) {
		e = each(arg, list_entry(p, struct name, order)->text);
		if (e)
			break;
	}
	return e;
}

/* --- life ----------------------------------------------------------------------------------------------- */

struct xds_demands *xds_demands_new(struct xds *x)
{
	struct xds_demands *d = calloc(1, sizeof *d);

	if (!d)
		return NULL;
	d->demand.ask = ask;
	d->x = x;
	d->full.per_second = 1;
	for (unsigned i = 0; i < BUCKETS; i++)
		list_init(&d->bucket[i]);
	list_init(&d->pending);
	list_init(&d->nothing);
	timer_set(x->loop, &d->tick, TICK_MS, tick);
	return d;
}

void xds_demands_free(struct xds_demands *d)
{
	if (!d)
		return;
	timer_cancel(&d->tick);
	for (unsigned i = 0; i < BUCKETS; i++)
		while (!list_empty(&d->bucket[i]))
			name_free(d, list_entry(d->bucket[i].next, struct name, link));
	free(d);
}

struct demand *xds_demand(struct xds *x)
{
	return x->demands ? &x->demands->demand : NULL;
}
