/* SPDX-License-Identifier: Apache-2.0 */
/* The application behind the benchmark: echo, sink and source on the ports of bench.h, one thread, until
 * killed. */
#include "bench.h"

enum role { LISTENER, ECHO, SINK, SOURCE };

struct conn {
	enum role role;
	int fd, port;
	uint64_t count; /* bytes read by a sink */
	char *waiting;	/* echo: what the client did not take yet; meanwhile we do not read */
	size_t len, off;
};

static char chunk[BENCH_CHUNK];
static int ep;

static void conn_close(struct conn *c)
{
	close(c->fd);
	free(c->waiting);
	free(c);
}

static void listener_open(int port)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	struct conn *l = calloc(1, sizeof *l);

	l->role = LISTENER;
	l->port = port;
	l->fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		die("socket: %s", strerror(errno));
	set_option(l->fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set_option(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (bind(l->fd, (struct sockaddr *)&a, sizeof a) || listen(l->fd, 4096))
		die("port %d: %s", port, strerror(errno));
	watch(ep, EPOLL_CTL_ADD, l->fd, EPOLLIN, l);
}

static void listener_accept(struct conn *l)
{
	for (int i = 0; i < 64; i++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct conn *c;

		if (fd < 0)
			return;
		c = calloc(1, sizeof *c);
		c->fd = fd;
		c->role = l->port == BENCH_SINK ? SINK : l->port == BENCH_SOURCE ? SOURCE : ECHO;
		set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		watch(ep, EPOLL_CTL_ADD, fd, c->role == SOURCE ? EPOLLOUT : EPOLLIN, c);
	}
}

/* Returns whether the connection lives. */
static int echo_flush(struct conn *c)
{
	while (c->off < c->len) {
		ssize_t n = send(c->fd, c->waiting + c->off, c->len - c->off, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN;
		c->off += (size_t)n;
	}
	c->len = c->off = 0;
	watch(ep, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
	return 1;
}

static int echo_serve(struct conn *c)
{
	ssize_t n, sent;

	if (c->len)
		return echo_flush(c);
	n = recv(c->fd, chunk, sizeof chunk, 0);
	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	sent = send(c->fd, chunk, (size_t)n, MSG_NOSIGNAL);
	if (sent == n)
		return 1;
	if (sent < 0 && errno != EAGAIN)
		return 0;
	sent = sent < 0 ? 0 : sent;
	c->waiting = realloc(c->waiting, sizeof chunk);
	c->len = (size_t)(n - sent);
	memcpy(c->waiting, chunk + sent, c->len);
	watch(ep, EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
	return 1;
}

static int sink_serve(struct conn *c)
{
	ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);

	if (n > 0)
		c->count += (uint64_t)n;
	if (n)
		return n > 0 || errno == EAGAIN;
	(void)!send(c->fd, &c->count, sizeof c->count, MSG_NOSIGNAL); /* eight bytes always fit */
	return 0;
}

static int source_serve(struct conn *c)
{
	return send(c->fd, chunk, sizeof chunk, MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
}

int main(void)
{
	struct epoll_event ev[BENCH_EVENTS];
	int (*const serve[])(struct conn *) = {[ECHO] = echo_serve, [SINK] = sink_serve, [SOURCE] = source_serve};

	raise_files();
	ep = epoll_create1(EPOLL_CLOEXEC);
	for (int port = BENCH_PORT; port <= BENCH_SOURCE; port++)
		listener_open(port);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(ep, ev, BENCH_EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;

			if (c->role == LISTENER)
				listener_accept(c);
			else if (!serve[c->role](c))
				conn_close(c);
		}
	}
}
