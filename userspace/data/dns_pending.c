// SPDX-License-Identifier: Apache-2.0
/* Owns the queries that are under way: how many there may be, of a worker and of a pod, and what they hold until they
 * end. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "data/accept.h"
#include "data/dns_metrics.h"
#include "data/dns_query_internal.h"

static void bury(struct task *t)
{
	free(container_of(t, struct query, bury));
}

void query_answered(struct query *q)
{
	if (q->counted)
		__atomic_sub_fetch(&q->post->pod->n_queries, 1, __ATOMIC_RELAXED);
	q->counted = false;
}

void query_end(struct query *q)
{
	struct worker *w = q->post->w;

	dns_upstream_cancel(&q->up);
	workload_wait_cancel(&q->wait);
	timer_cancel(&q->late);
	list_del(&q->link);
	__atomic_store_n(&w->n_queries, w->n_queries - 1, __ATOMIC_RELAXED); /* the control thread reads it */
	query_answered(q);
	workload_unref(q->source);
	if (q->from.conn)
		dns_conn_release(q->from.conn);
	loop_defer(w->loop, &q->bury, bury);
}

void dns_queries_end(struct post *p, const struct dns_conn *conn)
{
	list_for_each_safe (pos, tmp, &p->w->queries) {
		struct query *q = list_entry(pos, struct query, link);

		if (q->post != p || (conn && q->from.conn != conn))
			continue;
		if (conn)
			q->from.conn = NULL; /* it goes */
		query_end(q);
	}
}

static void say_dropped(const struct post *p, const char *whose)
{
	static __thread struct log_limit limit = {.per_second = DNS_LIMIT_LINES};
	uint64_t more;

	dns_metrics_dropped();
	if (log_allowed(&limit, loop_now(p->w->loop), &more))
		log_warn("dns", "pod %s/%s: a query is dropped, since %s are under way (%llu such lines left out)",
			 p->pod->ns, p->pod->name, whose, (unsigned long long)more);
}

static bool has_room(const struct post *p)
{
	if (p->w->n_queries >= DNS_QUERIES_MAX)
		say_dropped(p, "as many as a worker has room for");
	else if (__atomic_load_n(&p->pod->n_queries, __ATOMIC_RELAXED) >= DNS_QUERIES_POD_MAX)
		say_dropped(p, "as many as a pod may have");
	else
		return true;
	return false;
}

struct query *query_new(const struct asked *a)
{
	struct post *p = a->post;
	struct query *q = has_room(p) ? calloc(1, sizeof *q + a->len) : NULL;

	if (!q)
		return NULL;
	q->post = p;
	q->from = *a->from;
	q->q = a->q;
	q->len = a->len;
	memcpy(q->msg, a->msg, a->len);
	list_add_tail(&p->w->queries, &q->link);
	__atomic_store_n(&p->w->n_queries, p->w->n_queries + 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&p->pod->n_queries, 1, __ATOMIC_RELAXED);
	q->counted = true;
	if (q->from.conn)
		dns_conn_hold(q->from.conn);
	return q;
}
