/* SPDX-License-Identifier: Apache-2.0 */
/* Reads files of revocation lists. A list that cannot be read makes the whole file wrong: what it revokes is not
 * known. */
#include "net/crl_internal.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls_internal.h"

static void number_text(X509_CRL *crl, char out[CRL_NUMBER_MAX])
{
	ASN1_INTEGER *i = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
	BIGNUM *n = i ? ASN1_INTEGER_to_BN(i, NULL) : NULL;
	char *text = n ? BN_bn2dec(n) : NULL;

	if (text && strlen(text) < CRL_NUMBER_MAX)
		strcpy(out, text);
	OPENSSL_free(text);
	BN_free(n);
	ASN1_INTEGER_free(i);
}

static void issuer_text(X509_CRL *crl, char out[CRL_NAME_MAX])
{
	BIO *bio = BIO_new(BIO_s_mem());

	if (bio && X509_NAME_print_ex(bio, X509_CRL_get_issuer(crl), 0, XN_FLAG_RFC2253) > 0) {
		int n = BIO_read(bio, out, CRL_NAME_MAX - 1);

		out[n > 0 ? n : 0] = '\0';
	}
	BIO_free(bio);
}

static void describe(struct crl_list *l)
{
	const ASN1_TIME *next = X509_CRL_get0_nextUpdate(l->crl);
	int entries = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(l->crl));
	ASN1_INTEGER *none = ASN1_INTEGER_new();
	X509_REVOKED *entry;

	if (none) /* the first search sorts the entries: not in somebody's handshake */
		X509_CRL_get0_by_serial(l->crl, &entry, none);
	ASN1_INTEGER_free(none);
	l->akid = X509_CRL_get_ext_d2i(l->crl, NID_authority_key_identifier, NULL, NULL);
	issuer_text(l->crl, l->info.issuer);
	number_text(l->crl, l->info.number);
	l->info.entries = entries > 0 ? (unsigned)entries : 0;
	tls_time(X509_CRL_get0_lastUpdate(l->crl), &l->info.last_update);
	if (next)
		tls_time(next, &l->info.next_update);
	ERR_clear_error();
}

/* `what`: the place in the file, for the line that says what is wrong. */
static int add(struct crl_set *s, const unsigned char *der, size_t len, const char *what, char *why)
{
	const unsigned char *p = der;
	X509_CRL *crl = len <= LONG_MAX ? d2i_X509_CRL(NULL, &p, (long)len) : NULL;

	ERR_clear_error();
	if (!crl || p != der + len) {
		X509_CRL_free(crl);
		snprintf(why, CRL_WHY_MAX, "%s is not a revocation list", what);
		return -EINVAL;
	}
	if (s->n == CRL_LISTS_MAX) {
		X509_CRL_free(crl);
		snprintf(why, CRL_WHY_MAX, "more than %d revocation lists", CRL_LISTS_MAX);
		return -E2BIG;
	}
	s->list[s->n].crl = crl;
	describe(&s->list[s->n++]);
	return 0;
}

/* Blocks of another kind are somebody else's. */
static int add_block(struct crl_set *s, const char *kind, const unsigned char *der, long len, unsigned n, char *why)
{
	char what[64];

	if (strcmp(kind, PEM_STRING_X509_CRL) != 0)
		return 0;
	snprintf(what, sizeof what, "block %u of the PEM text", n);
	return add(s, der, (size_t)len, what, why);
}

static int read_pem(struct crl_set *s, const void *text, size_t len, char *why)
{
	BIO *bio = BIO_new_mem_buf(text, (int)len);
	unsigned char *der;
	char *kind, *header;
	long n;
	int e = 0;

	if (!bio) {
		snprintf(why, CRL_WHY_MAX, "out of memory");
		return -ENOMEM;
	}
	ERR_clear_error();
	for (unsigned k = 1; !e && PEM_read_bio(bio, &kind, &header, &der, &n); k++) {
		e = add_block(s, kind, der, n, k, why);
		OPENSSL_free(kind);
		OPENSSL_free(header);
		OPENSSL_free(der);
	}
	/* The end must be the end, not a block that cannot be read. */
	if (!e && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
		snprintf(why, CRL_WHY_MAX, "the PEM text is cut or damaged after %u revocation lists", s->n);
		e = -EINVAL;
	}
	ERR_clear_error();
	BIO_free(bio);
	return e;
}

static bool is_blank(const unsigned char *text, size_t len)
{
	while (len && isspace(text[len - 1]))
		len--;
	return !len;
}

int crl_set_new(const void *text, size_t len, struct crl_set **out, char why[CRL_WHY_MAX])
{
	struct crl_set *s = calloc(1, sizeof *s);
	int e = 0;

	if (!s) {
		snprintf(why, CRL_WHY_MAX, "out of memory");
		return -ENOMEM;
	}
	if (len > CRL_TEXT_MAX) {
		snprintf(why, CRL_WHY_MAX, "more than %d MiB", CRL_TEXT_MAX >> 20);
		e = -E2BIG;
	} else if (memmem(text, len, "-----BEGIN ", 11)) {
		e = read_pem(s, text, len, why);
	} else if (!is_blank(text, len)) {
		e = add(s, text, len, "it has no PEM block and", why);
	}
	if (e) {
		crl_set_free(s);
		return e;
	}
	*out = s;
	return 0;
}

void crl_set_free(struct crl_set *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n; i++) {
		X509_CRL_free(s->list[i].crl);
		AUTHORITY_KEYID_free(s->list[i].akid);
	}
	free(s);
}
