/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the credentials of all local identities: cache, queue of fetches, renewal, backoff.
 *
 * Everything but two things happens on the control thread. Other threads read `id` of an entry under `lock`, and
 * put requests into the inbox, which the control thread empties when its message arrives. An entry is
 *
 *   waiting   linked in queue[priority], until one of CERTS_FETCHES_MAX places is free;
 *   fetching  `fetch` is set;
 *   resting   `due` is armed: for the renewal at `renew_at` (wall clock), or for the retry after a failure.
 *
 * A failure never answers for later callers: who asks while an entry rests after one brings its retry forward to
 * CERTS_DEMAND_MS after the last attempt and waits for that. So a storm of callers costs a fetch a second, and
 * nobody is refused because of a CA that has long recovered. */
#include "control/certs.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"

enum { BUCKETS = 1024 };

static const char target[] = "certs";

struct manager;

struct entry {
	struct list link;   /* bucket */
	struct list queued; /* waiting: queue[prio] */
	struct manager *m;
	struct tls_id *id; /* written under m->lock */
	enum cert_priority prio;
	struct ca_fetch *fetch;
	struct timer due, patience;
	time_t renew_at;
	uint64_t failed_at; /* loop time of the last failure; 0: the last fetch succeeded, or there was none */
	uint64_t backoff_ms;
	bool revoked;	     /* by the lists that were looked at last */
	struct list waiters; /* struct cert_request */
	unsigned n_waiters;
	char why[CERT_WHY_MAX];
	char spiffe[];
};

/* The message that wakes the control thread; it outlives the manager when it is in the mailbox by then. */
struct bell {
	struct msg msg;
	struct manager *m;
};

struct manager {
	struct certs certs;
	struct loop *loop;
	struct certs_options opt;
	struct list queue[CERT_REALTIME + 1];
	unsigned fetching, n;
	struct task pump;
	pthread_mutex_t lock;
	struct list bucket[BUCKETS];
	struct list inbox; /* struct cert_request; with `done` NULL: a forget, `spiffe` is the path */
	struct bell *bell;
	bool rung;
};

static unsigned bucket_of(const char *s)
{
	uint32_t h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h % BUCKETS;
}

static struct entry *entry_find(struct manager *m, const char *spiffe)
{
	struct list *head = &m->bucket[bucket_of(spiffe)];

	list_for_each (p, head) {
		struct entry *e = list_entry(p, struct entry, link);
		if (!strcmp(e->spiffe, spiffe))
			return e;
	}
	return NULL;
}

static bool id_valid(const struct tls_id *id)
{
	return id && tls_id_not_after(id) > time(NULL);
}

/* --- answers -------------------------------------------------------------------------------------------- */

static void request_deliver(struct loop *l, struct msg *m)
{
	struct cert_request *r = container_of(m, struct cert_request, msg);

	r->done(r);
}

static void request_answer(struct cert_request *r, struct tls_id *id, const char *why)
{
	r->id = id ? tls_id_ref(id) : NULL;
	snprintf(r->why, sizeof r->why, "%s", id ? "" : why);
	loop_post(r->loop, &r->msg, request_deliver);
}

static void entry_answer(struct entry *e, struct tls_id *id, const char *why)
{
	while (!list_empty(&e->waiters)) {
		struct cert_request *r = list_entry(e->waiters.next, struct cert_request, link);
		list_del(&r->link);
		request_answer(r, id, why);
	}
	e->n_waiters = 0;
	timer_cancel(&e->patience);
}

/* --- entries -------------------------------------------------------------------------------------------- */

static struct entry *entry_new(struct manager *m, const char *spiffe)
{
	struct entry *e = m->n < CERTS_MAX ? calloc(1, sizeof *e + strlen(spiffe) + 1) : NULL;

	if (!e)
		return NULL;
	e->m = m;
	strcpy(e->spiffe, spiffe);
	list_init(&e->queued);
	list_init(&e->waiters);
	e->backoff_ms = m->opt.retry_ms;
	m->n++;
	pthread_mutex_lock(&m->lock);
	list_add(&m->bucket[bucket_of(spiffe)], &e->link);
	pthread_mutex_unlock(&m->lock);
	return e;
}

static void pump(struct task *t);

static void entry_free(struct entry *e, const char *why)
{
	struct manager *m = e->m;

	entry_answer(e, NULL, why);
	timer_cancel(&e->due);
	list_del(&e->queued);
	if (e->fetch) {
		m->opt.ca->cancel(e->fetch);
		m->fetching--;
		loop_defer(m->loop, &m->pump, pump);
	}
	pthread_mutex_lock(&m->lock);
	list_del(&e->link);
	pthread_mutex_unlock(&m->lock);
	tls_id_unref(e->id);
	m->n--;
	free(e);
}

/* Puts an entry in line, or further up the line. */
static void entry_queue(struct entry *e, enum cert_priority p)
{
	struct manager *m = e->m;

	if (e->fetch || (!list_empty(&e->queued) && e->prio >= p))
		return;
	timer_cancel(&e->due);
	list_del(&e->queued);
	e->prio = p;
	list_add_tail(&m->queue[p], &e->queued);
	loop_defer(m->loop, &m->pump, pump);
}

static void entry_due(struct timer *t)
{
	struct entry *e = container_of(t, struct entry, due);
	time_t now = time(NULL);

	if (e->failed_at || !e->id || now >= e->renew_at)
		entry_queue(e, list_empty(&e->waiters) ? CERT_BACKGROUND : CERT_REALTIME);
	else if ((uint64_t)(e->renew_at - now) * 1000 < CERTS_CHECK_MS)
		timer_set(e->m->loop, t, (uint64_t)(e->renew_at - now) * 1000, entry_due);
	else
		timer_set(e->m->loop, t, CERTS_CHECK_MS, entry_due);
}

/* --- fetches -------------------------------------------------------------------------------------------- */

static void entry_failed(struct entry *e, const char *why)
{
	struct manager *m = e->m;
	uint64_t wait = ca_jitter(e->backoff_ms, 20);
	bool valid = id_valid(e->id);

	certs_metrics_failed();
	e->failed_at = loop_now(m->loop);
	e->backoff_ms = e->backoff_ms * 2 < CERTS_RETRY_MAX_MS ? e->backoff_ms * 2 : CERTS_RETRY_MAX_MS;
	snprintf(e->why, sizeof e->why, "%s", why);
	log_warn(target, "certificate for %s: %s; %s, next attempt in %llu ms", e->spiffe, e->why,
		 valid ? "the present one stays in use" : "unavailable", (unsigned long long)wait);
	if (valid) {
		uint64_t left = (uint64_t)(tls_id_not_after(e->id) - time(NULL)) * 1000;
		wait = wait < left ? wait : left;
	}
	entry_answer(e, valid ? e->id : NULL, e->why);
	timer_set(m->loop, &e->due, wait, entry_due);
}

/* Renewal is due at half of what remains from now on, not of the whole lifetime: a certificate may have been
 * dated back by more than its own half. */
static void entry_succeeded(struct entry *e, struct tls_id *id)
{
	struct manager *m = e->m;
	struct tls_id *old = e->id;
	time_t now = time(NULL), end = tls_id_not_after(id);
	uint64_t half = ca_jitter(end > now ? (uint64_t)(end - now) * 500 : 0, 10);
	uint64_t wait = half > m->opt.refresh_min_ms ? half : m->opt.refresh_min_ms;

	e->revoked = tls_id_revoked(id);
	if (e->revoked && wait > CERTS_RETRY_MAX_MS)
		wait = ca_jitter(CERTS_RETRY_MAX_MS, 20);
	pthread_mutex_lock(&m->lock);
	e->id = id;
	pthread_mutex_unlock(&m->lock);
	tls_id_unref(old);
	e->failed_at = 0;
	e->backoff_ms = m->opt.retry_ms;
	e->why[0] = 0;
	e->renew_at = now + (time_t)(wait / 1000);
	log_info(target, "certificate for %s %s, renewal in %llu s", e->spiffe, old ? "renewed" : "received",
		 (unsigned long long)(wait / 1000));
	if (e->revoked)
		log_warn(target, "certificate for %s: it is revoked by CRL, new as it is", e->spiffe);
	entry_answer(e, id, NULL);
	timer_set(m->loop, &e->due, wait < CERTS_CHECK_MS ? wait : CERTS_CHECK_MS, entry_due);
}

static void fetched(void *arg, struct ca_cert *cert, const char *why)
{
	struct entry *e = arg;
	char reason[TLS_REASON_MAX] = "";
	struct tls_id *id = NULL;

	e->fetch = NULL;
	e->m->fetching--;
	loop_defer(e->m->loop, &e->m->pump, pump);
	if (cert)
		id = tls_id_new(cert->key, cert->chain, cert->roots, e->m->opt.pqc, reason);
	if (id && strcmp(tls_id_spiffe(id), e->spiffe)) {
		snprintf(reason, sizeof reason, "the CA sent a certificate for another identity: %.160s",
			 tls_id_spiffe(id));
		tls_id_unref(id);
		id = NULL;
	} else if (id && !id_valid(id)) {
		snprintf(reason, sizeof reason, "the CA sent a certificate that has expired");
		tls_id_unref(id);
		id = NULL;
	}
	if (id && e->m->opt.lists)
		tls_id_use_lists(id, e->m->opt.lists);
	if (id)
		entry_succeeded(e, id);
	else
		entry_failed(e, cert ? reason : why);
}

static struct entry *queue_pop(struct manager *m)
{
	for (int p = CERT_REALTIME; p >= CERT_BACKGROUND; p--)
		if (!list_empty(&m->queue[p])) {
			struct entry *e = list_entry(m->queue[p].next, struct entry, queued);
			list_del(&e->queued);
			return e;
		}
	return NULL;
}

static void pump(struct task *t)
{
	struct manager *m = container_of(t, struct manager, pump);
	struct entry *e;

	while (m->fetching < CERTS_FETCHES_MAX && (e = queue_pop(m))) {
		e->fetch = m->opt.ca->fetch(m->opt.ca, e->spiffe, fetched, e);
		if (e->fetch)
			m->fetching++;
		else
			entry_failed(e, "out of memory");
	}
}

/* --- revocation lists ------------------------------------------------------------------------------------- */

/* Peers refuse it from now on. The next one may be under the same issuer that was revoked: then there is no hurry for one
 * more. */
static void entry_look_up(struct entry *e)
{
	bool revoked = e->id && tls_id_revoked(e->id), news = revoked && !e->revoked;

	e->revoked = revoked;
	if (!news)
		return;
	log_warn(target, "certificate for %s: it is revoked by CRL; asking for another", e->spiffe);
	entry_queue(e, CERT_WARMUP);
}

void certs_lists_changed(struct certs *c)
{
	struct manager *m = container_of(c, struct manager, certs);

	for (unsigned i = 0; i < BUCKETS; i++)
		list_for_each (p, &m->bucket[i])
			entry_look_up(list_entry(p, struct entry, link));
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void patience_over(struct timer *t)
{
	struct entry *e = container_of(t, struct entry, patience);

	entry_answer(e, NULL, e->why[0] ? e->why : "no answer from the CA in time");
}

static void request_take(struct manager *m, struct cert_request *r)
{
	struct entry *e = entry_find(m, r->spiffe);
	uint64_t rest;

	if (!e && !(e = entry_new(m, r->spiffe))) {
		request_answer(r, NULL, m->n < CERTS_MAX ? "out of memory" : "too many identities");
		return;
	}
	if (id_valid(e->id)) {
		request_answer(r, e->id, NULL);
		return;
	}
	if (e->n_waiters >= CERTS_WAITERS_MAX) {
		request_answer(r, NULL, "too many wait for this certificate");
		return;
	}
	list_add_tail(&e->waiters, &r->link);
	if (e->n_waiters++ == 0)
		timer_set(m->loop, &e->patience, CERTS_WAIT_MS, patience_over);
	rest = loop_now(m->loop) - e->failed_at;
	if (e->failed_at && rest < m->opt.demand_ms && timer_armed(&e->due))
		timer_set(m->loop, &e->due, m->opt.demand_ms - rest, entry_due);
	else
		entry_queue(e, r->priority);
}

/* `path`: what follows the trust domain. Nobody else's identity ends like that: it has exactly these parts. */
static void forget(struct manager *m, const char *path)
{
	size_t n = strlen(path);

	for (unsigned i = 0; i < BUCKETS; i++)
		list_for_each_safe (p, tmp, &m->bucket[i]) {
			struct entry *e = list_entry(p, struct entry, link);
			size_t len = strlen(e->spiffe);

			if (len > n && !strcmp(e->spiffe + len - n, path))
				entry_free(e, "the identity is no longer needed");
		}
}

static void inbox_serve(struct loop *l, struct msg *msg)
{
	struct bell *b = container_of(msg, struct bell, msg);
	struct manager *m = b->m;
	struct list mail;

	if (!m) {
		free(b);
		return;
	}
	list_init(&mail);
	pthread_mutex_lock(&m->lock);
	m->rung = false;
	if (!list_empty(&m->inbox)) {
		list_add(&m->inbox, &mail); /* the whole list moves: `mail` takes the head's place */
		list_del(&m->inbox);
	}
	pthread_mutex_unlock(&m->lock);
	while (!list_empty(&mail)) {
		struct cert_request *r = list_entry(mail.next, struct cert_request, link);

		list_del(&r->link);
		if (r->done) {
			request_take(m, r);
			continue;
		}
		forget(m, r->spiffe);
		free(r);
	}
}

static void inbox_put(struct manager *m, struct cert_request *r)
{
	bool ring;

	pthread_mutex_lock(&m->lock);
	list_add_tail(&m->inbox, &r->link);
	ring = !m->rung;
	m->rung = true;
	pthread_mutex_unlock(&m->lock);
	if (ring)
		loop_post(m->loop, &m->bell->msg, inbox_serve);
}

static struct tls_id *op_cached(struct certs *c, const char *spiffe)
{
	struct manager *m = container_of(c, struct manager, certs);
	struct entry *e;
	struct tls_id *id = NULL;

	pthread_mutex_lock(&m->lock);
	e = entry_find(m, spiffe);
	if (e && id_valid(e->id))
		id = tls_id_ref(e->id);
	pthread_mutex_unlock(&m->lock);
	return id;
}

static void op_request(struct certs *c, struct cert_request *r, enum cert_priority p)
{
	r->priority = p;
	inbox_put(container_of(c, struct manager, certs), r);
}

static struct cert_request *request_new(struct manager *m, const char *spiffe)
{
	struct cert_request *r = strlen(spiffe) < sizeof r->spiffe ? calloc(1, sizeof *r) : NULL;

	if (!r)
		return NULL;
	strcpy(r->spiffe, spiffe);
	r->loop = m->loop;
	return r;
}

static void op_forget(struct certs *c, const char *ns, const char *sa)
{
	struct manager *m = container_of(c, struct manager, certs);
	struct cert_request *r = request_new(m, "");

	if (!r)
		log_error(target, "out of memory: %s/%s is not forgotten", ns, sa);
	else if (snprintf(r->spiffe, sizeof r->spiffe, "/ns/%s/sa/%s", ns, sa) < (int)sizeof r->spiffe)
		inbox_put(m, r);
	else
		free(r); /* such a name has no certificate */
}

static void prefetched(struct cert_request *r)
{
	tls_id_unref(r->id);
	free(r);
}

void certs_prefetch(struct certs *c, const char *spiffe, enum cert_priority p)
{
	struct cert_request *r = request_new(container_of(c, struct manager, certs), spiffe);

	if (!r)
		return;
	r->done = prefetched;
	op_request(c, r, p);
}

static void op_prefetch(struct certs *c, const char *spiffe)
{
	certs_prefetch(c, spiffe, CERT_WARMUP);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static const struct certs_ops ops = {
	.cached = op_cached, .request = op_request, .prefetch = op_prefetch, .forget = op_forget};

struct certs *certs_new(struct loop *control_loop, const struct certs_options *o)
{
	struct manager *m = calloc(1, sizeof *m);
	struct bell *b = calloc(1, sizeof *b);

	if (!m || !b) {
		free(m);
		free(b);
		return NULL;
	}
	m->certs.ops = &ops;
	m->loop = control_loop;
	m->opt = *o;
	m->opt.refresh_min_ms = o->refresh_min_ms ? o->refresh_min_ms : CERTS_REFRESH_MIN_MS;
	m->opt.retry_ms = o->retry_ms ? o->retry_ms : CERTS_RETRY_MS;
	m->opt.demand_ms = o->demand_ms ? o->demand_ms : CERTS_DEMAND_MS;
	for (unsigned i = 0; i < BUCKETS; i++)
		list_init(&m->bucket[i]);
	for (unsigned i = 0; i <= CERT_REALTIME; i++)
		list_init(&m->queue[i]);
	list_init(&m->inbox);
	pthread_mutex_init(&m->lock, NULL);
	m->bell = b;
	b->m = m;
	return &m->certs;
}

void certs_free(struct certs *c)
{
	struct manager *m;

	if (!c)
		return;
	m = container_of(c, struct manager, certs);
	for (unsigned i = 0; i < BUCKETS; i++)
		while (!list_empty(&m->bucket[i]))
			entry_free(list_entry(m->bucket[i].next, struct entry, link), "shutting down");
	while (!list_empty(&m->inbox)) {
		struct cert_request *r = list_entry(m->inbox.next, struct cert_request, link);
		list_del(&r->link);
		if (r->done)
			request_answer(r, NULL, "shutting down");
		else
			free(r);
	}
	task_cancel(&m->pump);
	m->bell->m = NULL;
	if (!m->rung)
		free(m->bell);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

void certs_dump(struct certs *c, void (*each)(void *arg, const struct certs_entry *e), void *arg)
{
	struct manager *m = container_of(c, struct manager, certs);

	for (unsigned i = 0; i < BUCKETS; i++)
		list_for_each (p, &m->bucket[i]) {
			const struct entry *e = list_entry(p, struct entry, link);
			each(arg, &(struct certs_entry){.spiffe = e->spiffe,
							.state = id_valid(e->id) ? CERTS_AVAILABLE
								 : e->failed_at	 ? CERTS_UNAVAILABLE
										 : CERTS_INITIALIZING,
							.why = e->why,
							.id = e->id});
		}
}

/* `id` is written under the lock, and ends are read of it alone. */
void certs_summarize(struct certs *c, struct certs_summary *out)
{
	struct manager *m = container_of(c, struct manager, certs);

	*out = (struct certs_summary){0};
	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < BUCKETS; i++)
		list_for_each (p, &m->bucket[i]) {
			const struct entry *e = list_entry(p, struct entry, link);
			time_t end = id_valid(e->id) ? tls_id_not_after(e->id) : 0;

			out->identities++;
			out->without += !end;
			if (end && (!out->first_end || end < out->first_end))
				out->first_end = end;
		}
	pthread_mutex_unlock(&m->lock);
}
