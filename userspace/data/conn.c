/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of a worker's connections, and the verdict of the policies on them (every change counts). */
#include "data/conn.h"

#include <stdio.h>

#include "base/log.h"
#include "data/failures.h"
#include "data/plane.h"
#include "data/tap_hooks.h"
#include "state/authorize.h"

void conn_init(struct conn *c, struct worker *w, struct pod *p, bool inbound, const struct conn_ops *ops)
{
	c->ops = ops;
	c->w = w;
	c->pod = pod_ref(p);
	c->inbound = inbound;
	c->since = loop_now(w->loop);
	c->id = w->serial++ * DATA_WORKERS_MAX + w->index;
	list_add_tail(&w->conns, &c->link);
	__atomic_store_n(&w->n_conns, w->n_conns + 1, __ATOMIC_RELAXED); /* the control thread reads it */
	traffic_sockets(inbound ? REPORT_DESTINATION : REPORT_SOURCE, 1);
}

const char *conn_authority(const struct conn *c, char buf[HBONE_AUTHORITY_MAX])
{
	const char *name = c->nested ? c->service->hostname : rstr_text(c->named);

	if (!name)
		return endpoint_str(&c->authority, buf);
	snprintf(buf, HBONE_AUTHORITY_MAX, "%s:%u", name, c->authority.port);
	return buf;
}

void conn_tunnelled(struct conn *c, const struct h2 *h)
{
	struct record_offload o;

	h2_offload_of(h, &o);
	c->cipher = o.cipher;
	c->kernel_tx = o.tx;
	c->kernel_rx = o.rx;
}

static void facts_of(const struct conn *c, struct traffic_facts *f, char target[HBONE_AUTHORITY_MAX])
{
	*f = (struct traffic_facts){
		.reporter = c->inbound ? REPORT_DESTINATION : REPORT_SOURCE,
		.src = c->src,
		.dst = c->dst,
		.hbone_target = c->hbone ? conn_authority(c, target) : NULL,
		.source = c->source,
		.destination = c->destination,
		.service = c->service,
		.src_identity = rstr_text(c->src_identity),
		.dst_identity = rstr_text(c->dst_identity),
		.mutual_tls = c->hbone || c->local,
		.baggage = rstr_text(c->baggage),
	};
}

void conn_opened(struct conn *c)
{
	struct traffic_facts f;
	char target[HBONE_AUTHORITY_MAX];

	if (c->opened) /* a request that is repeated */
		return;
	facts_of(c, &f, target);
	c->traffic = traffic_open(&f);
	c->opened = true;
	if (tap_wanted(c->w))
		tap_opened(c);
}

void conn_received(struct conn *c, const struct iovec *iov, size_t n)
{
	if (tap_wanted(c->w))
		tap_bytes(c, true, iov, n);
	c->received += n;
	traffic_received(c->traffic, n);
}

void conn_sent(struct conn *c, const struct iovec *iov, size_t n)
{
	if (tap_wanted(c->w))
		tap_bytes(c, false, iov, n);
	c->sent += n;
	traffic_sent(c->traffic, n);
}

static void copy(char *to, size_t len, const char *text)
{
	snprintf(to, len, "%s", text ? text : "");
}

static void fill(struct failure *f, const struct pod *p, const char *src, const char *dst, const char *why)
{
	clock_gettime(CLOCK_REALTIME, &f->at);
	copy(f->pod_ns, sizeof f->pod_ns, p->ns);
	copy(f->pod_name, sizeof f->pod_name, p->name);
	copy(f->src_identity, sizeof f->src_identity, src);
	copy(f->dst_identity, sizeof f->dst_identity, dst);
	copy(f->why, sizeof f->why, why);
}

static void note_failure(const struct conn *c, enum traffic_flag flag, const char *why)
{
	struct failure f = {.flag = flag,
			    .inbound = c->inbound,
			    .hbone = c->hbone,
			    .opened = c->opened,
			    .src = c->src,
			    .dst = c->original,
			    .next_hop = c->dst};

	fill(&f, c->pod, rstr_text(c->src_identity), rstr_text(c->dst_identity), why);
	copy(f.service, sizeof f.service, c->service ? c->service->hostname : NULL);
	failures_add(c->w->failures, &f);
}

void conn_closed(struct conn *c, enum traffic_flag flag, const char *error)
{
	enum traffic_reporter reporter = c->inbound ? REPORT_DESTINATION : REPORT_SOURCE;

	if (!c->w)
		return;
	if (error)
		note_failure(c, flag, error);
	if (tap_wanted(c->w))
		tap_closed(c, error);
	if (c->opened) {
		struct traffic_facts f;
		char target[HBONE_AUTHORITY_MAX];

		facts_of(c, &f, target);
		traffic_close(c->traffic, &f, flag, error);
	} else if (error) {
		traffic_reject(reporter, &c->src, &c->original, error, loop_now(c->w->loop));
	}
	traffic_sockets(reporter, -1);
	list_del(&c->link);
	__atomic_store_n(&c->w->n_conns, c->w->n_conns - 1, __ATOMIC_RELAXED);
	c->w = NULL;
	workload_unref(c->source);
	workload_unref(c->destination);
	service_unref(c->service);
	rstr_unref(c->src_identity);
	rstr_unref(c->dst_identity);
	rstr_unref(c->host);
	rstr_unref(c->named);
	rstr_unref(c->baggage);
	pod_unref(c->pod);
}

void conn_rejected(struct worker *w, const struct pod *p, const struct endpoint *src, const struct endpoint *dst,
		   const char *peer, const char *why)
{
	struct failure f = {
		.flag = FLAG_NONE, .inbound = true, .hbone = true, .src = *src, .dst = *dst, .next_hop = *dst};

	fill(&f, p, peer, NULL, why);
	failures_add(w->failures, &f);
	traffic_reject(REPORT_DESTINATION, src, dst, why, loop_now(w->loop));
}

/* --- the verdict ------------------------------------------------------------------------------------------ */

static const char policy_target[] = "state"; /* as ztunnel's lines have it */

/* One limiter for all of them: they come with every connection. */
static bool policy_line_due(const struct conn *c, enum log_level level)
{
	static __thread struct log_limit limit = {.per_second = CONN_POLICY_LINES};
	uint64_t left_out;

	return log_enabled(level, policy_target) && log_allowed(&limit, loop_now(c->w->loop), &left_out);
}

static void log_dry_run(const struct conn *c, const struct policy *p, const char *message)
{
	enum log_level level = c->w->o->authz_info ? LOG_INFO : LOG_DEBUG;
	char name[CONN_POLICY_NAME_MAX], at[ENDPOINT_STRLEN];
	struct log_line l;

	if (!policy_line_due(c, level))
		return;
	log_begin(&l, level, policy_target, message);
	if (p) {
		snprintf(name, sizeof name, "%s/%s", p->ns, p->name);
		log_str(&l, "policy", name);
	}
	log_bare(&l, "src.addr", endpoint_str(&c->src, at));
	log_bare(&l, "dst.addr", endpoint_str(&c->original, at));
	log_end(&l);
}

/* What policies that are only being tried would have done. */
static void log_dry_runs(const struct conn *c, const struct policy_result *r)
{
	if (r->dry_run_denied)
		log_dry_run(c, r->dry_run_denied, "dry-run: deny policy match");
	if (r->dry_run_allowed)
		log_dry_run(c, r->dry_run_allowed, "dry-run: allow policy match");
	if (r->dry_run_none_allowed)
		log_dry_run(c, NULL, "dry-run: no allow policies match");
}

bool conn_allowed(struct conn *c, char *why, size_t len)
{
	struct authorize_request q = {.src = c->src, .dst = c->original, .peer = rstr_text(c->src_identity)};
	struct store *s = c->w->o->store;
	struct authorize_result r;

	store_read_lock();
	q.local = store_local_workload(s, c->pod->ns, c->pod->sa, c->pod->name);
	if (!q.local)
		q.local = c->destination; /* gone from the mesh: judged as it was */
	authorize(s, &q, &r);
	if (r.missing && policy_line_due(c, LOG_WARN))
		log_msg(LOG_WARN, policy_target, "%s/%s names %u policies that are unknown; the others are enforced",
			q.local->ns, q.local->name, r.missing);
	log_dry_runs(c, &r.policies);
	store_read_unlock();
	if (!r.allowed)
		snprintf(why, len, "%s", r.why);
	return r.allowed;
}

/* --- all of them ------------------------------------------------------------------------------------------ */

/* Killing one connection may end others: every step takes the first of those that have not been looked at. */
static void each_conn(struct worker *w, void (*each)(struct conn *c, const void *arg), const void *arg)
{
	struct list todo;

	list_init(&todo);
	list_move_all(&todo, &w->conns);
	while (!list_empty(&todo)) {
		struct list *e = todo.next;

		list_del(e);
		list_add_tail(&w->conns, e);
		each(list_entry(e, struct conn, link), arg);
	}
}

static void enforce(struct conn *c, const void *arg)
{
	char why[256];

	if (c->inbound && c->opened && !conn_allowed(c, why, sizeof why))
		c->ops->kill(c, FLAG_DENY, "connection closed due to policy change");
}

void conns_enforce(struct worker *w)
{
	each_conn(w, enforce, NULL);
}

static void kill_revoked(struct conn *c, const void *why)
{
	if (c->ops->revoked && c->ops->revoked(c))
		c->ops->kill(c, FLAG_CERT_REVOKED, why);
}

void conns_kill_revoked(struct worker *w, const char *why)
{
	each_conn(w, kill_revoked, why);
}

struct kill {
	const struct pod *pod;
	const char *why;
};

static void kill_one(struct conn *c, const void *arg)
{
	const struct kill *k = arg;

	if (!k->pod || c->pod == k->pod)
		c->ops->kill(c, FLAG_NONE, k->why);
}

void conns_kill_pod(struct worker *w, const struct pod *p, const char *why)
{
	struct kill k = {p, why};

	each_conn(w, kill_one, &k);
}
