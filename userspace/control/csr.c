/* SPDX-License-Identifier: Apache-2.0 */
/* Owns keys and signing requests of workloads. */
#include "control/csr.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void pem_key_free(char *pem)
{
	if (pem)
		OPENSSL_secure_clear_free(pem, strlen(pem)); /* also what is ordinary memory */
}

static char *bio_text(BIO *b, bool secret)
{
	char *data, *text;
	long n = BIO_get_mem_data(b, &data);

	text = n <= 0 ? NULL : secret ? OPENSSL_secure_malloc((size_t)n + 1) : malloc((size_t)n + 1);
	if (!text)
		return NULL;
	memcpy(text, data, (size_t)n);
	text[n] = 0;
	return text;
}

/* Built from parts: a configuration text ("URI:...") would let a comma in an identity add names. */
static int san_add(X509_REQ *req, const char *spiffe)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *uri = ASN1_IA5STRING_new();
	STACK_OF(X509_EXTENSION) *exts = NULL;
	int err = -EIO;

	if (!names || !name || !uri || !ASN1_STRING_set(uri, spiffe, -1))
		goto out;
	GENERAL_NAME_set0_value(name, GEN_URI, uri);
	uri = NULL;
	if (!sk_GENERAL_NAME_push(names, name))
		goto out;
	name = NULL;
	if (X509V3_add1_i2d(&exts, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1 &&
	    X509_REQ_add_extensions(req, exts))
		err = 0;
out:
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	ASN1_IA5STRING_free(uri);
	GENERAL_NAME_free(name);
	GENERAL_NAMES_free(names);
	return err;
}

static int csr_write(EVP_PKEY *key, const char *spiffe, BIO *out)
{
	X509_REQ *req = X509_REQ_new();
	int err = -EIO;

	if (req && X509_REQ_set_version(req, X509_REQ_VERSION_1) && X509_REQ_set_pubkey(req, key) &&
	    san_add(req, spiffe) == 0 && X509_REQ_sign(req, key, EVP_sha256()) > 0 && PEM_write_bio_X509_REQ(out, req))
		err = 0;
	X509_REQ_free(req);
	return err;
}

int csr_new(const char *spiffe, char **key_pem, char **csr_pem)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	BIO *key_out = BIO_new(BIO_s_secmem()), *csr_out = BIO_new(BIO_s_mem());
	char *k = NULL, *c = NULL;
	int err = -EIO;

	if (key && key_out && csr_out && PEM_write_bio_PrivateKey(key_out, key, NULL, NULL, 0, NULL, NULL))
		err = csr_write(key, spiffe, csr_out);
	if (!err) {
		k = bio_text(key_out, true);
		c = bio_text(csr_out, false);
		err = k && c ? 0 : -ENOMEM;
	}
	BIO_free(key_out);
	BIO_free(csr_out);
	EVP_PKEY_free(key);
	ERR_clear_error();
	if (err) {
		pem_key_free(k);
		free(c);
		return err;
	}
	*key_pem = k;
	*csr_pem = c;
	return 0;
}

static char *first_uri(const GENERAL_NAMES *names)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *s = n->type == GEN_URI ? n->d.uniformResourceIdentifier : NULL;

		if (s && !memchr(ASN1_STRING_get0_data(s), 0, (size_t)ASN1_STRING_length(s)))
			return strndup((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
	}
	return NULL;
}

char *csr_identity(const char *csr_pem)
{
	BIO *in = BIO_new_mem_buf(csr_pem, -1);
	X509_REQ *req = in ? PEM_read_bio_X509_REQ(in, NULL, NULL, NULL) : NULL;
	STACK_OF(X509_EXTENSION) *exts = req ? X509_REQ_get_extensions(req) : NULL;
	GENERAL_NAMES *names = exts ? X509V3_get_d2i(exts, NID_subject_alt_name, NULL, NULL) : NULL;
	char *uri = names ? first_uri(names) : NULL;

	GENERAL_NAMES_free(names);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	X509_REQ_free(req);
	BIO_free(in);
	ERR_clear_error();
	return uri;
}
