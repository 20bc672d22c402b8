/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of data/leg: an application over TCP on loopback, and a tunnel's peer by hand. */
#include "data/leg.h"
#include "h2_wire.h"
#include "tcp_pair.h"

static struct worker worker;
static struct wire w; /* a server */
static struct end e;
static struct leg leg;
static int app[2]; /* the leg's, the application's */
static unsigned done;
static const char *why;

static void on_moved(void *owner, bool from_app, const struct iovec *iov, size_t n)
{
}

static void on_response(void *owner, const struct h2_headers *h)
{
	leg_join(&leg, app[0]);
}

static void on_done(void *owner, const char *how, bool refused)
{
	done++;
	why = how;
}

static const struct leg_ops ops = {.moved = on_moved, .response = on_response, .done = on_done};

static bool is_done(void *arg)
{
	wire_recv(&w);
	return done;
}

static void begin(int family)
{
	done = 0;
	why = NULL;
	tcp_pair(app, family);
	wire_open(&w, &e, true);
	wire_hello(&w);
	assert_int_equal(leg_connect(&leg, &worker, e.h2, "10.0.0.1:80", &rig_baggage, 1, &ops, NULL), 0);
	wire_settle(&w);
	wire_status(&w, 1, "200", false);
	wire_settle(&w);
	assert_true(leg.joined);
}

static void end(void)
{
	leg_kill(&leg, NGHTTP2_CANCEL);
	wire_close(&w, &e);
}

/* What the application said before its reset is in the tunnel before the stream's. */
static void test_last_bytes(void **state)
{
	static const struct {
		const char *name;
		size_t n;
		bool met;  /* the peer's bytes come first: writing them fails */
		bool fin;  /* before the reset */
		bool shut; /* the peer gives no window back */
	} rows[] = {
		{"nothing", 0},
		{"a word", 26},
		{"a word, and the peer still talks", 26, .met = true},
		{"a word and an end, and the peer still talks", 26, .met = true, .fin = true},
		{"more than the window", 200000},
		{"more than the window, and the peer still talks", 200000, .met = true},
		{"more than a window that stays shut", 200000, .shut = true},
	};

	for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
		size_t k = i / 2;
		bool arrived;

		begin(i % 2 ? AF_INET6 : AF_INET);
		w.no_credit = rows[k].shut;
		if (rows[k].met)
			wire_frame(&w, F_DATA, 0, 1, "12345", 5);
		tcp_say(app[1], rows[k].n);
		if (rows[k].fin)
			shutdown(app[1], SHUT_WR);
		tcp_reset(app[1]);
		if (!run_until(is_done, NULL))
			fail_msg("%s: no end", rows[k].name);
		wire_settle(&w);
		arrived = rows[k].shut ? w.s[1].data > 0 : w.s[1].data == rows[k].n;
		if (!arrived || w.s[1].ended || !w.s[1].reset || w.s[1].code != NGHTTP2_INTERNAL_ERROR || !why)
			fail_msg("%s: %lu bytes, %s, code %u, %s", rows[k].name, (unsigned long)w.s[1].data,
				 w.s[1].ended ? "an end" : "no end", w.s[1].code, why);
		assert_int_equal(done, 1);
		end();
	}
}

/* Both directions have ended, but the last bytes have no one to go to any more: that is no clean end. */
static void test_last_write_fails(void **state)
{
	begin(AF_INET);
	shutdown(app[1], SHUT_WR);
	wire_settle(&w);
	assert_true(w.s[1].ended);
	wire_frame(&w, F_DATA, 1, 1, "12345", 5);
	tcp_reset(app[1]);
	assert_true(run_until(is_done, NULL));
	assert_non_null(why);
	end();
}

/* Nor is it when the tunnel ends while the application's last bytes wait for its window. */
static void test_tunnel_ends_meanwhile(void **state)
{
	begin(AF_INET);
	w.no_credit = true;
	tcp_say(app[1], 200000);
	tcp_reset(app[1]);
	wire_settle(&w);
	assert_int_equal(done, 0);
	wire_u32(&w, F_RST, 1, NGHTTP2_NO_ERROR);
	run_turns(3);
	assert_int_equal(done, 1);
	assert_string_equal(why, "connection reset by the application");
	end();
}

static int setup(void **state)
{
	if (rig_setup(state))
		return 1;
	worker.loop = rig_loop;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_bytes),
		cmocka_unit_test(test_last_write_fails),
		cmocka_unit_test(test_tunnel_ends_meanwhile),
	};

	return cmocka_run_group_tests(tests, setup, rig_teardown);
}
