// SPDX-License-Identifier: Apache-2.0
/* Owns the registry of metrics: families in the order of their registration, samples by label set.
 *
 * One mutex guards the registry; values are atomics outside it. A sample that nobody holds stays, since a
 * scrape must still find it: it becomes idle, and the longest idle one is dropped at METRIC_IDLE_MAX, or beyond
 * METRIC_IDLE_KEPT after METRIC_IDLE_S. */
#include "base/metrics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/metrics_internal.h"
#include "base/monotonic.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list families = {&families, &families};
static uint64_t overflows;

void metrics_lock(void)
{
	pthread_mutex_lock(&lock);
}

void metrics_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

struct list *metrics_families(void)
{
	return &families;
}

/* --- families ------------------------------------------------------------------------------------------- */

struct metric_family *metric_family(enum metric_type type, const char *name, const char *help,
				    const char *const *labels, const double *bounds)
{
	struct metric_family *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->type = type;
	f->name = name;
	f->help = help;
	f->labels = labels;
	f->bounds = bounds;
	while (labels && f->n_labels < METRIC_LABELS_MAX && labels[f->n_labels])
		f->n_labels++;
	while (bounds && f->n_bounds < METRIC_BOUNDS_MAX && bounds[f->n_bounds] >= 0)
		f->n_bounds++;
	list_init(&f->samples);
	list_init(&f->idle);
	metrics_lock();
	list_add_tail(&families, &f->link);
	metrics_unlock();
	return f;
}

void metric_callback(struct metric_family *f, double (*value)(void *arg), void *arg)
{
	if (!f)
		return;
	metrics_lock();
	f->arg = arg;
	f->value = value;
	metrics_unlock();
}

/* --- samples -------------------------------------------------------------------------------------------- */

static struct metric **bucket_of(struct metric_family *f, uint64_t hash)
{
	return &f->bucket[hash & (f->n_buckets - 1)];
}

/* Keeps about one sample a bucket; without memory the chains just get longer. */
static void table_grow(struct metric_family *f)
{
	unsigned n = f->n_buckets ? f->n_buckets * 2 : 1;
	struct metric **bucket;

	if (f->n_samples < f->n_buckets)
		return;
	bucket = calloc(n, sizeof *bucket);
	if (!bucket)
		return;
	free(f->bucket);
	f->bucket = bucket;
	f->n_buckets = n;
	list_for_each (pos, &f->samples) {
		struct metric *m = list_entry(pos, struct metric, link), **b = bucket_of(f, m->labels->hash);

		m->next = *b;
		*b = m;
	}
}

static void sample_free(struct metric *m)
{
	struct metric_family *f = m->family;
	struct metric **p = bucket_of(f, m->labels->hash);

	while (*p != m)
		p = &(*p)->next;
	*p = m->next;
	list_del(&m->link);
	list_del(&m->idle);
	f->n_samples--;
	label_set_unref(m->labels);
	free(m);
}

static struct metric *sample_hold(struct metric *m)
{
	if (m->refs++ == 0 && !list_empty(&m->idle)) {
		list_del(&m->idle);
		m->family->n_idle--;
	}
	return m;
}

/* NULL: there is none that may go. */
static struct metric *longest_idle(const struct metric_family *f)
{
	list_for_each (pos, &f->idle) {
		struct metric *m = list_entry(pos, struct metric, idle);

		if (!m->scrapers)
			return m;
	}
	return NULL;
}

static void idle_free(struct metric *m)
{
	m->family->n_idle--;
	sample_free(m);
}

static bool is_too_many(const struct metric *longest, unsigned now)
{
	const struct metric_family *f = longest->family;

	return f->n_idle > METRIC_IDLE_MAX ||
	       (f->n_idle > METRIC_IDLE_KEPT && now - longest->idle_since >= METRIC_IDLE_S);
}

/* Two go for one that comes: they become fewer, and nobody waits for it. */
static void sample_drop(struct metric *m)
{
	struct metric_family *f = m->family;
	unsigned now;

	if (--m->refs)
		return;
	now = m->idle_since = (unsigned)(monotonic_ms() / 1000);
	list_add_tail(&f->idle, &m->idle);
	f->n_idle++;
	for (unsigned i = 0; i < 2; i++) {
		struct metric *longest = longest_idle(f);

		if (!longest || !is_too_many(longest, now))
			return;
		idle_free(longest);
	}
}

/* Takes `set` over. */
static struct metric *sample_new(struct metric_family *f, struct label_set *set)
{
	size_t counts = f->type == METRIC_HISTOGRAM ? f->n_bounds + 1 : 0;
	struct metric *m = set ? calloc(1, sizeof *m + counts * sizeof *m->count) : NULL;

	table_grow(f);
	if (!m || !f->n_buckets) {
		label_set_unref(set);
		free(m);
		return NULL;
	}
	m->family = f;
	m->labels = set;
	m->next = *bucket_of(f, set->hash);
	*bucket_of(f, set->hash) = m;
	list_add_tail(&f->samples, &m->link);
	list_init(&m->idle);
	f->n_samples++;
	return m;
}

static struct metric *sample_find(struct metric_family *f, const char *const *values, uint64_t hash)
{
	struct metric *m = f->n_buckets ? *bucket_of(f, hash) : NULL;

	while (m && (m->labels->hash != hash || !label_set_has(m->labels, values, f->n_labels)))
		m = m->next;
	return m;
}

bool metric_has(const struct metric *m, const char *const *values)
{
	return label_set_has(m->labels, values, m->family->n_labels);
}

/* Room for one more: free, or the longest idle one's. */
static bool has_room(struct metric_family *f)
{
	struct metric *longest = f->n_samples >= METRIC_SAMPLES_MAX ? longest_idle(f) : NULL;

	if (longest)
		idle_free(longest);
	return f->n_samples < METRIC_SAMPLES_MAX;
}

static struct metric *sample_overflow(struct metric_family *f)
{
	const char *other[METRIC_LABELS_MAX];
	struct metric *m;
	uint64_t hash;

	for (unsigned i = 0; i < f->n_labels; i++)
		other[i] = "other";
	hash = metric_hash(other, f->n_labels);
	overflows++;
	m = sample_find(f, other, hash);
	return m ? m : sample_new(f, label_set_new(other, f->n_labels, hash));
}

/* `values` may be those of `like`'s label set, which is shared then. */
static struct metric *sample_get(struct metric_family *f, const char *const *values, uint64_t hash,
				 struct label_set *like)
{
	struct metric *m = sample_find(f, values, hash);

	if (!m && !has_room(f)) {
		m = sample_overflow(f);
	} else if (!m) {
		if (like)
			like->refs++;
		m = sample_new(f, like ? like : label_set_new(values, f->n_labels, hash));
	}
	return m ? sample_hold(m) : NULL;
}

struct metric *metric_get(struct metric_family *f, const char *const *values)
{
	struct metric *m;
	uint64_t hash;

	if (!f)
		return NULL;
	hash = metric_hash(values, f->n_labels);
	metrics_lock();
	m = sample_get(f, values, hash, NULL);
	metrics_unlock();
	return m;
}

struct metric *metric_get_like(struct metric_family *f, const struct metric *like)
{
	const char *values[METRIC_LABELS_MAX];
	struct metric *m;

	if (!f || !like)
		return NULL;
	label_set_values(like->labels, values, f->n_labels);
	metrics_lock();
	m = sample_get(f, values, like->labels->hash, like->labels);
	metrics_unlock();
	return m;
}

void metric_put(struct metric *m)
{
	if (!m)
		return;
	metrics_lock();
	sample_drop(m);
	metrics_unlock();
}

/* --- values --------------------------------------------------------------------------------------------- */

void metric_add(struct metric *m, int64_t n)
{
	if (m)
		__atomic_fetch_add(&m->value, n, __ATOMIC_RELAXED);
}

void metric_set(struct metric *m, int64_t v)
{
	if (m)
		__atomic_store_n(&m->value, v, __ATOMIC_RELAXED);
}

void metric_observe(struct metric *m, double seconds)
{
	unsigned i = 0;

	if (!m || m->family->type != METRIC_HISTOGRAM)
		return;
	while (i < m->family->n_bounds && seconds > m->family->bounds[i])
		i++;
	__atomic_fetch_add(&m->count[i], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&m->value, (int64_t)(seconds * METRIC_SUM_SCALE), __ATOMIC_RELAXED);
}

uint64_t metrics_overflows(void)
{
	uint64_t n;

	metrics_lock();
	n = overflows;
	metrics_unlock();
	return n;
}

void metrics_reset(void)
{
	metrics_lock();
	while (!list_empty(&families)) {
		struct metric_family *f = list_entry(families.next, struct metric_family, link);

		while (!list_empty(&f->samples))
			sample_free(list_entry(f->samples.next, struct metric, link));
		list_del(&f->link);
		free(f->bucket);
		free(f);
	}
	overflows = 0;
	metrics_unlock();
}
