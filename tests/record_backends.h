/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a group of cmocka tests over each back end of net/record: in userspace over a socket pair, and in the kernel over
 * TCP, as far as this kernel does it; what it does not is one skip with its reason. */
#pragma once
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
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

#include "net/ktls_internal.h"

static const struct backend {
	const char *name;
	bool tx, rx, no_pad;
} backends[] = {
	{"user"},
	{"kernel sends", .tx = true},
	{"kernel receives", .rx = true},
	{"kernel receives without padding", .rx = true, .no_pad = true},
	{"kernel", .tx = true, .rx = true, .no_pad = true},
};
enum { BACKENDS = sizeof backends / sizeof *backends };

static const struct backend *backend = &backends[0];
static struct ktls_features backend_probed;

static inline bool backend_is_kernel(void)
{
	return backend->tx || backend->rx;
}

/* Of cuts that could be made anywhere, the distance between those that are: a guest of vmtests/ has no time for all. */
static inline int backend_stride(void)
{
	const char *scale = getenv("SCALE");

	return scale && !strcmp(scale, "vm") ? 7 : 1;
}

/* Bytes that TCP has at `from` and not yet at `to`; some kernels count the SYN. */
static inline int64_t backend_under_way(int from, int to)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof info;
	uint64_t queued = 0;

	assert_int_equal(ktls_queued(from, &queued), 0);
	assert_int_equal(getsockopt(to, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return (int64_t)(queued - info.tcpi_bytes_received);
}

static int64_t backend_skew[1024]; /* by descriptor, before the first byte */

/* Both descriptors without waiting. */
static inline void backend_pair(int fd[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int l;

	if (!backend_is_kernel()) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
		return;
	}
	l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(l, (void *)&at, len), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (void *)&at, &len), 0);
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	connect(fd[0], (void *)&at, len);
	fd[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd[1] >= 0);
	setsockopt(fd[0], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	setsockopt(fd[1], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	close(l);
	for (int i = 0; i < 2; i++)
		backend_skew[fd[i]] = backend_under_way(fd[i], fd[1 - i]);
}

/* Until what was written at `from` is at `to`: a socket pair has it at once. An acknowledgement would tell as well, but
 * comes late where nobody reads. */
static inline void backend_arrive(int from, int to)
{
	if (!backend_is_kernel())
		return;
	while (backend_under_way(from, to) > backend_skew[from])
		sched_yield();
}

/* Gives the record to this back end; it must take all that it says. */
static inline struct record *backend_take(struct record *r)
{
	struct ktls_features f = backend_probed;
	struct record_offload o;

	if (!r || !backend_is_kernel())
		return r;
	f.has[KTLS_FEATURE_TX] &= backend->tx;
	f.has[KTLS_FEATURE_RX] &= backend->rx;
	f.has[KTLS_FEATURE_RX_NO_PAD] &= backend->no_pad;
	record_offload(r, &f);
	record_offload_of(r, &o);
	if (o.tx != backend->tx || o.rx != backend->rx || o.rx_no_pad != backend->no_pad)
		fail_msg("%s: not taken: tx %s, rx %s", backend->name, o.tx_why, o.rx_why);
	return r;
}

static inline bool backend_takes(enum record_cipher c)
{
	uint8_t bit = (uint8_t)(1u << (c - RECORD_AES_128_GCM));

	if ((!backend->tx || backend_probed.ciphers[0] & bit) && (!backend->rx || backend_probed.ciphers[1] & bit))
		return true;
	printf("skip %s with cipher %#x: not in this kernel\n", backend->name, c);
	return false;
}

/* Can a connection of this back end change keys? */
static inline bool backend_rekeys(void)
{
	return !backend_is_kernel() || backend_probed.has[KTLS_FEATURE_REKEY];
}

static inline const char *backend_missing(const struct backend *b)
{
	const bool wants[KTLS_FEATURES] = {b->tx, b->rx, b->no_pad, false};

	for (unsigned f = 0; f < KTLS_FEATURES; f++)
		if (wants[f] && !backend_probed.has[f])
			return backend_probed.why[f];
	return NULL;
}

/* Runs the tests once for each back end, `mixed` ones with one direction in the kernel included; how many failed.
 * RECORD_BACKENDS=kernel in the environment leaves out those whose names begin otherwise. */
static inline int backends_run(const char *name, const struct CMUnitTest *tests, size_t n, bool mixed,
			       CMFixtureFunction setup, CMFixtureFunction teardown)
{
	const char *only = getenv("RECORD_BACKENDS");
	const struct ktls_switch all = {.mode = KTLS_ON};
	int failed = 0;

	ktls_probe(&all, &backend_probed);
	for (unsigned i = 0; i < BACKENDS; i++) {
		const char *missing = backend_missing(&backends[i]);
		char group[128];

		if ((backends[i].tx != backends[i].rx && !mixed) ||
		    (only && strncmp(backends[i].name, only, strlen(only)) != 0))
			continue;

		snprintf(group, sizeof group, "%s/%s", name, backends[i].name);
		if (missing) {
			printf("skip %s: %s\n", group, missing);
			continue;
		}
		backend = &backends[i];
		failed += _cmocka_run_group_tests(group, tests, n, setup, teardown);
	}
	return failed;
}
