// SPDX-License-Identifier: Apache-2.0
/* Runs iptables-save and iptables-restore: no shell, an environment of three variables, input from a memfd so that
 * nobody waits for a reader, output line by line, an end by the deadline whatever the program does. */
#include "steer/iptables_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/monotonic.h"
#include "base/spawn.h"

enum { OUT, ERR, EXIT, WATCHED };

struct run {
	int input, pidfd;
	pid_t pid;
	int in[2], child[2]; /* OUT and ERR: our ends and the program's */
	char line[1024];     /* of OUT; a longer line loses its end */
	size_t len;
	char said[STEER_WHY_MAX]; /* the first words of ERR */
	void (*on_line)(void *arg, const char *line);
	void *arg;
};

static bool find_in(const char *dir, size_t len, const char *name, char path[256])
{
	int n = snprintf(path, 256, "%.*s/%s", (int)len, dir, name);

	return n > 0 && n < 256 && access(path, X_OK) == 0;
}

static bool find_program(const char *name, char path[256])
{
	static const char *const usual[] = {"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"};
	const char *p = getenv("PATH");

	for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
		if (find_in(usual[i], strlen(usual[i]), name, path))
			return true;
	while (p && *p) {
		size_t len = strcspn(p, ":");

		if (len && *p == '/' && find_in(p, len, name, path))
			return true;
		p += len + (p[len] == ':');
	}
	return false;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int open_files(struct run *r, const char *input, size_t len)
{
	for (int i = 0; i < EXIT; i++) {
		int p[2];

		if (pipe2(p, O_CLOEXEC) < 0)
			return -errno;
		r->in[i] = p[0];
		r->child[i] = p[1];
		if (fcntl(r->in[i], F_SETFL, O_NONBLOCK) < 0)
			return -errno;
	}
	r->input = memfd_create("iptables", MFD_CLOEXEC);
	if (r->input < 0)
		return -errno;
	if (len && pwrite(r->input, input, len, 0) != (ssize_t)len)
		return -EIO;
	return 0;
}

static int start(struct run *r, const char *path, const char *const argv[])
{
	/* The lock is the namespace itself: the machine's /run/xtables.lock belongs to others, who may hold it. */
	static char *const env[] = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL=C",
				    "XTABLES_LOCKFILE=/proc/self/ns/net", NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int e = spawn_attr_init(&attr);

	if (e)
		return e;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, r->input, 0);
	posix_spawn_file_actions_adddup2(&files, r->child[OUT], 1);
	posix_spawn_file_actions_adddup2(&files, r->child[ERR], 2);
	e = posix_spawn(&r->pid, path, &files, &attr, (char *const *)argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (e)
		return -e;
	r->pidfd = syscall(SYS_pidfd_open, r->pid, 0);
	return r->pidfd < 0 ? -errno : 0;
}

static void take_out(struct run *r, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] != '\n') {
			if (r->len < sizeof r->line - 1)
				r->line[r->len++] = s[i];
			continue;
		}
		r->line[r->len] = 0;
		r->len = 0;
		if (r->on_line)
			r->on_line(r->arg, r->line);
	}
}

/* Lines become one, since `why` is one. */
static void take_err(struct run *r, const char *s, size_t n)
{
	size_t len = strlen(r->said);

	for (size_t i = 0; i < n && len < sizeof r->said - 1; i++) {
		char c = s[i] < ' ' ? ' ' : s[i];

		if (c != ' ' || (len && r->said[len - 1] != ' '))
			r->said[len++] = c;
	}
	r->said[len] = 0;
}

/* Reads what is there; closes at the end of file. */
static void read_some(struct run *r, int which)
{
	char buf[4096];
	ssize_t n = read(r->in[which], buf, sizeof buf);

	if (n > 0)
		(which == OUT ? take_out : take_err)(r, buf, n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_fd(&r->in[which]);
}

/* Until the program has ended and its output is read; a grandchild that holds the pipes is not waited for. */
static int watch(struct run *r, int64_t deadline)
{
	bool ended = false;

	while (!ended) {
		struct pollfd p[WATCHED] = {{r->in[OUT], POLLIN}, {r->in[ERR], POLLIN}, {r->pidfd, POLLIN}};
		int64_t left = deadline - monotonic_ms();
		int n = left > 0 ? poll(p, WATCHED, (int)left) : 0;

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ETIMEDOUT;
		if (n < 0)
			continue;
		for (int i = 0; i < EXIT; i++)
			if (p[i].revents)
				read_some(r, i);
		ended = p[EXIT].revents && !p[OUT].revents && !p[ERR].revents;
	}
	return 0;
}

static int reap(struct run *r, int e)
{
	int status;

	if (e < 0)
		kill(r->pid, SIGKILL);
	while (waitpid(r->pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (e < 0)
		return e;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPROTO;
}

static void explain(struct run *r, const char *name, int e, char why[STEER_WHY_MAX])
{
	size_t len = strlen(r->said);

	while (len && r->said[len - 1] == ' ')
		r->said[--len] = 0;
	if (e == -EPROTO)
		snprintf(why, STEER_WHY_MAX, "%s failed: %s", name, len ? r->said : "no reason given");
	else if (e == -ETIMEDOUT)
		snprintf(why, STEER_WHY_MAX, "%s did not end in time and was killed", name);
	else
		snprintf(why, STEER_WHY_MAX, "%s: %s", name, strerror(-e));
}

int iptables_run(const char *const argv[], const char *input, size_t len, void (*line)(void *arg, const char *line),
		 void *arg, int64_t deadline_ms, char why[STEER_WHY_MAX])
{
	struct run r = {-1, -1, -1, {-1, -1}, {-1, -1}, .on_line = line, .arg = arg};
	char path[256];
	int e;

	if (!find_program(argv[0], path)) {
		snprintf(why, STEER_WHY_MAX, "%s is not installed (package iptables)", argv[0]);
		return -ENOENT;
	}
	e = open_files(&r, input, len);
	if (!e)
		e = start(&r, path, argv);
	for (int i = 0; i < EXIT; i++)
		close_fd(&r.child[i]);
	if (!e)
		e = watch(&r, deadline_ms);
	if (r.pid > 0)
		e = reap(&r, e);
	if (e)
		explain(&r, argv[0], e, why);
	for (int i = 0; i < EXIT; i++)
		close_fd(&r.in[i]);
	close_fd(&r.input);
	close_fd(&r.pidfd);
	return e;
}
