/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate revocation lists (RFC 5280): those in force, the verdict on a chain that TLS has verified, and what a
 * connection keeps of it so that the verdict can be had again when other lists come. Thread-safe.
 *
 * A list speaks for the issuer that has its name (and its key identifier, where the list tells one) and has signed it.
 * Whom no list speaks of is not revoked: lists that are missing or out of date change nothing. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct stack_st_X509; /* STACK_OF(X509) */

enum {
	CRL_WHY_MAX = 256,
	CRL_TEXT_MAX = 16 << 20, /* bytes of a file */
	CRL_LISTS_MAX = 256,
	CRL_ISSUERS_MAX = 1024, /* of chains that were seen; connections beyond are not followed */
	CRL_SERIAL_MAX = 64,	/* bytes; RFC 5280 allows 20. A connection with a longer one is not followed */
};

enum crl_verdict {
	CRL_UNCHECKED, /* no lists are in use */
	CRL_GOOD,
	CRL_UNFOLLOWED, /* good, but nothing could be kept of it */
	CRL_REVOKED,
	CRL_FORGED,    /* the only lists in an issuer's name have not been signed by it */
	CRL_NO_MEMORY, /* nobody can say that it is good */
};

struct crls;
/* Without any list. NULL: no memory. */
struct crls *crls_new(void);
/* After all paths have been freed. Takes NULL. */
void crls_free(struct crls *c);

/* Puts the lists of a file in the place of those before: PEM, in which other blocks are skipped, or one list in DER;
 * nothing at all is no list. -EINVAL, -E2BIG or -ENOMEM with one line in `why`, and nothing changes. */
int crls_load(struct crls *c, const void *text, size_t len, char why[CRL_WHY_MAX]);

/* What a connection keeps. */
struct crl_path;
/* The verdict on a verified chain: the leaf first, the anchor last. With CRL_GOOD `*path` is the caller's. */
enum crl_verdict crls_check(struct crls *c, struct stack_st_X509 *chain, struct crl_path **path);
/* Whether the lists that are in force by now revoke any certificate of it; one look when they are the same. NULL: no. Any
 * thread. */
bool crl_path_revoked(struct crl_path *p);
void crl_path_free(struct crl_path *p); /* takes NULL */

enum { CRL_NAME_MAX = 256, CRL_NUMBER_MAX = 64 };
struct crl_info {
	char issuer[CRL_NAME_MAX];
	char number[CRL_NUMBER_MAX];	 /* decimal; "": none */
	unsigned entries;		 /* revoked certificates */
	time_t last_update, next_update; /* 0: not told */
};
/* Calls `each` for every list in force, under the lock. */
void crls_each(struct crls *c, void (*each)(void *arg, const struct crl_info *i), void *arg);
