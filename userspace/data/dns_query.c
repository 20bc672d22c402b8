// SPDX-License-Identifier: Apache-2.0
/* Owns what becomes of a query. What the mesh or the cache knows is answered at once, without memory of its own; what has
 * to wait, for a resolver or for the mesh to know the pod, is under way (dns_pending.c) until it is answered or late. */
#include "base/monotonic.h"
#include "data/accept.h"
#include "data/dns_cache.h"
#include "data/dns_conf.h"
#include "data/dns_metrics.h"
#include "data/dns_query_internal.h"

enum { TYPE_A = 1, TYPE_AAAA = 28, UDP_ANSWER_MAX = 65000 };

static struct dns_facts facts(const struct dns_question *q, const struct workload *source,
			      const struct dns_client *from)
{
	return (struct dns_facts){.source = source, .q = q, .tcp = from->conn != NULL};
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* Beside what was received: the worker's buffer is larger than two messages. */
static uint8_t *out_of(const struct worker *w)
{
	_Static_assert(WORKER_BUFFER >= 2 * (DNS_MESSAGE_MAX + 1), "a query and its answer");
	return w->buffer + WORKER_BUFFER / 2;
}

static void answer(struct post *p, const struct dns_client *to, const uint8_t *msg, size_t len)
{
	if (!len)
		return;
	if (to->conn)
		dns_conn_answer(to->conn, msg, len);
	else
		dns_answer_send(p->pod, &to->path, msg, len);
}

static void answer_error(struct post *p, const struct dns_client *to, const struct dns_question *q,
			 const uint8_t *query, size_t len, enum dns_rcode rcode)
{
	uint8_t *out = out_of(p->w);

	answer(p, to, out, dns_error_write(query, len, q, rcode, out));
}

static size_t answer_cap(const struct asked *a)
{
	size_t cap = a->from->conn ? DNS_MESSAGE_MAX : a->q.udp_size;

	return a->from->conn || cap < UDP_ANSWER_MAX ? cap : UDP_ANSWER_MAX;
}

/* Its copy, which is under way from now on; NULL: there is no room. */
static struct query *begin(const struct asked *a)
{
	struct query *q = query_new(a);

	if (!q && a->from->conn) /* nobody asks again there */
		answer_error(a->post, a->from, &a->q, a->msg, a->len, DNS_SERVFAIL);
	return q;
}

/* --- resolvers ------------------------------------------------------------------------------------------ */

/* Whom the application asked, or where rules hide that, whom the node asks. */
static struct dns_resolvers resolvers_of(struct worker *w, const struct dns_path *path)
{
	if (path->resolver.port)
		return (struct dns_resolvers){{path->resolver}, 1};
	return *dns_conf_resolvers(w->dns_conf, loop_now(w->loop));
}

static void keep(struct query *q, const uint8_t *msg, size_t len)
{
	struct dns_reply r;

	dns_reply_read(&r, &q->q, msg, len);
	dns_cache_put(q->post->w->dns_cache, &q->post->names, &q->to.at[0], &q->q, &r, loop_now(q->post->w->loop), msg,
		      len);
}

static void resolved(struct dns_upstream *u, uint8_t *msg, size_t len, const char *why)
{
	struct query *q = container_of(u, struct query, up);
	struct dns_facts f = facts(&q->q, q->source, &q->from);
	unsigned rcode = msg ? dns_reply_rcode(msg) : DNS_SERVFAIL;
	bool failed = rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN;

	if (!q->plain) {
		dns_metrics_upstream(&f, (double)(monotonic_ns() - q->since_ns) / 1e9, failed);
		dns_log(&f, failed ? "forwarding failed" : "forwarded",
			failed ? why ? why : "the resolver's own answer" : NULL, msg ? dns_reply_answers(msg) : 0);
	}
	if (msg && !q->plain) {
		dns_reply_disown(msg);
		keep(q, msg, len);
	}
	query_answered(q);
	if (msg)
		answer(q->post, &q->from, msg, len);
	else if (!q->plain)
		answer_error(q->post, &q->from, &q->q, q->msg, q->len, DNS_SERVFAIL);
	query_end(q);
}

/* Takes over a reference to `source`. */
static void forward(struct query *q, struct workload *source)
{
	q->source = source;
	q->since_ns = monotonic_ns();
	q->to = resolvers_of(q->post->w, &q->from.path);
	q->up = (struct dns_upstream){.w = q->post->w,
				      .pod = q->post->pod,
				      .to = &q->to,
				      .q = q->plain ? NULL : &q->q,
				      .msg = q->msg,
				      .len = q->len,
				      .tcp = q->from.conn != NULL,
				      .done = resolved};
	dns_upstream_start(&q->up);
}

static bool answer_cached(const struct asked *a, const struct workload *source)
{
	struct worker *w = a->post->w;
	struct dns_facts f = facts(&a->q, source, a->from);
	struct dns_resolvers to = resolvers_of(w, &a->from->path);
	uint8_t *out = out_of(w);
	size_t len = !to.n ? 0
			   : dns_cache_get(w->dns_cache, &a->post->names, &to.at[0], &a->q, loop_now(w->loop),
					   answer_cap(a), out);

	if (!len)
		return false;
	dns_metrics_cached();
	dns_metrics_upstream(&f, 0, false);
	dns_log(&f, "forwarded", NULL, dns_reply_answers(out));
	answer(a->post, a->from, out, len);
	return true;
}

/* --- the mesh ------------------------------------------------------------------------------------------- */

static bool answer_known(const struct asked *a, const struct workload *source)
{
	static const char *const results[] = {[DNS_FOUND] = "success",
					      [DNS_EMPTY] = "no records",
					      [DNS_NO_FAMILY] = "service does not support this record type"};
	struct worker *w = a->post->w;
	const struct dns_asker asker = {w->o->store, w->o->dns_zone, source, worker_random(w)};
	struct dns_facts f = facts(&a->q, source, a->from);
	struct dns_found found;
	enum dns_verdict v;
	uint8_t *out = out_of(w);
	size_t len;

	/* Another version of EDNS is the resolver's to refuse. */
	if (!a->q.spoken || a->q.edns_version || (a->q.type != TYPE_A && a->q.type != TYPE_AAAA))
		return false;
	store_read_lock();
	v = dns_name_find(&asker, a->q.text, a->q.type == TYPE_AAAA, &found);
	store_read_unlock();
	if (v == DNS_UNKNOWN)
		return false;
	len = dns_answer_write(&a->q, &found, w->o->dns_zone->domain, answer_cap(a), out);
	if (!len)
		return false;
	dns_log(&f, results[v], NULL, found.n);
	answer(a->post, a->from, out, len);
	return true;
}

/* `q`: the query where it had to wait, else NULL. Takes over a reference to `source`. */
static void serve(const struct asked *a, struct query *q, struct workload *source)
{
	struct dns_facts f = facts(&a->q, source, a->from);

	dns_metrics_request(&f);
	if (!(source && answer_known(a, source)) && !answer_cached(a, source)) {
		if (!q)
			q = begin(a);
		if (q) {
			forward(q, source);
			return;
		}
	}
	workload_unref(source);
	if (q)
		query_end(q);
}

static void have_workload(struct workload_wait *wait, struct workload *wl)
{
	struct query *q = container_of(wait, struct query, wait);
	struct asked a = {q->post, &q->from, q->msg, q->len, q->q};

	timer_cancel(&q->late);
	serve(&a, q, wl);
}

static void unknown(struct timer *t)
{
	struct query *q = container_of(t, struct query, late);

	workload_wait_cancel(&q->wait);
	have_workload(&q->wait, NULL);
}

static void wait_for_workload(const struct asked *a)
{
	struct query *q = begin(a);

	if (!q)
		return;
	timer_set(a->post->w->loop, &q->late, DNS_WORKLOAD_MS, unknown);
	workload_wait_start(a->post->w, &q->wait, a->post->pod, have_workload);
}

static void pass_on(const struct asked *a)
{
	struct query *q = a->len < DNS_HEADER ? NULL : begin(a);

	if (!q)
		return;
	q->plain = true;
	forward(q, NULL);
}

void dns_query_take(struct post *p, const struct dns_client *from, const uint8_t *msg, size_t len)
{
	struct asked a = {.post = p, .from = from, .msg = msg, .len = len};
	enum dns_rcode rcode = DNS_NOERROR;
	struct workload *wl;

	if (!p->w->o->dns_zone) {
		pass_on(&a);
		return;
	}
	switch (dns_question_read(&a.q, msg, len, &rcode)) {
	case DNS_READ_SILENT:
		return;
	case DNS_READ_WRONG:
		answer_error(p, from, &a.q, msg, len, rcode);
		return;
	case DNS_READ_QUERY:
		break;
	}
	wl = pod_workload(p->w, p->pod);
	if (wl)
		serve(&a, NULL, wl);
	else
		wait_for_workload(&a);
}
