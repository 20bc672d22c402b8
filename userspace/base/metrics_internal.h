/* SPDX-License-Identifier: Apache-2.0 */
/* What metrics.c (the registry), metrics_labels.c (label sets) and metrics_text.c (the exposition) share. Private to
 * base/. */
#pragma once
#include "base/list.h"
#include "base/metrics.h"

/* Histograms add seconds up as whole nanoseconds: one atomic, no rounding that grows. */
#define METRIC_SUM_SCALE 1e9

struct label_set { /* shared by the samples of several families; under the lock */
	unsigned refs;
	uint64_t hash;
	char text[]; /* of metrics_labels.c */
};

struct metric {
	struct list link; /* of the family, in order of creation */
	struct list idle; /* of the family, while nobody holds the sample */
	struct metric *next;
	struct metric_family *family;
	struct label_set *labels;
	unsigned refs, scrapers; /* a scrape, where it goes on, is no use; it only keeps the sample from being freed */
	unsigned idle_since;	 /* seconds */
	int64_t value;		 /* histogram: the sum */
	uint64_t count[];	 /* histogram: per bound, and above all of them */
};

struct metric_family {
	struct list link, samples, idle;
	enum metric_type type;
	const char *name, *help;
	const char *const *labels;
	const double *bounds;
	unsigned n_labels, n_bounds, n_samples, n_idle, n_buckets;
	struct metric **bucket;
	double (*value)(void *arg);
	void *arg;
};

void metrics_lock(void);
void metrics_unlock(void);
/* All below: under the lock. Families are never removed (but by metrics_reset()). */
struct list *metrics_families(void);

/* One reference; that of the last one frees it. NULL: no memory. */
struct label_set *label_set_new(const char *const *values, unsigned n, uint64_t hash);
void label_set_unref(struct label_set *s); /* takes NULL */
/* Borrowed; NULL: the label is left out. */
void label_set_values(const struct label_set *s, const char **values, unsigned n);
bool label_set_has(const struct label_set *s, const char *const *values, unsigned n);
