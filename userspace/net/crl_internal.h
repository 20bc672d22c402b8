/* SPDX-License-Identifier: Apache-2.0 */
/* What crl.c (issuers, verdicts) and crl_set.c (reading) share. */
#pragma once
#include <openssl/x509v3.h>

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
