/* SPDX-License-Identifier: Apache-2.0 */
/* A clock that can be put forward, or held, in place of libc's: what runs in a test then need not be waited for. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_ahead_ms;
static struct timespec clock_held; /* zero: it runs */

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int e = clock_held.tv_sec ? 0 : (int)syscall(SYS_clock_gettime, id, ts);

	if (clock_held.tv_sec)
		*ts = clock_held;
	ts->tv_sec += (time_t)(clock_ahead_ms / 1000);
	ts->tv_nsec += (long)(clock_ahead_ms % 1000 * 1000000);
	if (ts->tv_nsec >= 1000000000) {
		ts->tv_sec++;
		ts->tv_nsec -= 1000000000;
	}
	return e;
}

/* It stands still, however slow the machine is; then it is as late as it is. */
static inline void clock_hold(bool hold)
{
	clock_held = (struct timespec){0};
	if (hold)
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &clock_held);
}
