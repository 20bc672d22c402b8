/* SPDX-License-Identifier: Apache-2.0 */
/* What the load generator and the server of the benchmark agree upon: ports, and small helpers. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	BENCH_PORT = 8000, /* 8000..8007 echo; several, so that closed connections do not use up the client's
			      ports */
	BENCH_ECHO_PORTS = 8,
	BENCH_SINK = 8008,   /* reads to the end of file, answers with the count, 8 bytes in host order */
	BENCH_SOURCE = 8009, /* writes for ever */
	BENCH_CHUNK = 256 << 10,
	BENCH_EVENTS = 256,
};

static inline void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void set_option(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof value))
		die("setsockopt %d/%d: %s", level, name, strerror(errno));
}

static inline void set_nonblocking(int fd)
{
	if (fcntl(fd, F_SETFL, O_NONBLOCK))
		die("fcntl: %s", strerror(errno));
}

static inline void raise_files(void)
{
	struct rlimit r;

	if (!getrlimit(RLIMIT_NOFILE, &r)) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static inline void watch(int ep, int op, int fd, uint32_t events, void *who)
{
	struct epoll_event ev = {.events = events, .data.ptr = who};

	if (epoll_ctl(ep, op, fd, &ev))
		die("epoll_ctl: %s", strerror(errno));
}
