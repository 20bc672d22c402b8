/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes files of revocation lists. The first byte chooses: the file as it is, or its bytes as one list under the name of
 * our authority and signed by it, so that what is inside a list of good standing is met as well. */
#include <stdlib.h>
#include <string.h>

#include "net/crl_internal.h"
#include "tls_mint.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static struct mint_ca ca;
static X509 *leaf;
static struct stack_st_X509 *chain;

static void prepare(void)
{
	struct mint_pem pem;

	ca = mint_ca("root", NULL);
	pem = mint_leaf(&ca, &(struct mint_leaf){.san = "URI:spiffe://td/ns/a/sa/b"});
	leaf = mint_read(pem.chain);
	mint_pem_free(&pem);
	chain = sk_X509_new_null();
	sk_X509_push(chain, leaf);
	sk_X509_push(chain, ca.cert);
}

static void check_info(void *arg, const struct crl_info *i)
{
	if (strlen(i->issuer) >= sizeof i->issuer || strspn(i->number, "-0123456789") != strlen(i->number))
		abort();
	++*(unsigned *)arg;
}

/* What is taken in is used, by a new chain and by one that was there; what is refused changes nothing. */
static void use(const void *text, size_t len)
{
	struct crls *c = crls_new();
	struct crl_path *before, *path;
	char why[CRL_WHY_MAX] = "";
	enum crl_verdict verdict;
	unsigned n = 0;
	int e;

	if (crls_check(c, chain, &before) != CRL_GOOD)
		abort();
	e = crls_load(c, text, len, why);
	crls_each(c, check_info, &n);
	verdict = crls_check(c, chain, &path);
	if (e ? n || !why[0] || verdict != CRL_GOOD : n > CRL_LISTS_MAX || (verdict == CRL_GOOD) != (path != NULL))
		abort();
	if (crl_path_revoked(before) != (verdict == CRL_REVOKED))
		abort();
	crl_path_free(before);
	crl_path_free(path);
	crls_free(c);
}

static void use_signed(const uint8_t *p, size_t len)
{
	X509_CRL *crl = d2i_X509_CRL(NULL, &p, (long)len);
	unsigned char *der = NULL;
	int n;

	if (crl && X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca.cert)) &&
	    X509_CRL_sign(crl, ca.key, EVP_sha256()) && (n = i2d_X509_CRL(crl, &der)) > 0)
		use(der, (size_t)n);
	OPENSSL_free(der);
	X509_CRL_free(crl);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	if (!leaf)
		prepare();
	if (!len)
		return 0;
	if (p[0] % 2)
		use_signed(p + 1, len - 1);
	else
		use(p + 1, len - 1);
	return 0;
}
