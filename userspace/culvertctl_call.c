/* SPDX-License-Identifier: Apache-2.0 */
/* Owns culvertctl's requests: HTTP/1.1 over a unix socket, one a connection, the answer read to its end. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/monotonic.h"
#include "ctl_abi.h"
#include "culvertctl.h"

enum { POLL_FIRST_MS = 4, POLL_LAST_MS = 128 };

struct buffer {
	char *p;
	size_t len, cap;
};

/* Waits for the descriptor; -ETIMEDOUT. */
static int await(int fd, short what, long long until)
{
	struct pollfd p = {.fd = fd, .events = what};
	long long left = until - monotonic_ms();
	int n = left > 0 ? poll(&p, 1, (int)left) : 0;

	return n > 0 ? 0 : n == 0 ? -ETIMEDOUT : -errno;
}

/* Who listens but accepts nothing makes connect() wait. */
static int dial(const char *path)
{
	struct timeval patience = {CALL_STATUS_MS / 1000, CALL_STATUS_MS % 1000 * 1000};
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd, e;

	if (snprintf(at.sun_path, sizeof at.sun_path, "%s", path) >= (int)sizeof at.sun_path)
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
		return fd;
	e = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return e;
}

static int send_all(int fd, const char *p, size_t len, long long until)
{
	while (len) {
		int e = await(fd, POLLOUT, until);
		ssize_t n = e ? -1 : send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (e)
			return e;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int receive_all(int fd, struct buffer *b, long long first, long long until)
{
	for (;;) {
		int e = await(fd, POLLIN, b->len ? until : first);
		ssize_t n;

		if (e)
			return e;
		if (b->cap - b->len < 65536) {
			size_t cap = b->cap ? 2 * b->cap : 131072;
			char *p = cap > CALL_BODY_MAX ? NULL : realloc(b->p, cap);

			if (!p)
				return -ENOMEM;
			b->p = p;
			b->cap = cap;
		}
		n = recv(fd, b->p + b->len, b->cap - b->len - 1, 0);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return 0;
		b->len += n > 0 ? (size_t)n : 0;
	}
}

/* --- the answer ----------------------------------------------------------------------------------------- */

static const char *header_find(const char *head, const char *name)
{
	size_t len = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
		if (strncasecmp(line + 2, name, len) == 0 && line[2 + len] == ':')
			return line + 3 + len + strspn(line + 3 + len, " ");
	return NULL;
}

/* In place. */
static int unchunk(char *p, size_t *len)
{
	size_t in = 0, out = 0;

	for (;;) {
		char *end;
		unsigned long n = strtoul(p + in, &end, 16);
		size_t at = (size_t)(end - p);

		if (end == p + in || *len - at < 2 || n > *len - at - 2)
			return -EBADMSG;
		at += strcspn(p + at, "\n") + 1;
		if (!n)
			break;
		if (at > *len || n > *len - at)
			return -EBADMSG;
		memmove(p + out, p + at, n);
		out += n;
		in = at + n + 2;
		if (in > *len)
			return -EBADMSG;
	}
	*len = out;
	p[out] = '\0';
	return 0;
}

static int answer_take(struct call_answer *out, struct buffer *b)
{
	char *body;
	const char *length, *coding;
	size_t len;

	if (!b->p)
		return -ECONNRESET;
	b->p[b->len] = '\0';
	body = strstr(b->p, "\r\n\r\n");
	if (!body || sscanf(b->p, "HTTP/1.%*1d %3d", &out->status) != 1)
		return b->len ? -EBADMSG : -ECONNRESET;
	*body = '\0';
	body += 4;
	len = b->len - (size_t)(body - b->p);
	length = header_find(b->p, "Content-Length");
	coding = header_find(b->p, "Transfer-Encoding");
	if (coding && strncasecmp(coding, "chunked", 7) == 0 && unchunk(body, &len) < 0)
		return -EBADMSG;
	if (length && strtoul(length, NULL, 10) != len)
		return -ECONNRESET; /* it was cut off */
	out->len = len;
	memmove(b->p, body, len + 1);
	out->body = b->p;
	b->p = NULL;
	return 0;
}

static void explain(char why[CALL_WHY_MAX], const char *run_dir, const char *socket, int e)
{
	bool keeper = !strcmp(socket, CTL_SOCKET);

	if (e == -ENOENT || e == -ECONNREFUSED)
		snprintf(why, CALL_WHY_MAX,
			 "%s/%s: no %s listens there (%s); is culvertd running, with this run directory?", run_dir,
			 socket, keeper ? "keeper" : "tunnel", strerror(-e));
	else if (e == -ETIMEDOUT && keeper)
		snprintf(why, CALL_WHY_MAX,
			 "the keeper does not answer (%s/%s); `systemctl restart culvertd`, or whoever runs it, "
			 "replaces it, and "
			 "pods stay steered",
			 run_dir, socket);
	else if (e == -ETIMEDOUT)
		snprintf(why, CALL_WHY_MAX, "the tunnel does not answer (%s/%s): `culvertctl upgrade` replaces it",
			 run_dir, socket);
	else if (e == -EACCES)
		snprintf(why, CALL_WHY_MAX, "%s/%s: permission denied; run it as root", run_dir, socket);
	else
		snprintf(why, CALL_WHY_MAX, "%s/%s: %s", run_dir, socket, strerror(-e));
}

int call(const char *run_dir, const char *socket, const char *method, const char *path, const char *body,
	 struct call_answer *out, char why[CALL_WHY_MAX])
{
	long long begin = monotonic_ms(), until = begin + CALL_DEADLINE_MS;
	long long first = !strcmp(method, "GET") ? begin + CALL_STATUS_MS : until;
	struct buffer b = {NULL, 0, 0};
	char at[512], *request = NULL;
	int fd = -1, n, e;

	snprintf(at, sizeof at, "%s/%s", run_dir, socket);
	body = body ? body : "";
	n = asprintf(&request,
		     "%s %s HTTP/1.1\r\nHost: culvert\r\nConnection: close\r\nContent-Type: application/json\r\n"
		     "Content-Length: %zu\r\n\r\n%s",
		     method, path, strlen(body), body);
	e = n < 0 ? -ENOMEM : 0;
	if (!e) {
		fd = dial(at);
		e = fd < 0 ? fd : send_all(fd, request, (size_t)n, until);
		free(request);
	}
	if (!e)
		e = receive_all(fd, &b, first, until);
	if (!e)
		e = answer_take(out, &b);
	if (e)
		explain(why, run_dir, socket, e);
	if (fd >= 0)
		close(fd);
	free(b.p);
	return e;
}

int call_dial(const char *run_dir, const char *socket, char why[CALL_WHY_MAX])
{
	char at[512];
	int fd;

	snprintf(at, sizeof at, "%s/%s", run_dir, socket);
	fd = dial(at);
	if (fd < 0)
		explain(why, run_dir, socket, fd);
	return fd;
}

json_t *call_json(const char *run_dir, const char *socket, const char *method, const char *path, json_t *body,
		  char why[CALL_WHY_MAX])
{
	char *text = body ? json_dumps(body, 0) : NULL;
	struct call_answer a = {.body = NULL};
	json_t *o = NULL;
	const char *said;

	if (call(run_dir, socket, method, path, text, &a, why) == 0) {
		o = json_loadb(a.body, a.len, 0, NULL);
		said = json_string_value(json_object_get(o, "error"));
		if (a.status >= 400)
			snprintf(why, CALL_WHY_MAX, "%.1024s", said ? said : a.body);
		else if (!o)
			snprintf(why, CALL_WHY_MAX, "%s/%s%s: the answer is no JSON", run_dir, socket, path);
		if (a.status >= 400) {
			json_decref(o);
			o = NULL;
		}
	}
	free(a.body);
	free(text);
	return o;
}

static void pause_ms(long ms)
{
	struct timespec t = {.tv_nsec = ms * 1000000};

	nanosleep(&t, NULL);
}

int call_operation(const char *run_dir, const char *path, json_t *body, const char *progress, char why[CALL_WHY_MAX])
{
	json_t *o = body ? call_json(run_dir, CTL_SOCKET, "POST", path, body, why) : NULL;
	long long begin = monotonic_ms(), until = begin + CALL_OPERATION_MS, said = begin;
	char ask[64];
	int e = -EIO;

	json_decref(body);
	for (long ms = POLL_FIRST_MS; o; ms = 2 * ms < POLL_LAST_MS ? 2 * ms : POLL_LAST_MS) {
		const char *state = json_string_value(json_object_get(o, "state"));
		const char *error = json_string_value(json_object_get(o, "error"));

		if (!state || strcmp(state, "running") != 0) {
			e = state && !strcmp(state, "done") ? 0 : -EIO;
			snprintf(why, CALL_WHY_MAX, "%.1024s", error ? error : "it failed");
			break;
		}
		if (monotonic_ms() > until) {
			snprintf(why, CALL_WHY_MAX, "the keeper is still at it; see culvertctl pods");
			break;
		}
		if (progress && monotonic_ms() - said >= CALL_PROGRESS_S * 1000) {
			said = monotonic_ms();
			fprintf(stderr, "culvertctl: %s (%lld s)\n", progress, (said - begin) / 1000);
		}
		pause_ms(ms);
		snprintf(ask, sizeof ask, "%s?id=%lld", CTL_OPERATIONS,
			 (long long)json_integer_value(json_object_get(o, "operation")));
		json_decref(o);
		o = call_json(run_dir, CTL_SOCKET, "GET", ask, NULL, why);
	}
	json_decref(o);
	return e;
}
