// SPDX-License-Identifier: Apache-2.0
/* How much of a worker's pool each pod has, and which connection goes when there is no room for one more. What goes
 * lingers for a moment (h2_shutdown()), so there may be twice as many, and no more. */
#include <stdlib.h>

#include "data/limits.h"
#include "data/pool_internal.h"

static struct list *share_bucket(struct pool *p, const struct pod *pod)
{
	return &p->share[((uintptr_t)pod >> 6) * 0x9e3779b97f4a7c15ull % POOL_BUCKETS];
}

struct pool_share *pool_share_get(struct pool *p, struct pod *pod)
{
	struct list *bucket = share_bucket(p, pod);
	struct pool_share *s;

	list_for_each (pos, bucket) {
		s = list_entry(pos, struct pool_share, link);
		if (s->pod == pod) {
			s->refs++;
			return s;
		}
	}
	s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->pod = pod_ref(pod);
	s->refs = 1;
	list_init(&s->idle);
	list_add(bucket, &s->link);
	return s;
}

void pool_share_put(struct pool_share *s)
{
	if (!s || --s->refs)
		return;
	list_del(&s->link);
	pod_unref(s->pod);
	free(s);
}

void pool_conn_count(struct pool_conn *c, int n)
{
	c->pool->n_conns += (unsigned)n;
	c->share->n_conns += (unsigned)n;
}

void pool_conn_busy(struct pool_conn *c)
{
	list_del(&c->idle);
	list_del(&c->idle_of_pod);
}

void pool_conn_idle(struct pool_conn *c)
{
	pool_conn_busy(c);
	list_add_tail(&c->pool->idle, &c->idle);
	list_add_tail(&c->share->idle, &c->idle_of_pod);
}

static struct pool_conn *oldest(struct pool *p, struct pool_share *s, bool own)
{
	if (own)
		return list_empty(&s->idle) ? NULL : list_entry(s->idle.next, struct pool_conn, idle_of_pod);
	return list_empty(&p->idle) ? NULL : list_entry(p->idle.next, struct pool_conn, idle);
}

bool pool_make_room(struct pool *p, struct pool_share *s)
{
	unsigned share = p->conns_max / POOL_SHARES;
	bool own = s->n_conns >= share;
	struct pool_conn *c;

	if (!own && p->n_conns < p->conns_max)
		return true;
	limit_reached(own ? LIMIT_TUNNELS_OF_POD : LIMIT_TUNNELS);
	c = oldest(p, s, own);
	if (!c || s->n_conns >= 2 * share || p->n_conns >= 2 * p->conns_max)
		return false;
	pool_conn_busy(c);
	h2_shutdown(c->client.h2, false);
	return true;
}
