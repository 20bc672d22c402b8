/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of net/resolve: what names become, and that a lookup that nobody waits for any more ends alone. */
#include "h2_rig.h"
#include "net/resolve.h"

struct answer {
	unsigned calls, n;
	struct endpoint at[RESOLVE_ADDRS_MAX];
	char why[128];
};

static void done(void *arg, const struct endpoint *at, unsigned n, const char *why)
{
	struct answer *a = arg;

	a->calls++;
	a->n = n;
	memcpy(a->at, at, n * sizeof *at);
	snprintf(a->why, sizeof a->why, "%s", why ? why : "");
}

static bool answered(void *arg)
{
	return ((struct answer *)arg)->calls;
}

static void test_names(void **state)
{
	static const struct {
		const char *host, *first; /* NULL: an error */
	} rows[] = {
		{"127.0.0.1", "127.0.0.1:4321"},
		{"192.0.2.1", "192.0.2.1:4321"},
		{"::1", "[::1]:4321"},
		{"localhost", NULL}, /* 127.0.0.1 or ::1: see below */
		{"", NULL},
		{"no such name", NULL},
		{"300.1.1.1.invalid", NULL},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		bool wants = rows[i].first || !strcmp(rows[i].host, "localhost");
		char text[ENDPOINT_STRLEN];
		struct answer a = {0};

		assert_non_null(resolve_new(rig_loop, rows[i].host, 4321, done, &a));
		if (!run_until(answered, &a) || a.calls != 1)
			fail_msg("%s: %u answers", rows[i].host, a.calls);
		if (wants != (a.n > 0) || wants == (*a.why != 0))
			fail_msg("%s: %u addresses, \"%s\"", rows[i].host, a.n, a.why);
		if (rows[i].first && strcmp(endpoint_str(&a.at[0], text), rows[i].first))
			fail_msg("%s: %s", rows[i].host, text);
		if (wants && !rows[i].first && !addr_is_loopback(&a.at[0].ip))
			fail_msg("%s: %s", rows[i].host, endpoint_str(&a.at[0], text));
	}
}

static void test_cancel(void **state)
{
	struct answer a[32] = {0};
	struct resolve *r[32];

	for (unsigned i = 0; i < 32; i++) {
		r[i] = resolve_new(rig_loop, i % 2 ? "127.0.0.1" : "localhost", 1, done, &a[i]);
		assert_non_null(r[i]);
	}
	for (unsigned i = 0; i < 32; i += 2)
		resolve_cancel(r[i]);
	resolve_cancel(NULL);
	for (unsigned i = 0; i < 32; i++) {
		if (i % 2)
			assert_true(run_until(answered, &a[i]));
		else
			assert_int_equal(a[i].calls, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_cancel),
	};

	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
