/* SPDX-License-Identifier: Apache-2.0 */
/* Owns a workload's credential: PEM in, one prepared OpenSSL context for both roles out. All that does not
 * change from handshake to handshake is done here, once. */
#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int certificate_fn(struct tls_id *id, X509 *cert, unsigned index);

/* Encrypted PEM has no place here, and OpenSSL must not ask the terminal for a password. */
static int no_password(char *buf, int size, int writing, void *arg)
{
	return -1;
}

/* Calls `each` for every certificate in `pem`; there must be one. */
static bool each_certificate(struct tls_id *id, const char *pem, certificate_fn *each)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	unsigned n = 0;
	bool ok = bio != NULL;
	X509 *cert;

	while (ok && (cert = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
		ok = each(id, cert, n++);
		X509_free(cert);
	}
	/* The end must be the end, not an entry that cannot be read. */
	ok = ok && n && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	ERR_clear_error();
	BIO_free(bio);
	return ok;
}

bool tls_time(const ASN1_TIME *t, time_t *out)
{
	struct tm tm;

	if (!ASN1_TIME_to_tm(t, &tm))
		return false;
	*out = timegm(&tm);
	return true;
}

static int add_chain(struct tls_id *id, X509 *cert, unsigned index)
{
	if (index)
		return SSL_CTX_add1_chain_cert(id->ctx, cert) == 1;
	if (tls_cert_spiffe(cert, id->spiffe) == -EINVAL)
		return 0; /* no peer should accept it */
	return tls_time(X509_get0_notBefore(cert), &id->not_before) &&
	       tls_time(X509_get0_notAfter(cert), &id->not_after) && SSL_CTX_use_certificate(id->ctx, cert) == 1;
}

static int add_root(struct tls_id *id, X509 *cert, unsigned index)
{
	return X509_STORE_add_cert(SSL_CTX_get_cert_store(id->ctx), cert) == 1;
}

static bool use_key(struct tls_id *id, const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
	bool ok = key && SSL_CTX_use_PrivateKey(id->ctx, key) == 1 && SSL_CTX_check_private_key(id->ctx) == 1;

	EVP_PKEY_free(key);
	BIO_free(bio);
	ERR_clear_error();
	return ok;
}

static const char *id_load(struct tls_id *id, const char *key_pem)
{
	if (!id->chain || !id->roots)
		return "no memory";
	if (!each_certificate(id, id->chain, add_chain))
		return "the certificate chain cannot be used";
	if (!use_key(id, key_pem))
		return "the private key cannot be read or does not belong to the certificate";
	if (!each_certificate(id, id->roots, add_root))
		return "the root certificates cannot be used";
	return NULL;
}

struct tls_id *tls_id_new(const char *key_pem, const char *chain_pem, const char *roots_pem, bool pqc,
			  char why[TLS_REASON_MAX])
{
	struct tls_id *id = calloc(1, sizeof *id);
	const char *wrong;

	if (!id) {
		snprintf(why, TLS_REASON_MAX, "no memory");
		return NULL;
	}
	id->refs = 1;
	ERR_clear_error();
	id->ctx = tls_context_new(pqc, why);
	if (!id->ctx) {
		tls_id_unref(id);
		return NULL;
	}
	id->chain = strdup(chain_pem);
	id->roots = strdup(roots_pem);
	wrong = id_load(id, key_pem);
	if (wrong) {
		snprintf(why, TLS_REASON_MAX, "%s", wrong);
		tls_id_unref(id);
		return NULL;
	}
	return id;
}

/* What peers with the same lists make of it. */
static void look_up(struct tls_id *id)
{
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	X509_STORE *roots = SSL_CTX_get_cert_store(id->ctx);
	STACK_OF(X509) *between = NULL;

	SSL_CTX_get0_chain_certs(id->ctx, &between);
	if (ctx && X509_STORE_CTX_init(ctx, roots, SSL_CTX_get0_certificate(id->ctx), between) == 1) {
		X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
		id->revoked = X509_verify_cert(ctx) == 1 &&
			      crls_check(id->lists, X509_STORE_CTX_get0_chain(ctx), &id->path) == CRL_REVOKED;
	}
	X509_STORE_CTX_free(ctx);
	ERR_clear_error();
}

void tls_id_use_lists(struct tls_id *id, struct crls *lists)
{
	id->lists = lists;
	look_up(id);
}

bool tls_id_revoked(const struct tls_id *id)
{
	return id->revoked || crl_path_revoked(id->path);
}

struct tls_id *tls_id_ref(struct tls_id *id)
{
	__atomic_add_fetch(&id->refs, 1, __ATOMIC_RELAXED);
	return id;
}

void tls_id_unref(struct tls_id *id)
{
	if (!id || __atomic_sub_fetch(&id->refs, 1, __ATOMIC_ACQ_REL))
		return;
	SSL_CTX_free(id->ctx);
	crl_path_free(id->path);
	free(id->chain);
	free(id->roots);
	free(id);
}

const char *tls_id_spiffe(const struct tls_id *id)
{
	return id->spiffe;
}

time_t tls_id_not_before(const struct tls_id *id)
{
	return id->not_before;
}

time_t tls_id_not_after(const struct tls_id *id)
{
	return id->not_after;
}

const char *tls_id_chain(const struct tls_id *id)
{
	return id->chain;
}

const char *tls_id_roots(const struct tls_id *id)
{
	return id->roots;
}
