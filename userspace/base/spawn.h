/* SPDX-License-Identifier: Apache-2.0 */
/* How posix_spawn(3) starts programs that are not ours: with the signals of a new process, since ours blocks some, and
 * ignores SIGPIPE. */
#pragma once
#include <signal.h>
#include <spawn.h>

/* posix_spawnattr_destroy() is owed after 0; else -errno. */
static inline int spawn_attr_init(posix_spawnattr_t *a)
{
	sigset_t none, pipe;
	int e = posix_spawnattr_init(a);

	if (e)
		return -e;
	sigemptyset(&none);
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	posix_spawnattr_setsigmask(a, &none);
	posix_spawnattr_setsigdefault(a, &pipe);
	posix_spawnattr_setflags(a, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	return 0;
}
