/* SPDX-License-Identifier: Apache-2.0 */
/* Decides whether a peer's certificate is accepted, and as whom.
 *
 * An X.509-SVID has exactly one URI SAN (SPIFFE X509-SVID, section 2). With more than one the question "which
 * of them was checked, which of them is used" arises; such certificates are refused. */
#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define SCHEME "spiffe://"
enum { SCHEME_LEN = sizeof SCHEME - 1 };

/* What OpenSSL turns into the alert certificate_unknown: it has no code of its own for identities. */
enum { WRONG_IDENTITY = X509_V_ERR_PERMITTED_VIOLATION };

static bool is_domain_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-", c);
}

/* Trust domain and path of printable ASCII, without query, fragment or escapes. A NUL inside is none of
 * these. */
static bool is_spiffe(const char *text, size_t len)
{
	size_t i = SCHEME_LEN;

	if (len >= TLS_SPIFFE_MAX)
		return false;
	while (i < len && text[i] && is_domain_char(text[i]))
		i++;
	if (i == SCHEME_LEN || i == len || text[i] != '/')
		return false;
	for (; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~' || strchr("?#%@", text[i]))
			return false;
	return true;
}

int tls_cert_spiffe(X509 *cert, char out[TLS_SPIFFE_MAX])
{
	const ASN1_IA5STRING *uri = NULL;
	GENERAL_NAMES *names;
	int critical, uris = 0, err = -ENOENT;

	names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
	if (!names)
		return critical == -1 ? -ENOENT : -EINVAL; /* -1: not there; else twice, or not to be parsed */
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type != GEN_URI)
			continue;
		uris++;
		uri = name->d.uniformResourceIdentifier;
	}
	if (uris) {
		const char *text = (const char *)ASN1_STRING_get0_data(uri);
		size_t len = (size_t)ASN1_STRING_length(uri);
		bool ours = len >= SCHEME_LEN && !memcmp(text, SCHEME, SCHEME_LEN);

		if (uris > 1 || (ours && !is_spiffe(text, len))) {
			err = -EINVAL;
		} else if (ours) {
			memcpy(out, text, len);
			out[len] = '\0';
			err = 0;
		}
	}
	GENERAL_NAMES_free(names);
	return err;
}

static bool same_trust_domain(const char *a, const char *b)
{
	const char *end = strchr(a + SCHEME_LEN, '/');

	return !strncmp(a, b, (size_t)(end - a) + 1);
}

/* Whether `peer` is somebody we came to talk to. Writes the reason if not. */
static bool identity_fits(struct tls_handshake *h, const char *peer)
{
	if (h->server) {
		if (h->id->spiffe[0] && same_trust_domain(h->id->spiffe, peer))
			return true;
		snprintf(h->reason, sizeof h->reason, "certificate refused: %.120s is not of our trust domain", peer);
		return false;
	}
	for (unsigned i = 0; i < h->n_expect; i++)
		if (!strcmp(h->expect[i], peer))
			return true;
	snprintf(h->reason, sizeof h->reason, "certificate refused: %.120s is not an expected identity", peer);
	return false;
}

static bool identity_check(struct tls_handshake *h, X509 *leaf)
{
	char peer[TLS_SPIFFE_MAX];
	int err = tls_cert_spiffe(leaf, peer);

	if (err) {
		snprintf(h->reason, sizeof h->reason, "certificate refused: %s",
			 err == -ENOENT ? "no SPIFFE identity" : "not exactly one well-formed SPIFFE identity");
		return false;
	}
	if (!identity_fits(h, peer))
		return false;
	memcpy(h->peer, peer, sizeof peer);
	return true;
}

/* Notes the error in `store` if not. */
static bool lists_allow(struct tls_handshake *h, X509_STORE_CTX *store)
{
	static const int errors[] = {[CRL_REVOKED] = X509_V_ERR_CERT_REVOKED,
				     [CRL_FORGED] = X509_V_ERR_CRL_SIGNATURE_FAILURE,
				     [CRL_NO_MEMORY] = X509_V_ERR_OUT_OF_MEM};

	if (!h->id->lists)
		return true;
	h->verdict = crls_check(h->id->lists, X509_STORE_CTX_get0_chain(store), &h->path);
	if (h->verdict < CRL_REVOKED)
		return true;
	X509_STORE_CTX_set_error(store, errors[h->verdict]);
	return false;
}

int tls_verify_peer(X509_STORE_CTX *store, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_handshake *h = SSL_get_app_data(ssl);

	if (X509_verify_cert(store) <= 0 || !lists_allow(h, store)) {
		int err = X509_STORE_CTX_get_error(store);

		snprintf(h->reason, sizeof h->reason, "certificate refused: %s", X509_verify_cert_error_string(err));
		if (err == X509_V_ERR_CERT_NOT_YET_VALID) /* the alert that ztunnel's users know */
			X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_HAS_EXPIRED);
	} else if (identity_check(h, X509_STORE_CTX_get0_cert(store))) {
		return 1;
	} else {
		X509_STORE_CTX_set_error(store, WRONG_IDENTITY);
	}
	h->refused = true;
	return 0;
}
