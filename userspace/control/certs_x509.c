/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the look into certificates that dumps need: serial number and validity of each one in a PEM text. */
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "control/certs.h"

static time_t asn1_time(const ASN1_TIME *t)
{
	struct tm tm;

	return ASN1_TIME_to_tm(t, &tm) ? timegm(&tm) : 0;
}

static bool x509_read(struct certs_x509 *out)
{
	BIO *in = BIO_new_mem_buf(out->pem, (int)out->pem_len);
	X509 *x = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
	BIGNUM *n = x ? ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL) : NULL;
	char *serial = n ? BN_bn2dec(n) : NULL;

	if (serial) {
		snprintf(out->serial, sizeof out->serial, "%s", serial);
		out->not_before = asn1_time(X509_get0_notBefore(x));
		out->not_after = asn1_time(X509_get0_notAfter(x));
	}
	BN_free(n);
	X509_free(x);
	BIO_free(in);
	ERR_clear_error();
	if (!serial)
		return false;
	OPENSSL_free(serial);
	return true;
}

void certs_x509_each(const char *pem, void (*each)(void *arg, const struct certs_x509 *x), void *arg)
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";

	while ((pem = strstr(pem, begin))) {
		const char *stop = strstr(pem, end);
		struct certs_x509 x = {.pem = pem};

		if (!stop)
			return;
		stop += sizeof end - 1;
		stop += *stop == '\n';
		x.pem_len = (size_t)(stop - pem);
		if (x509_read(&x))
			each(arg, &x);
		pem = stop;
	}
}
