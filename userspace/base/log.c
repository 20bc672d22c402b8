/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the shape of log lines, plain and JSON, and how they are cut: whole characters and escapes only, so that a
 * JSON line stays an object. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log_internal.h"

static bool put(struct log_line *l, const char *s, size_t n)
{
	if (l->cut || l->len + n > LOG_LINE_MAX - LOG_TAIL) {
		l->cut = true;
		return false;
	}
	memcpy(l->text + l->len, s, n);
	l->len += n;
	return true;
}

static bool puts_(struct log_line *l, const char *s)
{
	return put(l, s, strlen(s));
}

/* Bytes of the UTF-8 character at `s`; 0: there is none. The second byte's range keeps out overlong forms, surrogates and
 * what is beyond Unicode. */
static size_t utf8_len(const unsigned char *s)
{
	unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
	unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
	size_t n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4 || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* One character, escaped where it must be. `quote`: inside quotes. Returns how many bytes of `s` it took; 0: cut. */
static size_t put_char(struct log_line *l, const char *s, bool quote)
{
	unsigned char c = (unsigned char)*s;
	size_t n = utf8_len((const unsigned char *)s);
	char escape[8];

	if (!n)
		return puts_(l, "\xef\xbf\xbd"); /* U+FFFD */
	if (c == '\n')
		return puts_(l, "\\n");
	if (c == '\t')
		return puts_(l, "\\t");
	if (c < 0x20 || c == 0x7f) {
		snprintf(escape, sizeof escape, "\\u%04x", c);
		return puts_(l, escape);
	}
	if (quote && (c == '"' || c == '\\')) {
		char pair[2] = {'\\', *s};
		return put(l, pair, 2);
	}
	return put(l, s, n) ? n : 0;
}

/* From the tail, which is kept free for it. In JSON only a text can hold them. */
static void put_dots(struct log_line *l, bool quote)
{
	if (l->json && !quote)
		return;
	memcpy(l->text + l->len, "...\"", 4);
	l->len += quote ? 4 : 3;
}

static void put_text(struct log_line *l, const char *s, bool quote)
{
	size_t n = 1;

	for (; *s && n; s += n)
		n = put_char(l, s, quote);
	if (!n)
		put_dots(l, quote);
}

static void put_quoted(struct log_line *l, const char *s)
{
	if (!puts_(l, "\""))
		return;
	put_text(l, s, true);
	if (!l->cut)
		l->text[l->len++] = '"'; /* if need be from the tail */
}

/* 2026-01-02T03:04:05.678901Z; the date part is computed once a second per thread. */
static void put_time(struct log_line *l)
{
	static __thread time_t second;
	static __thread char date[24];
	struct timespec now;
	struct tm tm;
	char us[16];

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec != second) {
		second = now.tv_sec;
		gmtime_r(&second, &tm);
		strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
	}
	puts_(l, date);
	snprintf(us, sizeof us, ".%06ldZ", now.tv_nsec / 1000);
	puts_(l, us);
}

void log_begin(struct log_line *l, enum log_level level, const char *target, const char *message)
{
	l->level = level;
	l->json = log_is_json();
	l->cut = false;
	l->n_fields = 0;
	l->len = 0;
	if (l->json) {
		puts_(l, "{\"level\":\"");
		puts_(l, log_level_name(level));
		puts_(l, "\",\"time\":\"");
		put_time(l);
		puts_(l, "\",\"scope\":");
		put_quoted(l, target);
		puts_(l, ",\"message\":");
		put_quoted(l, message);
		return;
	}
	put_time(l);
	puts_(l, "\t");
	puts_(l, log_level_name(level));
	puts_(l, "\t");
	puts_(l, target);
	puts_(l, "\t");
	put_text(l, message, false);
}

/* The first field is set off by a tab, the others by a space. A key that has no room leaves no trace of itself. */
static bool put_key(struct log_line *l, const char *key, bool quoted_value)
{
	size_t at = l->len;

	if (l->cut)
		return false;
	puts_(l, l->json ? ",\"" : l->n_fields++ ? " " : "\t");
	puts_(l, key);
	puts_(l, l->json ? "\":" : "=");
	if (quoted_value)
		puts_(l, "\"");
	if (!l->cut) {
		l->len -= quoted_value;
		return true;
	}
	l->len = at;
	put_dots(l, false);
	return false;
}

void log_str(struct log_line *l, const char *key, const char *value)
{
	if (value && put_key(l, key, true))
		put_quoted(l, value);
}

void log_bare(struct log_line *l, const char *key, const char *value)
{
	if (!value || !put_key(l, key, l->json))
		return;
	if (l->json)
		put_quoted(l, value);
	else
		put_text(l, value, false);
}

void log_u64(struct log_line *l, const char *key, uint64_t value)
{
	size_t at = l->len;
	char num[24];

	snprintf(num, sizeof num, "%llu", (unsigned long long)value);
	if (put_key(l, key, false) && !puts_(l, num)) {
		l->len = at;
		put_dots(l, false);
	}
}

void log_finish(struct log_line *l)
{
	static const char cut[] = ",\"cut\":true";

	if (l->json && l->cut) {
		memcpy(l->text + l->len, cut, sizeof cut - 1);
		l->len += sizeof cut - 1;
	}
	if (l->json)
		l->text[l->len++] = '}';
	l->text[l->len++] = '\n';
}

void log_end(struct log_line *l)
{
	log_finish(l);
	log_emit(l->text, l->len);
}

void log_msg(enum log_level level, const char *target, const char *fmt, ...)
{
	char message[LOG_LINE_MAX];
	struct log_line l;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	log_begin(&l, level, target, message);
	log_end(&l);
}

bool log_allowed(struct log_limit *l, uint64_t now_ms, uint64_t *suppressed)
{
	if (now_ms / 1000 != l->second) {
		l->second = now_ms / 1000;
		l->used = 0;
	}
	if (l->used >= l->per_second) {
		l->suppressed++;
		return false;
	}
	l->used++;
	*suppressed = l->suppressed;
	l->suppressed = 0;
	return true;
}
