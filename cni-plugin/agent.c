/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the conversation with the keeper. HTTP/1.0 is what both sides' servers take, and by which an answer never comes in
 * chunks: it ends with the connection. */
#include "agent.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* --- bodies --------------------------------------------------------------------------------------------------- */

char *agent_pod_body(const struct conf *c, const struct env *e, json_t *ips)
{
	json_t *o = json_pack("{ss ss ss ss ss ss ss}", "Netns", e->netns, "PodName", e->pod_name, "PodNamespace",
			      e->pod_namespace, "PodUID", e->pod_uid, "ContainerID", e->container_id, "IfName",
			      e->ifname, "Network", c->name);
	char *text = NULL;

	if (o && ips) {
		json_object_set(o, "IPs", ips);
		json_object_set_new(o, "Decide", json_true());
	}
	json_decref(ips);
	if (o)
		text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

/* --- the answer ------------------------------------------------------------------------------------------------ */

/* One line without control characters. */
static void text_take(char out[AGENT_TEXT_MAX], const char *in, size_t len)
{
	size_t n = len < AGENT_TEXT_MAX - 1 ? len : AGENT_TEXT_MAX - 1;

	while (n && isspace((unsigned char)in[n - 1]))
		n--;
	for (size_t i = 0; i < n; i++)
		out[i] = iscntrl((unsigned char)in[i]) ? ' ' : in[i];
	out[n] = '\0';
}

int agent_parse(const char *data, size_t len, struct agent_answer *out)
{
	const char *end = memmem(data, len, "\r\n\r\n", 4);
	int status = 0;

	if (len < 13 || memcmp(data, "HTTP/1.", 7) != 0 || data[8] != ' ' || !end || !isspace((unsigned char)data[12]))
		return -EPROTO;
	for (unsigned i = 9; i < 12; i++) {
		if (!isdigit((unsigned char)data[i]))
			return -EPROTO;
		status = 10 * status + data[i] - '0';
	}
	out->status = status;
	text_take(out->text, end + 4, len - (size_t)(end + 4 - data));
	return 0;
}

/* --- the conversation -------------------------------------------------------------------------------------------- */

static int connect_to(const char *path, uint64_t deadline)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int left = left_ms(deadline), fd;
	struct timeval patience = {left / 1000, left % 1000 * 1000 + 1}; /* a full backlog waits; 0 would be for ever */

	if (strlen(path) >= sizeof at.sun_path)
		return -ENAMETOOLONG;
	memcpy(at.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
	    connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
		return fd;
	left = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return left;
}

/* What it says decides about the pod, so nobody else may have taken its place. */
static int check_listener(int fd)
{
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t len = sizeof who;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		return -errno;
	return who.uid == 0 ? 0 : -EPERM;
}

static int send_all(int fd, const char *p, size_t len, uint64_t deadline)
{
	while (len) {
		struct pollfd w = {.fd = fd, .events = POLLOUT};
		int r = poll(&w, 1, left_ms(deadline));
		ssize_t n;

		if (r == 0)
			return -ETIMEDOUT;
		n = r < 0 ? -1 : send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Up to the end of the connection, or as much as is of interest. */
static ssize_t receive(int fd, char *buf, size_t cap, uint64_t deadline)
{
	size_t used = 0;

	while (used < cap) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int r = poll(&p, 1, left_ms(deadline));
		ssize_t n;

		if (r == 0)
			return -ETIMEDOUT;
		n = r < 0 ? -1 : recv(fd, buf + used, cap - used, MSG_DONTWAIT);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		used += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)used;
}

static int converse(int fd, const char *path, const char *body, uint64_t deadline, struct agent_answer *out)
{
	char head[256], *buf = malloc(AGENT_ANSWER_MAX);
	ssize_t n = 0;
	int e = buf ? check_listener(fd) : -ENOMEM;

	snprintf(head, sizeof head,
		 "POST %s HTTP/1.0\r\nHost: unix\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
		 path, strlen(body));
	if (!e)
		e = send_all(fd, head, strlen(head), deadline);
	if (!e)
		e = send_all(fd, body, strlen(body), deadline);
	/* Who refuses a body early may have answered all the same. */
	if (!e || e == -EPIPE || e == -ECONNRESET) {
		n = receive(fd, buf, AGENT_ANSWER_MAX, deadline);
		e = n < 0 ? (int)n : n == 0 ? -ECONNRESET : agent_parse(buf, (size_t)n, out);
	}
	free(buf);
	return e;
}

int agent_call(const char *socket, const char *path, const char *body, uint64_t deadline, struct agent_answer *out)
{
	int fd = connect_to(socket, deadline), e = fd < 0 ? fd : converse(fd, path, body, deadline, out);

	if (fd >= 0)
		close(fd);
	if (e == -EPERM)
		snprintf(out->text, sizeof out->text, "%.512s: who listens there is not root", socket);
	else if (e == -EPROTO)
		snprintf(out->text, sizeof out->text, "%.512s: what came back is not HTTP", socket);
	else if (e == -ECONNRESET)
		snprintf(out->text, sizeof out->text, "%.512s: the connection ended without an answer", socket);
	else if (e)
		snprintf(out->text, sizeof out->text, "%.512s: %s", socket, strerror(-e));
	return e;
}
