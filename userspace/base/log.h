/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: one line, one write, to standard output. Plain or JSON in ztunnel's shape, levels by target
 * at run time. A writer thread takes lines from a bounded buffer (LOG_BUFFER_BYTES): a slow reader of the
 * log costs lines, which are counted and reported, never a stalled connection. Thread-safe. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level {
	LOG_OFF,
	LOG_ERROR,
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG,
	LOG_TRACE,
};

enum {
	LOG_BUFFER_BYTES = 1 << 20, /* lines waiting for the writer */
	LOG_LINE_MAX = 4096, /* longer lines are cut, which they say: "..." at the end of a text, in JSON "cut":true */
	LOG_SPEC_MAX = 1024, /* length of a filter text */
};

/* A line under construction: begin, fields in order, end. Lives on the caller's stack. */
struct log_line {
	enum log_level level;
	bool json, cut;
	unsigned n_fields;
	size_t len;
	char text[LOG_LINE_MAX];
};

/* Starts the writer thread. `json`: one object per line. Without log_start() lines go to stderr at once,
 * which is what command-line tools want; a child of fork() does the same. Returns 0 or -errno. */
int log_start(bool json);
/* Writes what is buffered (waits at most one second) and stops the writer. */
void log_stop(void);

/* Filter: comma list of LEVEL or TARGET=LEVEL, of the same target the last; the longest matching target wins. Istio's
 * SCOPE:LEVEL is one of them; its scopes "default" and "all" are a bare LEVEL, and its other scopes match nothing. A module of
 * ztunnel ("ztunnel::xds") means the targets that do its work. -EINVAL leaves the filter as it was. `log_filter` writes the
 * current one. */
int log_set_filter(const char *spec);
const char *log_filter(char buf[LOG_SPEC_MAX]);
/* The filter `base` (NULL: the one in force), with the entries of `spec` in place of those for the same targets. `base`
 * must be a filter that log_set_filter() takes. -EINVAL: nothing changed. */
int log_change_filter(const char *base, const char *spec);
int log_level_parse(const char *s, size_t len, enum log_level *out);
bool log_enabled(enum log_level level, const char *target);
/* Lines lost because the buffer was full, since the start. */
uint64_t log_lost(void);

/* Structured lines. A null `value` omits the field. Strings are quoted; the rest is bare, but what would end or forge
 * a line is escaped everywhere. */
void log_begin(struct log_line *l, enum log_level level, const char *target, const char *message);
void log_str(struct log_line *l, const char *key, const char *value);
void log_bare(struct log_line *l, const char *key, const char *value);
void log_u64(struct log_line *l, const char *key, uint64_t value);
void log_end(struct log_line *l);

/* printf-like lines; the message carries everything. */
void log_msg(enum log_level level, const char *target, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_at(level, target, ...)                           \
	do {                                                 \
		if (log_enabled(level, target))              \
			log_msg(level, target, __VA_ARGS__); \
	} while (0)
#define log_error(target, ...) log_at(LOG_ERROR, target, __VA_ARGS__)
#define log_warn(target, ...)  log_at(LOG_WARN, target, __VA_ARGS__)
#define log_info(target, ...)  log_at(LOG_INFO, target, __VA_ARGS__)
#define log_debug(target, ...) log_at(LOG_DEBUG, target, __VA_ARGS__)

/* Limits repeated lines to `per_second` each second per limiter; log_allowed() tells whether to write one and
 * how many were suppressed since the last. Not thread-safe: one limiter per thread. */
struct log_limit {
	uint64_t second;
	unsigned used, per_second;
	uint64_t suppressed;
};
bool log_allowed(struct log_limit *l, uint64_t now_ms, uint64_t *suppressed);
