/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the credentials of all local identities as others see them.
 *
 * Everything but two things happens on the control thread. Other threads read `id` of a credential under `lock`, and
 * put requests into the inbox, which the control thread empties when its message arrives. */
#include "control/certs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/certs_internal.h"

static const char target[] = "certs";

/* --- requests ------------------------------------------------------------------------------------------- */

/* `path`: what follows the trust domain. Nobody else's identity ends like that: it has exactly these parts. */
static void forget(struct certs_manager *m, const char *path)
{
	size_t n = strlen(path);

	for (unsigned i = 0; i < CERTS_BUCKETS; i++)
		list_for_each_safe (p, tmp, &m->bucket[i]) {
			struct credential *cred = list_entry(p, struct credential, link);
			size_t len = strlen(cred->spiffe);

			if (len > n && !strcmp(cred->spiffe + len - n, path))
				credential_free(cred, "the identity is no longer needed");
		}
}

static void inbox_serve(struct loop *l, struct msg *msg)
{
	struct certs_bell *b = container_of(msg, struct certs_bell, msg);
	struct certs_manager *m = b->m;
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
			credential_take(m, r);
			continue;
		}
		forget(m, r->spiffe);
		free(r);
	}
}

static void inbox_put(struct certs_manager *m, struct cert_request *r)
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
	struct certs_manager *m = container_of(c, struct certs_manager, certs);
	struct credential *cred;
	struct tls_id *id = NULL;

	pthread_mutex_lock(&m->lock);
	cred = credential_find(m, spiffe);
	if (cred && cert_id_valid(cred->id))
		id = tls_id_ref(cred->id);
	pthread_mutex_unlock(&m->lock);
	return id;
}

static void op_request(struct certs *c, struct cert_request *r, enum cert_priority p)
{
	r->priority = p;
	inbox_put(container_of(c, struct certs_manager, certs), r);
}

static struct cert_request *request_new(struct certs_manager *m, const char *spiffe)
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
	struct certs_manager *m = container_of(c, struct certs_manager, certs);
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
	struct cert_request *r = request_new(container_of(c, struct certs_manager, certs), spiffe);

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
	struct certs_manager *m = calloc(1, sizeof *m);
	struct certs_bell *b = calloc(1, sizeof *b);

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
	for (unsigned i = 0; i < CERTS_BUCKETS; i++)
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
	struct certs_manager *m;

	if (!c)
		return;
	m = container_of(c, struct certs_manager, certs);
	for (unsigned i = 0; i < CERTS_BUCKETS; i++)
		while (!list_empty(&m->bucket[i]))
			credential_free(list_entry(m->bucket[i].next, struct credential, link), "shutting down");
	while (!list_empty(&m->inbox)) {
		struct cert_request *r = list_entry(m->inbox.next, struct cert_request, link);
		list_del(&r->link);
		if (r->done)
			cert_request_answer(r, NULL, "shutting down");
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

/* --- all of them ---------------------------------------------------------------------------------------- */

void certs_lists_changed(struct certs *c)
{
	struct certs_manager *m = container_of(c, struct certs_manager, certs);

	for (unsigned i = 0; i < CERTS_BUCKETS; i++)
		list_for_each (p, &m->bucket[i])
			credential_look_up(list_entry(p, struct credential, link));
}

void certs_dump(struct certs *c, void (*each)(void *arg, const struct certs_entry *e), void *arg)
{
	struct certs_manager *m = container_of(c, struct certs_manager, certs);

	for (unsigned i = 0; i < CERTS_BUCKETS; i++)
		list_for_each (p, &m->bucket[i]) {
			const struct credential *cred = list_entry(p, struct credential, link);
			each(arg, &(struct certs_entry){.spiffe = cred->spiffe,
							.state = cert_id_valid(cred->id) ? CERTS_AVAILABLE
								 : cred->failed_at	 ? CERTS_UNAVAILABLE
											 : CERTS_INITIALIZING,
							.why = cred->why,
							.id = cred->id});
		}
}

/* `id` is written under the lock, and ends are read of it alone. */
void certs_summarize(struct certs *c, struct certs_summary *out)
{
	struct certs_manager *m = container_of(c, struct certs_manager, certs);

	*out = (struct certs_summary){0};
	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < CERTS_BUCKETS; i++)
		list_for_each (p, &m->bucket[i]) {
			const struct credential *cred = list_entry(p, struct credential, link);
			time_t end = cert_id_valid(cred->id) ? tls_id_not_after(cred->id) : 0;

			out->identities++;
			out->without += !end;
			if (end && (!out->first_end || end < out->first_end))
				out->first_end = end;
		}
	pthread_mutex_unlock(&m->lock);
}
