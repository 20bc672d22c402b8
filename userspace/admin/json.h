/* SPDX-License-Identifier: Apache-2.0 */
/* Writes JSON into one growing buffer, indented by two spaces: what a dump of a large mesh needs is the text, not a
 * tree of it. The caller gives keys in order. When memory runs out the text is incomplete and `failed` is set. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct json {
	char *p; /* malloc'ed */
	size_t len, cap;
	unsigned depth;
	bool empty, after_key, failed;
};

/* `{` or `[`, and its end. Inside an object each value follows a json_key(). */
void json_open(struct json *j, char bracket);
void json_close(struct json *j, char bracket);
void json_key(struct json *j, const char *key);
/* Bytes that are not UTF-8 become U+FFFD. NULL becomes null. */
void json_text(struct json *j, const char *s);
void json_textf(struct json *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void json_number(struct json *j, uint64_t n);
void json_bool(struct json *j, bool b);
/* A value that is JSON already. */
void json_raw(struct json *j, const char *text);

/* A key and its value at once. */
void json_key_text(struct json *j, const char *key, const char *s);
/* The same, but nothing where the text is empty. */
void json_key_some(struct json *j, const char *key, const char *s);
/* Wall clock, to the second, UTC. */
void json_key_time(struct json *j, const char *key, time_t t);
