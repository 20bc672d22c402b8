/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the levels by target: reading and writing the filter, and the test that each log statement makes. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log_internal.h"

enum {
	RULES_MAX = 32,
	TARGET_MAX = 48,
};

struct rule {
	char target[TARGET_MAX];
	enum log_level level;
};

struct rules {
	enum log_level base;
	unsigned n;
	struct rule rule[RULES_MAX];
};

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct rules rules = {.base = LOG_INFO};
static enum log_level most = LOG_INFO; /* the most verbose level of any rule: the cheap test */

static const char *const level_names[] = {"off", "error", "warn", "info", "debug", "trace"};

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

/* Istio's too. */
int log_level_parse(const char *s, size_t len, enum log_level *out)
{
	if (len == 4 && strncasecmp(s, "none", len) == 0) {
		*out = LOG_OFF;
		return 0;
	}
	if (len == 5 && strncasecmp(s, "fatal", len) == 0) {
		*out = LOG_ERROR;
		return 0;
	}
	for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
		if (strlen(level_names[i]) == len && strncasecmp(level_names[i], s, len) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	return -EINVAL;
}

/* The rule of this target; a new one where there is none. NULL: too many. */
static struct rule *rule_of(struct rules *r, const char *target, size_t len)
{
	struct rule *new = r->n < RULES_MAX ? &r->rule[r->n] : NULL;

	for (unsigned i = 0; i < r->n; i++)
		if (strncmp(r->rule[i].target, target, len) == 0 && !r->rule[i].target[len])
			return &r->rule[i];
	if (new) {
		memcpy(new->target, target, len);
		new->target[len] = 0;
		r->n++;
	}
	return new;
}

/* A target may have colons, but where there is no "=" the one is Istio's SCOPE:LEVEL. */
static const char *entry_sign(const char *entry, size_t len)
{
	const char *sign = memchr(entry, '=', len);

	return sign ? sign : memchr(entry, ':', len);
}

static bool is_all(const char *target, size_t len)
{
	return (len == 7 && !strncmp(target, "default", len)) || (len == 3 && !strncmp(target, "all", len));
}

size_t log_entry_target(const char *entry, size_t len)
{
	const char *sign = entry_sign(entry, len);
	size_t n = sign ? (size_t)(sign - entry) : 0;

	return sign && *sign == ':' && is_all(entry, n) ? 0 : n;
}

static int rule_parse(struct rules *r, const char *s, size_t len)
{
	const char *eq = entry_sign(s, len);
	size_t n = log_entry_target(s, len);
	struct rule *rule;

	if (eq && *eq == ':' && !n)
		return eq == s ? -EINVAL : log_level_parse(eq + 1, len - (size_t)(eq - s) - 1, &r->base);
	if (!eq)
		return log_level_parse(s, len, &r->base);
	if (!n || n >= TARGET_MAX)
		return -EINVAL;
	rule = rule_of(r, s, n);
	return rule ? log_level_parse(eq + 1, len - n - 1, &rule->level) : -EINVAL;
}

static int rules_parse(struct rules *r, const char *spec)
{
	size_t len;

	for (; *spec; spec += len) {
		len = strcspn(spec, ",");
		if (rule_parse(r, spec, len))
			return -EINVAL;
		if (spec[len] && !spec[++len])
			return -EINVAL;
	}
	return 0;
}

/* Of the text that log_filter() writes. */
static size_t text_size(const struct rules *r)
{
	size_t n = strlen(level_names[r->base]) + 1;

	for (unsigned i = 0; i < r->n; i++)
		n += strlen(r->rule[i].target) + strlen(level_names[r->rule[i].level]) + 2;
	return n;
}

int log_set_filter(const char *spec)
{
	struct rules r = {.base = LOG_INFO};
	enum log_level max;

	if (rules_parse(&r, spec) || text_size(&r) > LOG_SPEC_MAX)
		return -EINVAL;
	max = r.base;
	for (unsigned i = 0; i < r.n; i++)
		if (r.rule[i].level > max)
			max = r.rule[i].level;
	log_filter_lock();
	rules = r;
	__atomic_store_n(&most, max, __ATOMIC_RELAXED);
	log_filter_unlock();
	return 0;
}

const char *log_filter(char buf[LOG_SPEC_MAX])
{
	size_t len = 0;

	pthread_rwlock_rdlock(&lock);
	for (unsigned i = 0; i < rules.n; i++)
		len += (size_t)snprintf(buf + len, LOG_SPEC_MAX - len, "%s=%s,", rules.rule[i].target,
					level_names[rules.rule[i].level]);
	snprintf(buf + len, LOG_SPEC_MAX - len, "%s", level_names[rules.base]);
	pthread_rwlock_unlock(&lock);
	return buf;
}

/* Whose lines a filter written for ztunnel means, by ztunnel's modules. "access", "dns" and "state" are targets there too. */
static const struct {
	const char *target, *module;
} modules[] = {
	{"ca", "ztunnel::identity"}, {"certs", "ztunnel::identity"}, {"crl", "ztunnel::tls::crl"},
	{"dns", "ztunnel::dns"},     {"drain", "ztunnel::proxy"},    {"http", "ztunnel::admin"},
	{"local", "ztunnel::xds"},   {"pods", "ztunnel::inpod"},     {"state", "ztunnel::state"},
	{"tunnel", "ztunnel::app"},  {"worker", "ztunnel::proxy"},   {"xds", "ztunnel::xds"},
	{"zds", "ztunnel::inpod"},
};

static const char *module_of(const char *target)
{
	for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
		if (!strcmp(modules[i].target, target))
			return modules[i].module;
	return target;
}

static bool target_matches(const char *rule, size_t n, const char *target)
{
	return strncmp(rule, target, n) == 0 && (target[n] == 0 || target[n] == ':' || target[n] == '.');
}

bool log_enabled(enum log_level level, const char *target)
{
	const char *module;
	enum log_level at;
	size_t best = 0; /* what names the target itself counts more than any module */

	if (level > __atomic_load_n(&most, __ATOMIC_RELAXED))
		return false;
	module = module_of(target);
	pthread_rwlock_rdlock(&lock);
	at = rules.base;
	for (unsigned i = 0; i < rules.n; i++) {
		const char *rule = rules.rule[i].target;
		size_t n = strlen(rule), rank = 0;
		if (target_matches(rule, n, target))
			rank = n + TARGET_MAX;
		else if (target_matches(rule, n, module))
			rank = n;
		if (rank > best) {
			best = rank;
			at = rules.rule[i].level;
		}
	}
	pthread_rwlock_unlock(&lock);
	return level <= at;
}

void log_filter_lock(void)
{
	pthread_rwlock_wrlock(&lock);
}

void log_filter_unlock(void)
{
	pthread_rwlock_unlock(&lock);
}

void log_filter_renew_lock(void)
{
	pthread_rwlock_init(&lock, NULL);
}
