/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what all sources of certificates share. */
#include "control/ca.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "control/csr.h"

void ca_cert_clear(struct ca_cert *c)
{
	pem_key_free(c->key);
	free(c->chain);
	free(c->roots);
	memset(c, 0, sizeof *c);
}

uint64_t ca_jitter(uint64_t ms, unsigned percent)
{
	uint32_t r = 0;
	uint64_t span = ms * percent / 100;

	RAND_bytes((unsigned char *)&r, sizeof r);
	return ms - span + 2 * span * r / UINT32_MAX;
}

void ca_free(struct ca *ca)
{
	if (ca)
		ca->free(ca);
}
