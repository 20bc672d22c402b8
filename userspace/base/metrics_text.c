// SPDX-License-Identifier: Apache-2.0
/* Writes the registry as OpenMetrics text. The lock is let go between batches of samples, so that a scrape of
 * many delays nobody; the sample that comes next stays meanwhile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics_internal.h"

enum { BATCH = 128 };

struct out {
	char *p;
	size_t len, cap;
	bool failed, plain;
};

static void put(struct out *o, const char *s, size_t n)
{
	if (o->failed)
		return;
	if (o->len + n + 1 > o->cap) {
		size_t cap = (o->len + n + 1) * 2;
		char *p = realloc(o->p, cap);

		if (!p) {
			o->failed = true;
			return;
		}
		o->p = p;
		o->cap = cap;
	}
	memcpy(o->p + o->len, s, n);
	o->len += n;
	o->p[o->len] = '\0';
}

static void text(struct out *o, const char *s)
{
	put(o, s, strlen(s));
}

static void escaped(struct out *o, const char *s)
{
	while (*s) {
		size_t n = strcspn(s, "\"\\\n");

		put(o, s, n);
		s += n;
		if (*s) {
			put(o, *s == '"' ? "\\\"" : *s == '\\' ? "\\\\" : "\\n", 2);
			s++;
		}
	}
}

static void integer(struct out *o, int64_t v)
{
	char buf[24];

	snprintf(buf, sizeof buf, "%lld", (long long)v);
	text(o, buf);
}

/* The shortest text that reads back as the same number, with a point in it where OpenMetrics wants a float. */
static void number(struct out *o, double v, bool point)
{
	char buf[40];

	for (int digits = 1; digits <= 17; digits++) {
		snprintf(buf, sizeof buf, "%.*g", digits, v);
		if (strtod(buf, NULL) == v)
			break;
	}
	if (strchr(buf, 'e') && v > -1e15 && v < 1e15 && v == (double)(int64_t)v)
		snprintf(buf, sizeof buf, "%.0f", v);
	text(o, buf);
	if (point && !strpbrk(buf, ".en"))
		text(o, ".0");
}

static void labels(struct out *o, const struct metric *m, const char *le)
{
	const char *values[METRIC_LABELS_MAX], *comma = "{";

	label_set_values(m->labels, values, m->family->n_labels);
	if (le) {
		text(o, "{le=\"");
		text(o, le);
		text(o, "\"");
		comma = ",";
	}
	for (unsigned i = 0; i < m->family->n_labels; i++) {
		if (!values[i])
			continue;
		text(o, comma);
		text(o, m->family->labels[i]);
		text(o, "=\"");
		escaped(o, values[i]);
		text(o, "\"");
		comma = ",";
	}
	if (*comma == ',')
		text(o, "}");
	text(o, " ");
}

static void line(struct out *o, const struct metric *m, const char *suffix, const char *le, int64_t value)
{
	text(o, m->family->name);
	text(o, suffix);
	labels(o, m, le);
	integer(o, value);
	text(o, "\n");
}

static void histogram(struct out *o, const struct metric *m)
{
	const struct metric_family *f = m->family;
	uint64_t total = 0;

	text(o, f->name);
	text(o, "_sum");
	labels(o, m, NULL);
	number(o, (double)__atomic_load_n(&m->value, __ATOMIC_RELAXED) / METRIC_SUM_SCALE, true);
	text(o, "\n");
	for (unsigned i = 0; i <= f->n_bounds; i++)
		total += __atomic_load_n(&m->count[i], __ATOMIC_RELAXED);
	line(o, m, "_count", NULL, (int64_t)total);
	total = 0;
	for (unsigned i = 0; i <= f->n_bounds; i++) {
		struct out le = {0};

		total += __atomic_load_n(&m->count[i], __ATOMIC_RELAXED);
		if (i < f->n_bounds)
			number(&le, f->bounds[i], true);
		line(o, m, "_bucket", le.p ? le.p : "+Inf", (int64_t)total);
		free(le.p);
	}
}

static void sample(struct out *o, const struct metric *m)
{
	if (m->family->type == METRIC_HISTOGRAM)
		histogram(o, m);
	else
		line(o, m, m->family->type == METRIC_COUNTER ? "_total" : "", NULL,
		     __atomic_load_n(&m->value, __ATOMIC_RELAXED));
}

static void head(struct out *o, const struct metric_family *f)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};

	const char *suffix = o->plain && f->type == METRIC_COUNTER ? "_total " : " ";

	text(o, "# HELP ");
	text(o, f->name);
	text(o, suffix);
	text(o, f->help);
	text(o, f->value ? "\n# TYPE " : ".\n# TYPE ");
	text(o, f->name);
	text(o, suffix);
	text(o, types[f->type]);
	text(o, "\n");
}

/* Called and returns under the lock. */
static void samples(struct out *o, struct metric_family *f)
{
	struct list *pos = f->samples.next;

	for (unsigned n = 1; pos != &f->samples && !o->failed; n++) {
		sample(o, list_entry(pos, struct metric, link));
		pos = pos->next;
		if (n % BATCH == 0 && pos != &f->samples) {
			struct metric *next = list_entry(pos, struct metric, link);

			next->scrapers++;
			metrics_unlock();
			metrics_lock();
			next->scrapers--;
		}
	}
}

static void family(struct out *o, struct metric_family *f)
{
	if (f->value) {
		double v;

		metrics_unlock();
		v = f->value(f->arg);
		metrics_lock();
		head(o, f);
		text(o, f->name);
		text(o, f->type == METRIC_COUNTER ? "_total " : " ");
		number(o, v, false);
		text(o, "\n");
	} else if (!list_empty(&f->samples)) {
		head(o, f);
		samples(o, f);
	}
}

char *metrics_text(size_t *len, bool plain)
{
	struct out o = {.plain = plain};

	metrics_lock();
	list_for_each (pos, metrics_families())
		family(&o, list_entry(pos, struct metric_family, link));
	metrics_unlock();
	text(&o, "# EOF\n");
	if (o.failed) {
		free(o.p);
		return NULL;
	}
	*len = o.len;
	return o.p;
}
