/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the writer thread behind a bounded buffer.
 *
 * Two buffers of LOG_BUFFER_BYTES / 2: producers append to `fill` under a mutex, the writer swaps and writes the
 * other one with a single write(2). A line that comes alone is written at once; after a batch the writer rests for
 * GATHER_MS, so that a busy process pays one wake-up and one write for many lines. The buffers grow on demand, so a quiet process does not pay for them. A child of
 * fork() has no writer: what its parent has buffered stays the parent's, and its own lines go to stderr. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log_internal.h"

enum {
	BUFFER_MIN = 4096,
	STOP_SECONDS = 1,
	GATHER_MS = 5,
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake, idle;
	pthread_t thread;
	bool running, stopping, writing, waiting, json;
	char *fill, *other; /* to append to, and to be written or for later */
	size_t len, cap, other_cap;
	uint64_t lost, reported;
} writer = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER};

static void write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return; /* nobody to tell: the log itself is gone */
		p += w;
		n -= (size_t)w;
	}
}

/* --- the thread ----------------------------------------------------------------------------------------- */

static void report_lost(uint64_t n)
{
	struct log_line l;

	log_begin(&l, LOG_WARN, "log", "lines lost, the reader of the log is too slow");
	log_u64(&l, "lines", n);
	log_finish(&l);
	write_all(STDOUT_FILENO, l.text, l.len);
}

/* Under the lock, which is let go for the writing. */
static void write_batch(void)
{
	uint64_t lost = writer.lost - writer.reported;
	char *full = writer.fill;
	size_t len = writer.len, cap = writer.cap;

	writer.fill = writer.other;
	writer.cap = writer.other_cap;
	writer.other = full;
	writer.other_cap = cap;
	writer.len = 0;
	writer.reported = writer.lost;
	writer.writing = true;
	pthread_mutex_unlock(&writer.lock);
	write_all(STDOUT_FILENO, full, len);
	if (lost)
		report_lost(lost);
	pthread_mutex_lock(&writer.lock);
	writer.writing = false;
}

/* Under the lock, which is let go meanwhile. */
static void gather(void)
{
	const struct timespec rest = {.tv_nsec = GATHER_MS * 1000000L};

	pthread_mutex_unlock(&writer.lock);
	nanosleep(&rest, NULL);
	pthread_mutex_lock(&writer.lock);
}

static void *writer_main(void *arg)
{
	pthread_mutex_lock(&writer.lock);
	while (!writer.stopping || writer.len) {
		if (writer.len) {
			write_batch();
			if (!writer.stopping)
				gather();
		} else {
			writer.waiting = true;
			pthread_cond_wait(&writer.wake, &writer.lock);
			writer.waiting = false;
		}
	}
	pthread_cond_broadcast(&writer.idle);
	pthread_mutex_unlock(&writer.lock);
	return arg;
}

/* --- fork ----------------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&writer.lock);
	log_filter_lock();
}

static void after_fork(void)
{
	log_filter_unlock();
	pthread_mutex_unlock(&writer.lock);
}

/* A read-write lock knows its holder by the parent's thread, and the parent's writer waits for the old wake. */
static void in_child(void)
{
	writer.running = writer.stopping = writer.writing = writer.waiting = false;
	writer.len = 0;
	pthread_cond_init(&writer.wake, NULL);
	pthread_cond_init(&writer.idle, NULL);
	log_filter_renew_lock();
	pthread_mutex_unlock(&writer.lock);
}

static void prepare_forks(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}

/* --- start and stop ------------------------------------------------------------------------------------- */

/* Signals are for the threads that wait for them; a reader that went away must not end the process. */
static int thread_start(void)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&writer.thread, NULL, writer_main, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

int log_start(bool json)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int err;

	pthread_once(&once, prepare_forks);
	pthread_mutex_lock(&writer.lock);
	writer.json = json;
	writer.stopping = false;
	err = thread_start();
	writer.running = !err;
	pthread_mutex_unlock(&writer.lock);
	if (!err)
		pthread_setname_np(writer.thread, "log");
	return err;
}

void log_stop(void)
{
	struct timespec until;
	bool drained;

	pthread_mutex_lock(&writer.lock);
	if (!writer.running) {
		pthread_mutex_unlock(&writer.lock);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_SECONDS;
	writer.stopping = true;
	pthread_cond_signal(&writer.wake);
	while (writer.len || writer.writing)
		if (pthread_cond_timedwait(&writer.idle, &writer.lock, &until))
			break;
	drained = !writer.len && !writer.writing;
	writer.running = false;
	pthread_mutex_unlock(&writer.lock);
	if (!drained) {
		pthread_detach(writer.thread);
		return;
	}
	pthread_join(writer.thread, NULL);
	free(writer.fill);
	free(writer.other);
	writer.fill = writer.other = NULL;
	writer.cap = writer.other_cap = 0;
}

/* --- producers ------------------------------------------------------------------------------------------ */

static int reserve(size_t n)
{
	size_t cap = writer.cap ? writer.cap : BUFFER_MIN;
	char *p;

	while (cap < writer.len + n)
		cap *= 2;
	if (cap > LOG_BUFFER_BYTES / 2)
		return -ENOBUFS;
	if (cap == writer.cap)
		return 0;
	p = realloc(writer.fill, cap);
	if (!p)
		return -ENOMEM;
	writer.fill = p;
	writer.cap = cap;
	return 0;
}

void log_emit(const char *text, size_t n)
{
	pthread_mutex_lock(&writer.lock);
	if (!writer.running) {
		pthread_mutex_unlock(&writer.lock);
		write_all(STDERR_FILENO, text, n);
		return;
	}
	if (reserve(n)) {
		writer.lost++;
	} else {
		memcpy(writer.fill + writer.len, text, n);
		writer.len += n;
		if (writer.waiting) {
			writer.waiting = false;
			pthread_cond_signal(&writer.wake);
		}
	}
	pthread_mutex_unlock(&writer.lock);
}

bool log_is_json(void)
{
	return __atomic_load_n(&writer.json, __ATOMIC_RELAXED);
}

uint64_t log_lost(void)
{
	uint64_t n;

	pthread_mutex_lock(&writer.lock);
	n = writer.lost;
	pthread_mutex_unlock(&writer.lock);
	return n;
}
