// SPDX-License-Identifier: Apache-2.0
/* The profiler: ITIMER_PROF, a signal handler that notes the stack, and a thread that waits and answers.
 *
 * The unwinder finds its tables without a lock since glibc 2.35 (_dl_find_object), so it may run in a signal handler; it
 * was called once before, so that it is loaded. The handler stays when the profile is over: a signal may be under way. */
#include "admin/profile.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

enum { HANDLER_FRAMES = 4 }; /* at most, before the interrupted function */

/* What the handler may touch; there is one process to be profiled. All atomic. */
static struct {
	struct profile_sample *sample; /* NULL: nothing is noted */
	unsigned taken, inside;
	bool busy; /* a profile is under way */
} now;

/* --- in the handler ------------------------------------------------------------------------------------- */

static void *interrupted(const ucontext_t *u)
{
#if defined(__x86_64__)
	return (void *)(uintptr_t)u->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (void *)(uintptr_t)u->uc_mcontext.pc;
#else
	return NULL;
#endif
}

static void note(struct profile_sample *s, const ucontext_t *u)
{
	void *frame[PROFILE_DEPTH_MAX + HANDLER_FRAMES], *pc = interrupted(u);
	int n = backtrace(frame, PROFILE_DEPTH_MAX + HANDLER_FRAMES),
	    from = 2; /* this function and the kernel's return */

	for (int i = 0; i < HANDLER_FRAMES && i < n; i++)
		if (frame[i] == pc)
			from = i;
	n -= from;
	n = n > PROFILE_DEPTH_MAX ? PROFILE_DEPTH_MAX : n;
	if (n <= 0)
		return;
	memcpy(s->pc, frame + from, (size_t)n * sizeof *frame);
	__atomic_store_n(&s->depth, (unsigned)n, __ATOMIC_RELEASE);
}

static void on_prof(int sig, siginfo_t *info, void *context)
{
	struct profile_sample *all;
	int saved = errno;
	unsigned i;

	__atomic_add_fetch(&now.inside, 1, __ATOMIC_SEQ_CST);
	all = __atomic_load_n(&now.sample, __ATOMIC_SEQ_CST);
	if (all) {
		i = __atomic_fetch_add(&now.taken, 1, __ATOMIC_RELAXED);
		if (i < PROFILE_SAMPLES_MAX)
			note(&all[i], context);
	}
	__atomic_sub_fetch(&now.inside, 1, __ATOMIC_SEQ_CST);
	errno = saved;
}

/* --- the thread ----------------------------------------------------------------------------------------- */

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int timer(unsigned hz)
{
	int us = hz ? 1000000 / (int)hz : 0;
	struct timeval every = {us / 1000000, us % 1000000};

	return setitimer(ITIMER_PROF, &(struct itimerval){every, every}, NULL) < 0 ? -errno : 0;
}

static int sample(struct profile *p)
{
	struct sigaction act = {.sa_sigaction = on_prof, .sa_flags = SA_SIGINFO | SA_RESTART};
	void *first[4];
	unsigned taken;
	int e;

	p->sample = calloc(PROFILE_SAMPLES_MAX, sizeof *p->sample);
	if (!p->sample)
		return -ENOMEM;
	backtrace(first, 4); /* loads the unwinder */
	now.taken = 0;
	__atomic_store_n(&now.sample, p->sample, __ATOMIC_SEQ_CST);
	p->began_ns = clock_ns(CLOCK_REALTIME);
	p->took_ns = -clock_ns(CLOCK_MONOTONIC);
	sigemptyset(&act.sa_mask);
	e = sigaction(SIGPROF, &act, NULL) < 0 ? -errno : timer(p->asked.hz);
	if (!e)
		nanosleep(&(struct timespec){p->asked.seconds, 0}, NULL);
	timer(0);
	p->took_ns += clock_ns(CLOCK_MONOTONIC);
	__atomic_store_n(&now.sample, NULL, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&now.inside, __ATOMIC_SEQ_CST)) /* a stack takes microseconds */
		nanosleep(&(struct timespec){0, 100000}, NULL);
	taken = __atomic_load_n(&now.taken, __ATOMIC_RELAXED);
	p->n = taken < PROFILE_SAMPLES_MAX ? taken : PROFILE_SAMPLES_MAX;
	p->lost = taken - p->n;
	return e;
}

struct job {
	struct http_ticket *ticket;
	struct profile_request asked;
};

static void *run(void *arg)
{
	struct job *j = arg;
	struct http_response out = {.status = 200, .content_type = "application/octet-stream"};
	struct profile p = {.asked = j->asked};

	if (sample(&p) < 0 || profile_write(&p, &out.body, &out.body_len) < 0) {
		out.content_type = "text/plain; charset=utf-8";
		http_text(&out, 500, "out of memory\n");
	}
	free(p.sample);
	__atomic_store_n(&now.busy, false, __ATOMIC_RELEASE);
	http_ticket_answer(j->ticket, &out);
	free(j);
	return NULL;
}

/* Signals are for others: the timer's is for threads that work, the rest for the main thread. */
static int start(struct job *j)
{
	pthread_attr_t detached;
	sigset_t all, before;
	pthread_t thread;
	int e;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&thread, &detached, run, j);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&detached);
	return e;
}

/* --- the page ------------------------------------------------------------------------------------------- */

/* 1 to `max`; `out` stays where there is none. */
static bool read_number(const struct http_request *rq, const char *name, unsigned max, unsigned *out)
{
	char text[8];
	uint16_t n;

	if (!http_query(rq, name, text, sizeof text))
		return true;
	if (port_parse(&n, text) < 0 || !n || n > max)
		return false;
	*out = n;
	return true;
}

/* ITIMER_PROF is looked at with each tick of the kernel, which is what coarse clocks count in. */
static unsigned ticks_hz(void)
{
	struct timespec tick = {0, 1000000000 / PROFILE_HZ};

	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	return (unsigned)(1000000000 / tick.tv_nsec);
}

bool profile_read(const struct http_request *rq, struct profile_request *out)
{
	unsigned seconds = PROFILE_SECONDS, hz = PROFILE_HZ, most = ticks_hz();

	if (!read_number(rq, "seconds", PROFILE_SECONDS_ASKED_MAX, &seconds) ||
	    !read_number(rq, "frequency", PROFILE_HZ_MAX, &hz))
		return false;
	*out = (struct profile_request){seconds < PROFILE_SECONDS_MAX ? seconds : PROFILE_SECONDS_MAX,
					hz < most ? hz : most};
	if (out->seconds != seconds || out->hz != hz)
		snprintf(out->cut, sizeof out->cut,
			 "%u s at %u Hz, the most there is here, where %u s at %u Hz were asked for", out->seconds,
			 out->hz, seconds, hz);
	return true;
}

void profile_serve(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	struct profile_request asked;
	struct job *j;

	if (!profile_read(rq, &asked)) {
		http_text(out, 400, "seconds: must be 1 to %d; frequency: 1 to %d\n", PROFILE_SECONDS_ASKED_MAX,
			  PROFILE_HZ_MAX);
		return;
	}
	if (__atomic_exchange_n(&now.busy, true, __ATOMIC_ACQ_REL)) {
		http_text(out, 409, "a profile is under way; try again when it is over\n");
		return;
	}
	j = malloc(sizeof *j);
	if (j)
		*j = (struct job){http_ticket_take(rq), asked};
	if (j && j->ticket && start(j) == 0)
		return;
	http_text(out, 500, "cannot start a thread\n");
	if (j && j->ticket)
		http_ticket_answer(j->ticket, out);
	free(j);
	__atomic_store_n(&now.busy, false, __ATOMIC_RELEASE);
}
