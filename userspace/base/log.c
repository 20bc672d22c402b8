/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the log: filter, line shapes, and the writer thread behind a bounded buffer.
 *
 * Two buffers of LOG_BUFFER_BYTES / 2: producers append to `fill` under a mutex, the writer swaps and writes the
 * other one with a single write(2). The buffers grow on demand, so a quiet process does not pay for them. */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	RULES_MAX = 32,
	TARGET_MAX = 48,
};

struct rule {
	char target[TARGET_MAX];
	enum log_level level;
};

static struct {
	pthread_rwlock_t lock;
	enum log_level max; /* most verbose level of any rule: the cheap test */
	unsigned n;
	struct rule rule[RULES_MAX];
	enum log_level base;
} filter = {.lock = PTHREAD_RWLOCK_INITIALIZER, .max = LOG_INFO, .base = LOG_INFO};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake, idle;
	pthread_t thread;
	bool running, stopping, writing, json;
	char *fill;
	size_t len, cap;
	uint64_t lost, reported;
} writer = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER};

static const char *const level_names[] = {"off", "error", "warn", "info", "debug", "trace"};

int log_level_parse(const char *s, size_t len, enum log_level *out)
{
	for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
		if (strlen(level_names[i]) == len && strncasecmp(level_names[i], s, len) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	return -EINVAL;
}

static int rule_parse(struct rule *r, const char *s, size_t len)
{
	const char *eq = memchr(s, '=', len);

	r->target[0] = 0;
	if (eq) {
		size_t t = (size_t)(eq - s);
		if (t == 0 || t >= TARGET_MAX)
			return -EINVAL;
		memcpy(r->target, s, t);
		r->target[t] = 0;
		len -= t + 1;
		s = eq + 1;
	}
	return log_level_parse(s, len, &r->level);
}

int log_set_filter(const char *spec)
{
	struct rule rules[RULES_MAX];
	enum log_level base = LOG_INFO, max;
	unsigned n = 0;

	if (strlen(spec) >= LOG_SPEC_MAX)
		return -EINVAL;
	while (*spec) {
		size_t len = strcspn(spec, ",");
		if (n == RULES_MAX || rule_parse(&rules[n], spec, len))
			return -EINVAL;
		if (rules[n].target[0])
			n++;
		else
			base = rules[n].level;
		spec += len;
		if (*spec == ',')
			spec++;
	}
	max = base;
	for (unsigned i = 0; i < n; i++)
		if (rules[i].level > max)
			max = rules[i].level;
	pthread_rwlock_wrlock(&filter.lock);
	memcpy(filter.rule, rules, n * sizeof *rules);
	filter.n = n;
	filter.base = base;
	__atomic_store_n(&filter.max, max, __ATOMIC_RELAXED);
	pthread_rwlock_unlock(&filter.lock);
	return 0;
}

const char *log_filter(char buf[LOG_SPEC_MAX])
{
	size_t len = 0;

	pthread_rwlock_rdlock(&filter.lock);
	for (unsigned i = 0; i < filter.n; i++)
		len += (size_t)snprintf(buf + len, LOG_SPEC_MAX - len, "%s=%s,", filter.rule[i].target,
					level_names[filter.rule[i].level]);
	snprintf(buf + len, LOG_SPEC_MAX - len, "%s", level_names[filter.base]);
	pthread_rwlock_unlock(&filter.lock);
	return buf;
}

static bool target_matches(const char *rule, const char *target)
{
	size_t n = strlen(rule);
	return strncmp(rule, target, n) == 0 && (target[n] == 0 || target[n] == ':' || target[n] == '.');
}

bool log_enabled(enum log_level level, const char *target)
{
	enum log_level at;
	size_t best = 0;

	if (level > __atomic_load_n(&filter.max, __ATOMIC_RELAXED))
		return false;
	pthread_rwlock_rdlock(&filter.lock);
	at = filter.base;
	for (unsigned i = 0; i < filter.n; i++)
		if (strlen(filter.rule[i].target) > best && target_matches(filter.rule[i].target, target)) {
			best = strlen(filter.rule[i].target);
			at = filter.rule[i].level;
		}
	pthread_rwlock_unlock(&filter.lock);
	return level <= at;
}

/* --- the writer ------------------------------------------------------------------------------------ */

static void write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return; /* nobody to tell: the log itself is gone */
		p += w;
		n -= (size_t)w;
	}
}

static void *writer_main(void *arg)
{
	char *spare = NULL;
	size_t cap = 0;

	pthread_mutex_lock(&writer.lock);
	while (!writer.stopping || writer.len) {
		if (!writer.len) {
			pthread_cond_wait(&writer.wake, &writer.lock);
			continue;
		}
		char *full = writer.fill;
		size_t len = writer.len, full_cap = writer.cap;
		writer.fill = spare;
		writer.cap = cap;
		writer.len = 0;
		writer.writing = true;
		pthread_mutex_unlock(&writer.lock);
		write_all(STDOUT_FILENO, full, len);
		pthread_mutex_lock(&writer.lock);
		writer.writing = false;
		spare = full;
		cap = full_cap;
	}
	pthread_cond_broadcast(&writer.idle);
	pthread_mutex_unlock(&writer.lock);
	free(spare);
	return arg;
}

int log_start(bool json)
{
	int err;

	writer.json = json;
	writer.stopping = false;
	err = pthread_create(&writer.thread, NULL, writer_main, NULL);
	if (err)
		return -err;
	pthread_setname_np(writer.thread, "log");
	writer.running = true;
	return 0;
}

void log_stop(void)
{
	struct timespec until;

	if (!writer.running)
		return;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1;
	pthread_mutex_lock(&writer.lock);
	writer.stopping = true;
	pthread_cond_signal(&writer.wake);
	while (writer.len || writer.writing)
		if (pthread_cond_timedwait(&writer.idle, &writer.lock, &until))
			break;
	bool drained = !writer.len && !writer.writing;
	writer.running = false;
	pthread_mutex_unlock(&writer.lock);
	if (drained)
		pthread_join(writer.thread, NULL);
	else
		pthread_detach(writer.thread);
}

static int reserve(size_t n)
{
	size_t cap = writer.cap ? writer.cap : 4096;
	char *p;

	while (cap < writer.len + n)
		cap *= 2;
	if (cap > LOG_BUFFER_BYTES / 2)
		return -ENOBUFS;
	if (cap == writer.cap)
		return 0;
	p = realloc(writer.fill, cap);
	if (!p)
		return -ENOMEM;
	writer.fill = p;
	writer.cap = cap;
	return 0;
}

static void emit(const char *text, size_t n)
{
	pthread_mutex_lock(&writer.lock);
	if (!writer.running) {
		pthread_mutex_unlock(&writer.lock);
		write_all(STDERR_FILENO, text, n);
		return;
	}
	if (reserve(n)) {
		writer.lost++;
	} else {
		memcpy(writer.fill + writer.len, text, n);
		if (!writer.len)
			pthread_cond_signal(&writer.wake);
		writer.len += n;
	}
	pthread_mutex_unlock(&writer.lock);
}

uint64_t log_lost(void)
{
	pthread_mutex_lock(&writer.lock);
	uint64_t n = writer.lost;
	pthread_mutex_unlock(&writer.lock);
	return n;
}

/* --- lines ----------------------------------------------------------------------------------------- */

static void put(struct log_line *l, const char *s, size_t n)
{
	size_t room = LOG_LINE_MAX - 8 - l->len; /* 8: the tail that log_end() may add */

	if (n > room)
		n = room;
	memcpy(l->text + l->len, s, n);
	l->len += n;
}

static void puts_(struct log_line *l, const char *s)
{
	put(l, s, strlen(s));
}

static void put_quoted(struct log_line *l, const char *s)
{
	char hex[8];

	put(l, "\"", 1);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c == '"' || c == '\\') {
			put(l, "\\", 1);
			put(l, s, 1);
		} else if (c == '\n') {
			put(l, "\\n", 2);
		} else if (c < 0x20 || c == 0x7f) {
			snprintf(hex, sizeof hex, "\\u%04x", c);
			puts_(l, hex);
		} else {
			put(l, s, 1);
		}
	}
	put(l, "\"", 1);
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
	l->json = writer.json;
	l->len = 0;
	if (l->json) {
		puts_(l, "{\"level\":\"");
		puts_(l, level_names[level]);
		puts_(l, "\",\"time\":\"");
		put_time(l);
		puts_(l, "\",\"scope\":");
		put_quoted(l, target);
		puts_(l, ",\"message\":");
		put_quoted(l, message);
		return;
	}
	put_time(l);
	put(l, "\t", 1);
	puts_(l, level_names[level]);
	put(l, "\t", 1);
	puts_(l, target);
	put(l, "\t", 1);
	puts_(l, message);
}

static void put_key(struct log_line *l, const char *key, bool first)
{
	if (l->json) {
		put(l, ",", 1);
		put_quoted(l, key);
		put(l, ":", 1);
	} else {
		put(l, first ? "\t" : " ", 1);
		puts_(l, key);
		put(l, "=", 1);
	}
}

/* The first field is set off by a tab, the others by a space: the message holds no tab of its own. */
static bool first_field(const struct log_line *l)
{
	unsigned tabs = 0;

	for (size_t i = 0; i < l->len; i++)
		tabs += l->text[i] == '\t';
	return tabs == 3;
}

void log_str(struct log_line *l, const char *key, const char *value)
{
	if (!value)
		return;
	put_key(l, key, !l->json && first_field(l));
	put_quoted(l, value);
}

void log_bare(struct log_line *l, const char *key, const char *value)
{
	if (!value)
		return;
	put_key(l, key, !l->json && first_field(l));
	if (l->json)
		put_quoted(l, value);
	else
		puts_(l, value);
}

void log_u64(struct log_line *l, const char *key, uint64_t value)
{
	char num[24];

	snprintf(num, sizeof num, "%llu", (unsigned long long)value);
	put_key(l, key, !l->json && first_field(l));
	puts_(l, num);
}

void log_end(struct log_line *l)
{
	if (l->len >= LOG_LINE_MAX - 8) {
		memcpy(l->text + l->len, "...", 3);
		l->len += 3;
	}
	if (l->json)
		l->text[l->len++] = '}';
	l->text[l->len++] = '\n';
	emit(l->text, l->len);
}

void log_msg(enum log_level level, const char *target, const char *fmt, ...)
{
	char message[LOG_LINE_MAX / 2];
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
