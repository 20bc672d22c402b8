/* SPDX-License-Identifier: Apache-2.0 */
/* The shares of who connects: who counts as one, and for how long a flood is remembered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "clock.h"
#include "data/sources.h"
#include "one_turn.h"

static struct loop *loop;
static unsigned waiting;

/* The loop's time is that of its turn. */
static void forward(uint64_t ms)
{
	clock_ahead_ms += ms;
	one_turn(loop);
}

static struct source *get(struct sources *all, const char *ip, bool known)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, ip), 0);
	return source_get(all, &a, known);
}

static void test_who_is_one(void **state)
{
	static const struct {
		const char *name, *a, *b;
		bool known, same;
	} rows[] = {
		{"an address of IPv4", "10.0.0.1", "10.0.0.1", false, true},
		{"neighbours of IPv4", "10.0.0.1", "10.0.0.2", false, false},
		{"strangers of an IPv6 network", "fd00:1:2:3::1", "fd00:1:2:3:ffff::2", false, true},
		{"strangers of two", "fd00:1:2:3::1", "fd00:1:2:4::1", false, false},
		{"pods of an IPv6 network", "fd00:1:2:3::1", "fd00:1:2:3::2", true, false},
		{"a pod of IPv6", "fd00:1:2:3::1", "fd00:1:2:3::1", true, true},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct sources *all = sources_new(loop, 1, &waiting);
		struct source *a = get(all, rows[i].a, rows[i].known), *b = get(all, rows[i].b, rows[i].known);

		if ((a == b) != rows[i].same)
			fail_msg("%s", rows[i].name);
		source_put(a);
		source_put(b);
		for (unsigned k = 0; k < SOURCE_BUCKETS; k++)
			assert_true(list_empty(&all->bucket[k]));
		sources_free(all);
	}
}

static void test_floods_are_remembered(void **state)
{
	struct sources *all = sources_new(loop, 1, &waiting);
	struct source *s = get(all, "10.0.0.1", true);

	forward(0);
	assert_true(source_may_begin(s));
	source_flooded(s);
	source_put(s); /* its connection has ended */
	s = get(all, "10.0.0.1", true);
	assert_false(source_may_begin(s));
	forward(SOURCE_CALM_MS - 100);
	assert_false(source_may_begin(s));
	forward(101);
	assert_true(source_may_begin(s));
	source_flooded(s);
	source_put(s);
	forward(SOURCE_CALM_MS + 1);
	s = get(all, "10.0.0.1", true);
	assert_true(source_may_begin(s));
	source_put(s);
	sources_free(all);
}

enum { WAITERS = 200 };

static struct source_waiter waiters[WAITERS];

/* Waiters from..to-1 come; none has to go for them. */
static void wait_for(struct source *s, unsigned from, unsigned to)
{
	enum limit why;

	for (unsigned i = from; i < to; i++)
		assert_null(source_wait(s, &waiters[i], &why));
}

/* For the next one of the source, the one that goes is that of the row. */
static void must_go(struct source *s, unsigned next, unsigned victim, enum limit expect)
{
	enum limit why = LIMITS;

	assert_ptr_equal(source_wait(s, &waiters[next], &why), &waiters[victim]);
	assert_int_equal(why, expect);
}

static void test_waiting(void **state)
{
	enum { MAX = 100, SHARE = 50, ALL = 120 };
	struct sources *one = sources_new(loop, 2, &waiting),
		       *two = sources_new(loop, 2, &waiting); /* of two workers */
	struct source *a = get(one, "10.0.0.1", true), *b = get(one, "10.0.0.2", true), *c = get(two, "10.0.0.1", true);

	for (unsigned i = 0; i < WAITERS; i++)
		source_waiter_init(&waiters[i]);
	one->waiting_max = two->waiting_max = MAX;
	one->waiting_share = two->waiting_share = SHARE;
	one->waiting_all = two->waiting_all = ALL;
	wait_for(a, 0, MAX); /* more than the worker's share, while there is room */
	must_go(a, MAX, 0, LIMIT_HANDSHAKES);
	source_waited(a, &waiters[0]);
	wait_for(b, MAX + 1, ALL + 1);
	must_go(b, ALL + 1, 1, LIMIT_HANDSHAKES_OF_ALL); /* the oldest, whosever it is */
	source_waited(a, &waiters[1]);
	source_waited(a, &waiters[1]);	       /* once is enough */
	wait_for(c, ALL + 2, ALL + 2 + SHARE); /* its share is there whatever the others have */
	must_go(c, ALL + 2 + SHARE, ALL + 2, LIMIT_HANDSHAKES_OF_ALL);
	for (unsigned i = 0; i < WAITERS; i++)
		source_waited(i <= MAX ? a : i <= ALL + 1 ? b : c, &waiters[i]);
	assert_int_equal(a->n_waiting + b->n_waiting + c->n_waiting + one->n_waiting + two->n_waiting + waiting, 0);
	wait_for(b, 0, MAX);
	for (unsigned i = 0; i < MAX; i++)
		source_waited(b, &waiters[i]);
	source_put(a);
	source_put(b);
	source_put(c);
	sources_free(one);
	sources_free(two);
}

/* A few are forgiven, and forgotten one by one, whether it has connections meanwhile or not. */
static void test_faults(void **state)
{
	struct sources *all = sources_new(loop, 1, &waiting);
	struct source *s;

	forward(0);
	for (unsigned i = 0; i < SOURCE_FAULTS_MAX; i++) {
		s = get(all, "10.0.0.1", true);
		source_fault(s);
		assert_true(source_may_begin(s));
		source_put(s);
	}
	s = get(all, "10.0.0.1", true);
	source_fault(s);
	assert_false(source_may_begin(s));
	forward(SOURCE_CALM_MS + 1);
	for (unsigned i = 0; i < SOURCE_CALM_MS / SOURCE_FAULT_MS; i++) {
		source_fault(s);
		assert_true(source_may_begin(s));
	}
	source_fault(s);
	assert_false(source_may_begin(s));
	source_put(s);
	forward((SOURCE_FAULTS_MAX + 1) * SOURCE_FAULT_MS);
	source_put(get(all, "10.0.0.1", true));
	for (unsigned k = 0; k < SOURCE_BUCKETS; k++)
		assert_true(list_empty(&all->bucket[k]));
	sources_free(all);
}

/* One that nobody asks for again goes when its bucket is looked at. */
static void test_forgotten(void **state)
{
	struct sources *all = sources_new(loop, 1, &waiting);
	unsigned left = 0;

	for (unsigned i = 0; i < 1000; i++) {
		char ip[32];
		struct source *s;

		snprintf(ip, sizeof ip, "10.0.%u.%u", i / 250, i % 250);
		s = get(all, ip, true);
		source_flooded(s);
		source_put(s);
	}
	forward(SOURCE_CALM_MS + 1);
	for (unsigned i = 0; i < 5000; i++) {
		char ip[32];

		snprintf(ip, sizeof ip, "10.1.%u.%u", i / 250, i % 250);
		source_put(get(all, ip, true));
	}
	for (unsigned k = 0; k < SOURCE_BUCKETS; k++)
		list_for_each (pos, &all->bucket[k])
			left++;
	assert_in_range(left, 0, 10);
	sources_free(all);
}

static void test_few_descriptors(void **state)
{
	static const struct {
		rlim_t files;
		unsigned streams, waiting, share, all;
	} rows[] = {{1024, 256, 256, 128, 256},
		    {10000, 2500, 2500, 1250, 2500},
		    {1 << 20, SOURCE_STREAMS_MAX, SOURCE_WAITING_MAX, 1 << 17, 1 << 18},
		    {100, 256, 64, 64, 64}};
	struct rlimit was, now;

	getrlimit(RLIMIT_NOFILE, &was);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct sources *all;

		now = (struct rlimit){rows[i].files, was.rlim_max};
		if (setrlimit(RLIMIT_NOFILE, &now) < 0)
			continue; /* the machine has fewer */
		all = sources_new(loop, 2, &waiting);
		assert_int_equal(all->streams_max, rows[i].streams);
		assert_int_equal(all->waiting_max, rows[i].waiting);
		assert_int_equal(all->waiting_share, rows[i].share);
		assert_int_equal(all->waiting_all, rows[i].all);
		sources_free(all);
	}
	setrlimit(RLIMIT_NOFILE, &was);
}

static int setup(void **state)
{
	loop = loop_new();
	return !loop;
}

static int teardown(void **state)
{
	loop_free(loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_is_one), cmocka_unit_test(test_floods_are_remembered),
		cmocka_unit_test(test_waiting),	   cmocka_unit_test(test_faults),
		cmocka_unit_test(test_forgotten),  cmocka_unit_test(test_few_descriptors),
	};

	return cmocka_run_group_tests_name("sources", tests, setup, teardown);
}
