/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes of the keys of the mesh state. The control plane chooses the keys, so they need no secret. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t hash_bytes(uint32_t seed, const char *s, size_t len)
{
	uint64_t h = (seed ^ len) * 0x9e3779b97f4a7c15ull, v;

	for (; len >= 8; s += 8, len -= 8) {
		memcpy(&v, s, 8);
		h = (h ^ v) * 0xff51afd7ed558ccdull;
		h ^= h >> 29;
	}
	v = 0;
	memcpy(&v, s, len);
	h = (h ^ v) * 0xff51afd7ed558ccdull;
	return (uint32_t)(h ^ (h >> 32));
}

/* Chain them for keys of several parts. */
static inline uint32_t hash_text(uint32_t seed, const char *s)
{
	return hash_bytes(seed, s, strlen(s));
}
