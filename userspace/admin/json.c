// SPDX-License-Identifier: Apache-2.0
/* The JSON writer: commas, indentation, escapes. */
#include "admin/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *room(struct json *j, size_t n)
{
	size_t cap = j->cap + j->cap / 2 + n + 256;
	char *p;

	if (j->failed)
		return NULL;
	if (j->cap - j->len < n) {
		p = realloc(j->p, cap);
		if (!p) {
			j->failed = true;
			return NULL;
		}
		j->p = p;
		j->cap = cap;
	}
	return j->p + j->len;
}

static void put(struct json *j, const char *s, size_t n)
{
	char *to = room(j, n);

	if (!to)
		return;
	memcpy(to, s, n);
	j->len += n;
}

static void line(struct json *j)
{
	char *to = room(j, 1 + 2 * j->depth);

	if (!to)
		return;
	*to = '\n';
	memset(to + 1, ' ', 2 * (size_t)j->depth);
	j->len += 1 + 2 * (size_t)j->depth;
}

/* What comes before a value or a key. */
static void next(struct json *j)
{
	if (j->after_key) {
		j->after_key = false;
		return;
	}
	if (!j->depth)
		return;
	if (!j->empty)
		put(j, ",", 1);
	j->empty = false;
	line(j);
}

void json_open(struct json *j, char bracket)
{
	next(j);
	put(j, &bracket, 1);
	j->depth++;
	j->empty = true;
}

void json_close(struct json *j, char bracket)
{
	j->depth--;
	if (!j->empty)
		line(j);
	put(j, &bracket, 1);
	j->empty = false;
}

/* Bytes of the UTF-8 sequence at `s` (RFC 3629); 0: it is none. */
static unsigned utf8(const unsigned char *s)
{
	unsigned n = *s < 0x80		       ? 1
		     : *s >= 0xc2 && *s < 0xe0 ? 2
		     : (*s & 0xf0) == 0xe0     ? 3
		     : *s >= 0xf0 && *s < 0xf5 ? 4
					       : 0;

	for (unsigned i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) || (*s == 0xf0 && s[1] < 0x90) ||
	    (*s == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static void escaped(struct json *j, const unsigned char *s)
{
	char buf[8];

	while (*s) {
		const unsigned char *from = s;
		unsigned n;

		while (*s >= ' ' && *s != '"' && *s != '\\' && (n = utf8(s)))
			s += n;
		put(j, (const char *)from, (size_t)(s - from));
		if (!*s)
			return;
		if (*s == '"' || *s == '\\')
			put(j, buf, (size_t)snprintf(buf, sizeof buf, "\\%c", *s));
		else
			put(j, buf, (size_t)snprintf(buf, sizeof buf, "\\u%04x", *s < ' ' ? *s : 0xfffdu));
		s++;
	}
}

void json_text(struct json *j, const char *s)
{
	if (!s) {
		json_raw(j, "null");
		return;
	}
	next(j);
	put(j, "\"", 1);
	escaped(j, (const unsigned char *)s);
	put(j, "\"", 1);
}

void json_textf(struct json *j, const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0) {
		j->failed = true;
		return;
	}
	json_text(j, s);
	free(s);
}

void json_key(struct json *j, const char *key)
{
	json_text(j, key);
	put(j, ": ", 2);
	j->after_key = true;
}

void json_number(struct json *j, uint64_t n)
{
	char buf[24];

	snprintf(buf, sizeof buf, "%llu", (unsigned long long)n);
	json_raw(j, buf);
}

void json_bool(struct json *j, bool b)
{
	json_raw(j, b ? "true" : "false");
}

void json_raw(struct json *j, const char *text)
{
	next(j);
	put(j, text, strlen(text));
}

void json_key_text(struct json *j, const char *key, const char *s)
{
	json_key(j, key);
	json_text(j, s);
}

void json_key_some(struct json *j, const char *key, const char *s)
{
	if (*s)
		json_key_text(j, key, s);
}

void json_key_time(struct json *j, const char *key, time_t t)
{
	struct tm tm;
	char buf[32] = "";

	if (gmtime_r(&t, &tm))
		strftime(buf, sizeof buf, "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_key_text(j, key, buf);
}
