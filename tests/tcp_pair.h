/* SPDX-License-Identifier: Apache-2.0 */
/* TCP connections on loopback, in either family: one end for what is tested, one for the test, which is an application. */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/sock.h"

union tcp_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* What it accepts can hold 200 KB unread. */
static inline int tcp_listener(int family, union tcp_address *at)
{
	socklen_t len = sizeof *at;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), large = 1 << 18;

	*at = (union tcp_address){.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
	if (family == AF_INET6)
		*at = (union tcp_address){.v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}};
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
	assert_int_equal(bind(fd, &at->any, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, &at->any, &len), 0);
	return fd;
}

/* [0] for what is tested, [1] for the test; with small buffers towards it, so that a slow reader is felt. */
static inline void tcp_pair(int fd[2], int family)
{
	union tcp_address at;
	int listener = tcp_listener(family, &at), small = 16384;

	fd[1] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	assert_int_equal(connect(fd[1], &at.any, sizeof at), 0);
	fd[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd[0] >= 0);
	setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	close(listener);
}

/* All of it is at the other end, whether or not that reads. */
static inline void tcp_say(int fd, size_t n)
{
	static const char bytes[4096];

	while (n) {
		ssize_t k = send(fd, bytes, n < sizeof bytes ? n : sizeof bytes, MSG_NOSIGNAL);

		if (k > 0)
			n -= (size_t)k;
		else
			sched_yield();
	}
	while (sock_unacked(fd))
		sched_yield();
}

static inline void tcp_reset(int fd)
{
	sock_reset_on_close(fd);
	close(fd);
}
