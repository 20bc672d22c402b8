/* SPDX-License-Identifier: Apache-2.0 */
/* The exposition, byte for byte, and what becomes of samples that nobody holds. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/metrics.h"
#include "clock.h"

static const char *const one_label[] = {"reporter", NULL};
static const char *const two_labels[] = {"a", "b", NULL};
static const double bounds[] = {0.0005, 0.1, 1, -1};

static void assert_text(const char *name, const char *want)
{
	size_t len = 0;
	char *got = metrics_text(&len, false);

	assert_non_null(got);
	if (strcmp(got, want) || len != strlen(want))
		fail_msg("%s: wrote\n%s", name, got);
	free(got);
}

static int reset(void **state)
{
	metrics_reset();
	return 0;
}

static double seven(void *arg)
{
	return *(double *)arg;
}

/* One family with one sample: values and what is written between HELP and EOF. */
static const struct {
	const char *name;
	enum metric_type type;
	const char *values[2];
	int64_t value;
	const char *want;
} samples[] = {
	{"counter", METRIC_COUNTER, {"x", "y"}, 3, "# TYPE f counter\nf_total{a=\"x\",b=\"y\"} 3\n"},
	{"gauge", METRIC_GAUGE, {"x", "y"}, -3, "# TYPE f gauge\nf{a=\"x\",b=\"y\"} -3\n"},
	{"large",
	 METRIC_COUNTER,
	 {"x", "y"},
	 INT64_MAX,
	 "# TYPE f counter\nf_total{a=\"x\",b=\"y\"} 9223372036854775807\n"},
	{"empty value", METRIC_GAUGE, {"", "y"}, 1, "# TYPE f gauge\nf{a=\"\",b=\"y\"} 1\n"},
	{"first label left out", METRIC_GAUGE, {NULL, "y"}, 1, "# TYPE f gauge\nf{b=\"y\"} 1\n"},
	{"all labels left out", METRIC_GAUGE, {NULL, NULL}, 1, "# TYPE f gauge\nf 1\n"},
	{"escapes", METRIC_GAUGE, {"q\"b\\n\n", "="}, 1, "# TYPE f gauge\nf{a=\"q\\\"b\\\\n\\n\",b=\"=\"} 1\n"},
	{"utf-8", METRIC_GAUGE, {"\xc3\xa4", "-"}, 1, "# TYPE f gauge\nf{a=\"\xc3\xa4\",b=\"-\"} 1\n"},
};

static void test_samples(void **state)
{
	for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
		struct metric_family *f = metric_family(samples[i].type, "f", "help", two_labels, NULL);
		struct metric *m = metric_get(f, samples[i].values);
		char want[256];

		metric_add(m, samples[i].value);
		snprintf(want, sizeof want, "# HELP f help.\n%s# EOF\n", samples[i].want);
		assert_text(samples[i].name, want);
		metric_put(m);
		metrics_reset();
	}
}

static void test_order_and_omission(void **state)
{
	static double value = 7, cpu = 0.25, large = 1790000000;
	struct metric_family *f[5];
	struct metric *m;

	f[0] = metric_family(METRIC_GAUGE, "process_x", "Asked for", NULL, NULL);
	f[1] = metric_family(METRIC_COUNTER, "process_cpu_seconds", "Asked for", NULL, NULL);
	f[2] = metric_family(METRIC_COUNTER, "without_samples", "Nothing", NULL, NULL);
	f[3] = metric_family(METRIC_GAUGE, "z", "Z", NULL, NULL);
	f[4] = metric_family(METRIC_GAUGE, "start", "Asked for", NULL, NULL);
	metric_callback(f[0], seven, &value);
	metric_callback(f[1], seven, &cpu);
	metric_callback(f[4], seven, &large);
	m = metric_get(f[3], NULL);
	metric_set(m, 5);
	assert_text("order", "# HELP process_x Asked for\n# TYPE process_x gauge\nprocess_x 7\n"
			     "# HELP process_cpu_seconds Asked for\n# TYPE process_cpu_seconds counter\n"
			     "process_cpu_seconds_total 0.25\n"
			     "# HELP z Z.\n# TYPE z gauge\nz 5\n"
			     "# HELP start Asked for\n# TYPE start gauge\nstart 1790000000\n# EOF\n");
	metric_put(m);
}

/* Who does not know OpenMetrics takes a sample whose name is not the family's for one that nobody has described. */
static void test_plain(void **state)
{
	struct metric_family *c = metric_family(METRIC_COUNTER, "c", "C", NULL, NULL),
			     *asked = metric_family(METRIC_COUNTER, "a", "Asked for", NULL, NULL),
			     *g = metric_family(METRIC_GAUGE, "g", "G", NULL, NULL);
	struct metric *one = metric_get(c, NULL), *two = metric_get(g, NULL);
	double value = 7;
	size_t len;
	char *text;

	metric_callback(asked, seven, &value);
	metric_add(one, 3);
	metric_set(two, 4);
	text = metrics_text(&len, true);
	assert_string_equal(text, "# HELP c_total C.\n# TYPE c_total counter\nc_total 3\n"
				  "# HELP a_total Asked for\n# TYPE a_total counter\na_total 7\n"
				  "# HELP g G.\n# TYPE g gauge\ng 4\n# EOF\n");
	free(text);
	metric_put(one);
	metric_put(two);
}

static void test_histogram(void **state)
{
	static const double seen[] = {0.0001, 0.0005, 0.05, 0.5, 2};
	struct metric_family *f = metric_family(METRIC_HISTOGRAM, "t_seconds", "T", one_label, bounds);
	const char *value = "x";
	struct metric *m = metric_get(f, &value);

	for (size_t i = 0; i < sizeof seen / sizeof *seen; i++)
		metric_observe(m, seen[i]);
	assert_text("histogram", "# HELP t_seconds T.\n# TYPE t_seconds histogram\n"
				 "t_seconds_sum{reporter=\"x\"} 2.5506\n"
				 "t_seconds_count{reporter=\"x\"} 5\n"
				 "t_seconds_bucket{le=\"0.0005\",reporter=\"x\"} 2\n"
				 "t_seconds_bucket{le=\"0.1\",reporter=\"x\"} 3\n"
				 "t_seconds_bucket{le=\"1.0\",reporter=\"x\"} 4\n"
				 "t_seconds_bucket{le=\"+Inf\",reporter=\"x\"} 5\n# EOF\n");
	metric_put(m);
}

static void test_same_labels_same_sample(void **state)
{
	static const char *const xy[] = {"x", "y"}, *const xyz[] = {"x", "yz"}, *const x_[] = {"x", NULL},
				 *const xe[] = {"x", ""};
	struct metric_family *f = metric_family(METRIC_COUNTER, "f", "F", two_labels, NULL);
	struct metric_family *g = metric_family(METRIC_COUNTER, "g", "G", two_labels, NULL);
	struct metric *a = metric_get(f, xy), *b = metric_get(f, xy), *like = metric_get_like(g, a);

	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, metric_get(f, xyz));
	assert_ptr_not_equal(metric_get(f, x_), metric_get(f, xe));
	assert_ptr_equal(like, metric_get(g, xy));
	assert_true(metric_has(like, xy));
	assert_false(metric_has(like, xe));
	assert_false(metric_has(metric_get(f, x_), xe));
	assert_null(metric_get(NULL, xy));
	assert_null(metric_get_like(NULL, a));
	assert_null(metric_get_like(g, NULL));
	metric_add(NULL, 1);
	metric_set(NULL, 1);
	metric_observe(NULL, 1);
	metric_put(NULL);
	metric_callback(NULL, seven, NULL);
}

static struct metric *numbered(struct metric_family *f, unsigned i)
{
	char text[16];
	const char *value = text;

	snprintf(text, sizeof text, "%u", i);
	return metric_get(f, &value);
}

static void test_idle_samples(void **state)
{
	struct metric_family *f = metric_family(METRIC_GAUGE, "f", "F", one_label, NULL);
	struct metric *held = numbered(f, 0), *m;
	size_t len;
	char *text;

	for (unsigned i = 1; i <= METRIC_IDLE_MAX; i++) {
		m = numbered(f, i);
		metric_set(m, i);
		metric_put(m);
	}
	/* Used again: 2 is now the longest idle one, 1 the shortest. */
	metric_put(numbered(f, 1));
	metric_put(numbered(f, METRIC_IDLE_MAX + 1));
	text = metrics_text(&len, false);
	assert_non_null(strstr(text, "{reporter=\"0\"} 0\n"));
	assert_non_null(strstr(text, "{reporter=\"1\"} 1\n"));
	assert_null(strstr(text, "{reporter=\"2\"}"));
	assert_non_null(strstr(text, "{reporter=\"3\"} 3\n"));
	assert_non_null(strstr(text, "{reporter=\"8193\"} 0\n"));
	free(text);
	metric_put(held);
}

static bool is_there(unsigned i)
{
	char want[32];
	size_t len;
	char *text = metrics_text(&len, false);
	bool there;

	snprintf(want, sizeof want, "{reporter=\"%u\"}", i);
	there = strstr(text, want) != NULL;
	free(text);
	return there;
}

/* 0 is held, 1 to METRIC_IDLE_KEPT are not, and some more. */
static void test_long_idle_samples(void **state)
{
	enum { MORE = 3, FIRST = METRIC_IDLE_KEPT + MORE + 1 };
	struct metric_family *f = metric_family(METRIC_GAUGE, "f", "F", one_label, NULL);
	struct metric *held = numbered(f, 0);

	for (unsigned i = 1; i < FIRST; i++)
		metric_put(numbered(f, i));
	clock_ahead_ms = (METRIC_IDLE_S - 1) * 1000ull;
	metric_put(numbered(f, FIRST));
	assert_true(is_there(1));
	metric_put(numbered(f, 2)); /* used again */
	clock_ahead_ms = (METRIC_IDLE_S + 1) * 1000ull;
	for (unsigned i = 0; i < MORE; i++)
		metric_put(numbered(f, FIRST));
	/* As many as may stay, and the one that is held. */
	assert_false(is_there(1) || is_there(3) || is_there(4) || is_there(5));
	assert_true(is_there(0) && is_there(2) && is_there(6) && is_there(FIRST));
	metric_put(held);
	clock_ahead_ms = 0;
}

/* A scrape has every 129th sample in its hand while it lets others pass. 0 to 127 are held, 128 is the longest idle. */
static void test_scrapes_are_no_use(void **state)
{
	enum { HELD = 128, LAST = HELD + METRIC_IDLE_KEPT + 1 };
	struct metric_family *f = metric_family(METRIC_GAUGE, "f", "F", one_label, NULL);

	for (unsigned i = 0; i < HELD; i++)
		numbered(f, i);
	for (unsigned i = HELD; i < LAST; i++)
		metric_put(numbered(f, i));
	clock_ahead_ms = (METRIC_IDLE_S - 1) * 1000ull;
	assert_true(is_there(HELD));
	clock_ahead_ms = (METRIC_IDLE_S + 1) * 1000ull;
	metric_put(numbered(f, LAST - 1));
	assert_false(is_there(HELD));
	assert_true(is_there(HELD + 1));
	clock_ahead_ms = 0;
}

static void test_overflow(void **state)
{
	struct metric_family *f = metric_family(METRIC_GAUGE, "f", "F", one_label, NULL);
	struct metric *a, *b;

	for (unsigned i = 0; i < METRIC_SAMPLES_MAX - 1; i++)
		assert_non_null(numbered(f, i));
	/* One idle sample makes room; then there is none. */
	metric_put(numbered(f, METRIC_SAMPLES_MAX));
	assert_non_null(numbered(f, METRIC_SAMPLES_MAX + 1));
	assert_int_equal(metrics_overflows(), 0);
	a = numbered(f, METRIC_SAMPLES_MAX + 2);
	b = numbered(f, METRIC_SAMPLES_MAX + 3);
	assert_non_null(a);
	assert_ptr_equal(a, b);
	assert_int_equal(metrics_overflows(), 2);
	assert_ptr_equal(numbered(f, 5), numbered(f, 5));
	assert_int_equal(metrics_overflows(), 2);
}

static struct metric_family *shared;

static void *count(void *arg)
{
	for (unsigned i = 0; i < 20000; i++) {
		struct metric *m = numbered(shared, i % 1000);

		metric_add(m, 1);
		metric_put(m);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t thread[4];
	int64_t total = 0;
	size_t len;
	char *text;

	shared = metric_family(METRIC_COUNTER, "f", "F", one_label, NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count, NULL), 0);
	for (unsigned i = 0; i < 20; i++)
		free(metrics_text(&len, false));
	for (unsigned i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	text = metrics_text(&len, false);
	for (char *p = text; (p = strstr(p, "\"} ")); p++)
		total += atoi(p + 3);
	free(text);
	assert_int_equal(total, 80000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_samples, reset),
		cmocka_unit_test_teardown(test_order_and_omission, reset),
		cmocka_unit_test_teardown(test_plain, reset),
		cmocka_unit_test_teardown(test_histogram, reset),
		cmocka_unit_test_teardown(test_same_labels_same_sample, reset),
		cmocka_unit_test_teardown(test_idle_samples, reset),
		cmocka_unit_test_teardown(test_long_idle_samples, reset),
		cmocka_unit_test_teardown(test_scrapes_are_no_use, reset),
		cmocka_unit_test_teardown(test_overflow, reset),
		cmocka_unit_test_teardown(test_threads, reset),
	};
	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
