/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what the records of one thread share: buffers, last in first out, and keyed cipher contexts.
 *
 * A keyed context is a kilobyte, a key 32 bytes. So a connection holds keys, and the
 * RECORD_CONTEXTS directions that moved last hold contexts: the one that rested longest loses its own to the
 * next that needs one, and is keyed anew when it wakes. */
#include "net/record_internal.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <errno.h>
#include <stdlib.h>

struct record_context {
	struct list lru;
	struct aead aead;
	struct record_key *owner;
};

enum { HASHES = 2 };

struct record_pool {
	unsigned keep;
	unsigned n_free[RECORD_BUFFERS];
	unsigned n_contexts;
	struct list lru; /* most recently used first */
	struct aead_ciphers ciphers;
	EVP_MAC_CTX *hmac[HASHES];
	struct record_context context[RECORD_CONTEXTS];
	uint8_t *free[]; /* RECORD_BUFFERS stacks of `keep` */
};

static const size_t buffer_bytes[RECORD_BUFFERS] = {
	[RECORD_BUFFER_TX] = RECORD_TX_BYTES,
	[RECORD_BUFFER_RX] = RECORD_RX_BYTES,
	[RECORD_BUFFER_PART] = RECORD_PART_BYTES,
};

static EVP_MAC_CTX *hmac_new(EVP_MAC *mac, const char *hash)
{
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)hash, 0),
		OSSL_PARAM_construct_end(),
	};

	if (ctx && !EVP_MAC_CTX_set_params(ctx, params)) {
		EVP_MAC_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

struct record_pool *record_pool_new(unsigned keep)
{
	struct record_pool *p = calloc(1, sizeof *p + RECORD_BUFFERS * (size_t)keep * sizeof *p->free);
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);

	if (!p || !mac)
		goto fail;
	p->keep = keep;
	list_init(&p->lru);
	aead_ciphers_fetch(&p->ciphers);
	p->hmac[0] = hmac_new(mac, "SHA256");
	p->hmac[1] = hmac_new(mac, "SHA384");
	if (!p->hmac[0] || !p->hmac[1])
		goto fail;
	EVP_MAC_free(mac);
	return p;
fail:
	EVP_MAC_free(mac);
	record_pool_free(p);
	return NULL;
}

void record_pool_free(struct record_pool *p)
{
	if (!p)
		return;
	for (unsigned kind = 0; kind < RECORD_BUFFERS; kind++)
		while (p->n_free[kind])
			free(p->free[kind * p->keep + --p->n_free[kind]]);
	for (unsigned i = 0; i < p->n_contexts; i++)
		aead_clear(&p->context[i].aead);
	aead_ciphers_free(&p->ciphers);
	for (unsigned i = 0; i < HASHES; i++)
		EVP_MAC_CTX_free(p->hmac[i]);
	free(p);
}

void record_pool_openssl_only(struct record_pool *p)
{
	p->ciphers.gcm = false;
}

uint8_t *record_pool_take(struct record_pool *p, enum record_buffer kind)
{
	if (p->n_free[kind])
		return p->free[kind * p->keep + --p->n_free[kind]];
	return malloc(buffer_bytes[kind]);
}

void record_pool_give(struct record_pool *p, enum record_buffer kind, uint8_t *buf)
{
	if (p->n_free[kind] < p->keep)
		p->free[kind * p->keep + p->n_free[kind]++] = buf;
	else
		free(buf);
}

static struct record_context *context_claim(struct record_pool *p)
{
	struct record_context *c;

	if (p->n_contexts < RECORD_CONTEXTS) {
		c = &p->context[p->n_contexts++];
		list_add(&p->lru, &c->lru);
		return c;
	}
	return list_entry(p->lru.prev, struct record_context, lru);
}

struct aead *record_pool_aead(struct record_pool *p, struct record_key *k)
{
	struct record_context *c = k->context;

	if (!c || c->owner != k) {
		c = context_claim(p);
		c->owner = NULL;
		if (aead_set_key(&c->aead, &p->ciphers, k->cipher, k->key, k->seals))
			return NULL;
		c->owner = k;
		k->context = c;
	}
	if (p->lru.next != &c->lru) {
		list_del(&c->lru);
		list_add(&p->lru, &c->lru);
	}
	return &c->aead;
}

void record_pool_disown(struct record_key *k)
{
	if (k->context && k->context->owner == k)
		k->context->owner = NULL;
	k->context = NULL;
}

int record_pool_hmac(struct record_pool *p, enum record_cipher cipher, const uint8_t *key, size_t key_len,
		     const uint8_t *data, size_t len, uint8_t out[RECORD_SECRET_MAX])
{
	EVP_MAC_CTX *ctx = p->hmac[cipher == RECORD_AES_256_GCM];
	size_t n;

	if (!EVP_MAC_init(ctx, key, key_len, NULL) || !EVP_MAC_update(ctx, data, len) ||
	    !EVP_MAC_final(ctx, out, &n, RECORD_SECRET_MAX))
		return -ENOMEM;
	return 0;
}
