/* SPDX-License-Identifier: Apache-2.0 */
/* What certs.c (the manager, other threads' requests) and credential.c (one identity's) share. */
#pragma once
#include <pthread.h>
#include <time.h>

#include "control/certs.h"

enum { CERTS_BUCKETS = 1024 };

struct credential {
	struct list link;   /* bucket */
	struct list queued; /* waiting: queue[prio] */
	struct certs_manager *m;
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
struct certs_bell {
	struct msg msg;
	struct certs_manager *m;
};

struct certs_manager {
	struct certs certs;
	struct loop *loop;
	struct certs_options opt;
	struct list queue[CERT_REALTIME + 1];
	unsigned fetching, n;
	struct task pump;
	pthread_mutex_t lock;
	struct list bucket[CERTS_BUCKETS];
	struct list inbox; /* struct cert_request; with `done` NULL: a forget, `spiffe` is the path */
	struct certs_bell *bell;
	bool rung;
};

static inline bool cert_id_valid(const struct tls_id *id)
{
	return id && tls_id_not_after(id) > time(NULL);
}

/* On the control thread, but for credential_find(), which takes any thread that holds the lock. */
struct credential *credential_find(struct certs_manager *m, const char *spiffe);
/* Somebody asks: he is answered, now or when it is known. */
void credential_take(struct certs_manager *m, struct cert_request *r);
/* There are other revocation lists. */
void credential_look_up(struct credential *cred);
/* Who waits is answered with `why`. */
void credential_free(struct credential *cred, const char *why);
/* With `id`, of which he gets a reference, or NULL and why. */
void cert_request_answer(struct cert_request *r, struct tls_id *id, const char *why);
