// SPDX-License-Identifier: Apache-2.0
/* Reads the value under the cursor of a document: scalars as what they are to be, and objects by tables of keys. */
#include "control/local_value.h"

#include <string.h>

/* --- scalars -------------------------------------------------------------------------------------------- */

struct doc_text doc_scalar(struct doc *d, const char *what)
{
	struct doc_text t = {"", 0};
	const char *s;
	size_t len;

	if (d->error)
		return t;
	if (d->event.type != YAML_SCALAR_EVENT) {
		doc_fail(d, "%s must be plain text", what);
		return t;
	}
	s = (const char *)d->event.data.scalar.value;
	len = d->event.data.scalar.length;
	if (len > LOCAL_TEXT_MAX)
		doc_fail(d, "%s: a text of more than %d bytes", what, LOCAL_TEXT_MAX);
	else if (memchr(s, 0, len))
		doc_fail(d, "%s: a NUL in the text", what);
	else
		t = (struct doc_text){s, len};
	return t;
}

struct doc_text doc_text(struct doc *d, const char *what)
{
	if (doc_is_scalar(d) && doc_tag(d))
		doc_fail(d, "%s: the tag %s means nothing here", what, doc_tag(d));
	return doc_scalar(d, what);
}

bool doc_is_null(const struct doc *d)
{
	const char *s;

	if (!doc_is_scalar(d) || d->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE || doc_tag(d))
		return false;
	s = (const char *)d->event.data.scalar.value;
	return !*s || !strcmp(s, "null") || !strcmp(s, "~");
}

uint32_t doc_number(struct doc *d, const char *what, uint32_t max)
{
	struct doc_text t = doc_text(d, what);
	uint64_t n = 0;
	size_t i = 0;

	for (; i < t.len && t.s[i] >= '0' && t.s[i] <= '9' && n <= max; i++)
		n = n * 10 + (unsigned)(t.s[i] - '0');
	if (!d->error && (!t.len || i < t.len || n > max)) {
		doc_fail(d, "%s: \"%s\" is not a number between 0 and %u", what, t.s, max);
		return 0;
	}
	return (uint32_t)n;
}

bool doc_bool(struct doc *d, const char *what)
{
	static const struct doc_word words[] = {{"false", 0}, {"true", 1}, {0}};

	return doc_word(d, what, words) == 1;
}

/* Appends "a, b, c" of `n` names as far as there is room. */
static void names(char *buf, size_t size, const char *first, size_t stride)
{
	size_t len = 0;

	for (const char *p = first; *(const char *const *)p && len < size; p += stride)
		len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? ", " : "", *(const char *const *)p);
}

int doc_word(struct doc *d, const char *what, const struct doc_word *words)
{
	struct doc_text t = doc_text(d, what);
	char allowed[LOCAL_REASON_MAX];

	if (d->error)
		return 0;
	for (const struct doc_word *w = words; w->name; w++)
		if (!strcmp(w->name, t.s))
			return w->value;
	names(allowed, sizeof allowed, (const char *)&words->name, sizeof *words);
	doc_fail(d, "%s: \"%s\" is none of %s", what, t.s, allowed);
	return 0;
}

/* --- objects -------------------------------------------------------------------------------------------- */

/* Looks from the key after the last one: documents that are written by programs keep an order. */
static unsigned field_find(const struct doc_field *fields, unsigned n, unsigned from, const char *name)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned at = from + i < n ? from + i : from + i - n;

		if (!strcmp(fields[at].name, name))
			return at;
	}
	return n;
}

static void unknown_key(struct doc *d, const char *what, const struct doc_field *fields, const char *key)
{
	char allowed[LOCAL_REASON_MAX];

	names(allowed, sizeof allowed, (const char *)&fields->name, sizeof *fields);
	doc_fail(d, "unknown key \"%.64s\" in a %s; allowed: %s", key, what, allowed);
}

void doc_object(struct doc *d, const char *what, const struct doc_field *fields, void *object)
{
	size_t line = d->event.start_mark.line;
	unsigned n = 0, at = 0;
	uint32_t seen = 0;

	while (fields[n].name)
		n++;
	for (doc_map(d, what); doc_key(d); at++) {
		struct doc_text key = doc_text(d, "a key");

		at = field_find(fields, n, at, key.s);
		if (at == n)
			unknown_key(d, what, fields, key.s);
		else if (seen & 1u << at)
			doc_fail(d, "%s: the key \"%s\" is there twice", what, key.s);
		if (!doc_next(d))
			return;
		if (doc_is_null(d))
			continue;
		seen |= 1u << at;
		fields[at].read(d, &fields[at], object);
	}
	for (unsigned i = 0; i < n && !d->error; i++)
		if (fields[i].required && !(seen & 1u << i)) {
			d->event.start_mark.line = line;
			doc_fail(d, "a %s needs \"%s\"", what, fields[i].name);
		}
}
