/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the keys of one direction: their derivation from the traffic secret (RFC 8446, 7.1 to 7.3), and
 * sealing and opening one record in place with them (5.2 to 5.4). */
#include "net/record_internal.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

static size_t cipher_key_len(enum record_cipher c)
{
	return c == RECORD_AES_128_GCM ? 16 : 32;
}

static size_t cipher_secret_len(enum record_cipher c)
{
	return c == RECORD_AES_256_GCM ? 48 : 32;
}

/* HKDF-Expand-Label with an empty context. No output is longer than the hash, so one block of HKDF does. */
static int expand_label(const struct record_key *k, struct record_pool *p, const char *label, uint8_t *out, size_t len)
{
	uint8_t info[32], block[RECORD_SECRET_MAX];
	size_t label_len = strlen(label), n = 0;
	int err;

	info[n++] = 0;
	info[n++] = (uint8_t)len;
	info[n++] = (uint8_t)(6 + label_len);
	memcpy(info + n, "tls13 ", 6);
	memcpy(info + n + 6, label, label_len);
	n += 6 + label_len;
	info[n++] = 0; /* context */
	info[n++] = 1; /* HKDF's block counter */
	err = record_pool_hmac(p, k->cipher, k->secret, k->secret_len, info, n, block);
	if (!err)
		memcpy(out, block, len);
	OPENSSL_cleanse(block, sizeof block);
	return err;
}

static int derive(struct record_key *k, struct record_pool *p)
{
	int err = expand_label(k, p, "key", k->key, cipher_key_len(k->cipher));

	if (!err)
		err = expand_label(k, p, "iv", k->iv, RECORD_IV);
	k->seq = 0;
	record_pool_disown(k); /* whatever context it has holds the old key */
	return err;
}

int record_key_set(struct record_key *k, struct record_pool *p, enum record_cipher cipher, const uint8_t *secret,
		   size_t len)
{
	if (cipher < RECORD_AES_128_GCM || cipher > RECORD_CHACHA20 || len != cipher_secret_len(cipher))
		return -EINVAL;
	k->cipher = cipher;
	k->secret_len = (uint8_t)len;
	memcpy(k->secret, secret, len);
	return derive(k, p);
}

int record_key_update(struct record_key *k, struct record_pool *p)
{
	uint8_t next[RECORD_SECRET_MAX];
	int err = expand_label(k, p, "traffic upd", next, k->secret_len);

	if (err)
		return err;
	memcpy(k->secret, next, k->secret_len);
	OPENSSL_cleanse(next, sizeof next);
	return derive(k, p);
}

void record_key_clear(struct record_key *k)
{
	record_pool_disown(k);
	OPENSSL_cleanse(k, sizeof *k);
}

static void make_nonce(const struct record_key *k, uint8_t nonce[RECORD_IV])
{
	memcpy(nonce, k->iv, RECORD_IV);
	for (int i = 0; i < 8; i++)
		nonce[RECORD_IV - 1 - i] ^= (uint8_t)(k->seq >> (8 * i));
}

int record_seal(struct record_key *k, struct record_pool *p, uint8_t *rec, size_t len, enum record_type type)
{
	struct aead *aead = record_pool_aead(p, k);
	uint8_t nonce[RECORD_IV], *body = rec + RECORD_HEADER;
	size_t inner = len + 1, sealed = inner + RECORD_TAG;

	if (!aead)
		return -ENOMEM;
	rec[0] = RECORD_DATA;
	rec[1] = 3;
	rec[2] = 3;
	rec[3] = (uint8_t)(sealed >> 8);
	rec[4] = (uint8_t)sealed;
	body[len] = type;
	make_nonce(k, nonce);
	if (aead_seal(aead, nonce, rec, RECORD_HEADER, body, inner))
		return -EIO;
	k->seq++;
	return (int)(RECORD_HEADER + sealed);
}

int record_open(struct record_key *k, struct record_pool *p, uint8_t *rec, size_t len)
{
	struct aead *aead = record_pool_aead(p, k);
	uint8_t nonce[RECORD_IV], *body = rec + RECORD_HEADER;
	size_t inner = len - RECORD_TAG;

	if (!aead)
		return -ENOMEM;
	make_nonce(k, nonce);
	if (aead_open(aead, nonce, rec, RECORD_HEADER, body, inner))
		return -EBADMSG;
	k->seq++;
	return (int)inner;
}
