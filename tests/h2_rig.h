/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of net/h2 share: a loop that runs until something has happened, clock.h, an
 * end of net/h2 with applications behind its streams, and a peer that writes frames by hand. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "clock.h"
#include "net/h2_internal.h"
#include "record_backends.h"

enum { RIG_WAIT_MS = 60000, RIG_STREAMS = 256, RIG_BYTES = 24 << 20 };

/* --- events --------------------------------------------------------------------------------------------- */

static struct loop *rig_loop;
static struct record_pool *rig_pool;
static bool (*rig_until)(void *arg);
static void *rig_arg;
static bool rig_late;

static inline void rig_turn(void *arg, bool about_to_sleep)
{
	if (rig_until && rig_until(rig_arg))
		loop_stop(rig_loop);
}

static inline void rig_timeout(struct timer *t)
{
	rig_late = true;
	loop_stop(rig_loop);
}

/* Runs the loop until `cond(arg)` holds; false after RIG_WAIT_MS. */
static inline bool run_until(bool (*cond)(void *arg), void *arg)
{
	struct timer late = {0};

	rig_until = cond;
	rig_arg = arg;
	rig_late = false;
	timer_set(rig_loop, &late, RIG_WAIT_MS, rig_timeout);
	loop_run(rig_loop);
	timer_cancel(&late);
	rig_until = NULL;
	return !rig_late;
}

struct kick {
	struct msg m;
	unsigned left;
};

static inline void kick_again(struct loop *l, struct msg *m)
{
	struct kick *k = container_of(m, struct kick, m);

	if (k->left-- > 0)
		loop_post(l, m, kick_again);
	else
		loop_stop(l);
}

/* Some turns, whether or not there is anything to do. */
static inline void run_turns(unsigned n)
{
	struct kick k = {.left = n};

	loop_post(rig_loop, &k.m, kick_again);
	loop_run(rig_loop);
}

static inline void clock_forward(uint64_t ms)
{
	clock_ahead_ms += ms;
	run_turns(3);
}

static inline int rig_setup(void **state)
{
	rig_loop = loop_new();
	rig_pool = record_pool_new(4);
	loop_on_turn(rig_loop, rig_turn, NULL);
	return !rig_loop || !rig_pool;
}

static inline int rig_teardown(void **state)
{
	loop_free(rig_loop);
	record_pool_free(rig_pool);
	return 0;
}

static inline struct record *rig_record(int fd, bool server)
{
	struct record_secrets s = {.cipher = RECORD_AES_128_GCM, .len = 32, .server = server};

	memset(s.tx, server ? 2 : 1, sizeof s.tx);
	memset(s.rx, server ? 1 : 2, sizeof s.rx);
	return backend_take(record_new(fd, &s, rig_pool));
}

/* --- streams with applications -------------------------------------------------------------------------- */

struct app {
	struct h2_stream s;
	struct end *end;
	int32_t id;   /* of a request that waits */
	int fd[2];    /* the tunnel reads fd[0], the test writes fd[1] */
	struct io io; /* of fd[0] */
	size_t got_cap;
	uint8_t *got;	   /* what came out of the tunnel */
	size_t n_got, cap; /* cap: the application takes no more than this in all */
	size_t piece;	   /* and so much at once; 0: any */
	unsigned takes, ends, resets, writables;
	uint32_t code;
	int status, fail;			      /* fail: what take returns */
	bool refused, sent_eof, live, blocked, keeps; /* keeps: its stream, after a reset */
	char why[64], baggage[H2_HEADER_VALUE_MAX + 1], authority[H2_HEADER_VALUE_MAX + 1];
};

struct end { /* one side of a connection */
	struct h2 *h2;
	bool server, keep_waiting; /* requests are not answered at once */
	unsigned requests, closed, leaving, idle, limited[H2_LIMITS];
	char why[128];
	struct app *app[RIG_STREAMS];
	unsigned n_apps;
};

static inline void app_watch(struct app *a)
{
	io_want(rig_loop, &a->io, a->blocked || a->sent_eof ? 0 : EPOLLIN);
}

static inline void app_pump(struct app *a)
{
	ssize_t n = h2_stream_pump(&a->s, a->fd[0]);

	if (n == 0)
		a->sent_eof = true;
	a->blocked = n == -ENOBUFS || n == -EPIPE;
	app_watch(a);
}

static inline void app_ready(struct io *io, uint32_t events)
{
	app_pump(container_of(io, struct app, io));
}

static inline struct app *app_new(struct end *e)
{
	struct app *a = calloc(1, sizeof *a);

	assert_true(e->n_apps < RIG_STREAMS);
	e->app[e->n_apps++] = a;
	a->end = e;
	a->cap = SIZE_MAX;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, a->fd), 0);
	io_init(&a->io, a->fd[0], app_ready);
	return a;
}

static inline void app_start(struct app *a)
{
	a->live = true;
	app_watch(a);
}

/* Lets go of the stream; what was seen stays. */
static inline void app_drop(struct app *a, uint32_t code)
{
	io_stop(rig_loop, &a->io);
	h2_stream_free(&a->s, code);
	a->live = false;
}

static inline void app_free(struct app *a)
{
	app_drop(a, NGHTTP2_CANCEL);
	for (int i = 0; i < 2; i++)
		if (a->fd[i] >= 0)
			close(a->fd[i]);
	free(a->got);
	free(a);
}

static inline void app_response(struct h2_stream *s, const struct h2_headers *h)
{
	struct app *a = container_of(s, struct app, s);

	a->status = h->status;
	snprintf(a->baggage, sizeof a->baggage, "%s", h->baggage);
	if (h->status == 200)
		app_start(a);
}

static ssize_t app_take(struct h2_stream *s, const struct iovec *iov, int n)
{
	struct app *a = container_of(s, struct app, s);
	size_t all = 0;

	a->takes++;
	if (a->fail)
		return a->fail;
	for (int i = 0; i < n; i++) {
		size_t k = iov[i].iov_len, room = a->cap - a->n_got;

		if (a->piece && all + k > a->piece)
			k = a->piece - all;
		k = k < room ? k : room;
		if (a->n_got + k >= a->got_cap) {
			a->got_cap = 2 * (a->n_got + k) + 4096;
			a->got = realloc(a->got, a->got_cap);
		}
		memcpy(a->got + a->n_got, iov[i].iov_base, k);
		a->n_got += k;
		all += k;
		if (k < iov[i].iov_len)
			break;
	}
	return (ssize_t)all;
}

static inline void app_end(struct h2_stream *s)
{
	container_of(s, struct app, s)->ends++;
}

static inline void app_writable(struct h2_stream *s)
{
	struct app *a = container_of(s, struct app, s);

	a->writables++;
	if (a->live)
		app_pump(a);
}

static inline void app_reset(struct h2_stream *s, uint32_t code, bool refused, const char *why)
{
	struct app *a = container_of(s, struct app, s);

	a->resets++;
	a->code = code;
	a->refused = refused;
	snprintf(a->why, sizeof a->why, "%s", why ? why : "(none)");
	if (!a->keeps)
		app_drop(a, NGHTTP2_CANCEL);
}

static const struct h2_stream_ops app_ops = {
	.response = app_response,
	.take = app_take,
	.end = app_end,
	.writable = app_writable,
	.reset = app_reset,
};

/* --- ends ----------------------------------------------------------------------------------------------- */

static const nghttp2_nv rig_baggage = {(uint8_t *)"baggage", (uint8_t *)"k=v", 7, 3, 0};

static inline void app_answer(struct app *a)
{
	assert_int_equal(h2_stream_accepted(&a->s, &rig_baggage, 1), 0);
	app_start(a);
}

/* "refuse-STATUS:1" is refused; everything else becomes a stream. */
static inline void end_request(struct h2 *h, int32_t id, const struct h2_headers *hd)
{
	struct end *e = h2_owner(h);
	struct app *a;

	e->requests++;
	if (!strncmp(hd->authority, "refuse-", 7)) {
		h2_refuse(h, id, atoi(hd->authority + 7));
		return;
	}
	a = app_new(e);
	a->id = id;
	snprintf(a->authority, sizeof a->authority, "%s", hd->authority);
	snprintf(a->baggage, sizeof a->baggage, "%s", hd->baggage);
	assert_int_equal(h2_stream_accept(h, &a->s, &app_ops, id), 0);
	if (!e->keep_waiting)
		app_answer(a);
}

static inline void end_closed(struct h2 *h, const char *why)
{
	struct end *e = h2_owner(h);

	e->closed++;
	snprintf(e->why, sizeof e->why, "%s", why ? why : "(none)");
}

static inline void end_leaving(struct h2 *h)
{
	((struct end *)h2_owner(h))->leaving++;
}

static inline void end_idle(struct h2 *h)
{
	((struct end *)h2_owner(h))->idle++;
}

static inline void end_limited(struct h2 *h, enum h2_limit what)
{
	((struct end *)h2_owner(h))->limited[what]++;
}

static const struct h2_ops end_ops = {
	.request = end_request, .closed = end_closed, .leaving = end_leaving, .idle = end_idle, .limited = end_limited};

static inline void end_init(struct end *e, int fd, bool server)
{
	struct record *r = rig_record(fd, server);

	memset(e, 0, sizeof *e);
	e->server = server;
	e->h2 = h2_new(rig_loop, r, server ? H2_SERVER : H2_CLIENT, NULL, &end_ops, e);
	assert_non_null(e->h2);
}

static inline void end_free(struct end *e)
{
	for (unsigned i = 0; i < e->n_apps; i++)
		app_free(e->app[i]);
	h2_free(e->h2);
	memset(e, 0, sizeof *e);
}

static inline void rig_pair(int fd[2])
{
	backend_pair(fd);
}

static inline void ends_join(struct end *client, struct end *server)
{
	int fd[2];

	rig_pair(fd);
	end_init(client, fd[0], false);
	end_init(server, fd[1], true);
}

static inline struct app *end_connect(struct end *e, const char *authority)
{
	struct app *a = app_new(e);

	assert_int_equal(h2_stream_connect(e->h2, &a->s, &app_ops, authority, &rig_baggage, 1), 0);
	return a;
}

static inline bool is_answered(void *arg)
{
	struct app *a = arg;

	return a->status || a->resets;
}

static inline bool is_closed(void *arg)
{
	return ((struct end *)arg)->closed;
}
