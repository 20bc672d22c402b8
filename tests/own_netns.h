/* SPDX-License-Identifier: Apache-2.0 */
/* A network namespace of the test's own, with lo up and foreign addresses that are local to it:
 * 198.51.100.0/24 and 2001:db8::/64. It goes with the process. */
#pragma once
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline bool run(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	return system(line) == 0;
}

/* false, with a line that says "skip": this test cannot run here. */
static inline bool own_netns(const char *test)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
		printf("skip %s: needs root for a network namespace\n", test);
		return false;
	}
	return run("ip link set lo up") && run("ip route add local 198.51.100.0/24 dev lo") &&
	       run("ip -6 route add local 2001:db8::/64 dev lo");
}
