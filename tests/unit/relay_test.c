/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of data/relay over TCP on loopback: bytes whatever the receiver's pace, and each ending as what it is. */
#include <poll.h>

#include "data/relay.h"
#include "fds.h"
#include "h2_rig.h"
#include "tcp_pair.h"

static struct worker worker;

struct joined {
	struct relay relay;
	int app[2]; /* what the test holds: beyond a, beyond b */
	unsigned done;
	int err;
	size_t moved[2]; /* from b, from a */
};

static void on_moved(void *owner, bool from_a, const struct iovec *iov, size_t n)
{
	((struct joined *)owner)->moved[from_a] += n;
}

static void on_done(void *owner, int err)
{
	struct joined *j = owner;

	j->done++;
	j->err = err;
}

static const struct relay_ops ops = {.moved = on_moved, .done = on_done};

static void join_of(struct joined *j, int family)
{
	int a[2], b[2];

	memset(j, 0, sizeof *j);
	tcp_pair(a, family);
	tcp_pair(b, family);
	j->app[0] = a[1];
	j->app[1] = b[1];
	assert_int_equal(relay_start(&j->relay, &worker, a[0], b[0], &ops, j), 0);
}

static void join(struct joined *j)
{
	join_of(j, AF_INET);
}

static void part(struct joined *j)
{
	relay_kill(&j->relay);
	close(j->app[0]);
	close(j->app[1]);
}

static bool is_done(void *arg)
{
	return ((struct joined *)arg)->done;
}

/* --- bytes ------------------------------------------------------------------------------------------------------ */

struct way {
	int from, to;
	size_t total, sent, got, read_at_once;
	uint64_t in, out; /* sums over position and value */
	bool shut, eof;
};

static void way_step(struct way *w)
{
	static uint8_t buf[65536];
	ssize_t n;

	while (w->sent < w->total) {
		size_t k = w->total - w->sent < sizeof buf ? w->total - w->sent : sizeof buf;

		for (size_t i = 0; i < k; i++)
			buf[i] = (uint8_t)((w->sent + i) * 2654435761u >> 11);
		n = send(w->from, buf, k, MSG_NOSIGNAL);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			w->in += buf[i] * (w->sent + (size_t)i + 1);
		w->sent += (size_t)n;
	}
	if (w->sent == w->total && !w->shut) {
		shutdown(w->from, SHUT_WR);
		w->shut = true;
	}
	n = recv(w->to, buf, w->read_at_once, 0);
	for (ssize_t i = 0; i < n; i++)
		w->out += buf[i] * (w->got + (size_t)i + 1);
	w->got += n > 0 ? (size_t)n : 0;
	w->eof |= n == 0;
}

static bool ways_end(void *arg)
{
	struct way *w = arg;

	way_step(&w[0]);
	way_step(&w[1]);
	return w[0].eof && w[1].eof;
}

static void test_bytes(void **state)
{
	static const struct {
		const char *name;
		size_t a_to_b, b_to_a, at_once;
	} rows[] = {
		{"nothing", 0, 0, 1000},
		{"one byte each", 1, 1, 1000},
		{"one way", 3 << 20, 0, 65536},
		{"the other way", 0, 3 << 20, 65536},
		{"both ways", 5 << 20, 4 << 20, 65536},
		{"slow readers", 1 << 20, 1 << 20, 700},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct joined j;

		join(&j);
		struct way w[2] = {{j.app[0], j.app[1], rows[i].a_to_b, .read_at_once = rows[i].at_once},
				   {j.app[1], j.app[0], rows[i].b_to_a, .read_at_once = rows[i].at_once}};

		for (unsigned k = 0; k < 200000 && !ways_end(w); k++)
			run_turns(1);
		run_until(is_done, &j);
		if (j.done != 1 || j.err || w[0].got != rows[i].a_to_b || w[1].got != rows[i].b_to_a ||
		    w[0].in != w[0].out || w[1].in != w[1].out)
			fail_msg("%s: done %u (%d), %zu and %zu bytes", rows[i].name, j.done, j.err, w[0].got,
				 w[1].got);
		assert_int_equal(j.moved[1], rows[i].a_to_b);
		assert_int_equal(j.moved[0], rows[i].b_to_a);
		part(&j);
	}
}

/* --- endings -------------------------------------------------------------------------------------------------------- */

/* What `fd` sees: the bytes before the end, or -ECONNRESET. */
static ssize_t outcome(int fd)
{
	ssize_t all = 0;
	char buf[4096];

	for (;;) {
		ssize_t n = recv(fd, buf, sizeof buf, 0);

		if (n > 0)
			all += n;
		else if (n == 0)
			return all;
		else if (errno != EAGAIN)
			return -errno;
		else
			run_turns(1);
	}
}

static void test_half_close(void **state)
{
	for (int first = 0; first < 2; first++) {
		struct joined j;

		join(&j);
		assert_int_equal(send(j.app[first], "last words", 10, 0), 10);
		shutdown(j.app[first], SHUT_WR);
		assert_int_equal(outcome(j.app[!first]), 10);
		run_turns(5);
		assert_int_equal(j.done, 0); /* the other way lives */
		assert_int_equal(send(j.app[!first], "answer", 6, 0), 6);
		shutdown(j.app[!first], SHUT_WR);
		assert_int_equal(outcome(j.app[first]), 6);
		assert_true(run_until(is_done, &j));
		assert_int_equal(j.err, 0);
		part(&j);
	}
}

static void test_reset(void **state)
{
	static const char *const names[] = {"at rest", "after data", "after its own end", "after the other's end",
					    "while the other does not read"};

	for (int first = 0; first < 2; first++)
		for (int how = 0; how < 5; how++) {
			struct joined j;
			char big[65536] = {0};
			ssize_t got;

			join(&j);
			if (how == 1)
				assert_int_equal(send(j.app[first], big, 100, 0), 100);
			if (how == 2)
				shutdown(j.app[first], SHUT_WR);
			if (how == 3)
				shutdown(j.app[!first], SHUT_WR);
			run_turns(5);
			for (unsigned quiet = 0; how == 4 && quiet < 10; run_turns(2))
				quiet = send(j.app[first], big, sizeof big, MSG_NOSIGNAL) > 0 ? 0 : quiet + 1;
			sock_reset_on_close(j.app[first]);
			close(j.app[first]);
			j.app[first] = -1;
			if (!run_until(is_done, &j) || !j.err)
				fail_msg("%s: %u, %d", names[how], j.done, j.err);
			do
				got = outcome(j.app[!first]);
			while (got > 0);
			if (got != -ECONNRESET && how != 2)
				fail_msg("%s: the other side sees %zd", names[how], got);
			part(&j);
		}
}

/* Bytes before a reset; -1: it is another end. */
static ssize_t until_reset(int fd, size_t at_once)
{
	ssize_t all = 0;
	char buf[4096];

	for (;;) {
		ssize_t n = recv(fd, buf, at_once, 0);

		if (n > 0)
			all += n;
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return n && errno == ECONNRESET ? all : -1;
		run_turns(1);
	}
}

/* What was said before a reset arrives before it. */
static void test_last_bytes(void **state)
{
	static const struct {
		const char *name;
		size_t n, at_once;
		bool met; /* the other side's bytes come first: writing them fails */
		bool fin; /* before the reset */
		bool old; /* the relay has what was said when the reset comes */
	} rows[] = {
		{"a word", 26, 4096},
		{"a word, and the other side still talks", 26, 4096, .met = true},
		{"a word and an end, and the other side still talks", 26, 4096, .met = true, .fin = true},
		{"as much as fits", 200000, 4096},
		{"as much as fits, to a slow reader", 200000, 700},
		{"what a slow reader has left", 200000, 700, .old = true},
	};

	for (size_t i = 0; i < 4 * sizeof rows / sizeof *rows; i++) {
		size_t k = i / 4;
		int first = i % 2, family = i & 2 ? AF_INET6 : AF_INET;
		struct joined j;
		ssize_t got;

		join_of(&j, family);
		if (rows[k].met)
			tcp_say(j.app[!first], 100);
		tcp_say(j.app[first], rows[k].n);
		if (rows[k].old)
			run_turns(20);
		if (rows[k].fin)
			shutdown(j.app[first], SHUT_WR);
		tcp_reset(j.app[first]);
		j.app[first] = -1;
		got = until_reset(j.app[!first], rows[k].at_once);
		if (got != (ssize_t)rows[k].n)
			fail_msg("%s, %d, %d: %zd bytes before the reset", rows[k].name, first, family, got);
		assert_true(run_until(is_done, &j));
		assert_true(j.err < 0);
		part(&j);
	}
}

/* Who takes nothing of them is not waited for. */
static void test_last_bytes_stalled(void **state)
{
	struct joined j;

	join(&j);
	tcp_say(j.app[0], 200000);
	tcp_reset(j.app[0]);
	j.app[0] = -1;
	run_turns(20);
	assert_int_equal(j.done, 0);
	assert_true(run_until(is_done, &j));
	assert_int_equal(j.err, -ECONNRESET);
	assert_in_range(until_reset(j.app[1], 4096), 1, 199999);
	part(&j);
}

static void test_kill(void **state)
{
	unsigned before = fds_open();
	struct joined j;
	char big[65536] = {0};

	join(&j);
	for (unsigned i = 0; i < 50; i++) { /* something is left over when it ends */
		if (send(j.app[0], big, sizeof big, MSG_NOSIGNAL) < 0)
			break;
		run_turns(1);
	}
	relay_kill(&j.relay);
	relay_kill(&j.relay);
	assert_int_equal(j.done, 0);
	part(&j);
	assert_int_equal(fds_open(), before);
}

/* A direction that is not drained holds at most what one read took. */
static void test_bounded(void **state)
{
	struct joined j;
	char big[65536] = {0};

	join(&j);
	for (unsigned quiet = 0; quiet < 20; run_turns(1))
		quiet = send(j.app[0], big, sizeof big, MSG_NOSIGNAL) > 0 ? 0 : quiet + 1;
	assert_true(j.relay.ab.left_len > 0);
	assert_true(j.relay.ab.left_len <= WORKER_BUFFER);
	assert_false(j.relay.a.mask & EPOLLIN);		/* nor does it turn in circles */
	assert_int_equal(send(j.app[1], "x", 1, 0), 1); /* the other direction is free */
	run_turns(5);
	assert_int_equal(j.moved[0], 1);
	part(&j);
}

static int setup(void **state)
{
	if (rig_setup(state))
		return 1;
	worker.loop = rig_loop;
	worker.buffer = malloc(WORKER_BUFFER);
	return !worker.buffer;
}

static int teardown(void **state)
{
	free(worker.buffer);
	return rig_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_half_close),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_last_bytes),
		cmocka_unit_test(test_last_bytes_stalled),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_bounded),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
