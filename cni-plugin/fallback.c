/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the question to culvert-cni-api: a JSON object on its stdin, one line on its stdout, "in", "out" or why that
 * cannot be told. Whatever goes wrong, the pod's place stays unknown. */
#include "fallback.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int program_path(char out[CONF_PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", out, CONF_PATH_MAX - sizeof "culvert-cni-api");

	while (n > 0 && out[n - 1] != '/')
		n--;
	if (n <= 0)
		return -ENOENT;
	memcpy(out + n, "culvert-cni-api", sizeof "culvert-cni-api");
	return access(out, X_OK) < 0 ? -errno : 0;
}

static char *question(const struct conf *c, const struct env *e, unsigned ms)
{
	json_t *o = json_pack("{ss ss ss ss ss si sO*}", "kubeconfig", c->kubeconfig, "name", e->pod_name, "namespace",
			      e->pod_namespace, "uid", e->pod_uid, "systemNamespace", c->pod_namespace, "milliseconds",
			      (int)ms, "selectors", c->selectors);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	return text;
}

/* With `in` and `out` as its stdin and stdout. */
static int program_start(const char *path, int in, int out, pid_t *pid)
{
	char *argv[] = {(char *)"culvert-cni-api", NULL};
	posix_spawn_file_actions_t files;
	int e = posix_spawn_file_actions_init(&files);

	if (e)
		return -e;
	e = posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
	if (!e)
		e = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
	if (!e)
		e = posix_spawn(pid, path, &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	return -e;
}

/* The first line, or what came of it in time. */
static size_t line_read(int fd, char *buf, size_t cap, uint64_t deadline)
{
	size_t used = 0;

	while (used < cap - 1 && !memchr(buf, '\n', used)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, left_ms(deadline)) <= 0)
			break;
		n = read(fd, buf + used, cap - 1 - used);
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	buf[used] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return used;
}

static void close_both(int fd[2])
{
	for (unsigned i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

static int converse(const char *path, const char *text, char *answer, size_t cap, uint64_t deadline)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1}, e = 0, status;
	size_t len = strlen(text);
	pid_t pid = 0;

	signal(SIGPIPE, SIG_IGN);
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		e = -errno;
	/* A pipe takes so much without a reader: nothing waits here. */
	if (!e && (fcntl(in[1], F_SETPIPE_SZ, STDIN_MAX) < (int)len || write(in[1], text, len) != (ssize_t)len))
		e = -EMSGSIZE;
	if (!e)
		e = program_start(path, in[0], out[1], &pid);
	if (!e) {
		close(in[1]);
		close(out[1]);
		in[1] = out[1] = -1;
		line_read(out[0], answer, cap, deadline);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	close_both(in);
	close_both(out);
	return e;
}

enum mesh fallback_ask(const struct conf *c, const struct env *e, char why[FALLBACK_TEXT_MAX])
{
	unsigned ms = c->retry ? FALLBACK_RETRY_MS : FALLBACK_MS;
	char path[CONF_PATH_MAX], *text;
	int err;

	if (!c->kubeconfig[0]) {
		snprintf(why, FALLBACK_TEXT_MAX, "no API server is known to ask instead");
		return MESH_UNKNOWN;
	}
	err = program_path(path);
	text = err ? NULL : question(c, e, ms);
	why[0] = '\0';
	if (text)
		err = converse(path, text, why, FALLBACK_TEXT_MAX, now_ms() + ms);
	free(text);
	if (err)
		snprintf(why, FALLBACK_TEXT_MAX, "culvert-cni-api: %s", strerror(-err));
	else if (!why[0])
		snprintf(why, FALLBACK_TEXT_MAX, "the API server does not answer");
	else if (!strcmp(why, "in") || !strcmp(why, "out"))
		return why[0] == 'i' ? MESH_IN : MESH_OUT;
	return MESH_UNKNOWN;
}
