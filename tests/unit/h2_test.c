/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of net/h2 with two ends of it, each behind a record, over a socket pair: bytes, endings, stalls. */
#include <limits.h>

#include "h2_rig.h"
#include "net/record_internal.h"

/* --- bytes ---------------------------------------------------------------------------------------------- */

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 2654435761u >> 13);
}

struct flow { /* one direction: the test writes, the other application reads */
	struct app *from, *to;
	size_t total, step, written;
	bool shut;
};

static void flow_write(struct flow *f)
{
	uint8_t buf[65536];

	while (f->written < f->total) {
		size_t n = f->total - f->written;
		ssize_t k;

		n = n < f->step ? n : f->step;
		n = n < sizeof buf ? n : sizeof buf;
		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(f->written + i);
		k = write(f->from->fd[1], buf, n);
		if (k < 0)
			return;
		f->written += (size_t)k;
	}
	if (f->shut) {
		shutdown(f->from->fd[1], SHUT_WR);
		f->shut = false;
	}
}

static bool flow_done(const struct flow *f)
{
	return f->to->n_got == f->total;
}

static void flow_check(const struct flow *f, const char *name)
{
	if (f->to->n_got != f->total)
		fail_msg("%s: %zu of %zu bytes", name, f->to->n_got, f->total);
	for (size_t i = 0; i < f->total; i++)
		if (f->to->got[i] != pattern(i))
			fail_msg("%s: byte %zu is wrong", name, i);
}

static bool flows_done(void *arg)
{
	struct flow **f = arg;
	bool done = true;

	for (; *f; f++) {
		flow_write(*f);
		if ((*f)->to->piece && (*f)->to->s.h2) /* an application that takes a little at a time */
			h2_stream_resume(&(*f)->to->s);
		done &= flow_done(*f);
	}
	return done;
}

struct pair {
	struct end client, server;
	struct app *c, *s;
};

static void pair_open(struct pair *p)
{
	ends_join(&p->client, &p->server);
	p->c = end_connect(&p->client, "10.0.0.1:80");
	assert_true(run_until(is_answered, p->c));
	assert_int_equal(p->c->status, 200);
	p->s = p->server.app[0];
}

static void pair_close(struct pair *p)
{
	end_free(&p->client);
	end_free(&p->server);
}

static const struct {
	const char *name;
	size_t up, down, step, piece;
} transfers[] = {
	{"nothing", 0, 0, 1, 0},
	{"one byte up", 1, 0, 1, 0},
	{"one byte down", 0, 1, 1, 0},
	{"byte by byte", 3000, 3000, 1, 0},
	{"one record", 16375, 16375, 65536, 0},
	{"a record and a byte", 16376, 16376, 65536, 0},
	{"all slots", 8 * 16375, 8 * 16375, 65536, 0},
	{"odd steps", 1000003, 700001, 1237, 0},
	{"a stream's window and a byte", H2_STREAM_WINDOW + 1, 0, 65536, 0},
	{"more than a connection's window", 3 * H2_CONN_WINDOW + 7, 0, 65536, 0},
	{"the same both ways", 2 * H2_CONN_WINDOW + 7, 2 * H2_CONN_WINDOW + 9, 65536, 0},
	{"an application that takes 1 byte at once", 5000, 5000, 65536, 1},
	{"an application that takes 1000 bytes at once", 3 * H2_STREAM_WINDOW, 100000, 65536, 1000},
	{"an application that takes 50000 bytes at once", 3 * H2_CONN_WINDOW, 3 * H2_CONN_WINDOW, 65536, 50000},
};

static void test_bytes(void **state)
{
	for (size_t i = 0; i < sizeof transfers / sizeof *transfers; i++) {
		struct pair p;

		pair_open(&p);
		struct flow up = {p.c, p.s, transfers[i].up, transfers[i].step},
			    down = {p.s, p.c, transfers[i].down, transfers[i].step};
		struct flow *both[] = {&up, &down, NULL};

		p.c->piece = p.s->piece = transfers[i].piece;
		run_until(flows_done, both);
		flow_check(&up, transfers[i].name);
		flow_check(&down, transfers[i].name);
		assert_int_equal(p.client.closed + p.server.closed, 0);
		assert_string_equal(p.s->baggage, "k=v");
		assert_string_equal(p.c->baggage, "k=v");
		assert_string_equal(p.s->authority, "10.0.0.1:80");
		pair_close(&p);
	}
}

enum { MANY = 64 };

static void test_many_streams(void **state)
{
	struct pair p;
	struct flow flow[2 * MANY];
	struct flow *all[2 * MANY + 1] = {NULL};

	ends_join(&p.client, &p.server);
	for (unsigned i = 0; i < MANY; i++) {
		struct app *c = end_connect(&p.client, "10.0.0.1:80");

		assert_true(run_until(is_answered, c));
		flow[2 * i] = (struct flow){c, p.server.app[i], 200000 + i, 10000 + i};
		flow[2 * i + 1] = (struct flow){p.server.app[i], c, 300000 - i, 10000};
		all[2 * i] = &flow[2 * i];
		all[2 * i + 1] = &flow[2 * i + 1];
	}
	assert_true(run_until(flows_done, all));
	for (unsigned i = 0; i < 2 * MANY; i++)
		flow_check(&flow[i], "many streams");
	pair_close(&p);
}

/* --- endings -------------------------------------------------------------------------------------------- */

static bool both_ended(void *arg)
{
	struct pair *p = arg;

	return p->c->ends && p->s->ends;
}

static bool one_ended(void *arg)
{
	return ((struct app *)arg)->ends;
}

/* One side ends, the other goes on and ends later. */
static void half_close(bool client_first, size_t bytes)
{
	struct pair p;
	struct app *first, *second;

	pair_open(&p);
	first = client_first ? p.c : p.s;
	second = client_first ? p.s : p.c;

	struct flow one = {first, second, bytes, 65536, .shut = true},
		    two = {second, first, bytes, 65536, .shut = true};
	struct flow *a[] = {&one, NULL}, *b[] = {&two, NULL};

	flows_done(a);
	assert_true(run_until(flows_done, a));
	assert_true(run_until(one_ended, second));
	assert_int_equal(first->ends, 0);
	flow_check(&one, "first");
	flows_done(b);
	assert_true(run_until(flows_done, b));
	assert_true(run_until(both_ended, &p));
	flow_check(&two, "second");
	run_turns(10);
	assert_int_equal(p.c->resets + p.s->resets, 0);
	assert_int_equal(p.c->ends + p.s->ends, 2);
	app_drop(p.c, NGHTTP2_CANCEL);
	app_drop(p.s, NGHTTP2_CANCEL);
	run_turns(10);
	assert_int_equal(p.client.idle, 1);
	assert_int_equal(p.server.idle, 1);
	assert_int_equal(p.client.closed + p.server.closed, 0);
	pair_close(&p);
}

static void test_half_close(void **state)
{
	static const size_t bytes[] = {0, 1, 16375, 100000, 5 << 20};

	for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
		half_close(true, bytes[i]);
		half_close(false, bytes[i]);
	}
}

static bool was_reset(void *arg)
{
	return ((struct app *)arg)->resets;
}

static void test_reset(void **state)
{
	static const struct {
		const char *name;
		bool by_client, ended_before;
		uint32_t code;
	} rows[] = {
		{"client cancels", true, false, NGHTTP2_CANCEL},
		{"server cancels", false, false, NGHTTP2_CANCEL},
		{"client fails", true, false, NGHTTP2_INTERNAL_ERROR},
		{"server fails", false, false, NGHTTP2_CONNECT_ERROR},
		{"client lets go without an end", true, false, NGHTTP2_NO_ERROR},
		{"server lets go without an end", false, false, NGHTTP2_NO_ERROR},
		{"client ends, then fails", true, true, NGHTTP2_INTERNAL_ERROR},
		{"server ends, then fails", false, true, NGHTTP2_INTERNAL_ERROR},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct pair p;
		struct app *by, *at;

		pair_open(&p);
		by = rows[i].by_client ? p.c : p.s;
		at = rows[i].by_client ? p.s : p.c;

		struct flow f = {by, at, 300000, 65536, .shut = rows[i].ended_before};
		struct flow *all[] = {&f, NULL};

		assert_true(run_until(flows_done, all));
		run_turns(5);
		app_drop(by, rows[i].code);
		if (!run_until(was_reset, at) || at->code != rows[i].code || at->ends != rows[i].ended_before)
			fail_msg("%s: %u resets, code %u, %u ends", rows[i].name, at->resets, at->code, at->ends);
		assert_false(at->refused);
		pair_close(&p);
	}
}

/* A reset throws away what the application has not taken; the connection gets it back. */
static void test_reset_with_held_data(void **state)
{
	struct pair p;
	struct app *again;

	ends_join(&p.client, &p.server);
	for (unsigned i = 0; i < 64; i++) { /* 16 MiB in all: twice the connection's window */
		p.c = end_connect(&p.client, "10.0.0.1:80");
		assert_true(run_until(is_answered, p.c));
		p.s = p.server.app[i];
		p.s->cap = 10;

		struct flow f = {p.c, p.s, 3 * H2_STREAM_WINDOW, 65536};

		while (p.c->writables == 0 && !p.c->blocked) {
			flow_write(&f);
			run_turns(1);
		}
		run_turns(20);
		assert_true(h2_stream_held(&p.s->s) <= H2_STREAM_START);
		assert_true(h2_stream_held(&p.s->s) > H2_STREAM_START / 4);
		app_drop(i % 2 ? p.c : p.s, NGHTTP2_CANCEL);
		assert_true(run_until(was_reset, i % 2 ? p.s : p.c));
	}
	again = end_connect(&p.client, "10.0.0.1:80");
	assert_true(run_until(is_answered, again));

	struct flow f = {again, p.server.app[64], 2 * H2_CONN_WINDOW, 65536};
	struct flow *all[] = {&f, NULL};

	assert_true(run_until(flows_done, all));
	assert_int_equal(p.server.h2->share->held, 0);
	pair_close(&p);
}

/* A connection is freed while a stream's owner waits for its application to take what came. */
static void test_freed_under_a_stream(void **state)
{
	struct pair p;
	struct flow f;

	pair_open(&p);
	f = (struct flow){p.c, p.s, 100000, 65536};
	p.s->cap = 10;
	p.s->keeps = true;
	for (unsigned i = 0; i < 50; i++) {
		flow_write(&f);
		run_turns(1);
	}
	assert_true(h2_stream_held(&p.s->s) > 0);
	h2_free(p.server.h2);
	p.server.h2 = NULL;
	assert_int_equal(p.s->resets, 1);
	assert_null(p.s->s.h2);
	assert_int_equal(h2_stream_held(&p.s->s), 0);
	h2_stream_resume(&p.s->s);
	run_turns(5);
	pair_close(&p);
}

static void test_receiver_fails(void **state)
{
	struct pair p;

	pair_open(&p);
	p.s->fail = -ECONNRESET;

	struct flow f = {p.c, p.s, 100000, 65536};

	flow_write(&f);
	run_turns(10);
	assert_true(p.s->takes >= 1);
	app_drop(p.s, NGHTTP2_CONNECT_ERROR);
	assert_true(run_until(was_reset, p.c));
	assert_int_equal(p.c->code, NGHTTP2_CONNECT_ERROR);
	pair_close(&p);
}

/* The connection goes away: streams fail, but for one that had ended and still delivers. */
static void test_connection_lost(void **state)
{
	struct pair p;
	struct app *ended, *ended_s;

	pair_open(&p);
	ended = end_connect(&p.client, "10.0.0.1:81");
	assert_true(run_until(is_answered, ended));
	ended_s = p.server.app[1];
	ended_s->cap = 100;

	struct flow f = {ended, ended_s, 50000, 65536, .shut = true}, back = {ended_s, ended, 10, 10, .shut = true};
	struct flow *b[] = {&back, NULL};

	flow_write(&f);
	flow_write(&back);
	assert_true(run_until(flows_done, b));
	run_turns(20);
	assert_true(h2_stream_held(&ended_s->s) > 0);
	shutdown(record_fd(p.client.h2->record), SHUT_RDWR);
	assert_true(run_until(is_closed, &p.server));
	assert_int_equal(p.s->resets, 1);
	assert_int_equal(ended_s->resets, 0);
	ended_s->cap = SIZE_MAX;
	h2_stream_resume(&ended_s->s);
	assert_true(run_until(one_ended, ended_s));
	flow_check(&f, "after the connection's end");
	assert_int_equal(p.server.idle, 0);
	app_drop(ended_s, NGHTTP2_CANCEL);
	run_turns(3);
	assert_int_equal(p.server.idle, 1);
	pair_close(&p);
}

/* --- stalls --------------------------------------------------------------------------------------------- */

static bool all_blocked(void *arg)
{
	struct flow **f = arg;
	bool blocked = true;

	for (; *f; f++) {
		flow_write(*f);
		blocked &= (*f)->from->blocked;
	}
	return blocked;
}

/* Whatever the others do, one stream gets its bytes through; and later all get theirs. */
static void test_stalled_neighbours(void **state)
{
	static const unsigned counts[] = {1, 4, 8, 16};

	for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
		struct pair p;
		struct flow flow[32], *stalls[33] = {NULL};
		unsigned n = counts[k];

		ends_join(&p.client, &p.server);
		for (unsigned i = 0; i <= n; i++) {
			struct app *c = end_connect(&p.client, "10.0.0.1:80");

			assert_true(run_until(is_answered, c));
			flow[i] = (struct flow){c, p.server.app[i], 4 << 20, 65536, .shut = true};
			if (i == n)
				break;
			stalls[i] = &flow[i];
			p.server.app[i]->cap = 1000;
		}
		if (!run_until(all_blocked, stalls))
			fail_msg("%u stalled: not all are blocked", n);

		struct flow *last[] = {&flow[n], NULL};

		if (!run_until(flows_done, last))
			fail_msg("beside %u stalled streams: %zu bytes", n, flow[n].to->n_got);
		for (unsigned i = 0; i < n; i++) {
			assert_true(h2_stream_held(&flow[i].to->s) <= H2_STREAM_WINDOW);
			flow[i].to->cap = SIZE_MAX;
			h2_stream_resume(&flow[i].to->s);
		}
		assert_true(run_until(flows_done, stalls));
		for (unsigned i = 0; i <= n; i++)
			flow_check(&flow[i], "after the stall");
		pair_close(&p);
	}
}

enum { SLOW_LOOKS = 7, SLOW_BYTES = 33000 };

struct stuck {
	struct pair p;
	struct flow flow[8], *all[9];
};

/* The server reads nothing, and the client has said what it can. */
static void stuck_open(struct stuck *s)
{
	memset(s, 0, sizeof *s);
	ends_join(&s->p.client, &s->p.server);
	for (unsigned i = 0; i < 8; i++) {
		struct app *c = end_connect(&s->p.client, "10.0.0.1:80");

		assert_true(run_until(is_answered, c));
		s->flow[i] = (struct flow){c, s->p.server.app[i], 3 << 20, 65536, .shut = true};
		s->all[i] = &s->flow[i];
	}
	io_want(rig_loop, &s->p.server.h2->io, 0);
	assert_true(run_until(all_blocked, s->all));
	assert_true(s->p.client.h2->stuck);
}

/* A tunnel whose other end reads nothing for a while: the applications wait, no byte is lost. */
static void test_stuck_socket(void **state)
{
	struct stuck s;

	stuck_open(&s);
	io_want(rig_loop, &s.p.server.h2->io, EPOLLIN);
	assert_true(run_until(flows_done, s.all));
	for (unsigned i = 0; i < 8; i++)
		flow_check(&s.flow[i], "after the socket was stuck");
	pair_close(&s.p);
}

/* Who takes a little at a time, less than a record's slots in all of the deadline, is waited for; who takes nothing is not. */
static void test_slow_socket(void **state)
{
	struct stuck s;
	struct end *client = &s.p.client;

	stuck_open(&s);
	timer_cancel(&s.p.server.h2->timer); /* nor does it ask */
	for (unsigned i = 0; i < SLOW_LOOKS; i++) {
		static char some[SLOW_BYTES];
		size_t n = 0;
		ssize_t k;

		while (n < sizeof some && (k = read(record_fd(s.p.server.h2->record), some, sizeof some - n)) > 0)
			n += (size_t)k;
		clock_forward(H2_PING_MS / 2);
		clock_forward(H2_PING_MS / 2);
		if (client->closed || !client->h2->stuck)
			fail_msg("after %u looks: %s", i + 1, client->closed ? client->why : "not stuck");
	}
	for (unsigned i = 0; i < 6; i++) {
		client->h2->seen = loop_now(rig_loop); /* it still talks */
		clock_forward(H2_PING_MS);
	}
	assert_int_equal(client->closed, 1);
	assert_string_equal(client->why, "the peer reads nothing");
	assert_int_equal(client->limited[H2_LIMIT_UNREAD], 1);
	pair_close(&s.p);
}

/* At rest a connection holds no buffer. */
static void test_idle_memory(void **state)
{
	struct pair p;

	pair_open(&p);

	struct flow f = {p.c, p.s, 1 << 20, 65536}, b = {p.s, p.c, 1 << 20, 65536};
	struct flow *all[] = {&f, &b, NULL};

	assert_true(run_until(flows_done, all));
	run_turns(10);
	assert_int_equal(h2_stream_pump(&p.c->s, p.c->fd[0]), -EAGAIN); /* nor does one that had nothing to say */
	assert_null(p.client.h2->record->tx_buf);
	assert_null(p.server.h2->record->tx_buf);
	assert_null(p.client.h2->record->part);
	assert_null(p.server.h2->record->part);
	assert_null(p.client.h2->collect);
	assert_null(p.server.h2->collect);
	assert_null(p.c->s.held);
	assert_null(p.s->s.held);
	pair_close(&p);
}

/* --- limits and leaving --------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
	static const int status[] = {400, 401, 431, 503, 99, 1000};
	struct end client, server;

	ends_join(&client, &server);
	for (size_t i = 0; i < sizeof status / sizeof *status; i++) {
		char authority[32];
		struct app *a;

		snprintf(authority, sizeof authority, "refuse-%d:1", status[i]);
		a = end_connect(&client, authority);
		assert_true(run_until(is_answered, a));
		assert_int_equal(a->status, status[i] >= 100 && status[i] <= 999 ? status[i] : 500);
		run_turns(5);
		app_drop(a, NGHTTP2_CANCEL);
	}
	run_turns(5);
	assert_int_equal(h2_streams(client.h2), 0);
	assert_int_equal(h2_streams(server.h2), 0);
	assert_int_equal(client.closed + server.closed, 0);
	assert_true(h2_open_for_streams(client.h2, 1));
	end_free(&client);
	end_free(&server);
}

static bool has_settings(void *arg)
{
	return ((struct end *)arg)->h2->greeted;
}

/* Streams beyond the peer's limit are not opened by the pool; nghttp2 queues those that are. */
static void test_max_streams(void **state)
{
	struct end client, server;

	ends_join(&client, &server);
	assert_true(run_until(has_settings, &client));
	for (unsigned i = 0; i < H2_STREAMS_MAX; i++) {
		assert_true(h2_open_for_streams(client.h2, 1000));
		assert_int_equal(h2_open_for_streams(client.h2, i), false);
		end_connect(&client, "10.0.0.1:80");
	}
	assert_true(run_until(is_answered, client.app[H2_STREAMS_MAX - 1]));
	assert_false(h2_open_for_streams(client.h2, 1000));
	assert_int_equal(h2_streams(server.h2), H2_STREAMS_MAX);
	end_connect(&client, "10.0.0.1:80"); /* waits */
	run_turns(10);
	assert_int_equal(server.requests, H2_STREAMS_MAX);
	app_drop(client.app[0], NGHTTP2_CANCEL);
	assert_true(run_until(is_answered, client.app[H2_STREAMS_MAX]));
	assert_int_equal(client.app[H2_STREAMS_MAX]->status, 200);
	end_free(&client);
	end_free(&server);
}

static void test_server_shutdown(void **state)
{
	for (int graceful = 0; graceful < 2; graceful++) {
		struct pair p;

		pair_open(&p);
		h2_shutdown(p.server.h2, graceful);
		run_turns(20);
		assert_int_equal(p.client.leaving, 1);
		assert_false(h2_open_for_streams(p.client.h2, 100));
		assert_int_equal(p.client.closed + p.server.closed, 0);

		struct flow f = {p.c, p.s, 1 << 20, 65536, .shut = true}, b = {p.s, p.c, 1 << 20, 65536, .shut = true};
		struct flow *all[] = {&f, &b, NULL};

		assert_true(run_until(flows_done, all)); /* what exists goes on */
		assert_true(run_until(both_ended, &p));
		app_drop(p.c, NGHTTP2_CANCEL);
		app_drop(p.s, NGHTTP2_CANCEL);
		assert_true(run_until(is_closed, &p.client));
		assert_true(run_until(is_closed, &p.server));
		assert_int_equal(p.c->resets + p.s->resets, 0);
		pair_close(&p);
	}
}

/* A request that crosses the GOAWAY is served. */
static void test_graceful_is_kind(void **state)
{
	struct end client, server;
	struct app *a;

	ends_join(&client, &server);
	run_turns(10);
	io_want(rig_loop, &client.h2->io, 0); /* does not see the GOAWAY */
	h2_shutdown(server.h2, true);
	run_turns(3);
	a = end_connect(&client, "10.0.0.1:80");
	run_turns(3);
	io_want(rig_loop, &client.h2->io, EPOLLIN);
	assert_true(run_until(is_answered, a));
	assert_int_equal(a->status, 200);
	app_drop(a, NGHTTP2_CANCEL);
	assert_true(run_until(is_closed, &server));
	end_free(&client);
	end_free(&server);
}

/* Abruptly, also in the middle of a graceful end: what exists ends with its owner, what crosses is not served. */
static void test_cut(void **state)
{
	for (int graceful = 0; graceful < 2; graceful++) {
		struct pair p;
		struct app *late;

		pair_open(&p);
		run_turns(10);
		io_want(rig_loop, &p.client.h2->io, 0); /* does not see the GOAWAY */
		if (graceful)
			h2_shutdown(p.server.h2, true);
		run_turns(3);
		h2_cut(p.server.h2);
		assert_true(h2_is_cut(p.server.h2));
		run_turns(3);
		late = end_connect(&p.client, "10.0.0.1:80");
		run_turns(3);
		assert_int_equal(p.server.requests, 1);
		assert_int_equal(p.server.closed, 0);
		app_drop(p.s, NGHTTP2_INTERNAL_ERROR);
		assert_true(run_until(is_closed, &p.server));
		io_want(rig_loop, &p.client.h2->io, EPOLLIN);
		assert_true(run_until(is_closed, &p.client));
		assert_int_equal(p.c->resets, 1);
		assert_int_equal(late->resets, 1);
		assert_int_equal(late->status, 0);
		pair_close(&p);
	}
}

static void test_client_shutdown(void **state)
{
	struct pair p;

	pair_open(&p);
	h2_shutdown(p.client.h2, false);
	run_turns(5);
	assert_int_equal(p.client.closed, 0);
	app_drop(p.c, NGHTTP2_CANCEL);
	assert_true(run_until(is_closed, &p.client));
	assert_true(run_until(is_closed, &p.server));
	assert_int_equal(p.s->resets, 1);
	pair_close(&p);
}

static bool has_ended(void *arg)
{
	return ((struct app *)arg)->ends;
}

enum { LAST_BYTES = 40000 };

/* While `deaf`, an end reads nothing, though it may say something. */
static void set_deaf(struct end *e, bool deaf)
{
	e->h2->ending = deaf;
	h2_touch(e->h2);
}

/* The client has said its last bytes and goes; the server has not read them yet, and said something meanwhile. */
static void client_goes(struct pair *p)
{
	static const char bytes[LAST_BYTES];

	pair_open(p);
	shutdown(p->s->fd[1], SHUT_WR);
	assert_true(run_until(has_ended, p->c));
	set_deaf(&p->server, true);
	run_turns(3);
	assert_int_equal(write(p->c->fd[1], bytes, sizeof bytes), sizeof bytes);
	shutdown(p->c->fd[1], SHUT_WR);
	run_turns(10);
	assert_true(p->c->sent_eof);
	set_deaf(&p->client, true);
	run_turns(3);
	nghttp2_submit_ping(p->server.h2->session, NGHTTP2_FLAG_NONE, h2_goaway_ping);
	h2_touch(p->server.h2);
	run_turns(3);
	set_deaf(&p->client, false);
	app_drop(p->c, NGHTTP2_NO_ERROR);
	h2_shutdown(p->client.h2, false);
	run_turns(1);
	if (p->client.closed)
		end_free(&p->client);
	run_turns(10);
}

static void test_last_bytes_arrive(void **state)
{
	struct pair p;

	client_goes(&p);
	set_deaf(&p.server, false);
	assert_true(run_until(is_closed, &p.server));
	assert_int_equal(p.s->n_got, LAST_BYTES);
	assert_int_equal(p.s->ends, 1);
	assert_int_equal(p.s->resets, 0);
	assert_string_equal(p.server.why, "closed by peer");
	end_free(&p.server);
	assert_true(run_until(is_closed, &p.client));
	assert_string_equal(p.client.why, "closed");
	end_free(&p.client);
}

/* It is waited for while it reads, and no longer. */
static void test_who_never_closes(void **state)
{
	struct pair p;
	static char some[LAST_BYTES];

	client_goes(&p);
	clock_forward(H2_LINGER_MS - 1000);
	assert_int_equal(p.client.closed, 0);
	assert_int_equal(read(record_fd(p.server.h2->record), some, sizeof some), sizeof some);
	clock_forward(H2_LINGER_MS - 1000);
	assert_int_equal(p.client.closed, 0);
	clock_forward(1000 + 2 * H2_LINGER_MS);
	clock_forward(H2_LINGER_MS);
	assert_true(run_until(is_closed, &p.client));
	pair_close(&p);
}

/* Nor for ever while it takes a byte now and then. */
static void test_who_hardly_reads(void **state)
{
	struct pair p;

	client_goes(&p);
	for (unsigned ms = H2_LINGER_MS; ms < H2_LINGER_MAX_MS; ms += H2_LINGER_MS) {
		p.client.h2->unsent = UINT32_MAX; /* it has taken something since */
		clock_forward(H2_LINGER_MS);
		assert_int_equal(p.client.closed, 0);
	}
	p.client.h2->unsent = UINT32_MAX;
	clock_forward(2 * H2_LINGER_MS);
	assert_int_equal(p.client.closed, 1);
	pair_close(&p);
}

/* Nor is one that was cut meanwhile. */
static void test_cut_while_it_waits(void **state)
{
	struct pair p;

	client_goes(&p);
	assert_int_equal(p.client.closed, 0);
	h2_cut(p.client.h2);
	run_turns(3);
	assert_int_equal(p.client.closed, 1);
	pair_close(&p);
}

/* A record whose key cannot be changed any more: the streams that are there finish, no new one begins, then it ends. */
static void test_retiring_record(void **state)
{
	for (int of_server = 0; of_server < 2; of_server++) {
		struct pair p;

		pair_open(&p);

		struct flow up = {p.c, p.s, 300000, 65536}, *all[] = {&up, NULL};

		(of_server ? p.server : p.client).h2->record->retiring = true;
		assert_true(run_until(flows_done, all));
		flow_check(&up, of_server ? "the server's retires" : "the client's retires");
		run_turns(20);
		assert_false(h2_open_for_streams(p.client.h2, 100));
		assert_int_equal(p.client.closed + p.server.closed, 0);
		app_drop(p.c, NGHTTP2_CANCEL);
		assert_true(run_until(is_closed, &p.client));
		assert_true(run_until(is_closed, &p.server));
		pair_close(&p);
	}
}

/* --- deadlines ------------------------------------------------------------------------------------------ */

static void test_ping(void **state)
{
	struct pair p;

	pair_open(&p);
	for (unsigned i = 0; i < 100; i++)
		clock_forward(1000);
	run_turns(10);
	assert_int_equal(p.client.closed + p.server.closed, 0); /* both answer */
	io_want(rig_loop, &p.server.h2->io, 0);
	timer_cancel(&p.server.h2->timer); /* now it neither reads nor asks */
	for (unsigned i = 0; i < 25; i++)
		clock_forward(1000);
	assert_int_equal(p.client.closed, 0);
	for (unsigned i = 0; i < 15; i++)
		clock_forward(1000);
	assert_int_equal(p.client.closed, 1);
	assert_string_equal(p.client.why, "ping timeout");
	assert_int_equal(p.c->resets, 1);
	pair_close(&p);
}

static unsigned turns;

static void count_turn(void *arg, bool about_to_sleep)
{
	turns += about_to_sleep;
	rig_turn(arg, about_to_sleep);
}

static void silence_over(struct timer *t)
{
	loop_stop(rig_loop);
}

static int count_bytes(void *arg, uint8_t *p, size_t len)
{
	*(size_t *)arg += len;
	return 0;
}

static size_t heard_by(struct record *r)
{
	size_t n = 0;

	while (record_recv(r, count_bytes, &n) >= 0)
		;
	return n;
}

/* Part of a record is nothing to wake for again and again, whatever the kernel says of the socket. */
static void test_part_of_record(void **state)
{
	static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0",
			     ping[] = "\0\0\10\6\0\0\0\0\0whole...";
	struct record_secrets s = {.cipher = RECORD_AES_128_GCM, .len = 32};
	struct timer silence = {0};
	struct end server;
	struct record *client;
	uint8_t wire[128];
	int fd[2], n;

	rig_pair(fd);
	end_init(&server, fd[1], true);
	memset(s.tx, 1, sizeof s.tx);
	memset(s.rx, 2, sizeof s.rx);
	client = record_new(fd[0], &s, rig_pool); /* in userspace: its records are cut by hand */
	assert_int_equal(record_write(client, preface, sizeof preface), 0);
	assert_int_equal(record_flush(client), 0);
	run_turns(20);
	assert_true(heard_by(client) > 0);
	for (int i = n = 0; i < 2; i++) {
		memcpy(wire + n + RECORD_HEADER, ping, sizeof ping - 1);
		n += record_seal(&client->tx, rig_pool, wire + n, sizeof ping - 1, RECORD_DATA);
	}
	loop_on_turn(rig_loop, count_turn, NULL);
	for (int at = 0, part = 0; part < 3; part++) { /* with some of the next one's header, of its body, the rest */
		int len = part == 0 ? n / 2 + 3 : part == 1 ? 17 : n - at;

		assert_int_equal(write(fd[0], wire + at, (size_t)len), len);
		at += len;
		turns = 0;
		timer_set(rig_loop, &silence, 300, silence_over);
		loop_run(rig_loop);
		if (turns > 60) /* ticks of timers, and a few for the event itself */
			fail_msg("part %d: %u turns in 0.3 s", part, turns);
		assert_int_equal(heard_by(client), part == 1 ? 0 : 17);
	}
	loop_on_turn(rig_loop, rig_turn, NULL);
	record_free(client);
	end_free(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_part_of_record),
		cmocka_unit_test(test_many_streams),
		cmocka_unit_test(test_half_close),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_reset_with_held_data),
		cmocka_unit_test(test_freed_under_a_stream),
		cmocka_unit_test(test_receiver_fails),
		cmocka_unit_test(test_connection_lost),
		cmocka_unit_test(test_stalled_neighbours),
		cmocka_unit_test(test_stuck_socket),
		cmocka_unit_test(test_slow_socket),
		cmocka_unit_test(test_idle_memory),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_max_streams),
		cmocka_unit_test(test_server_shutdown),
		cmocka_unit_test(test_graceful_is_kind),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_client_shutdown),
		cmocka_unit_test(test_last_bytes_arrive),
		cmocka_unit_test(test_who_never_closes),
		cmocka_unit_test(test_who_hardly_reads),
		cmocka_unit_test(test_cut_while_it_waits),
		cmocka_unit_test(test_retiring_record),
		cmocka_unit_test(test_ping),
	};

	return backends_run("h2", tests, sizeof tests / sizeof *tests, false, rig_setup, rig_teardown);
}
