/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the credential of one identity: its place in the queue of fetches, renewal, backoff, who waits for it. It is
 *
 *   waiting   linked in queue[priority], until one of CERTS_FETCHES_MAX places is free;
 *   fetching  `fetch` is set;
 *   resting   `due` is armed: for the renewal at `renew_at` (wall clock), or for the retry after a failure.
 *
 * A failure never answers for later callers: who asks while it rests after one brings its retry forward to
 * CERTS_DEMAND_MS after the last attempt and waits for that. So a storm of callers costs a fetch a second, and
 * nobody is refused because of a CA that has long recovered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/certs_internal.h"

static const char target[] = "certs";

static unsigned bucket_of(const char *s)
{
	uint32_t h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h % CERTS_BUCKETS;
}

struct credential *credential_find(struct certs_manager *m, const char *spiffe)
{
	struct list *head = &m->bucket[bucket_of(spiffe)];

	list_for_each (p, head) {
		struct credential *cred = list_entry(p, struct credential, link);
		if (!strcmp(cred->spiffe, spiffe))
			return cred;
	}
	return NULL;
}

/* --- answers -------------------------------------------------------------------------------------------- */

static void request_deliver(struct loop *l, struct msg *m)
{
	struct cert_request *r = container_of(m, struct cert_request, msg);

	r->done(r);
}

void cert_request_answer(struct cert_request *r, struct tls_id *id, const char *why)
{
	r->id = id ? tls_id_ref(id) : NULL;
	snprintf(r->why, sizeof r->why, "%s", id ? "" : why);
	loop_post(r->loop, &r->msg, request_deliver);
}

static void credential_answer(struct credential *cred, struct tls_id *id, const char *why)
{
	while (!list_empty(&cred->waiters)) {
		struct cert_request *r = list_entry(cred->waiters.next, struct cert_request, link);
		list_del(&r->link);
		cert_request_answer(r, id, why);
	}
	cred->n_waiters = 0;
	timer_cancel(&cred->patience);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static struct credential *credential_new(struct certs_manager *m, const char *spiffe)
{
	struct credential *cred = m->n < CERTS_MAX ? calloc(1, sizeof *cred + strlen(spiffe) + 1) : NULL;

	if (!cred)
		return NULL;
	cred->m = m;
	strcpy(cred->spiffe, spiffe);
	list_init(&cred->queued);
	list_init(&cred->waiters);
	cred->backoff_ms = m->opt.retry_ms;
	m->n++;
	pthread_mutex_lock(&m->lock);
	list_add(&m->bucket[bucket_of(spiffe)], &cred->link);
	pthread_mutex_unlock(&m->lock);
	return cred;
}

static void pump(struct task *t);

void credential_free(struct credential *cred, const char *why)
{
	struct certs_manager *m = cred->m;

	credential_answer(cred, NULL, why);
	timer_cancel(&cred->due);
	list_del(&cred->queued);
	if (cred->fetch) {
		m->opt.ca->cancel(cred->fetch);
		m->fetching--;
		loop_defer(m->loop, &m->pump, pump);
	}
	pthread_mutex_lock(&m->lock);
	list_del(&cred->link);
	pthread_mutex_unlock(&m->lock);
	tls_id_unref(cred->id);
	m->n--;
	free(cred);
}

/* In line, or further up the line. */
static void credential_queue(struct credential *cred, enum cert_priority p)
{
	struct certs_manager *m = cred->m;

	if (cred->fetch || (!list_empty(&cred->queued) && cred->prio >= p))
		return;
	timer_cancel(&cred->due);
	list_del(&cred->queued);
	cred->prio = p;
	list_add_tail(&m->queue[p], &cred->queued);
	loop_defer(m->loop, &m->pump, pump);
}

static void credential_due(struct timer *t)
{
	struct credential *cred = container_of(t, struct credential, due);
	time_t now = time(NULL);

	if (cred->failed_at || !cred->id || now >= cred->renew_at)
		credential_queue(cred, list_empty(&cred->waiters) ? CERT_BACKGROUND : CERT_REALTIME);
	else if ((uint64_t)(cred->renew_at - now) * 1000 < CERTS_CHECK_MS)
		timer_set(cred->m->loop, t, (uint64_t)(cred->renew_at - now) * 1000, credential_due);
	else
		timer_set(cred->m->loop, t, CERTS_CHECK_MS, credential_due);
}

/* --- fetches -------------------------------------------------------------------------------------------- */

static void credential_failed(struct credential *cred, const char *why)
{
	struct certs_manager *m = cred->m;
	uint64_t wait = ca_jitter(cred->backoff_ms, 20);
	bool valid = cert_id_valid(cred->id);

	certs_metrics_failed();
	cred->failed_at = loop_now(m->loop);
	cred->backoff_ms = cred->backoff_ms * 2 < CERTS_RETRY_MAX_MS ? cred->backoff_ms * 2 : CERTS_RETRY_MAX_MS;
	snprintf(cred->why, sizeof cred->why, "%s", why);
	log_warn(target, "certificate for %s: %s; %s, next attempt in %llu ms", cred->spiffe, cred->why,
		 valid ? "the present one stays in use" : "unavailable", (unsigned long long)wait);
	if (valid) {
		uint64_t left = (uint64_t)(tls_id_not_after(cred->id) - time(NULL)) * 1000;
		wait = wait < left ? wait : left;
	}
	credential_answer(cred, valid ? cred->id : NULL, cred->why);
	timer_set(m->loop, &cred->due, wait, credential_due);
}

/* Renewal is due at half of what remains from now on, not of the whole lifetime: a certificate may have been
 * dated back by more than its own half. */
static void credential_succeeded(struct credential *cred, struct tls_id *id)
{
	struct certs_manager *m = cred->m;
	struct tls_id *old = cred->id;
	time_t now = time(NULL), end = tls_id_not_after(id);
	uint64_t half = ca_jitter(end > now ? (uint64_t)(end - now) * 500 : 0, 10);
	uint64_t wait = half > m->opt.refresh_min_ms ? half : m->opt.refresh_min_ms;

	cred->revoked = tls_id_revoked(id);
	if (cred->revoked && wait > CERTS_RETRY_MAX_MS)
		wait = ca_jitter(CERTS_RETRY_MAX_MS, 20);
	pthread_mutex_lock(&m->lock);
	cred->id = id;
	pthread_mutex_unlock(&m->lock);
	tls_id_unref(old);
	cred->failed_at = 0;
	cred->backoff_ms = m->opt.retry_ms;
	cred->why[0] = 0;
	cred->renew_at = now + (time_t)(wait / 1000);
	log_info(target, "certificate for %s %s, renewal in %llu s", cred->spiffe, old ? "renewed" : "received",
		 (unsigned long long)(wait / 1000));
	if (cred->revoked)
		log_warn(target, "certificate for %s: it is revoked by CRL, new as it is", cred->spiffe);
	credential_answer(cred, id, NULL);
	timer_set(m->loop, &cred->due, wait < CERTS_CHECK_MS ? wait : CERTS_CHECK_MS, credential_due);
}

static void fetched(void *arg, struct ca_cert *cert, const char *why)
{
	struct credential *cred = arg;
	char reason[TLS_REASON_MAX] = "";
	struct tls_id *id = NULL;

	cred->fetch = NULL;
	cred->m->fetching--;
	loop_defer(cred->m->loop, &cred->m->pump, pump);
	if (cert)
		id = tls_id_new(cert->key, cert->chain, cert->roots, cred->m->opt.pqc, reason);
	if (id && strcmp(tls_id_spiffe(id), cred->spiffe)) {
		snprintf(reason, sizeof reason, "the CA sent a certificate for another identity: %.160s",
			 tls_id_spiffe(id));
		tls_id_unref(id);
		id = NULL;
	} else if (id && !cert_id_valid(id)) {
		snprintf(reason, sizeof reason, "the CA sent a certificate that has expired");
		tls_id_unref(id);
		id = NULL;
	}
	if (id && cred->m->opt.lists)
		tls_id_use_lists(id, cred->m->opt.lists);
	if (id)
		credential_succeeded(cred, id);
	else
		credential_failed(cred, cert ? reason : why);
}

static struct credential *queue_pop(struct certs_manager *m)
{
	for (int p = CERT_REALTIME; p >= CERT_BACKGROUND; p--)
		if (!list_empty(&m->queue[p])) {
			struct credential *cred = list_entry(m->queue[p].next, struct credential, queued);
			list_del(&cred->queued);
			return cred;
		}
	return NULL;
}

static void pump(struct task *t)
{
	struct certs_manager *m = container_of(t, struct certs_manager, pump);
	struct credential *cred;

	while (m->fetching < CERTS_FETCHES_MAX && (cred = queue_pop(m))) {
		cred->fetch = m->opt.ca->fetch(m->opt.ca, cred->spiffe, fetched, cred);
		if (cred->fetch)
			m->fetching++;
		else
			credential_failed(cred, "out of memory");
	}
}

/* --- revocation lists ------------------------------------------------------------------------------------- */

/* Peers refuse it from now on. The next one may be under the same issuer that was revoked: then there is no hurry for one
 * more. */
void credential_look_up(struct credential *cred)
{
	bool revoked = cred->id && tls_id_revoked(cred->id), news = revoked && !cred->revoked;

	cred->revoked = revoked;
	if (!news)
		return;
	log_warn(target, "certificate for %s: it is revoked by CRL; asking for another", cred->spiffe);
	credential_queue(cred, CERT_WARMUP);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void patience_over(struct timer *t)
{
	struct credential *cred = container_of(t, struct credential, patience);

	credential_answer(cred, NULL, cred->why[0] ? cred->why : "no answer from the CA in time");
}

void credential_take(struct certs_manager *m, struct cert_request *r)
{
	struct credential *cred = credential_find(m, r->spiffe);
	uint64_t rest;

	if (!cred && !(cred = credential_new(m, r->spiffe))) {
		cert_request_answer(r, NULL, m->n < CERTS_MAX ? "out of memory" : "too many identities");
		return;
	}
	if (cert_id_valid(cred->id)) {
		cert_request_answer(r, cred->id, NULL);
		return;
	}
	if (cred->n_waiters >= CERTS_WAITERS_MAX) {
		cert_request_answer(r, NULL, "too many wait for this certificate");
		return;
	}
	list_add_tail(&cred->waiters, &r->link);
	if (cred->n_waiters++ == 0)
		timer_set(m->loop, &cred->patience, CERTS_WAIT_MS, patience_over);
	rest = loop_now(m->loop) - cred->failed_at;
	if (cred->failed_at && rest < m->opt.demand_ms && timer_armed(&cred->due))
		timer_set(m->loop, &cred->due, m->opt.demand_ms - rest, credential_due);
	else
		credential_queue(cred, r->priority);
}
