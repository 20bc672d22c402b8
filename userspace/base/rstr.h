/* SPDX-License-Identifier: Apache-2.0 */
/* Short immutable texts with a reference count, shared by the objects of one thread: an identity that thousands of
 * connections name is kept once. Not thread-safe. Functions take NULL. */
#pragma once
#include <stdlib.h>
#include <string.h>

struct rstr {
	unsigned refs;
	char text[];
};

/* NULL: no memory, or `text` is NULL. */
static inline struct rstr *rstr_new(const char *text)
{
	size_t n = text ? strlen(text) + 1 : 0;
	struct rstr *r = text ? malloc(sizeof *r + n) : NULL;

	if (r) {
		r->refs = 1;
		memcpy(r->text, text, n);
	}
	return r;
}

static inline struct rstr *rstr_ref(struct rstr *r)
{
	if (r)
		r->refs++;
	return r;
}

static inline void rstr_unref(struct rstr *r)
{
	if (r && --r->refs == 0)
		free(r);
}

static inline const char *rstr_text(const struct rstr *r)
{
	return r ? r->text : NULL;
}
