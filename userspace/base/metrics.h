/* SPDX-License-Identifier: Apache-2.0 */
/* Counters, gauges and histograms, and their OpenMetrics text. Families are registered at start, in the order in which
 * they are to be written; samples come and go by label set. Updating a sample is one atomic add. Thread-safe. To add a
 * metric: one family where it is owned, one metric_get() where it is counted. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

enum {
	METRIC_LABELS_MAX = 32,
	METRIC_BOUNDS_MAX = 16,
	METRIC_SAMPLES_MAX = 65536, /* per family; beyond it all new label sets share one sample, which is counted */
	METRIC_IDLE_MAX = 8192,	    /* per family, samples that nobody holds; then the longest idle one is dropped */
	METRIC_IDLE_KEPT = 1024, /* of them these stay, so that what happens once a day is seen to grow; of the rest */
	METRIC_IDLE_S = 3600,	 /* who is idle for so long is dropped: most are of pods that have gone */
};

struct metric_family;
struct metric; /* one sample; reference-counted, so that unused label sets can be dropped */

/* `name` without "_total", `help` without the full stop, `labels`: NULL-terminated names; `bounds`: histogram
 * bounds in seconds, ended by a negative one. All must be static. NULL: no memory. */
struct metric_family *metric_family(enum metric_type type, const char *name, const char *help,
				    const char *const *labels, const double *bounds);
/* Values in the order of the names; a NULL value leaves its label out. NULL only when out of memory (or `f`
 * is NULL); NULL may be passed to the functions below. */
struct metric *metric_get(struct metric_family *f, const char *const *values);
/* The sample of `f` with the labels of `like`, a sample of a family with the same names; they share the
 * memory. */
struct metric *metric_get_like(struct metric_family *f, const struct metric *like);
/* For those who keep samples in a table of their own. */
uint64_t metric_hash(const char *const *values, unsigned n);
bool metric_has(const struct metric *m, const char *const *values);
void metric_put(struct metric *m);
void metric_add(struct metric *m, int64_t n);
void metric_set(struct metric *m, int64_t v);
void metric_observe(struct metric *m, double seconds);
/* A family of one sample without labels whose value is asked for when it is scraped, on the scraper's thread.
 * `f` may be NULL. As ztunnel's process metrics, its help text gets no full stop. */
void metric_callback(struct metric_family *f, double (*value)(void *arg), void *arg);

/* How often a label set had to share the sample of METRIC_SAMPLES_MAX. */
uint64_t metrics_overflows(void);
/* The exposition, ended by "# EOF\n"; malloc'ed, the caller frees. NULL: no memory. `plain`: for who does not know
 * OpenMetrics, a counter is described under the name that its samples have. */
char *metrics_text(size_t *len, bool plain);
/* For tests: forget everything. */
void metrics_reset(void);
