// SPDX-License-Identifier: Apache-2.0
/* Owns label sets: the values that make a sample the one that it is. All but metric_hash() is under the registry's lock. */
#include <stdlib.h>
#include <string.h>

#include "base/metrics_internal.h"

/* Values as "=value\0" or, for a label that is left out, "-\0". */
static size_t values_size(const char *const *values, unsigned n)
{
	size_t size = 0;

	for (unsigned i = 0; i < n; i++)
		size += 2 + (values[i] ? strlen(values[i]) : 0);
	return size;
}

struct label_set *label_set_new(const char *const *values, unsigned n, uint64_t hash)
{
	struct label_set *s = malloc(sizeof *s + values_size(values, n));
	char *p = s ? s->text : NULL;

	if (!s)
		return NULL;
	s->refs = 1;
	s->hash = hash;
	for (unsigned i = 0; i < n; i++) {
		size_t len = values[i] ? strlen(values[i]) : 0;

		*p++ = values[i] ? '=' : '-';
		memcpy(p, len ? values[i] : "", len + 1);
		p += len + 1;
	}
	return s;
}

void label_set_unref(struct label_set *s)
{
	if (s && --s->refs == 0)
		free(s);
}

bool label_set_has(const struct label_set *s, const char *const *values, unsigned n)
{
	const char *p = s->text;

	for (unsigned i = 0; i < n; i++) {
		if (*p != (values[i] ? '=' : '-') || (values[i] && strcmp(p + 1, values[i])))
			return false;
		p += strlen(p) + 1;
	}
	return true;
}

void label_set_values(const struct label_set *s, const char **values, unsigned n)
{
	const char *p = s->text;

	for (unsigned i = 0; i < n; i++) {
		values[i] = *p == '=' ? p + 1 : NULL;
		p += strlen(p) + 1;
	}
}

/* FNV-1a, with a byte between two values. */
uint64_t metric_hash(const char *const *values, unsigned n)
{
	uint64_t h = 14695981039346656037u;

	for (unsigned i = 0; i < n; i++) {
		for (const char *p = values[i] ? values[i] : ""; *p; p++)
			h = (h ^ (unsigned char)*p) * 1099511628211u;
		h = (h ^ (values[i] ? 0x100u : 0x101u)) * 1099511628211u;
	}
	return h;
}
