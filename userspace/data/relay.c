// SPDX-License-Identifier: Apache-2.0
/* The plain relay. Bytes go through the worker's one buffer, which stays in the cache; only what a slow receiver leaves
 * gets memory of its own, and until that is gone its sender is not read.
 *
 * The interest in a socket is a function of both directions: IN while its own direction can take more, OUT while the
 * other direction has something left, else edge-triggered HUP so that a reset is still seen.
 *
 * A side that has failed is no longer watched. What it said before the kernel still has, and the other side gets it, then
 * its own reset: a server that answers a request which it has not read to its end, and closes, resets behind its answer. */
#include "data/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/sock.h"

enum { READS_PER_EVENT = 4 };

static uint32_t interest(const struct relay_way *in, const struct relay_way *out)
{
	uint32_t m = 0;

	if (!in->eof && !in->left_len)
		m |= EPOLLIN;
	if (out->left_len)
		m |= EPOLLOUT;
	return m ? m : EPOLLRDHUP | EPOLLET;
}

static void close_both(struct relay *r)
{
	io_close(r->w->loop, &r->a);
	io_close(r->w->loop, &r->b);
	free(r->ab.left);
	free(r->ba.left);
	r->ab.left = r->ba.left = NULL;
	grace_stop(&r->grace);
}

static void finish(struct relay *r, int err)
{
	if (err) {
		sock_reset_on_close(r->a.fd);
		sock_reset_on_close(r->b.fd);
	}
	close_both(r);
	r->ops->done(r->owner, err);
}

static int keep(struct relay_way *way, const uint8_t *p, size_t len)
{
	way->left = malloc(len);
	if (!way->left)
		return -ENOMEM;
	memcpy(way->left, p, len);
	way->left_off = 0;
	way->left_len = (uint32_t)len;
	return 0;
}

static ssize_t put(int fd, const uint8_t *p, size_t len)
{
	ssize_t n = send(fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static int put_left(struct relay_way *way, int to)
{
	ssize_t n = put(to, way->left + way->left_off, way->left_len);

	if (n < 0)
		return (int)n;
	way->left_off += (uint32_t)n;
	way->left_len -= (uint32_t)n;
	if (!way->left_len) {
		free(way->left);
		way->left = NULL;
	}
	return 0;
}

static void fail(struct relay *r, bool a, int err);

/* Moves what can be moved. 0, or why the receiver gets no more. */
static int move(struct relay *r, bool a)
{
	struct relay_way *way = a ? &r->ab : &r->ba;
	int from = a ? r->a.fd : r->b.fd, to = a ? r->b.fd : r->a.fd;

	for (int i = 0; i < READS_PER_EVENT && !way->eof && !way->left_len; i++) {
		ssize_t n = recv(from, r->w->buffer, WORKER_BUFFER, MSG_DONTWAIT), sent;
		const struct iovec got = {r->w->buffer, WORKER_BUFFER};

		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				fail(r, a, -errno);
			return 0;
		}
		if (n == 0) {
			way->eof = true;
			break;
		}
		r->ops->moved(r->owner, a, &got, (size_t)n);
		sent = put(to, r->w->buffer, (size_t)n);
		if (sent < 0)
			return (int)sent;
		if (sent < n)
			return keep(way, r->w->buffer + sent, (size_t)(n - sent));
		if (n < WORKER_BUFFER / 4) /* the socket is empty: epoll will tell */
			break;
	}
	return 0;
}

/* --- a side has failed ---------------------------------------------------------------------------------- */

/* The end that is read behind what it said is none: a socket whose error was told reads as one that has ended. */
static void deliver_last(struct relay *r)
{
	bool a = r->failed_a;
	struct relay_way *way = a ? &r->ab : &r->ba;
	struct io *from = a ? &r->a : &r->b, *to = a ? &r->b : &r->a;
	int e = way->left_len ? put_left(way, to->fd) : 0;
	uint32_t ours;

	if (!e && sock_unread(from->fd))
		e = move(r, a);
	ours = way->left_len + sock_unread(from->fd);
	if (e || grace_over(&r->grace, ours + sock_unacked(to->fd)) ||
	    io_want(r->w->loop, to, ours ? EPOLLOUT : EPOLLRDHUP | EPOLLET) < 0)
		finish(r, r->err);
}

static void look(struct grace *grace)
{
	deliver_last(container_of(grace, struct relay, grace));
}

static void fail(struct relay *r, bool a, int err)
{
	if (r->err)
		return;
	r->err = err;
	r->failed_a = a;
	io_stop(r->w->loop, a ? &r->a : &r->b);
	grace_begin(&r->grace, r->w->loop, look);
}

/* --- both are there ------------------------------------------------------------------------------------- */

/* `last`: the other direction has ended, so that closing the sockets is the FIN. */
static void pass_fin(struct relay_way *way, int to, bool last)
{
	if (way->eof && !way->left_len && !way->shut) {
		way->shut = true;
		if (!last)
			shutdown(to, SHUT_WR);
	}
}

static void transfer(struct relay *r, bool a, uint32_t events)
{
	struct relay_way *out = a ? &r->ba : &r->ab;
	int self = a ? r->a.fd : r->b.fd, e;

	if (events & EPOLLERR)
		fail(r, a, sock_connect_result(self) ?: -ECONNRESET);
	if (!r->err && events & EPOLLOUT && out->left_len && (e = put_left(out, self)) < 0)
		fail(r, a, e);
	if (!r->err && events & EPOLLIN && (e = move(r, a)) < 0)
		fail(r, !a, e);
}

static void pass_ends(struct relay *r)
{
	pass_fin(&r->ab, r->b.fd, r->ba.shut);
	pass_fin(&r->ba, r->a.fd, r->ab.shut);
	if (r->ab.shut && r->ba.shut) {
		finish(r, 0);
		return;
	}
	if (io_want(r->w->loop, &r->a, interest(&r->ab, &r->ba)) < 0 ||
	    io_want(r->w->loop, &r->b, interest(&r->ba, &r->ab)) < 0)
		finish(r, -ENOMEM);
}

static void serve(struct relay *r, bool a, uint32_t events)
{
	if (r->err && events & EPOLLERR) { /* both sides have failed */
		finish(r, r->err);
		return;
	}
	if (!r->err)
		transfer(r, a, events);
	if (r->err)
		deliver_last(r);
	else
		pass_ends(r);
}

static void ready_a(struct io *io, uint32_t events)
{
	serve(container_of(io, struct relay, a), true, events);
}

static void ready_b(struct io *io, uint32_t events)
{
	serve(container_of(io, struct relay, b), false, events);
}

int relay_start(struct relay *r, struct worker *w, int a, int b, const struct relay_ops *ops, void *owner)
{
	int e;

	memset(r, 0, sizeof *r);
	r->w = w;
	r->ops = ops;
	r->owner = owner;
	io_init(&r->a, a, ready_a);
	io_init(&r->b, b, ready_b);
	e = io_want(w->loop, &r->a, EPOLLIN);
	if (!e)
		e = io_want(w->loop, &r->b, EPOLLIN);
	if (e)
		close_both(r);
	return e;
}

void relay_kill(struct relay *r)
{
	if (!r->w || r->a.fd < 0)
		return;
	sock_reset_on_close(r->a.fd);
	sock_reset_on_close(r->b.fd);
	close_both(r);
}
