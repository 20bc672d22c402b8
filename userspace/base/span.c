/* SPDX-License-Identifier: Apache-2.0 */
/* Finds values in a JSON text. A parser has taken the text before, so that only quotes, brackets and separators matter;
 * the end is watched all the same. */
#include "base/span.h"

#include <string.h>

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* Past the closing quote. */
static const char *skip_string(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
		if (*p == '\\')
			p++;
	return p < end ? p + 1 : end;
}

static const char *skip_value(const char *p, const char *end)
{
	unsigned depth = 0;

	while (p < end) {
		if (*p == '"') {
			p = skip_string(p, end);
		} else if (*p == '{' || *p == '[') {
			depth++;
			p++;
		} else if (*p == '}' || *p == ']') {
			if (!depth)
				return p; /* the end of a number or word */
			depth--;
			p++;
		} else if (!depth && (*p == ',' || skip_blanks(p, end) != p)) {
			return p;
		} else {
			p++;
			continue;
		}
		if (!depth)
			return p;
	}
	return end;
}

bool span_member(const struct span *object, const char *key, struct span *out)
{
	const char *p = object->at, *end = p + object->len;
	size_t len = strlen(key);

	if (p == end || *p != '{')
		return false;
	p = skip_blanks(p + 1, end);
	while (p < end && *p == '"') {
		const char *name = p + 1, *after = skip_string(p, end), *value;

		p = skip_blanks(after, end);
		if (p == end || *p != ':')
			return false;
		value = skip_blanks(p + 1, end);
		p = skip_value(value, end);
		if ((size_t)(after - name) == len + 1 && !memcmp(name, key, len)) {
			*out = (struct span){value, (size_t)(p - value)};
			return true;
		}
		p = skip_blanks(p, end);
		if (p < end && *p == ',')
			p = skip_blanks(p + 1, end);
	}
	return false;
}

bool span_next(const struct span *array, struct span *e)
{
	const char *end = array->at + array->len, *p = array->at;

	if (!e->at) {
		if (p == end || *p != '[')
			return false;
		p = skip_blanks(p + 1, end);
	} else {
		p = skip_blanks(e->at + e->len, end);
		if (p == end || *p != ',')
			return false;
		p = skip_blanks(p + 1, end);
	}
	if (p == end || *p == ']')
		return false;
	*e = (struct span){p, (size_t)(skip_value(p, end) - p)};
	return true;
}

struct span span_trim(const char *text, size_t len)
{
	const char *end = text + len, *p = skip_blanks(text, end);

	while (end > p && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r'))
		end--;
	return (struct span){p, (size_t)(end - p)};
}
