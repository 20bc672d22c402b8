/* SPDX-License-Identifier: Apache-2.0 */
/* What crl.c (the lists in force, verdicts), crl_issuer.c (whose lists they are) and crl_set.c (reading) share. */
#pragma once
#include <openssl/x509v3.h>
#include <pthread.h>

#include "base/list.h"
#include "net/crl.h"

struct crl_list {
	X509_CRL *crl;
	AUTHORITY_KEYID *akid; /* which key of the issuer has signed; NULL: it does not say */
	struct crl_info info;
};

/* The lists of one file; immutable. */
struct crl_set {
	unsigned n;
	struct crl_list list[CRL_LISTS_MAX];
};

/* As crls_load(). */
int crl_set_new(const void *text, size_t len, struct crl_set **out, char why[CRL_WHY_MAX]);
void crl_set_free(struct crl_set *s); /* takes NULL */

struct issuer {
	struct list link; /* crls->issuers; the one met last is the first */
	X509 *cert;
	struct issuer *parent; /* NULL: an anchor */
	unsigned refs;	       /* paths and children; without any it is kept as long as there is room */
	bool listed;	       /* it has a place in the table */
	enum crl_verdict verdict;
	bool forged;	 /* there are lists in its name, and none of them is its own */
	unsigned n_own;	 /* lists that speak for it, */
	X509_CRL **own;	 /* of crls->set */
	uint32_t judged; /* generation */
};

struct crls {
	pthread_mutex_t lock;
	uint32_t generation; /* of the set; written under the lock, read without */
	struct crl_set *set;
	struct list issuers;
	unsigned n_issuers;
};

/* All under the lock. */
/* A reference; that to `parent` (NULL: an anchor) is taken over, also when there is no memory (NULL). */
struct issuer *issuer_get(struct crls *c, X509 *cert, struct issuer *parent);
void issuer_put(struct crls *c, struct issuer *i); /* takes NULL */
/* What its lists, and those of the issuers above, say of a certificate that it has issued. */
enum crl_verdict issuer_verdict(const struct issuer *i, const ASN1_INTEGER *serial);
/* By the set that is in force now. */
void issuers_judge(struct crls *c);
void issuers_free(struct crls *c);
