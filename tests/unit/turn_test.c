/* SPDX-License-Identifier: Apache-2.0 */
/* Whose handshake is next: sources and their loop are real, the steps of handshakes are only noted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "clock.h"
#include "data/turn.c"
#include "one_turn.h"

enum { CROWD = 100, SEEN_MAX = 1000 };

static struct worker w;
static unsigned waiting;
static struct server crowd[CROWD];
static struct {
	const struct server *of;
	bool begins;
} seen[SEEN_MAX];
static unsigned n_seen;
static bool swift; /* steps take no time */

/* --- what turn.c calls -------------------------------------------------------------------------------------- */

/* A step takes all of a turn's time. */
static void note(const struct server *s, bool begins)
{
	int64_t until = monotonic_ns() + STEPS_NS;

	while (!swift && monotonic_ns() < until)
		;
	assert_in_range(n_seen, 0, SEEN_MAX - 1);
	seen[n_seen].of = s;
	seen[n_seen++].begins = begins;
}

void server_shake(struct server *s)
{
	note(s, true);
	s->tls = (struct tls_handshake *)s;
	turn_begin(s);
}

void server_step(struct server *s)
{
	note(s, false);
}

void server_end(struct server *s, const char *why)
{
	s->over = true;
	turn_leave(s);
}

void tls_handshake_free(struct tls_handshake *h)
{
}

/* --- the rig ------------------------------------------------------------------------------------------------ */

/* `n` servers from crowd[first] on wait; they are of one source. */
static void await(const char *ip, unsigned first, unsigned n)
{
	struct source *source;
	struct addr a;

	assert_int_equal(addr_parse(&a, ip), 0);
	source = source_get(w.sources, &a, true);
	for (unsigned i = first; i < first + n; i++) {
		struct server *s = &crowd[i];

		s->w = &w;
		s->source = source;
		list_init(&s->turn);
		list_init(&s->step);
		source_waiter_init(&s->pending);
		turn_await(s);
	}
}

static int setup(void **state)
{
	memset(&w, 0, sizeof w);
	memset(crowd, 0, sizeof crowd);
	n_seen = 0;
	swift = false;
	list_init(&w.shaking);
	list_init(&w.stepping);
	w.loop = loop_new();
	w.sources = sources_new(w.loop, 1, &waiting);
	return 0;
}

static int teardown(void **state)
{
	loop_free(w.loop);
	sources_free(w.sources);
	return 0;
}

/* --- tests -------------------------------------------------------------------------------------------------- */

static void test_one_a_turn(void **state)
{
	await("10.0.0.1", 0, CROWD);
	for (unsigned i = 1; i <= SOURCE_HANDSHAKES_MAX; i++) {
		one_turn(w.loop);
		assert_int_equal(n_seen, i);
	}
	for (unsigned i = 0; i < 5; i++)
		one_turn(w.loop);
	assert_int_equal(n_seen, SOURCE_HANDSHAKES_MAX); /* the others wait until one of them is over */
	assert_ptr_equal(seen[0].of, &crowd[CROWD - 1]); /* the newest is the first */
	server_end(&crowd[CROWD - 1], NULL);
	one_turn(w.loop);
	assert_int_equal(n_seen, SOURCE_HANDSHAKES_MAX + 1);
}

static void test_swift_ones(void **state)
{
	swift = true;
	await("10.0.0.1", 0, 5);
	one_turn(w.loop);
	assert_int_equal(n_seen, 5);
}

/* All that are under way go on at once: one a turn as well, each once, and others begin between them. */
static void test_steps(void **state)
{
	enum { UNDER_WAY = 10, ENDED = 3 };

	await("10.0.0.1", 0, UNDER_WAY);
	while (n_seen < UNDER_WAY)
		one_turn(w.loop);
	await("10.0.0.1", UNDER_WAY, UNDER_WAY);
	for (unsigned i = 0; i < 2 * UNDER_WAY; i++)
		turn_step(&crowd[i % UNDER_WAY]);
	server_end(&crowd[ENDED], NULL);
	n_seen = 0;
	one_turn(w.loop);
	assert_int_equal(n_seen, 1);
	for (unsigned i = 0; i < 2 * UNDER_WAY; i++)
		one_turn(w.loop);
	assert_int_equal(n_seen, UNDER_WAY - 1 + UNDER_WAY);
	for (unsigned i = 0; i < n_seen; i++) {
		assert_true(i >= 2 * (UNDER_WAY - 1) || seen[i].begins != seen[i + 1].begins);
		assert_ptr_not_equal(seen[i].of, &crowd[ENDED]);
	}
}

static void test_sources_take_turns(void **state)
{
	await("10.0.0.1", 0, 50);
	await("10.0.0.2", 50, 1);
	one_turn(w.loop);
	one_turn(w.loop);
	assert_ptr_equal(seen[1].of, &crowd[50]);
}

/* Somebody who is stuck makes room; nothing is done until then. */
static void test_stuck(void **state)
{
	await("10.0.0.1", 0, SOURCE_HANDSHAKES_MAX + 2);
	while (n_seen < SOURCE_HANDSHAKES_MAX)
		one_turn(w.loop);
	one_turn(w.loop);
	assert_int_equal(n_seen, SOURCE_HANDSHAKES_MAX);
	clock_ahead_ms += SERVER_STUCK_MS + SERVER_TURN_MS + 2 * LOOP_TICK_MS;
	for (unsigned i = 0; i < 3; i++)
		one_turn(w.loop);
	assert_int_equal(n_seen, SOURCE_HANDSHAKES_MAX + 1);
	assert_true(crowd[SOURCE_HANDSHAKES_MAX + 1].over); /* the first that began */
	assert_ptr_equal(seen[SOURCE_HANDSHAKES_MAX].of, &crowd[1]);
	clock_ahead_ms += SOURCE_PLACE_MS + SERVER_TURN_MS + 2 * LOOP_TICK_MS; /* the second some time after it */
	for (unsigned i = 0; i < 3; i++)
		one_turn(w.loop);
	assert_int_equal(n_seen, SOURCE_HANDSHAKES_MAX + 2);
	assert_true(crowd[SOURCE_HANDSHAKES_MAX].over);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_a_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(test_swift_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(test_steps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sources_take_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stuck, setup, teardown),
	};

	return cmocka_run_group_tests_name("turn", tests, NULL, NULL);
}
