/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the use of intel-ipsec-mb: its direct calls for AES-GCM, which keep no state but the key. The library's manager
 * is only asked which code suits the processor, and freed. */
#include "net/aead_gcm.h"

#ifdef HAVE_IPSEC_MB
#include <errno.h>
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>

#include "net/aead.h"

#ifndef IMB_FEATURE_AESNI_EMU /* version 2 (Debian 13) emulates nothing any more */
#define IMB_FEATURE_AESNI_EMU 0
#endif

/* Written once, before anybody reads. */
static struct {
	bool usable;
	aes_gcm_pre_t set_key[2]; /* 128 and 256 bits */
	aes_gcm_enc_dec_t seal[2], open[2];
} code;

struct aead_gcm_key {
	struct gcm_key_data data; /* the library wants it aligned */
	bool is_256;
};

static void code_find(void)
{
	IMB_MGR *m = alloc_mb_mgr(0);

	if (!m)
		return;
	init_mb_mgr_auto(m, NULL);
	code.set_key[0] = m->gcm128_pre;
	code.set_key[1] = m->gcm256_pre;
	code.seal[0] = m->gcm128_enc;
	code.seal[1] = m->gcm256_enc;
	code.open[0] = m->gcm128_dec;
	code.open[1] = m->gcm256_dec;
	code.usable = imb_get_errno(m) == 0 && m->features & IMB_FEATURE_AESNI && m->features & IMB_FEATURE_PCLMULQDQ &&
		      !(m->features & IMB_FEATURE_AESNI_EMU) && m->features & IMB_FEATURE_SELF_TEST_PASS;
	free_mb_mgr(m);
}

bool aead_gcm_usable(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, code_find);
	return code.usable;
}

int aead_gcm_set_key(struct aead_gcm_key **k, const uint8_t *key, size_t len)
{
	if (!*k)
		*k = aligned_alloc(_Alignof(struct aead_gcm_key), sizeof **k);
	if (!*k)
		return -ENOMEM;
	(*k)->is_256 = len == 32;
	code.set_key[(*k)->is_256](key, &(*k)->data);
	return 0;
}

void aead_gcm_free(struct aead_gcm_key *k)
{
	if (k)
		OPENSSL_cleanse(k, sizeof *k);
	free(k);
}

void aead_gcm_seal(struct aead_gcm_key *k, const uint8_t *nonce, const uint8_t *ad, size_t ad_len, uint8_t *p,
		   size_t len)
{
	struct gcm_context_data scratch;

	code.seal[k->is_256](&k->data, &scratch, p, p, len, nonce, ad, ad_len, p + len, AEAD_TAG);
}

bool aead_gcm_open(struct aead_gcm_key *k, const uint8_t *nonce, const uint8_t *ad, size_t ad_len, uint8_t *p,
		   size_t len)
{
	struct gcm_context_data scratch;
	uint8_t tag[AEAD_TAG];

	code.open[k->is_256](&k->data, &scratch, p, p, len, nonce, ad, ad_len, tag, AEAD_TAG);
	return CRYPTO_memcmp(tag, p + len, AEAD_TAG) == 0;
}

#else /* every AEAD is OpenSSL's then */
#include <stdlib.h>

bool aead_gcm_usable(void)
{
	return false;
}

int aead_gcm_set_key(struct aead_gcm_key **k, const uint8_t *key, size_t len)
{
	abort(); /* not usable */
}

void aead_gcm_free(struct aead_gcm_key *k)
{
}

void aead_gcm_seal(struct aead_gcm_key *k, const uint8_t *nonce, const uint8_t *ad, size_t ad_len, uint8_t *p,
		   size_t len)
{
	abort();
}

bool aead_gcm_open(struct aead_gcm_key *k, const uint8_t *nonce, const uint8_t *ad, size_t ad_len, uint8_t *p,
		   size_t len)
{
	abort();
}
#endif
