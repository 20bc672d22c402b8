/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: timers, deferred tasks, descriptors that go while events are on their way, messages from other threads. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "loop/loop.h"

enum { DEADLINE_MS = 20000 };

static struct loop *loop;
static struct timer deadline;
static char seen[256];

static void too_late(struct timer *t)
{
	strcat(seen, "(deadline)");
	loop_stop(loop);
}

static int set_up(void **state)
{
	loop = loop_new();
	seen[0] = 0;
	memset(&deadline, 0, sizeof deadline);
	timer_set(loop, &deadline, DEADLINE_MS, too_late);
	return 0;
}

static int tear_down(void **state)
{
	loop_free(loop);
	return 0;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void note(char name)
{
	char text[2] = {name, 0};

	strcat(seen, text);
}

/* --- timers -------------------------------------------------------------------------------------------------------- */

struct named_timer {
	struct timer t;
	char name;
	uint64_t set_at, after;
	struct named_timer *other; /* cancelled, or armed again, in the callback */
	uint64_t again;
};

static bool early;

static void fired(struct timer *t)
{
	struct named_timer *n = container_of(t, struct named_timer, t);

	early |= now_ms() < n->set_at + n->after;
	note(n->name);
	if (n->other && n->again)
		timer_set(loop, &n->other->t, n->again, fired);
	else if (n->other)
		timer_cancel(&n->other->t);
	if (n->name == '.')
		loop_stop(loop);
}

static void arm(struct named_timer *n, char name, uint64_t after)
{
	n->name = name;
	n->set_at = now_ms();
	n->after = after;
	timer_set(loop, &n->t, after, fired);
}

static const struct {
	const char *name;
	uint64_t after[4]; /* a, b, c and the end */
	const char *want;
} orders[] = {
	{"in the order of their times", {120, 40, 80, 160}, "bca."},
	{"of the same time in the order of their arming", {40, 40, 40, 40}, "abc."},
	{"at once", {0, 0, 0, 40}, "abc."},
	{"a far one stays", {40, 60000, 80, 120}, "ac."},
	{"a whole turn of the wheel away is not now", {40, 40 + 1024 * LOOP_TICK_MS, 80, 120}, "ac."},
};

static void test_timers_fire_in_order_and_never_early(void **state)
{
	for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
		struct named_timer t[4] = {{.name = 0}};

		seen[0] = 0;
		early = false;
		for (unsigned k = 0; k < 4; k++)
			arm(&t[k], "abc."[k], orders[i].after[k]);
		loop_run(loop);
		if (strcmp(seen, orders[i].want) || early)
			fail_msg("%s: %s%s", orders[i].name, seen, early ? ", early" : "");
		for (unsigned k = 0; k < 4; k++)
			timer_cancel(&t[k].t);
	}
}

static void test_a_callback_cancels_others(void **state)
{
	struct named_timer a = {.name = 0}, b = a, c = a, end = a;

	arm(&a, 'a', 16);
	arm(&b, 'b', 16); /* the same tick: already on its way */
	arm(&c, 'c', 64);
	arm(&end, '.', 120);
	a.other = &b;
	end.other = &c;
	loop_run(loop);
	assert_string_equal(seen, "ac.");
	assert_false(timer_armed(&a.t) || timer_armed(&b.t) || timer_armed(&c.t));
}

static void test_a_callback_arms_itself_again(void **state)
{
	struct named_timer a = {.name = 0}, end = a;

	arm(&a, 'a', 8);
	a.other = &a;
	a.again = 1;
	arm(&end, '.', 100);
	loop_run(loop);
	assert_true(strlen(seen) >= 4);
	assert_true(timer_armed(&a.t));
	timer_cancel(&a.t);
	assert_false(timer_armed(&a.t));
	timer_cancel(&a.t);
}

static void test_arming_again_moves(void **state)
{
	struct named_timer a = {.name = 0}, b = a, end = a;

	arm(&a, 'a', 20);
	arm(&b, 'b', 60);
	arm(&a, 'a', 100);
	arm(&end, '.', 140);
	loop_run(loop);
	assert_string_equal(seen, "ba.");
}

static void test_a_timer_that_was_never_armed(void **state)
{
	struct timer t = {.fire = NULL};

	assert_false(timer_armed(&t));
	timer_cancel(&t);
}

static void nothing(struct loop *l, struct msg *m)
{
}

/* Before the loop runs nobody keeps the clock: what is armed late must not fire too early. */
static void test_a_timer_that_is_armed_long_after_the_loop_was_made(void **state)
{
	struct timespec ts = {.tv_nsec = 120000000};
	struct named_timer end = {.name = 0};
	struct msg m;

	nanosleep(&ts, NULL);
	arm(&end, '.', 80);
	loop_post(loop, &m, nothing); /* ends the first sleep early */
	early = false;
	loop_run(loop);
	assert_string_equal(seen, ".");
	assert_false(early);
}

static bool slept;

static void turned(void *arg, bool about_to_sleep)
{
	slept |= about_to_sleep;
	++*(unsigned *)arg;
}

static void test_an_idle_loop_sleeps(void **state)
{
	struct named_timer end = {.name = 0};
	unsigned turns = 0;

	slept = false;
	loop_on_turn(loop, turned, &turns);
	arm(&end, '.', 200);
	loop_run(loop);
	assert_true(slept);
	assert_in_range(turns, 2, 8);
}

/* --- deferred tasks ------------------------------------------------------------------------------------------------ */

struct named_task {
	struct task t;
	char name;
	struct named_task *next, *cancelled;
};

static void ran(struct task *t)
{
	struct named_task *n = container_of(t, struct named_task, t);

	note(n->name);
	if (n->next)
		loop_defer(loop, &n->next->t, ran);
	if (n->cancelled)
		task_cancel(&n->cancelled->t);
	if (n->name == '.')
		loop_stop(loop);
}

static void test_tasks(void **state)
{
	struct named_task a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'}, d = {.name = 'd'},
			  end = {.name = '.'};

	loop_defer(loop, &a.t, ran);
	loop_defer(loop, &b.t, ran);
	loop_defer(loop, &a.t, ran); /* queued already */
	loop_defer(loop, &d.t, ran);
	loop_defer(loop, &end.t, ran);
	a.cancelled = &d;
	b.next = &c; /* in the same turn, behind those that wait */
	loop_run(loop);
	assert_string_equal(seen, "ab.c");
	task_cancel(&a.t);
}

/* "tr" is one turn: a descriptor, which is always ready, and the task; which asks for its next turn three times. */
static struct io each_turn;

static void ran_again(struct task *t)
{
	struct named_task *n = container_of(t, struct named_task, t);

	note(n->name);
	if (strlen(seen) >= 6) {
		loop_stop(loop);
		return;
	}
	loop_defer(loop, t, ran_again); /* this turn's: the next one it is all the same */
	loop_next_turn(loop, t, ran_again);
	loop_defer(loop, t, ran_again); /* queued already */
}

static void tick(struct io *io, uint32_t events)
{
	note('t');
}

static void test_tasks_of_the_next_turn(void **state)
{
	struct named_task r = {.name = 'r'}, cancelled = {.name = 'x'};
	uint64_t one = 1;

	io_init(&each_turn, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), tick);
	assert_int_equal(write(each_turn.fd, &one, sizeof one), sizeof one);
	assert_int_equal(io_want(loop, &each_turn, EPOLLIN), 0);
	loop_next_turn(loop, &cancelled.t, ran_again);
	task_cancel(&cancelled.t);
	loop_next_turn(loop, &r.t, ran_again);
	loop_run(loop);
	assert_string_equal(seen, "trtrtr");
	io_close(loop, &each_turn);
}

/* --- descriptors --------------------------------------------------------------------------------------------------- */

struct named_io {
	struct io io;
	char name;
	uint32_t events;
	struct named_io *stops, *mutes;
};

static void ready(struct io *io, uint32_t events)
{
	struct named_io *n = container_of(io, struct named_io, io);
	uint64_t count;

	n->events |= events;
	note(n->name);
	if (n->stops)
		io_stop(loop, &n->stops->io);
	if (n->mutes)
		io_want(loop, &n->mutes->io, EPOLLOUT | EPOLLET);
	if (read(io->fd, &count, sizeof count) < 0 && errno != EAGAIN)
		strcat(seen, "(read)");
}

static void io_open(struct named_io *n, char name, uint64_t count)
{
	*n = (struct named_io){.name = name};
	io_init(&n->io, eventfd((unsigned)count, EFD_NONBLOCK | EFD_CLOEXEC), ready);
}

static void io_shut(struct named_io *n)
{
	io_stop(loop, &n->io);
	close(n->io.fd);
}

static void stop_soon(uint64_t ms)
{
	static struct named_timer end;

	memset(&end, 0, sizeof end);
	arm(&end, '.', ms);
}

static void test_io_stop_drops_what_is_on_its_way(void **state)
{
	struct named_io a, b;

	io_open(&a, 'a', 1);
	io_open(&b, 'b', 1);
	a.stops = &b;
	b.stops = &a; /* whichever comes first */
	assert_int_equal(io_want(loop, &a.io, EPOLLIN), 0);
	assert_int_equal(io_want(loop, &b.io, EPOLLIN), 0);
	stop_soon(40);
	loop_run(loop);
	assert_int_equal(strlen(seen), 2);
	assert_int_equal(seen[1], '.');
	io_shut(&a);
	io_shut(&b);
}

static struct named_io *heap[2];
static enum { BY_STOPPING, BY_CLOSING, BY_WANTING_NOTHING, WAYS } way;

static void free_other(struct io *io, uint32_t events)
{
	unsigned other = io == &heap[0]->io;

	note(heap[!other]->name);
	if (way == BY_CLOSING) {
		io_close(loop, &heap[other]->io);
	} else {
		if (way == BY_STOPPING)
			io_stop(loop, &heap[other]->io);
		else
			io_want(loop, &heap[other]->io, 0);
		close(heap[other]->io.fd);
	}
	free(heap[other]);
	heap[other] = NULL;
	io_stop(loop, io);
}

static void free_one_of_two(void)
{
	for (unsigned i = 0; i < 2; i++) {
		heap[i] = malloc(sizeof *heap[i]);
		io_open(heap[i], 'a', 1);
		heap[i]->io.ready = free_other;
		assert_int_equal(io_want(loop, &heap[i]->io, EPOLLIN), 0);
	}
	seen[0] = 0;
	stop_soon(40);
	loop_run(loop);
	assert_string_equal(seen, "a.");
	for (unsigned i = 0; i < 2; i++)
		if (heap[i]) {
			io_shut(heap[i]);
			free(heap[i]);
		}
}

static void test_what_is_stopped_may_be_freed_at_once(void **state)
{
	for (way = 0; way < WAYS; way++)
		free_one_of_two();
}

static struct named_io *to_close;

static void close_other(struct io *io, uint32_t events)
{
	struct named_io *n = container_of(io, struct named_io, io);

	note(n->name);
	io_close(loop, &to_close->io);
}

static void test_io_close_drops_what_is_on_its_way(void **state)
{
	struct named_io a, b;
	int fd;

	io_open(&a, 'a', 1);
	io_open(&b, 'b', 1);
	fd = b.io.fd;
	a.io.ready = close_other;
	to_close = &b;
	assert_int_equal(io_want(loop, &a.io, EPOLLIN | EPOLLET), 0);
	assert_int_equal(io_want(loop, &b.io, EPOLLIN | EPOLLET), 0);
	b.io.ready = close_other; /* whichever comes first: it closes b */
	stop_soon(40);
	loop_run(loop);
	assert_int_equal(b.io.fd, -1);
	assert_int_equal(b.io.mask, 0);
	assert_int_equal(write(fd, &(uint64_t){1}, 8), -1);
	assert_true(strcmp(seen, "a.") == 0 || strcmp(seen, "ba.") == 0);
	io_shut(&a);
}

static void test_io_stop_of_itself(void **state)
{
	struct named_io a;

	io_open(&a, 'a', 5);
	a.stops = &a;
	assert_int_equal(io_want(loop, &a.io, EPOLLIN | EPOLLOUT), 0);
	stop_soon(40);
	loop_run(loop);
	assert_string_equal(seen, "a.");
	io_stop(loop, &a.io);
	assert_int_equal(io_want(loop, &a.io, EPOLLIN), 0); /* and again */
	io_shut(&a);
}

static void test_what_is_no_longer_wanted_is_not_delivered(void **state)
{
	struct named_io a, b;

	io_open(&a, 'a', 1);
	io_open(&b, 'b', 1);
	a.mutes = &b;
	b.mutes = &a;
	assert_int_equal(io_want(loop, &a.io, EPOLLIN), 0);
	assert_int_equal(io_want(loop, &b.io, EPOLLIN), 0);
	stop_soon(60);
	loop_run(loop);
	assert_true(strlen(seen) >= 2);
	/* The first mutes the other's input; that one then comes for its output alone. */
	assert_int_equal((a.events | b.events) & EPOLLIN, EPOLLIN);
	assert_int_equal(a.events & b.events & EPOLLIN, 0);
	io_shut(&a);
	io_shut(&b);
}

static const struct {
	const char *name;
	uint32_t from, to;
	bool comes; /* with `to`, on a readable and writable descriptor */
} wants[] = {
	{"input", 0, EPOLLIN, true},
	{"output", 0, EPOLLOUT, true},
	{"nothing", EPOLLIN, 0, false},
	{"from input to output", EPOLLIN, EPOLLOUT, true},
	{"the same again", EPOLLIN, EPOLLIN, true},
	{"exclusive", 0, EPOLLIN | EPOLLEXCLUSIVE, true},
	{"from exclusive to nothing", EPOLLIN | EPOLLEXCLUSIVE, 0, false},
	{"from exclusive to plain", EPOLLIN | EPOLLEXCLUSIVE, EPOLLOUT, true},
	{"from plain to exclusive", EPOLLOUT, EPOLLIN | EPOLLEXCLUSIVE, true},
	{"from exclusive to exclusive", EPOLLIN | EPOLLEXCLUSIVE, EPOLLOUT | EPOLLEXCLUSIVE, true},
	{"edges", 0, EPOLLIN | EPOLLET, true},
};

static void test_wants(void **state)
{
	for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) {
		struct named_io a;

		seen[0] = 0;
		io_open(&a, 'a', 1);
		a.stops = &a;
		if (io_want(loop, &a.io, wants[i].from) || io_want(loop, &a.io, wants[i].to))
			fail_msg("%s: refused", wants[i].name);
		stop_soon(16);
		loop_run(loop);
		if ((seen[0] == 'a') != wants[i].comes)
			fail_msg("%s: %s", wants[i].name, seen);
		if (wants[i].comes && !(a.events & wants[i].to))
			fail_msg("%s: events %x", wants[i].name, a.events);
		io_shut(&a);
	}
}

static void test_a_refused_interest_is_an_error(void **state)
{
	struct io io;

	io_init(&io, -1, ready);
	assert_int_equal(io_want(loop, &io, EPOLLIN), -EBADF);
	io_stop(loop, &io);
}

static void test_hangups_come_with_any_interest(void **state)
{
	struct named_io a = {.name = 'a'};
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	io_init(&a.io, fd[0], ready);
	a.stops = &a;
	assert_int_equal(io_want(loop, &a.io, EPOLLRDHUP | EPOLLET), 0);
	close(fd[1]);
	stop_soon(40);
	loop_run(loop);
	assert_int_equal(a.events & (EPOLLHUP | EPOLLRDHUP), EPOLLHUP | EPOLLRDHUP);
	io_shut(&a);
}

/* Two loops wait for one listener with EPOLLEXCLUSIVE: each connection wakes somebody, and none is lost. */
struct acceptor {
	struct loop *l;
	struct io io;
	pthread_t thread;
	unsigned n;
};

static unsigned accepted;

static void accept_one(struct io *io, uint32_t events)
{
	struct acceptor *a = container_of(io, struct acceptor, io);
	int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	close(fd);
	a->n++;
	__atomic_fetch_add(&accepted, 1, __ATOMIC_RELAXED);
}

static void *acceptor_main(void *arg)
{
	struct acceptor *a = arg;

	loop_run(a->l);
	return NULL;
}

static void test_exclusive_waiters_lose_no_connection(void **state)
{
	enum { CONNECTIONS = 500 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_storage ss = {.ss_family = AF_UNIX};
	socklen_t len = sizeof(sa_family_t);
	struct acceptor a[2] = {{.n = 0}};
	uint64_t until = now_ms() + DEADLINE_MS;

	accepted = 0;
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0); /* an abstract name of the kernel's choice */
	assert_int_equal(listen(fd, 4096), 0);
	len = sizeof ss;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	for (unsigned i = 0; i < 2; i++) {
		a[i].l = loop_new();
		io_init(&a[i].io, fd, accept_one);
		assert_int_equal(io_want(a[i].l, &a[i].io, EPOLLIN | EPOLLEXCLUSIVE), 0);
		assert_int_equal(pthread_create(&a[i].thread, NULL, acceptor_main, &a[i]), 0);
	}
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		int c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(c, (struct sockaddr *)&ss, len), 0);
		close(c);
	}
	while (__atomic_load_n(&accepted, __ATOMIC_RELAXED) < CONNECTIONS && now_ms() < until)
		sched_yield();
	for (unsigned i = 0; i < 2; i++) {
		loop_stop(a[i].l);
		pthread_join(a[i].thread, NULL);
		io_stop(a[i].l, &a[i].io);
		loop_free(a[i].l);
	}
	close(fd);
	assert_int_equal(a[0].n + a[1].n, CONNECTIONS);
}

/* --- messages ------------------------------------------------------------------------------------------------------ */

enum { SENDERS = 3, MESSAGES = 2000 };

struct numbered {
	struct msg m;
	unsigned sender, number;
};

static unsigned next_number[SENDERS], out_of_order, received;

static void handle(struct loop *l, struct msg *m)
{
	struct numbered *n = container_of(m, struct numbered, m);

	out_of_order += n->number != next_number[n->sender]++;
	if (++received == SENDERS * MESSAGES)
		loop_stop(l);
}

static void *sender_main(void *arg)
{
	struct numbered *all = arg;

	for (unsigned i = 0; i < MESSAGES; i++)
		loop_post(loop, &all[i].m, handle);
	return NULL;
}

static void test_messages_from_other_threads(void **state)
{
	static struct numbered all[SENDERS][MESSAGES];
	pthread_t thread[SENDERS];

	memset(next_number, 0, sizeof next_number);
	out_of_order = received = 0;
	for (unsigned s = 0; s < SENDERS; s++) {
		for (unsigned i = 0; i < MESSAGES; i++)
			all[s][i] = (struct numbered){.sender = s, .number = i};
		assert_int_equal(pthread_create(&thread[s], NULL, sender_main, all[s]), 0);
	}
	loop_run(loop);
	for (unsigned s = 0; s < SENDERS; s++)
		pthread_join(thread[s], NULL);
	assert_string_equal(seen, "");
	assert_int_equal(received, SENDERS * MESSAGES);
	assert_int_equal(out_of_order, 0);
}

static struct msg second;

static void note_second(struct loop *l, struct msg *m)
{
	note('b');
}

static void post_again(struct loop *l, struct msg *m)
{
	note('a');
	loop_post(l, &second, note_second);
}

static void test_messages_are_handled_when_the_loop_goes(void **state)
{
	struct loop *l = loop_new();
	struct msg first;

	loop_post(l, &first, post_again);
	loop_free(l);
	assert_string_equal(seen, "ab");
	loop_free(NULL);
}

static void *stopper_main(void *arg)
{
	loop_stop(arg);
	return NULL;
}

static void test_stopping_from_another_thread(void **state)
{
	pthread_t thread;

	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(pthread_create(&thread, NULL, stopper_main, loop), 0);
		loop_run(loop); /* whether the stop comes before, while or as it sleeps */
		pthread_join(thread, NULL);
	}
	assert_string_equal(seen, "");
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
	mallopt(M_PERTURB, 0x5a); /* what is freed does not look as before */
	const struct CMUnitTest tests[] = {
		ROW(test_timers_fire_in_order_and_never_early),
		ROW(test_a_callback_cancels_others),
		ROW(test_a_callback_arms_itself_again),
		ROW(test_arming_again_moves),
		ROW(test_a_timer_that_was_never_armed),
		ROW(test_a_timer_that_is_armed_long_after_the_loop_was_made),
		ROW(test_an_idle_loop_sleeps),
		ROW(test_tasks),
		ROW(test_tasks_of_the_next_turn),
		ROW(test_io_stop_drops_what_is_on_its_way),
		ROW(test_what_is_stopped_may_be_freed_at_once),
		ROW(test_io_close_drops_what_is_on_its_way),
		ROW(test_io_stop_of_itself),
		ROW(test_what_is_no_longer_wanted_is_not_delivered),
		ROW(test_wants),
		ROW(test_a_refused_interest_is_an_error),
		ROW(test_hangups_come_with_any_interest),
		ROW(test_exclusive_waiters_lose_no_connection),
		ROW(test_messages_from_other_threads),
		ROW(test_messages_are_handled_when_the_loop_goes),
		ROW(test_stopping_from_another_thread),
	};
	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
