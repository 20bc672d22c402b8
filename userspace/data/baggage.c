// SPDX-License-Identifier: Apache-2.0
/* Reads and writes the baggage header. One table names the attributes that both directions know. */
#include "data/baggage.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct baggage, field)
static const struct attribute {
	const char *key;
	size_t at;
} attributes[] = {
	{"k8s.cluster.name", AT(cluster)},     {"k8s.namespace.name", AT(ns)},	 {"k8s.deployment.name", AT(workload)},
	{"k8s.cronjob.name", AT(workload)},    {"k8s.pod.name", AT(workload)},	 {"k8s.job.name", AT(workload)},
	{"service.name", AT(service)},	       {"service.version", AT(version)}, {"cloud.region", AT(region)},
	{"cloud.availability_zone", AT(zone)},
};

struct slice {
	const char *p;
	size_t len;
};

static struct slice trimmed(const char *p, size_t len)
{
	while (len && (*p == ' ' || *p == '\t'))
		p++, len--;
	while (len && (p[len - 1] == ' ' || p[len - 1] == '\t'))
		len--;
	return (struct slice){p, len};
}

/* key=value, with properties after a semicolon that nobody uses. */
static void entry_read(struct baggage *out, const char *p, size_t len)
{
	const char *eq = memchr(p, '=', len), *semicolon = memchr(p, ';', len), *end = p + len;
	struct slice key, value;

	if (semicolon)
		end = semicolon;
	if (!eq || eq > end)
		return;
	key = trimmed(p, (size_t)(eq - p));
	value = trimmed(eq + 1, (size_t)(end - eq - 1));
	if (value.len > BAGGAGE_VALUE_MAX)
		value = trimmed(value.p, BAGGAGE_VALUE_MAX); /* the cut may end in blanks */
	for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
		char *field = (char *)out + attributes[i].at;

		if (strlen(attributes[i].key) != key.len || memcmp(attributes[i].key, key.p, key.len))
			continue;
		memcpy(field, value.p, value.len);
		field[value.len] = '\0';
		return;
	}
}

static void clear(struct baggage *b)
{
	for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
		((char *)b)[attributes[i].at] = '\0';
}

static bool printable(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != '\t' && (p[i] < 0x20 || p[i] > 0x7e))
			return false;
	return true;
}

int baggage_parse(struct baggage *out, const char *p, size_t len)
{
	const char *end = p + len;

	clear(out);
	if (!printable(p, len))
		return -EINVAL;
	while (p < end) {
		const char *comma = memchr(p, ',', (size_t)(end - p)), *stop = comma ? comma : end;

		entry_read(out, p, (size_t)(stop - p));
		p = comma ? comma + 1 : end;
	}
	return 0;
}

/* A value with a separator in it would be read as something else at the other end. */
static bool can_carry(const char *value)
{
	return printable(value, strlen(value)) && !strpbrk(value, ",;");
}

static void append(char *buf, size_t len, size_t *n, const char *key, const char *value)
{
	int k;

	if (!*value || !can_carry(value))
		return;
	k = snprintf(buf + *n, len - *n, "%s%s=%s", *n ? "," : "", key, value);
	if (k > 0 && *n + (size_t)k < len)
		*n += (size_t)k;
	else
		buf[*n] = '\0';
}

size_t baggage_format(char *buf, size_t len, const struct workload *w)
{
	char type_key[64];
	size_t n = 0;

	if (!len)
		return 0;
	buf[0] = '\0';
	snprintf(type_key, sizeof type_key, "k8s.%s.name", w->workload_type);
	append(buf, len, &n, "k8s.cluster.name", w->cluster_id);
	append(buf, len, &n, "k8s.namespace.name", w->ns);
	if (*w->workload_type && can_carry(type_key) && !strpbrk(w->workload_type, "= "))
		append(buf, len, &n, type_key, w->workload_name);
	append(buf, len, &n, "service.name", w->canonical_name);
	append(buf, len, &n, "service.version", w->canonical_revision);
	append(buf, len, &n, "cloud.region", w->region);
	append(buf, len, &n, "cloud.availability_zone", w->zone);
	return n;
}
