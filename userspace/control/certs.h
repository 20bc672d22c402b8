/* SPDX-License-Identifier: Apache-2.0 */
/* The certificate manager: one credential per identity, asked for once however many want it, renewed before it ends.
 * Implements data/certs.h. Fetches and timers live on the control thread. */
#pragma once
#include "control/ca.h"
#include "data/certs.h"

enum {
	CERTS_MAX = 8192,	     /* identities; one more is refused */
	CERTS_FETCHES_MAX = 8,	     /* at once */
	CERTS_WAITERS_MAX = 4096,    /* per identity; one more is refused */
	CERTS_WAIT_MS = 15000,	     /* what a request waits for at most */
	CERTS_REFRESH_MIN_MS = 5000, /* between two certificates of one identity */
	CERTS_CHECK_MS = 60000,	     /* the wall clock is read at least this often: it may jump */
	CERTS_RETRY_MS = 1000,	     /* after the first failure; doubles, +-20 % */
	CERTS_RETRY_MAX_MS = 150000,
	CERTS_DEMAND_MS = 1000, /* somebody asks while the last fetch failed: the next one starts this soon after */
};

struct certs_options {
	struct ca *ca;		 /* outlives the manager */
	bool pqc;		 /* see tls_id_new() */
	struct crls *lists;	 /* revocation lists, which outlive the manager; NULL: none are in use */
	unsigned refresh_min_ms; /* 0: CERTS_REFRESH_MIN_MS. These three are for tests */
	unsigned retry_ms;	 /* 0: CERTS_RETRY_MS */
	unsigned demand_ms;	 /* 0: CERTS_DEMAND_MS */
};

/* NULL: no memory. */
struct certs *certs_new(struct loop *control_loop, const struct certs_options *o);
/* On the control thread, when no other thread calls any more. Requests that wait are answered with a failure. */
void certs_free(struct certs *c);

/* Asks for an identity that will be needed. Any thread. */
void certs_prefetch(struct certs *c, const char *spiffe, enum cert_priority p);

/* There are other revocation lists: a certificate that they name is replaced, once. On the control thread. */
void certs_lists_changed(struct certs *c);

enum certs_state { CERTS_INITIALIZING, CERTS_AVAILABLE, CERTS_UNAVAILABLE };
struct certs_entry {
	const char *spiffe;
	enum certs_state state;
	const char *why;   /* CERTS_UNAVAILABLE; else "", or why the last renewal failed */
	struct tls_id *id; /* may be NULL; borrowed */
};
/* Calls `each` for every identity, in no order. On the control thread. */
void certs_dump(struct certs *c, void (*each)(void *arg, const struct certs_entry *e), void *arg);

struct certs_summary {
	unsigned identities, without; /* without a certificate that is valid */
	time_t first_end;	      /* of those that are valid, the end that comes first; 0: there is none */
};
/* Any thread. */
void certs_summarize(struct certs *c, struct certs_summary *out);
/* The metrics' families, once; they tell of `c`, which outlives what serves them. 0 or -ENOMEM. */
int certs_metrics_init(struct certs *c);
/* A fetch has failed. */
void certs_metrics_failed(void);

enum { CERTS_SERIAL_MAX = 64 };
struct certs_x509 {
	const char *pem; /* this certificate alone */
	size_t pem_len;
	char serial[CERTS_SERIAL_MAX]; /* decimal */
	time_t not_before, not_after;
};
/* Calls `each` for every certificate of a PEM text; what is no certificate is skipped. Any thread. */
void certs_x509_each(const char *pem, void (*each)(void *arg, const struct certs_x509 *x), void *arg);
