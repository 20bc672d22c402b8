/* SPDX-License-Identifier: Apache-2.0 */
/* A source of workload certificates, as the certificate manager sees it: the embedded CA and the client of Istio's CA
 * implement it. All calls belong to the control thread. */
#pragma once
#include "loop/loop.h"

enum {
	CA_WHY_MAX = 256,
	CA_TTL_DEFAULT_S = 24 * 3600,
	CA_FETCH_MS = 10000, /* a fetch that takes longer has failed */
};

/* PEM texts, malloc'ed; the key's may be secure memory (net/tls.h). */
struct ca_cert {
	char *key, *chain, *roots; /* chain: the leaf first */
};
/* Wipes the key. Takes empty ones. */
void ca_cert_clear(struct ca_cert *c);

/* One fetch, owned by the CA until `done` has been called (once, from a later turn of the loop) or it was cancelled. */
struct ca_fetch;
/* `cert` is good during the call only; on failure it is NULL and `why` says one line. */
typedef void ca_done(void *arg, struct ca_cert *cert, const char *why);

struct ca {
	/* NULL: no memory. */
	struct ca_fetch *(*fetch)(struct ca *ca, const char *spiffe, ca_done *done, void *arg);
	void (*cancel)(struct ca_fetch *f);
	/* No fetch may be under way. */
	void (*free)(struct ca *ca);
};
void ca_free(struct ca *ca);

/* `ms`, up to so many percent more or less: those who failed together try again apart. */
uint64_t ca_jitter(uint64_t ms, unsigned percent);
