/* SPDX-License-Identifier: Apache-2.0 */
/* Owns one process of the tunnel: a child, or one that an earlier keeper started. Its pidfd tells its end in both cases,
 * and what it runs is known from /proc, since the file may have been replaced since. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/spawn.h"
#include "node/supervise_internal.h"

static int pidfd_open_(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by itself */

	return fd < 0 ? -errno : (int)fd;
}

struct generation *generation_find(const struct supervise *s, pid_t pid)
{
	list_for_each (p, &s->generations) {
		struct generation *g = list_entry(p, struct generation, link);

		if (g->pid == pid)
			return g;
	}
	return NULL;
}

struct generation *generation_in(const struct supervise *s, enum generation_state state)
{
	list_for_each (p, &s->generations) {
		struct generation *g = list_entry(p, struct generation, link);

		if (g->state == state)
			return g;
	}
	return NULL;
}

int generation_signal(const struct generation *g, int sig)
{
	return syscall(SYS_pidfd_send_signal, g->io.fd, sig, NULL, 0) < 0 ? -errno : 0;
}

static void kill_now(struct timer *t)
{
	struct generation *g = container_of(t, struct generation, kill);

	log_error("supervise", "the tunnel (process %d) does not end; it is killed", (int)g->pid);
	generation_signal(g, SIGKILL);
}

void generation_kill_after(struct generation *g, uint64_t ms)
{
	timer_set(g->owner->loop, &g->kill, ms, kill_now);
}

static void has_ended(struct io *io, uint32_t events)
{
	struct generation *g = container_of(io, struct generation, io);
	siginfo_t how = {.si_code = 0};

	if (!g->adopted && waitid(P_PID, (id_t)g->pid, &how, WEXITED | WNOHANG) == 0 && !how.si_pid)
		return; /* not yet */
	supervise_ended(g, &how);
}

void generation_free(struct generation *g)
{
	if (!g)
		return;
	if (!list_empty(&g->link))
		g->owner->n--;
	list_del(&g->link);
	timer_cancel(&g->kill);
	if (g->io.fd >= 0) {
		io_stop(g->owner->loop, &g->io);
		close(g->io.fd);
	}
	if (g->program_fd >= 0)
		close(g->program_fd);
	free(g);
}

/* By age: one that is taken over may be older than one that is known. */
static void insert(struct supervise *s, struct generation *g)
{
	struct list *after = s->generations.prev;

	while (after != &s->generations && list_entry(after, struct generation, link)->born > g->born)
		after = after->prev;
	list_add(after, &g->link);
	s->n++;
}

static struct generation *generation_new(struct supervise *s, pid_t pid, bool adopted)
{
	struct generation *g = calloc(1, sizeof *g);
	int fd = g ? pidfd_open_(pid) : -ENOMEM, e = fd < 0 ? fd : 0;

	if (g) {
		list_init(&g->link);
		g->owner = s;
		g->program_fd = -1;
		io_init(&g->io, fd < 0 ? -1 : fd, has_ended);
	}
	if (!e)
		e = io_want(s->loop, &g->io, EPOLLIN);
	if (e) {
		generation_free(g);
		errno = -e;
		return NULL;
	}
	g->pid = pid;
	g->adopted = adopted;
	g->born = process_born(pid);
	insert(s, g);
	return g;
}

struct generation *generation_adopt(struct supervise *s, pid_t pid)
{
	struct generation *g = generation_new(s, pid, true);

	if (g) /* only for status and upgrades: may fail */
		g->program_fd = program_of_process(pid, &g->program, g->name);
	return g;
}

/* --- a child -------------------------------------------------------------------------------------------- */

/* The environment with one variable more; its array is malloc'ed. */
static char **environment_with(char *const *envp, char *more)
{
	size_t n = 0;
	char **all;

	while (envp[n])
		n++;
	all = calloc(n + 2, sizeof *all);
	if (all) {
		memcpy(all, envp, n * sizeof *all);
		all[n] = more;
	}
	return all;
}

static int spawn(const char *path, char *const *argv, char *const *envp, pid_t *pid)
{
	posix_spawnattr_t attr;
	int e = spawn_attr_init(&attr);

	if (e)
		return e;
	e = posix_spawn(pid, path, NULL, &attr, argv, envp);
	posix_spawnattr_destroy(&attr);
	return -e;
}

struct generation *generation_spawn(struct supervise *s, const char *path, pid_t succeeds)
{
	char variable[64], **envp;
	struct program program = {0};
	int e = -ENOMEM, fd = program_open(path, &program); /* before: the path may lead elsewhere a moment later */
	struct generation *g;
	pid_t pid = 0;

	snprintf(variable, sizeof variable, SUPERVISE_SUCCEEDS "=%d", (int)succeeds);
	envp = environment_with(s->envp, succeeds ? variable : NULL);
	if (envp)
		e = spawn(path, s->argv, envp, &pid);
	free(envp);
	g = e ? NULL : generation_new(s, pid, false);
	if (!e && !g) {
		e = -errno;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	if (g) {
		g->program = program;
		g->program_fd = fd;
		snprintf(g->name, sizeof g->name, "%s", s->path);
		return g;
	}
	if (fd >= 0)
		close(fd);
	errno = -e;
	return NULL;
}
