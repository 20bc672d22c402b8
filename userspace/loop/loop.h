/* SPDX-License-Identifier: Apache-2.0 */
/* An epoll loop with timers, deferred work and a mailbox. One loop belongs to one thread: every function but
 * loop_post() and loop_stop() must be called from it. Nothing here allocates per event.
 *
 * One turn: expired timers, ready descriptors and messages, then deferred tasks until none is left. Objects that
 * are released inside a callback go through loop_defer(), so that no later event of the same turn meets freed
 * memory. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/list.h"

struct loop;

enum {
	LOOP_EVENTS_MAX = 256, /* descriptors served per turn */
	LOOP_TICK_MS = 8,      /* granularity of timers: they fire up to this much late, never early */
};

/* A descriptor of interest, embedded in its owner. `fd` is the owner's; `mask` is private. */
struct io {
	int fd;
	uint32_t mask;
	void (*ready)(struct io *io, uint32_t events);
};

/* A one-shot timer, embedded in its owner. Zero-initialised means "not armed". */
struct timer {
	struct list link;
	uint64_t expires; /* ticks */
	void (*fire)(struct timer *t);
};

/* Work for the end of this turn. A task that is already queued is not queued twice. */
struct task {
	struct list link;
	void (*run)(struct task *t);
};

/* A message to another thread's loop, owned by the receiver from loop_post() on. */
struct msg {
	struct msg *next;
	void (*handle)(struct loop *l, struct msg *m);
};

/* NULL and errno on failure. */
struct loop *loop_new(void);
/* The loop must be idle: no callback running. Armed timers and queued tasks are forgotten, messages handled. */
void loop_free(struct loop *l);

/* Runs until loop_stop(). `turn`, when set, is called once per turn before sleeping. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l); /* any thread, async-signal-safe */
void loop_on_turn(struct loop *l, void (*turn)(void *arg, bool about_to_sleep), void *arg);

/* Milliseconds of CLOCK_MONOTONIC, read once per turn. */
uint64_t loop_now(const struct loop *l);

void io_init(struct io *io, int fd, void (*ready)(struct io *io, uint32_t events));
/* Sets the interest (EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET, EPOLLEXCLUSIVE); 0 removes the descriptor, as io_stop().
 * No system call when nothing changes. EPOLLERR and EPOLLHUP are reported with any interest. 0 or -errno. */
int io_want(struct loop *l, struct io *io, uint32_t mask);
/* Removes the descriptor and drops events of this turn that have not been delivered. Does not close. */
void io_stop(struct loop *l, struct io *io);
/* The same and closes the descriptor, which must be its file's only one: then the kernel forgets the interest by itself,
 * and a system call is saved. Sets `fd` to -1. */
void io_close(struct loop *l, struct io *io);

void timer_set(struct loop *l, struct timer *t, uint64_t after_ms, void (*fire)(struct timer *t));
void timer_cancel(struct timer *t);
bool timer_armed(const struct timer *t);

void loop_defer(struct loop *l, struct task *t, void (*run)(struct task *t));
/* The same at the end of the next turn, whose events come first; also for one that is queued for the end of this one. */
void loop_next_turn(struct loop *l, struct task *t, void (*run)(struct task *t));
void task_cancel(struct task *t);

/* Hands `m` to the loop's thread. Any thread. */
void loop_post(struct loop *l, struct msg *m, void (*handle)(struct loop *l, struct msg *m));
