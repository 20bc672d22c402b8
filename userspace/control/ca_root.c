/* SPDX-License-Identifier: Apache-2.0 */
/* Owns a CA's own key and certificate, and signs with them. */
#include "control/ca_root.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/csr.h"

enum {
	ROOT_DAYS = 3650,
	SKEW_S = 60, /* certificates are valid this long before they were made: clocks differ */
	SERIAL_BYTES = 16,
};

struct ca_root {
	X509 *cert;
	EVP_PKEY *key;
	char *pem; /* what was in the file, or the certificate */
};

static const EVP_MD *digest_for(EVP_PKEY *key)
{
	int id = EVP_PKEY_get_base_id(key);

	return id == EVP_PKEY_ED25519 || id == EVP_PKEY_ED448 ? NULL : EVP_sha256();
}

static bool serial_set(X509 *x)
{
	unsigned char b[SERIAL_BYTES];
	BIGNUM *n = NULL;
	bool ok;

	if (RAND_bytes(b, sizeof b) != 1)
		return false;
	b[0] = (unsigned char)((b[0] & 0x7f) | 0x40); /* positive, and never short */
	n = BN_bin2bn(b, sizeof b, NULL);
	ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
	BN_free(n);
	return ok;
}

/* Values are literals of this file: no text from outside goes through the configuration parser. */
static bool ext_add(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = e && X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
	return ok;
}

static X509 *cert_begin(X509 *issuer, EVP_PKEY *key, time_t not_before, time_t not_after)
{
	X509 *x = X509_new();

	if (x && X509_set_version(x, X509_VERSION_3) && serial_set(x) && X509_set_pubkey(x, key) &&
	    ASN1_TIME_set(X509_getm_notBefore(x), not_before) && ASN1_TIME_set(X509_getm_notAfter(x), not_after) &&
	    (!issuer || X509_set_issuer_name(x, X509_get_subject_name(issuer))))
		return x;
	X509_free(x);
	return NULL;
}

static bool root_make(struct ca_root *r)
{
	time_t now = time(NULL);
	X509_NAME *name;

	r->key = EVP_EC_gen("P-256");
	r->cert = r->key ? cert_begin(NULL, r->key, now - SKEW_S, now + ROOT_DAYS * 86400L) : NULL;
	if (!r->cert)
		return false;
	name = X509_get_subject_name(r->cert);
	return X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"Culvert", -1, -1, 0) &&
	       X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"Culvert embedded CA", -1,
					  -1, 0) &&
	       X509_set_issuer_name(r->cert, name) &&
	       ext_add(r->cert, r->cert, NID_basic_constraints, "critical,CA:TRUE") &&
	       ext_add(r->cert, r->cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
	       ext_add(r->cert, r->cert, NID_subject_key_identifier, "hash") &&
	       X509_sign(r->cert, r->key, digest_for(r->key)) > 0;
}

static char *cert_pem(X509 *x)
{
	BIO *b = BIO_new(BIO_s_mem());
	char *data, *text = NULL;

	if (b && PEM_write_bio_X509(b, x)) {
		long len = BIO_get_mem_data(b, &data);

		text = strndup(data, (size_t)len);
	}
	BIO_free(b);
	return text;
}

static bool root_load(struct ca_root *r, const char *cert_path, const char *key_path, char *why)
{
	BIO *cert = BIO_new_file(cert_path, "r"), *key = BIO_new_file(key_path, "r");

	if (!cert || !(r->cert = PEM_read_bio_X509(cert, NULL, NULL, NULL)))
		snprintf(why, CA_WHY_MAX, "%s: no certificate in PEM", cert_path);
	else if (!key || !(r->key = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL)))
		snprintf(why, CA_WHY_MAX, "%s: no private key in PEM", key_path);
	else if (X509_check_private_key(r->cert, r->key) != 1)
		snprintf(why, CA_WHY_MAX, "%s: not the key of %s", key_path, cert_path);
	else if (X509_check_ca(r->cert) == 0)
		snprintf(why, CA_WHY_MAX, "%s: not a CA certificate", cert_path);
	BIO_free(cert);
	BIO_free(key);
	return !why[0];
}

struct ca_root *ca_root_new(const char *cert_path, const char *key_path, char why[CA_WHY_MAX])
{
	struct ca_root *r = calloc(1, sizeof *r);

	why[0] = 0;
	if (!r)
		snprintf(why, CA_WHY_MAX, "out of memory");
	else if (!cert_path != !key_path)
		snprintf(why, CA_WHY_MAX, "a CA certificate and its key go together: one of them is not set");
	else if (cert_path)
		root_load(r, cert_path, key_path, why);
	else if (!root_make(r))
		snprintf(why, CA_WHY_MAX, "cannot make a CA key");
	if (r && !why[0] && !(r->pem = cert_pem(r->cert)))
		snprintf(why, CA_WHY_MAX, "out of memory");
	ERR_clear_error();
	if (!why[0])
		return r;
	ca_root_free(r);
	return NULL;
}

void ca_root_free(struct ca_root *r)
{
	if (!r)
		return;
	X509_free(r->cert);
	EVP_PKEY_free(r->key);
	free(r->pem);
	free(r);
}

const char *ca_root_pem(const struct ca_root *r)
{
	return r->pem;
}

int ca_root_save(const struct ca_root *r, const char *cert_path, const char *key_path)
{
	int fd = open(key_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FILE *key = fd < 0 ? NULL : fdopen(fd, "w"), *cert = fopen(cert_path, "we");
	int err = 0;

	if (!key || !cert)
		err = -errno;
	else if (!PEM_write_PrivateKey(key, r->key, NULL, NULL, 0, NULL, NULL) || fputs(r->pem, cert) < 0)
		err = -EIO;
	if (key ? fclose(key) : fd >= 0 && close(fd))
		err = -EIO;
	if (cert && fclose(cert))
		err = -EIO;
	ERR_clear_error();
	return err;
}

static time_t root_end(const struct ca_root *r, time_t wanted)
{
	struct tm tm;
	time_t end;

	if (!ASN1_TIME_to_tm(X509_get0_notAfter(r->cert), &tm))
		return wanted;
	end = timegm(&tm);
	return end < wanted ? end : wanted;
}

static char *issue(const struct ca_root *r, EVP_PKEY *key, GENERAL_NAMES *names, long ttl_s)
{
	time_t now = time(NULL);
	X509 *x = cert_begin(r->cert, key, now - SKEW_S, root_end(r, now + ttl_s));
	char *pem = NULL;

	if (x && ext_add(x, r->cert, NID_key_usage, "critical,digitalSignature") &&
	    ext_add(x, r->cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
	    ext_add(x, r->cert, NID_basic_constraints, "critical,CA:FALSE") &&
	    (X509_get0_subject_key_id(r->cert) == NULL || ext_add(x, r->cert, NID_authority_key_identifier, "keyid")) &&
	    X509_add1_ext_i2d(x, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1 &&
	    X509_sign(x, r->key, digest_for(r->key)) > 0)
		pem = cert_pem(x);
	X509_free(x);
	return pem;
}

static bool name_push(GENERAL_NAMES *names, int type, ASN1_STRING *value)
{
	GENERAL_NAME *n = value ? GENERAL_NAME_new() : NULL;

	if (!n) {
		ASN1_STRING_free(value);
		return false;
	}
	GENERAL_NAME_set0_value(n, type, value);
	if (sk_GENERAL_NAME_push(names, n))
		return true;
	GENERAL_NAME_free(n);
	return false;
}

static ASN1_STRING *ia5(const char *text)
{
	ASN1_STRING *s = ASN1_IA5STRING_new();

	if (s && ASN1_STRING_set(s, text, -1))
		return s;
	ASN1_STRING_free(s);
	return NULL;
}

/* A SPIFFE ID: the scheme, then printable ASCII. */
static bool spiffe_ok(const char *s)
{
	if (strncmp(s, "spiffe://", 9) || !s[9])
		return false;
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f)
			return false;
	return true;
}

static X509_REQ *request_read(const char *csr_pem)
{
	BIO *in = BIO_new_mem_buf(csr_pem, -1);
	X509_REQ *req = in ? PEM_read_bio_X509_REQ(in, NULL, NULL, NULL) : NULL;
	EVP_PKEY *key = req ? X509_REQ_get0_pubkey(req) : NULL;

	BIO_free(in);
	if (key && X509_REQ_verify(req, key) == 1)
		return req;
	X509_REQ_free(req);
	return NULL;
}

char *ca_root_sign(const struct ca_root *r, const char *csr_pem, const char *spiffe, long ttl_s, char why[CA_WHY_MAX])
{
	X509_REQ *req = request_read(csr_pem);
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	char *pem = NULL;

	if (!req)
		snprintf(why, CA_WHY_MAX, "not a certificate signing request with a good signature");
	else if (!spiffe_ok(spiffe))
		snprintf(why, CA_WHY_MAX, "not a SPIFFE ID: %.128s", spiffe);
	else if (ttl_s <= 0)
		snprintf(why, CA_WHY_MAX, "not a lifetime: %ld s", ttl_s);
	else if (!names || !name_push(names, GEN_URI, ia5(spiffe)) ||
		 !(pem = issue(r, X509_REQ_get0_pubkey(req), names, ttl_s)))
		snprintf(why, CA_WHY_MAX, "cannot sign the certificate");
	GENERAL_NAMES_free(names);
	X509_REQ_free(req);
	ERR_clear_error();
	return pem;
}

static bool host_push(GENERAL_NAMES *names, const char *host)
{
	ASN1_OCTET_STRING *ip = a2i_IPADDRESS(host);

	return ip ? name_push(names, GEN_IPADD, ip) : name_push(names, GEN_DNS, ia5(host));
}

int ca_root_server(const struct ca_root *r, const char *const *hosts, unsigned n, struct ca_cert *out)
{
	struct ca_cert c = {0};
	char *csr = NULL;
	X509_REQ *req = NULL;
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	int err = csr_new("spiffe://unused", &c.key, &csr);
	bool ok = !err && names && (req = request_read(csr));

	for (unsigned i = 0; ok && i < n; i++)
		ok = host_push(names, hosts[i]);
	ok = ok && (c.chain = issue(r, X509_REQ_get0_pubkey(req), names, CA_TTL_DEFAULT_S * 30L)) &&
	     (c.roots = strdup(r->pem));
	GENERAL_NAMES_free(names);
	X509_REQ_free(req);
	free(csr);
	ERR_clear_error();
	if (!ok) {
		ca_cert_clear(&c);
		return err ? err : -EIO;
	}
	*out = c;
	return 0;
}
