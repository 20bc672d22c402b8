/* SPDX-License-Identifier: Apache-2.0 */
/* CLOCK_MONOTONIC as a number, for who has no loop (loop_now()) or needs more than its milliseconds. */
#pragma once
#include <stdint.h>
#include <time.h>

static inline int64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t monotonic_us(void)
{
	return monotonic_ns() / 1000;
}

static inline int64_t monotonic_ms(void)
{
	return monotonic_ns() / 1000000;
}
