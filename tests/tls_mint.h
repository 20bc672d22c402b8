/* SPDX-License-Identifier: Apache-2.0 */
/* Mints the certificates of the TLS tests with OpenSSL: authorities, leaves with every fault that a table
 * of handshakes wants, and revocation lists. Header-only; texts are malloc'ed, faults in here end the test. */
#pragma once
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct mint_ca {
	EVP_PKEY *key;
	X509 *cert;
	char *pem;
};

struct mint_leaf {	 /* what is asked for; zero is a good leaf without identity */
	const char *san; /* OpenSSL's notation, e.g. "URI:spiffe://td/ns/a/sa/b" */
	const char *eku; /* e.g. "clientAuth" */
	const char *key; /* "P-256" unless given, or "RSA" */
	long from, to;	 /* seconds from now; 0: an hour ago, in an hour */
};

struct mint_pem {
	char *key, *chain;
};

static inline char *mint_text(BIO *bio)
{
	char *data, *text;
	long n = BIO_get_mem_data(bio, &data);

	text = strndup(data, (size_t)n);
	BIO_free(bio);
	return text;
}

static inline char *mint_cert_pem(X509 *cert)
{
	BIO *bio = BIO_new(BIO_s_mem());

	assert(PEM_write_bio_X509(bio, cert));
	return mint_text(bio);
}

static inline char *mint_key_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());

	assert(PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL));
	return mint_text(bio);
}

static inline void mint_extend(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *e = value ? X509V3_EXT_conf_nid(NULL, NULL, nid, value) : NULL;

	assert(!value || e);
	if (e)
		X509_add_ext(cert, e, -1);
	X509_EXTENSION_free(e);
}

static inline X509 *mint_blank(EVP_PKEY *key, const char *name, long from, long to)
{
	static long serial = 1;
	X509 *cert = X509_new();

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
	X509_gmtime_adj(X509_getm_notBefore(cert), from ? from : -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), to ? to : 3600);
	if (name)
		X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)name,
					   -1, -1, 0);
	X509_set_pubkey(cert, key);
	return cert;
}

/* A subject key identifier: what tells authorities of the same name apart. */
static inline void mint_key_id(X509 *cert)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
	assert(e && X509_add_ext(cert, e, -1));
	X509_EXTENSION_free(e);
}

/* `parent` NULL: self-signed. */
static inline struct mint_ca mint_ca(const char *name, const struct mint_ca *parent)
{
	struct mint_ca ca = {.key = EVP_EC_gen("P-256")};

	ca.cert = mint_blank(ca.key, name, 0, 0);
	X509_set_issuer_name(ca.cert, X509_get_subject_name(parent ? parent->cert : ca.cert));
	mint_extend(ca.cert, NID_basic_constraints, "critical,CA:TRUE");
	mint_extend(ca.cert, NID_key_usage, "critical,keyCertSign,cRLSign");
	mint_key_id(ca.cert);
	assert(X509_sign(ca.cert, parent ? parent->key : ca.key, EVP_sha256()));
	ca.pem = mint_cert_pem(ca.cert);
	return ca;
}

static inline void mint_ca_free(struct mint_ca *ca)
{
	EVP_PKEY_free(ca->key);
	X509_free(ca->cert);
	free(ca->pem);
}

static inline struct mint_pem mint_leaf(const struct mint_ca *ca, const struct mint_leaf *want)
{
	bool rsa = want->key && !strcmp(want->key, "RSA");
	EVP_PKEY *key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen(want->key ? want->key : "P-256");
	X509 *cert = mint_blank(key, NULL, want->from, want->to);
	struct mint_pem out;

	X509_set_issuer_name(cert, X509_get_subject_name(ca->cert));
	mint_extend(cert, NID_subject_alt_name, want->san);
	mint_extend(cert, NID_ext_key_usage, want->eku);
	assert(X509_sign(cert, ca->key, EVP_sha256()));
	out.chain = mint_cert_pem(cert);
	out.key = mint_key_pem(key);
	X509_free(cert);
	EVP_PKEY_free(key);
	return out;
}

static inline void mint_pem_free(struct mint_pem *p)
{
	free(p->key);
	free(p->chain);
}

/* Joins two PEM texts; frees the first. */
static inline char *mint_join(char *a, const char *b)
{
	char *both = malloc(strlen(a) + strlen(b) + 1);

	strcpy(both, a);
	strcat(both, b);
	free(a);
	return both;
}

/* --- revocation lists ------------------------------------------------------------------------------------- */

struct mint_crl {		      /* what is asked for; zero is a good list of nobody, due in an hour */
	const char *revoked[4];	      /* certificates, PEM */
	const struct mint_ca *signer; /* NULL: the authority in whose name it is */
	long from, to;		      /* seconds from now; 0: an hour ago, in an hour; -1: no next update */
	long number;
	int reason;   /* of the entries, e.g. CRL_REASON_REMOVE_FROM_CRL; 0: none */
	bool no_akid; /* it does not say which key has signed */
};

static inline X509 *mint_read(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

	BIO_free(bio);
	assert(cert);
	return cert;
}

static inline void mint_revoke(X509_CRL *crl, const char *pem, int reason)
{
	X509 *cert = mint_read(pem);
	X509_REVOKED *entry = X509_REVOKED_new();
	ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
	ASN1_ENUMERATED *why = ASN1_ENUMERATED_new();

	X509_REVOKED_set_serialNumber(entry, (ASN1_INTEGER *)X509_get0_serialNumber(cert));
	X509_REVOKED_set_revocationDate(entry, now);
	ASN1_ENUMERATED_set(why, reason);
	if (reason)
		assert(X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason, why, 0, 0));
	assert(X509_CRL_add0_revoked(crl, entry));
	ASN1_ENUMERATED_free(why);
	ASN1_TIME_free(now);
	X509_free(cert);
}

static inline void mint_crl_extend(X509_CRL *crl, const struct mint_ca *ca, const struct mint_crl *want)
{
	ASN1_INTEGER *number = ASN1_INTEGER_new();
	X509_EXTENSION *e;
	X509V3_CTX ctx;

	ASN1_INTEGER_set(number, want->number);
	if (want->number)
		assert(X509_CRL_add1_ext_i2d(crl, NID_crl_number, number, 0, 0));
	ASN1_INTEGER_free(number);
	if (want->no_akid)
		return;
	X509V3_set_ctx(&ctx, ca->cert, NULL, NULL, crl, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid:always");
	assert(e && X509_CRL_add_ext(crl, e, -1));
	X509_EXTENSION_free(e);
}

static inline X509_CRL *mint_crl(const struct mint_ca *ca, const struct mint_crl *want)
{
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *from = X509_gmtime_adj(NULL, want->from ? want->from : -3600);
	ASN1_TIME *to = X509_gmtime_adj(NULL, want->to ? want->to : 3600);

	X509_CRL_set_version(crl, X509_CRL_VERSION_2);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert));
	X509_CRL_set1_lastUpdate(crl, from);
	if (want->to != -1)
		X509_CRL_set1_nextUpdate(crl, to);
	for (unsigned i = 0; i < 4 && want->revoked[i]; i++)
		mint_revoke(crl, want->revoked[i], want->reason);
	X509_CRL_sort(crl);
	mint_crl_extend(crl, ca, want);
	assert(X509_CRL_sign(crl, want->signer ? want->signer->key : ca->key, EVP_sha256()));
	ASN1_TIME_free(from);
	ASN1_TIME_free(to);
	return crl;
}

static inline char *mint_crl_pem(const struct mint_ca *ca, const struct mint_crl *want)
{
	X509_CRL *crl = mint_crl(ca, want);
	BIO *bio = BIO_new(BIO_s_mem());

	assert(PEM_write_bio_X509_CRL(bio, crl));
	X509_CRL_free(crl);
	return mint_text(bio);
}
