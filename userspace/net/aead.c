/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the choice between OpenSSL and aead_gcm.c, and the use of OpenSSL's ciphers. */
#include "net/aead.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/params.h>

#include "net/aead_gcm.h"

void aead_ciphers_fetch(struct aead_ciphers *c)
{
	static const char *const names[AEAD_CIPHERS] = {"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"};

	for (unsigned i = 0; i < AEAD_CIPHERS; i++) /* one may be missing under a FIPS provider */
		c->evp[i] = EVP_CIPHER_fetch(NULL, names[i], NULL);
	c->gcm = !EVP_default_properties_is_fips_enabled(NULL) && aead_gcm_usable();
}

void aead_ciphers_free(struct aead_ciphers *c)
{
	for (unsigned i = 0; i < AEAD_CIPHERS; i++)
		EVP_CIPHER_free(c->evp[i]);
}

int aead_set_key(struct aead *a, const struct aead_ciphers *c, enum record_cipher cipher, const uint8_t *key,
		 bool seals)
{
	EVP_CIPHER *evp = c->evp[cipher - RECORD_AES_128_GCM];

	if (!evp)
		return -EINVAL;
	a->is_gcm = c->gcm && cipher != RECORD_CHACHA20;
	if (a->is_gcm)
		return aead_gcm_set_key(&a->gcm, key, cipher == RECORD_AES_128_GCM ? 16 : 32);
	if (!a->evp && !(a->evp = EVP_CIPHER_CTX_new()))
		return -ENOMEM;
	if (EVP_CIPHER_CTX_get0_cipher(a->evp) == evp)
		evp = NULL; /* keeps what the context has allocated */
	return EVP_CipherInit_ex2(a->evp, evp, key, NULL, seals, NULL) == 1 ? 0 : -ENOMEM;
}

void aead_clear(struct aead *a)
{
	EVP_CIPHER_CTX_free(a->evp);
	aead_gcm_free(a->gcm);
	*a = (struct aead){0};
}

/* Names the tag to OpenSSL without the detour of EVP_CIPHER_CTX_ctrl(), a tenth of the cost of a short record. */
#define TAG_PARAMS(at)                                                                            \
	{                                                                                         \
		OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, at, AEAD_TAG), OSSL_PARAM_END \
	}

static bool evp_run(EVP_CIPHER_CTX *ctx, const uint8_t *ad, size_t ad_len, uint8_t *p, size_t len)
{
	int n;

	return EVP_CipherUpdate(ctx, NULL, &n, ad, (int)ad_len) == 1 &&
	       EVP_CipherUpdate(ctx, p, &n, p, (int)len) == 1 && EVP_CipherFinal_ex(ctx, p + len, &n) == 1;
}

int aead_seal(struct aead *a, const uint8_t nonce[AEAD_NONCE], const uint8_t *ad, size_t ad_len, uint8_t *p, size_t len)
{
	OSSL_PARAM tag[] = TAG_PARAMS(p + len);

	if (a->is_gcm) {
		aead_gcm_seal(a->gcm, nonce, ad, ad_len, p, len);
		return 0;
	}
	return EVP_CipherInit_ex2(a->evp, NULL, NULL, nonce, -1, NULL) == 1 && evp_run(a->evp, ad, ad_len, p, len) &&
			       EVP_CIPHER_CTX_get_params(a->evp, tag) == 1
		       ? 0
		       : -EIO;
}

int aead_open(struct aead *a, const uint8_t nonce[AEAD_NONCE], const uint8_t *ad, size_t ad_len, uint8_t *p, size_t len)
{
	OSSL_PARAM tag[] = TAG_PARAMS(p + len);

	if (a->is_gcm)
		return aead_gcm_open(a->gcm, nonce, ad, ad_len, p, len) ? 0 : -EBADMSG;
	return EVP_CipherInit_ex2(a->evp, NULL, NULL, nonce, -1, tag) == 1 && evp_run(a->evp, ad, ad_len, p, len)
		       ? 0
		       : -EBADMSG;
}
