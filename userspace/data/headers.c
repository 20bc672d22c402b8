// SPDX-License-Identifier: Apache-2.0
/* Parses `forwarded` as peers send it. */
#include "data/headers.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

struct cursor {
	const char *p, *end;
};

static bool is_separator(char c)
{
	return c == ';' || c == ',';
}

static void skip_blanks(struct cursor *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t'))
		c->p++;
}

/* Copies one character of the value, if there is a place to put it. */
static void keep(char *out, size_t room, size_t *n, char c)
{
	if (out && *n < room)
		out[*n] = c;
	(*n)++;
}

/* A value up to the next separator. `out` NULL: skipped. -EINVAL for a quote that nobody closes. */
static int value_read(struct cursor *c, char *out, size_t room, size_t *n)
{
	*n = 0;
	skip_blanks(c);
	if (c->p < c->end && *c->p == '"') {
		for (c->p++; c->p < c->end && *c->p != '"'; c->p++) {
			if (*c->p == '\\' && ++c->p == c->end)
				return -EINVAL;
			keep(out, room, n, *c->p);
		}
		if (c->p == c->end)
			return -EINVAL;
		c->p++;
	}
	for (; c->p < c->end && !is_separator(*c->p); c->p++)
		if (*c->p != ' ' && *c->p != '\t')
			keep(out, room, n, *c->p);
	return 0;
}

static bool printable(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != '\t' && (p[i] < 0x20 || p[i] > 0x7e))
			return false;
	return true;
}

int forwarded_parse(const char *p, size_t len, char *host, size_t host_len)
{
	struct cursor c = {p, p + len};
	bool found = false;
	size_t n = 0;

	host[0] = '\0';
	if (!printable(p, len))
		return -EINVAL;
	while (c.p < c.end && !found) {
		const char *key;
		size_t k, skipped;

		skip_blanks(&c);
		key = c.p;
		while (c.p < c.end && *c.p != '=' && !is_separator(*c.p))
			c.p++;
		k = (size_t)(c.p - key);
		if (c.p < c.end && *c.p == '=') {
			c.p++;
			found = k == 4 && strncasecmp(key, "host", 4) == 0;
			if (value_read(&c, found ? host : NULL, host_len - 1, found ? &n : &skipped) < 0) {
				host[0] = '\0';
				return -EINVAL;
			}
		}
		if (c.p < c.end)
			c.p++;
	}
	if (n >= host_len) {
		host[0] = '\0';
		return -ENAMETOOLONG;
	}
	host[n] = '\0';
	return (int)n;
}
