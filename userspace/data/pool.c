// SPDX-License-Identifier: Apache-2.0
/* The HBONE pool: which connections a worker has, and who gets which. One that the peer is leaving, or whose window is
 * used up, gets no new streams; a sibling is made. */
#include "data/pool.h"

#include <stdlib.h>
#include <string.h>

#include "data/limits.h"
#include "data/pool_internal.h"
#include "data/revoke.h"

static struct list *bucket_of(struct pool *p, const struct pod *pod, const struct endpoint *to)
{
	uint64_t h = addr_hash(&to->ip) ^ ((uintptr_t)pod >> 6) * 0x9e3779b97f4a7c15ull ^ to->port;

	return &p->bucket[(h ^ h >> 32) % POOL_BUCKETS];
}

static bool leads_from(const struct pool_conn *c, const struct pod *pod, const struct rstr *self,
		       const struct endpoint *to)
{
	return c->share->pod == pod && endpoint_eq(&c->to, to) && !strcmp(c->self->text, self->text);
}

bool pool_has_sibling(const struct pool_conn *c)
{
	list_for_each (pos, bucket_of(c->pool, c->share->pod, &c->to)) {
		struct pool_conn *k = list_entry(pos, struct pool_conn, link);

		if (k != c && leads_from(k, c->share->pod, c->self, &c->to) &&
		    !strcmp(k->client.expect, c->client.expect) && k->stage == STAGE_UP &&
		    h2_open_for_streams(k->client.h2, c->pool->w->o->pool_streams))
			return true;
	}
	return false;
}

/* Takes `share` over, also when it fails; that may be NULL. */
static struct pool_conn *conn_new(struct pool *p, struct pool_share *share, struct rstr *self,
				  const struct route *route)
{
	struct pool_conn *c = share && pool_make_room(p, share) ? calloc(1, sizeof *c) : NULL;

	if (!c || client_init(&c->client, p->w, &pool_client_ops, &route->expect) < 0) {
		pool_share_put(share);
		free(c);
		return NULL;
	}
	c->pool = p;
	c->share = share;
	c->self = rstr_ref(self);
	c->to = route->next_hop;
	c->dial.io.fd = -1;
	list_init(&c->waiters);
	list_init(&c->idle);
	list_init(&c->idle_of_pod);
	list_add(bucket_of(p, share->pod, &c->to), &c->link);
	pool_conn_count(c, 1);
	return c;
}

/* Those that would do, had they room. */
struct search {
	struct list *bucket;
	const struct pod *pod;
	const struct rstr *self;
	const struct route *route;
};

static bool fits(const struct search *q, const struct pool_conn *c)
{
	return leads_from(c, q->pod, q->self, &q->route->next_hop) && client_expects(&c->client, &q->route->expect);
}

/* What to expect of a peer that has not said how many streams it takes: no more than from others there. What is beyond it
 * would be refused, and is repeated only once. */
static unsigned unsaid_max(const struct search *q, unsigned max)
{
	list_for_each (pos, q->bucket) {
		struct pool_conn *c = list_entry(pos, struct pool_conn, link);
		bool said = c->stage == STAGE_UP && h2_greeted(c->client.h2) && fits(q, c);
		uint32_t peer = said ? h2_peer_streams(c->client.h2) : 0;

		if (peer && peer < max)
			max = peer;
	}
	return max;
}

static bool usable(const struct pool_conn *c, unsigned max, unsigned unsaid)
{
	if (c->stage == STAGE_UP)
		return h2_open_for_streams(c->client.h2, h2_greeted(c->client.h2) ? max : unsaid);
	return c->n_waiters < unsaid;
}

static struct pool_conn *find(const struct search *q, unsigned max)
{
	unsigned unsaid = unsaid_max(q, max);

	list_for_each (pos, q->bucket) {
		struct pool_conn *c = list_entry(pos, struct pool_conn, link);

		if (fits(q, c) && usable(c, max, unsaid))
			return c;
	}
	return NULL;
}

void pool_acquire(struct pool *p, struct pool_request *r, struct pod *pod, struct rstr *self, const struct route *route,
		  void (*done)(struct pool_request *r, struct h2 *h, enum traffic_flag flag, const char *why))
{
	struct search q = {bucket_of(p, pod, &route->next_hop), pod, self, route};
	struct pool_conn *c = find(&q, p->w->o->pool_streams);

	r->w = p->w;
	r->done = done;
	list_init(&r->link);
	if (c && c->stage == STAGE_UP) { /* its idle timer does nothing while it has streams */
		pool_conn_busy(c);
		r->fresh = !h2_greeted(c->client.h2);
		r->done(r, c->client.h2, FLAG_NONE, NULL);
		return;
	}
	if (c) {
		list_add_tail(&c->waiters, &r->link);
		c->n_waiters++;
		return;
	}
	c = conn_new(p, pool_share_get(p, pod), self, route);
	if (!c) {
		r->done(r, NULL, FLAG_CONNECT, "no more HBONE connections can be made");
		return;
	}
	list_add_tail(&c->waiters, &r->link);
	c->n_waiters++;
	client_start(&c->client, self->text);
}

void pool_cancel(struct pool_request *r)
{
	if (r->w)
		list_del(&r->link); /* its place in the connection's count stays used: harmless */
}

struct rstr *pool_peer(const struct h2 *h)
{
	return ((struct client *)h2_owner(h))->peer;
}

static void each_conn(struct pool *p, void (*each)(struct pool_conn *c, const void *arg), const void *arg)
{
	for (unsigned i = 0; i < POOL_BUCKETS; i++)
		list_for_each_safe (pos, tmp, &p->bucket[i])
			each(list_entry(pos, struct pool_conn, link), arg);
}

static void drop(struct pool_conn *c, const void *pod)
{
	if (c->share->pod != pod)
		return;
	if (c->stage == STAGE_UP)
		h2_shutdown(c->client.h2, false);
	else
		pool_conn_end(c, FLAG_CONNECT, "the pod is being removed");
}

void pool_drop_pod(struct pool *p, const struct pod *pod)
{
	each_conn(p, drop, pod);
}

static void cut_if_due(struct pool_conn *c, const void *arg)
{
	if (c->stage == STAGE_UP && !h2_is_cut(c->client.h2) && revoke_due(REPORT_SOURCE, c->client.path))
		h2_cut(c->client.h2);
}

void pool_revoke(struct pool *p)
{
	each_conn(p, cut_if_due, NULL);
}

static void leave(struct pool_conn *c, const void *arg)
{
	if (c->stage == STAGE_UP && !h2_streams(c->client.h2))
		h2_shutdown(c->client.h2, false);
}

void pool_drain(struct pool *p)
{
	each_conn(p, leave, NULL);
}

struct pool *pool_new(struct worker *w)
{
	struct pool *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->w = w;
	p->conns_max = limit_of_files(POOL_CONNS_MAX, 4, w->o->workers, POOL_CONNS_LEAST);
	list_init(&p->idle);
	for (unsigned i = 0; i < POOL_BUCKETS; i++) {
		list_init(&p->bucket[i]);
		list_init(&p->share[i]);
	}
	return p;
}

static void destroy(struct pool_conn *c, const void *arg)
{
	pool_conn_kill(c);
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	each_conn(p, destroy, NULL);
	free(p);
}
