/* SPDX-License-Identifier: Apache-2.0 */
/* AES-GCM by intel-ipsec-mb, where the build has it (HAVE_IPSEC_MB). Private to aead.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aead_gcm_key; /* an expanded key: a kilobyte */

/* Whether the library is there, likes this processor, and has passed its self-test. Found out once. */
bool aead_gcm_usable(void);
/* Bytes of key: 16 or 32. NULL in `*k`: it is allocated. 0 or -ENOMEM. */
int aead_gcm_set_key(struct aead_gcm_key **k, const uint8_t *key, size_t len);
void aead_gcm_free(struct aead_gcm_key *k); /* and forgets the key */
void aead_gcm_seal(struct aead_gcm_key *k, const uint8_t *nonce, const uint8_t *ad, size_t ad_len, uint8_t *p,
		   size_t len);
bool aead_gcm_open(struct aead_gcm_key *k, const uint8_t *nonce, const uint8_t *ad, size_t ad_len, uint8_t *p,
		   size_t len);
