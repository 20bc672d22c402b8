/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the turns of one thread: epoll, timers as the wheel has them, and the mailbox. */
#include "loop/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/monotonic.h"
#include "loop/wheel.h"

struct loop {
	int epfd;
	bool stop, running;
	uint64_t now; /* ms */
	struct epoll_event ev[LOOP_EVENTS_MAX];
	int n_ev, at_ev;
	struct wheel wheel;
	struct list tasks, later; /* of this turn, of the next one */
	void (*turn)(void *arg, bool about_to_sleep);
	void *turn_arg;
	struct io wake;
	pthread_mutex_t lock;
	struct msg *head, **tail;
};

static void wake(struct loop *l)
{
	uint64_t one = 1;
	ssize_t n = write(l->wake.fd, &one, sizeof one);
	(void)n; /* EAGAIN: the counter is full, so it is readable already */
}

static void serve_messages(struct loop *l)
{
	struct msg *m;

	pthread_mutex_lock(&l->lock);
	m = l->head;
	l->head = NULL;
	l->tail = &l->head;
	pthread_mutex_unlock(&l->lock);
	while (m) {
		struct msg *next = m->next;
		m->handle(l, m);
		m = next;
	}
}

static void woken(struct io *io, uint32_t events)
{
	uint64_t count;
	ssize_t n = read(io->fd, &count, sizeof count);
	(void)n;
	(void)events;
	serve_messages(container_of(io, struct loop, wake));
}

struct loop *loop_new(void)
{
	struct loop *l = calloc(1, sizeof *l);
	int fd;

	if (!l)
		return NULL;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	l->now = monotonic_ms();
	wheel_init(&l->wheel, l->now / LOOP_TICK_MS);
	list_init(&l->tasks);
	list_init(&l->later);
	pthread_mutex_init(&l->lock, NULL);
	l->tail = &l->head;
	io_init(&l->wake, fd, woken);
	if (l->epfd < 0 || fd < 0 || io_want(l, &l->wake, EPOLLIN)) {
		int err = errno;
		loop_free(l);
		errno = err;
		return NULL;
	}
	return l;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	while (l->head) /* a handler may post another one */
		serve_messages(l);
	if (l->wake.fd >= 0)
		close(l->wake.fd);
	if (l->epfd >= 0)
		close(l->epfd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

uint64_t loop_now(const struct loop *l)
{
	return l->now;
}

void loop_on_turn(struct loop *l, void (*turn)(void *arg, bool about_to_sleep), void *arg)
{
	l->turn = turn;
	l->turn_arg = arg;
}

void loop_stop(struct loop *l)
{
	__atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
	wake(l);
}

/* --- descriptors ---------------------------------------------------------------------------------------- */

void io_init(struct io *io, int fd, void (*ready)(struct io *io, uint32_t events))
{
	io->fd = fd;
	io->mask = 0;
	io->ready = ready;
}

static int control(struct loop *l, struct io *io, int op, uint32_t mask)
{
	struct epoll_event ev = {.events = mask, .data.ptr = io};

	if (epoll_ctl(l->epfd, op, io->fd, &ev) < 0)
		return -errno;
	io->mask = op == EPOLL_CTL_DEL ? 0 : mask;
	return 0;
}

/* The owner may be gone when their turn comes. */
static void forget_events(struct loop *l, const struct io *io)
{
	for (int i = l->at_ev; i < l->n_ev; i++)
		if (l->ev[i].data.ptr == io)
			l->ev[i].data.ptr = NULL;
}

int io_want(struct loop *l, struct io *io, uint32_t mask)
{
	int op = io->mask ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, e;

	if (mask == io->mask)
		return 0;
	if (!mask) {
		forget_events(l, io);
		return control(l, io, EPOLL_CTL_DEL, 0);
	}
	if (op == EPOLL_CTL_MOD && (mask | io->mask) & EPOLLEXCLUSIVE) { /* the kernel modifies no such entry */
		e = control(l, io, EPOLL_CTL_DEL, 0);
		if (e < 0)
			return e;
		op = EPOLL_CTL_ADD;
	}
	return control(l, io, op, mask);
}

void io_stop(struct loop *l, struct io *io)
{
	if (io->mask)
		control(l, io, EPOLL_CTL_DEL, 0);
	io->mask = 0;
	forget_events(l, io);
}

void io_close(struct loop *l, struct io *io)
{
	close(io->fd);
	io->fd = -1;
	io->mask = 0;
	forget_events(l, io);
}

/* What an earlier callback of this turn no longer wants is not delivered; it is reported again when it is wanted. */
static uint32_t wanted(const struct io *io, uint32_t events)
{
	return io->mask ? events & (io->mask | EPOLLERR | EPOLLHUP) : 0;
}

static void serve_descriptors(struct loop *l)
{
	for (l->at_ev = 0; l->at_ev < l->n_ev;) {
		struct epoll_event *ev = &l->ev[l->at_ev++];
		struct io *io = ev->data.ptr;
		uint32_t events = io ? wanted(io, ev->events) : 0;
		if (events)
			io->ready(io, events);
	}
	l->n_ev = l->at_ev = 0;
}

/* --- timers --------------------------------------------------------------------------------------------- */

bool timer_armed(const struct timer *t)
{
	return t->link.next && !list_empty(&t->link);
}

void timer_cancel(struct timer *t)
{
	if (t->link.next)
		list_del(&t->link);
}

void timer_set(struct loop *l, struct timer *t, uint64_t after_ms, void (*fire)(struct timer *t))
{
	timer_cancel(t);
	if (!l->running)
		l->now = monotonic_ms(); /* nobody else keeps it up to date */
	t->fire = fire;
	wheel_add(&l->wheel, t, (l->now + after_ms) / LOOP_TICK_MS + 1);
}

/* Milliseconds to sleep. A timer of a later round costs one needless wake-up per round, no more. */
static int sleep_ms(struct loop *l)
{
	unsigned ticks;
	int64_t ms;

	if (!list_empty(&l->tasks) || !list_empty(&l->later) || __atomic_load_n(&l->stop, __ATOMIC_ACQUIRE))
		return 0;
	ticks = wheel_next(&l->wheel);
	ms = (int64_t)((l->wheel.tick + ticks) * LOOP_TICK_MS) - (int64_t)l->now;
	return !ticks ? -1 : ms > 0 ? (int)ms : 0;
}

/* --- deferred work -------------------------------------------------------------------------------------- */

void loop_defer(struct loop *l, struct task *t, void (*run)(struct task *t))
{
	if (t->link.next && !list_empty(&t->link))
		return;
	t->run = run;
	list_init(&t->link);
	list_add_tail(&l->tasks, &t->link);
}

void loop_next_turn(struct loop *l, struct task *t, void (*run)(struct task *t))
{
	task_cancel(t);
	t->run = run;
	list_init(&t->link);
	list_add_tail(&l->later, &t->link);
}

void task_cancel(struct task *t)
{
	if (t->link.next)
		list_del(&t->link);
}

static void serve_tasks(struct loop *l)
{
	while (!list_empty(&l->tasks)) {
		struct task *t = list_entry(l->tasks.next, struct task, link);
		list_del(&t->link);
		t->run(t);
	}
}

void loop_post(struct loop *l, struct msg *m, void (*handle)(struct loop *l, struct msg *m))
{
	bool first;

	m->next = NULL;
	m->handle = handle;
	pthread_mutex_lock(&l->lock);
	first = !l->head;
	*l->tail = m;
	l->tail = &m->next;
	pthread_mutex_unlock(&l->lock);
	if (first)
		wake(l);
}

void loop_run(struct loop *l)
{
	l->running = true;
	while (!__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE)) {
		int ms = sleep_ms(l);

		if (l->turn)
			l->turn(l->turn_arg, ms != 0);
		l->n_ev = epoll_wait(l->epfd, l->ev, LOOP_EVENTS_MAX, ms);
		if (l->n_ev < 0)
			l->n_ev = 0; /* EINTR */
		if (l->turn)
			l->turn(l->turn_arg, false);
		l->now = monotonic_ms();
		wheel_serve(&l->wheel, l->now / LOOP_TICK_MS);
		list_move_all(&l->tasks, &l->later);
		serve_descriptors(l);
		serve_tasks(l);
	}
	l->running = false;
	__atomic_store_n(&l->stop, false, __ATOMIC_RELEASE); /* may be run again */
}
