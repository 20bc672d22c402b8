/* SPDX-License-Identifier: Apache-2.0 */
/* The AEAD of one direction of TLS 1.3 (RFC 8446, 5.2 and 5.3): seals and opens in place, nonces of 12 bytes, tags of 16.
 *
 * OpenSSL does it, save AES-GCM where the build has intel-ipsec-mb and the processor AES instructions. With AVX-512 that
 * one takes a third of the time of OpenSSL 3.0 for 16 KiB; on any processor a fifth for 64 bytes, since nothing stands
 * between the call and the instructions. Private to net/record. */
#pragma once
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/record.h"

enum { AEAD_CIPHERS = 3, AEAD_NONCE = 12, AEAD_TAG = 16 };

/* What keyed contexts are made from; read-only once it is there. */
struct aead_ciphers {
	EVP_CIPHER *evp[AEAD_CIPHERS]; /* NULL: the provider has none */
	bool gcm;		       /* aead_gcm.h does AES-GCM; not under OpenSSL's FIPS configuration */
};
void aead_ciphers_fetch(struct aead_ciphers *c);
void aead_ciphers_free(struct aead_ciphers *c);

/* A context that can be keyed again and again; all zero: none yet. */
struct aead {
	EVP_CIPHER_CTX *evp;
	struct aead_gcm_key *gcm;
	bool is_gcm; /* the latest key is in `gcm` */
};
/* 0, -ENOMEM, -EINVAL: there is no such cipher. `seals`: for aead_seal(), else for aead_open(). */
int aead_set_key(struct aead *a, const struct aead_ciphers *c, enum record_cipher cipher, const uint8_t *key,
		 bool seals);
void aead_clear(struct aead *a);

/* `p`: `len` bytes, and the tag behind them. 0 or -EIO. */
int aead_seal(struct aead *a, const uint8_t nonce[AEAD_NONCE], const uint8_t *ad, size_t ad_len, uint8_t *p,
	      size_t len);
/* 0, or -EBADMSG: what is at `p` then must not be looked at. */
int aead_open(struct aead *a, const uint8_t nonce[AEAD_NONCE], const uint8_t *ad, size_t ad_len, uint8_t *p,
	      size_t len);
