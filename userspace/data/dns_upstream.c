// SPDX-License-Identifier: Apache-2.0
/* Owns the sockets to resolvers. One after the other is asked, each has its part of the time; what refuses or is cut
 * passes the rest on to the next. */
#include "data/dns_upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/sock.h"

enum { PREFIX = 2 }; /* RFC 1035, 4.2.2: the length before a message on TCP */

static void ask_next(struct dns_upstream *u);

static void let_go(struct dns_upstream *u)
{
	if (u->io.fd >= 0)
		io_close(u->w->loop, &u->io);
	timer_cancel(&u->timer);
	task_cancel(&u->at_once);
	free(u->in);
	u->in = NULL;
}

void dns_upstream_cancel(struct dns_upstream *u)
{
	if (u->w)
		let_go(u);
}

static void failed(struct dns_upstream *u, const char *why)
{
	let_go(u);
	u->why = why;
	ask_next(u);
}

static void late(struct timer *t)
{
	failed(container_of(t, struct dns_upstream, timer), "no answer in time");
}

static bool is_answer(const struct dns_upstream *u, const uint8_t *msg, size_t len)
{
	if (u->q)
		return dns_reply_fits(u->q, msg, len);
	return len >= DNS_HEADER && !memcmp(msg, u->msg, 2);
}

/* --- UDP ------------------------------------------------------------------------------------------------ */

static void datagram_ready(struct io *io, uint32_t events)
{
	struct dns_upstream *u = container_of(io, struct dns_upstream, io);
	uint8_t *buf = u->w->buffer;
	ssize_t n = recv(io->fd, buf, DNS_MESSAGE_MAX, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		failed(u, strerror(errno));
		return;
	}
	if (!is_answer(u, buf, (size_t)n))
		return; /* somebody guesses: wait for the right one */
	let_go(u);
	u->done(u, buf, (size_t)n, NULL);
}

static int datagram_socket(const struct dns_upstream *u, const struct endpoint *resolver)
{
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(resolver, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), e;

	if (fd < 0)
		return -errno;
	if ((u->pod->mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &u->pod->mark, sizeof u->pod->mark) < 0) ||
	    connect(fd, (struct sockaddr *)&ss, len) < 0 ||
	    send(fd, u->msg, u->len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)u->len) {
		e = errno ? -errno : -EIO;
		close(fd);
		return e;
	}
	return fd;
}

/* --- TCP ------------------------------------------------------------------------------------------------ */

static void connection_send(struct dns_upstream *u)
{
	uint8_t prefix[PREFIX];
	struct iovec v[2] = {{prefix, PREFIX}, {(void *)u->msg, u->len}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	ssize_t n;

	dns_put16(prefix, (unsigned)u->len);
	v[0].iov_base = prefix + (u->sent < PREFIX ? u->sent : PREFIX);
	v[0].iov_len -= u->sent < PREFIX ? u->sent : PREFIX;
	if (u->sent > PREFIX) {
		v[1].iov_base = (uint8_t *)v[1].iov_base + (u->sent - PREFIX);
		v[1].iov_len -= u->sent - PREFIX;
	}
	n = sendmsg(u->io.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		failed(u, strerror(errno));
		return;
	}
	u->sent += n > 0 ? (size_t)n : 0;
	if (u->sent == PREFIX + u->len && io_want(u->w->loop, &u->io, EPOLLIN) < 0)
		failed(u, strerror(errno));
}

/* Bytes of the answer that are lacking. */
static size_t lack(const struct dns_upstream *u)
{
	return (u->have < PREFIX ? PREFIX : PREFIX + dns_get16(u->in)) - u->have;
}

static void connection_read(struct dns_upstream *u)
{
	uint8_t *in;
	ssize_t n;

	if (!u->in)
		u->in = malloc(PREFIX + DNS_MESSAGE_MAX);
	if (!u->in) {
		failed(u, "out of memory");
		return;
	}
	do {
		n = recv(u->io.fd, u->in + u->have, lack(u), MSG_DONTWAIT);
		u->have += n > 0 ? (size_t)n : 0;
	} while (n > 0 && lack(u));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || !is_answer(u, u->in + PREFIX, u->have - PREFIX)) {
		failed(u, n < 0 ? strerror(errno) : n ? "not an answer to the query" : "the connection was closed");
		return;
	}
	in = u->in;
	u->in = NULL;
	let_go(u);
	u->done(u, in + PREFIX, u->have - PREFIX, NULL);
	free(in);
}

static void connection_ready(struct io *io, uint32_t events)
{
	struct dns_upstream *u = container_of(io, struct dns_upstream, io);
	int e = u->sent ? 0 : sock_connect_result(io->fd);

	if (e == -EINPROGRESS)
		return;
	if (e < 0)
		failed(u, strerror(-e));
	else if (u->sent < PREFIX + u->len)
		connection_send(u);
	else
		connection_read(u);
}

/* --- one after the other -------------------------------------------------------------------------------- */

static int ask(struct dns_upstream *u, const struct endpoint *resolver)
{
	struct sock_dial how = {.to = *resolver, .mark = u->pod->mark};
	int fd = pod_enter(u->pod);

	if (!fd)
		fd = u->tcp ? sock_dial_tcp(&how, NULL, NULL) : datagram_socket(u, resolver);
	if (fd < 0)
		return fd;
	u->sent = u->have = 0;
	io_init(&u->io, fd, u->tcp ? connection_ready : datagram_ready);
	timer_set(u->w->loop, &u->timer, DNS_QUERY_MS / u->to->n, late);
	return io_want(u->w->loop, &u->io, u->tcp ? EPOLLOUT : EPOLLIN);
}

static void give_up(struct task *t)
{
	struct dns_upstream *u = container_of(t, struct dns_upstream, at_once);

	u->done(u, NULL, 0, u->why);
}

static void ask_next(struct dns_upstream *u)
{
	while (u->asked < u->to->n) {
		int e = ask(u, &u->to->at[u->asked++]);

		if (!e)
			return;
		let_go(u);
		u->why = strerror(-e);
	}
	loop_defer(u->w->loop, &u->at_once, give_up);
}

void dns_upstream_start(struct dns_upstream *u)
{
	u->io.fd = -1;
	u->why = "no resolver is known";
	ask_next(u);
}
