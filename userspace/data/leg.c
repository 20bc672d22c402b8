// SPDX-License-Identifier: Apache-2.0
/* The tunnel's leg. FIN and END_STREAM stand for each other; anything but a clean end of the stream resets the app's
 * socket (an error RST is not an end of file), and the app's reset is the stream's INTERNAL_ERROR.
 * RFC 9113 (8.5) would have CONNECT_ERROR, but Envoy makes a clean end of that, Node and ztunnel one of CANCEL.
 *
 * A peer may end its whole side after END_STREAM with RST_STREAM(NO_ERROR) (Envoy, Go): all that came is delivered, and
 * what the app still sends is answered as TCP would, by a reset, but not before the app's kernel has the last byte.
 * So it is with any other reset by the peer: Envoy ends requests that it has answered in full that way.
 *
 * The other way round, what the app said before its reset goes into the tunnel first, though its kernel tells both at once:
 * a server that answers a request which it has not read to its end, and closes, resets behind its answer. */
#include "data/leg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/sock.h"

static void watch(struct leg *g);

static void finish(struct leg *g, const char *why, uint32_t code, bool refused)
{
	if (g->over)
		return;
	g->over = true;
	g->unheard = g->stream.h2 && !h2_greeted(g->stream.h2);
	grace_stop(&g->grace);
	task_cancel(&g->fail);
	h2_stream_free(&g->stream, code);
	if (g->app.fd >= 0) {
		if (why)
			sock_reset_on_close(g->app.fd);
		io_close(g->w->loop, &g->app);
	}
	g->ops->done(g->owner, why, refused);
}

static void end_if_done(struct leg *g)
{
	if (g->app_eof && g->app_shut)
		finish(g, NULL, NGHTTP2_NO_ERROR, false);
}

/* --- application to tunnel ------------------------------------------------------------------------------ */

static void pump(struct leg *g)
{
	ssize_t n = h2_stream_pump(&g->stream, g->app.fd);

	if (n == 0) {
		g->app_eof = true;
		end_if_done(g);
	} else if (n == -ENOBUFS) {
		g->blocked = true;
	} else if (n == -EPIPE) {
		/* The stream is over; `reset` tells how. */
		g->blocked = true;
	} else if (n < 0 && n != -EAGAIN && n != -EINTR) {
		finish(g, n == -ECONNRESET ? "connection reset by the application" : strerror((int)-n),
		       NGHTTP2_INTERNAL_ERROR, false);
	}
}

static void on_pumped(struct h2_stream *s, const struct iovec *iov, size_t n)
{
	struct leg *g = container_of(s, struct leg, stream);

	g->ops->moved(g->owner, true, iov, n);
}

/* --- the application's socket has failed ---------------------------------------------------------------- */

/* What it said before goes first. Nothing is read behind that: a socket whose error was told reads as one that has ended. */
static void fail_run(struct task *t)
{
	struct leg *g = container_of(t, struct leg, fail);

	if (!g->lingering && !g->blocked && sock_unread(g->app.fd))
		pump(g);
	if (g->over)
		return;
	if (g->lingering || grace_over(&g->grace, sock_unread(g->app.fd)))
		finish(g, g->why, NGHTTP2_INTERNAL_ERROR, false);
	else if (!g->blocked)
		loop_next_turn(g->w->loop, &g->fail, fail_run);
}

static void fail_look(struct grace *grace)
{
	fail_run(&container_of(grace, struct leg, grace)->fail);
}

static void fail(struct leg *g, const char *why)
{
	if (!g->broken && !g->lingering)
		grace_begin(&g->grace, g->w->loop, fail_look);
	if (!g->broken)
		g->why = why;
	g->broken = true;
	loop_defer(g->w->loop, &g->fail, fail_run);
}

/* --- the tunnel is over --------------------------------------------------------------------------------- */

/* Bytes of the peer's that the app's kernel has not acknowledged. */
static uint32_t undelivered(const struct leg *g)
{
	return h2_stream_held(&g->stream) + sock_unacked(g->app.fd);
}

static void linger_check(struct leg *g)
{
	char c;
	ssize_t n;

	if (g->failing) {
		if (grace_over(&g->grace, undelivered(g)))
			finish(g, g->why, NGHTTP2_INTERNAL_ERROR, false);
		return;
	}
	n = recv(g->app.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n == 0) {
		finish(g, NULL, NGHTTP2_NO_ERROR, false);
		return;
	}
	if (n < 0 && errno != EAGAIN) {
		finish(g, "connection reset by the application", NGHTTP2_INTERNAL_ERROR, false);
		return;
	}
	/* Data behind the end of the tunnel: a reset, once the app's kernel has acknowledged what we sent. */
	if ((n > 0 && !undelivered(g)) || g->grace.lasted > GRACE_MS)
		finish(g, "the peer has closed the stream", NGHTTP2_INTERNAL_ERROR, false);
}

static void linger_look(struct grace *grace)
{
	linger_check(container_of(grace, struct leg, grace));
}

static void linger(struct leg *g)
{
	g->lingering = true;
	grace_begin(&g->grace, g->w->loop, linger_look);
	watch(g);
}

/* --- the application's events --------------------------------------------------------------------------- */

static void app_ready(struct io *io, uint32_t events)
{
	struct leg *g = container_of(io, struct leg, app);

	if (events & EPOLLERR) {
		int e = sock_connect_result(io->fd);

		fail(g, e == -ECONNRESET || !e ? "connection reset by the application" : strerror(-e));
	}
	if (events & EPOLLOUT && g->full && !g->broken) {
		g->full = g->stream.h2; /* else its connection was freed, and there is no more */
		h2_stream_resume(&g->stream);
	}
	if (g->lingering && !g->broken)
		linger_check(g);
	else if (events & EPOLLIN && !g->blocked && !g->app_eof && !g->broken)
		pump(g);
	watch(g);
}

/* What the socket's interest is, from the state alone. */
static void watch(struct leg *g)
{
	uint32_t m = 0;

	if (g->over || !g->joined)
		return;
	if (!g->app_eof && !g->blocked && !g->lingering && !g->broken)
		m |= EPOLLIN;
	if (g->full && !g->broken)
		m |= EPOLLOUT;
	if (io_want(g->w->loop, &g->app, m ? m : EPOLLRDHUP | EPOLLET) < 0)
		fail(g, "epoll failed");
}

/* --- tunnel to application ------------------------------------------------------------------------------ */

static ssize_t on_take(struct h2_stream *s, const struct iovec *iov, int n)
{
	struct leg *g = container_of(s, struct leg, stream);
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
	size_t total = 0;
	ssize_t k;

	if (!g->joined || g->over)
		return 0;
	if (g->broken)
		return -EPIPE;
	k = sendmsg(g->app.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (k > 0)
		g->ops->moved(g->owner, false, iov, (size_t)k);
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		k = 0;
	if (k < 0) {
		k = -errno;
		fail(g, "connection reset by the application");
		return k;
	}
	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	g->full = (size_t)k < total;
	watch(g);
	return k;
}

/* An application that reads nothing has what its socket holds, and no more comes of what ours holds. */
static size_t on_reached(struct h2_stream *s, size_t taken)
{
	struct leg *g = container_of(s, struct leg, stream);
	size_t queued = g->joined ? sock_unacked(g->app.fd) : 0;

	return queued < taken ? taken - queued : 0;
}

static void on_end(struct h2_stream *s)
{
	struct leg *g = container_of(s, struct leg, stream);

	if (!g->joined || g->broken) /* the first: a server's client that ended before we had the application */
		return;
	g->app_shut = true;
	if (!g->app_eof) /* else closing the socket is the FIN */
		shutdown(g->app.fd, SHUT_WR);
	end_if_done(g);
	watch(g);
}

static void on_writable(struct h2_stream *s)
{
	struct leg *g = container_of(s, struct leg, stream);

	g->blocked = false;
	if (g->broken)
		loop_defer(g->w->loop, &g->fail, fail_run);
	else if (g->joined && !g->app_eof && !g->lingering)
		pump(g);
	watch(g);
}

static void on_reset(struct h2_stream *s, uint32_t code, bool refused, const char *why)
{
	struct leg *g = container_of(s, struct leg, stream);

	if (g->broken) { /* the rest has nowhere to go */
		finish(g, g->why, NGHTTP2_INTERNAL_ERROR, false);
		return;
	}
	if (code == NGHTTP2_NO_ERROR && g->app_shut && g->joined) {
		if (g->app_eof) {
			finish(g, NULL, code, false);
			return;
		}
		h2_stream_free(s, code); /* over: the tunnel need not wait for the application */
		linger(g);
		return;
	}
	if (!g->joined || !undelivered(g)) {
		finish(g, why, NGHTTP2_INTERNAL_ERROR, refused);
		return;
	}
	g->why = why;
	g->failing = true;
	linger(g);
}

static void on_response(struct h2_stream *s, const struct h2_headers *h)
{
	struct leg *g = container_of(s, struct leg, stream);

	g->ops->response(g->owner, h);
}

static const struct h2_stream_ops stream_ops = {
	.response = on_response,
	.take = on_take,
	.reached = on_reached,
	.end = on_end,
	.writable = on_writable,
	.pumped = on_pumped,
	.reset = on_reset,
};

static void leg_init(struct leg *g, struct worker *w, const struct leg_ops *ops, void *owner)
{
	memset(g, 0, sizeof *g);
	g->w = w;
	g->ops = ops;
	g->owner = owner;
	g->app.fd = -1;
}

int leg_connect(struct leg *g, struct worker *w, struct h2 *h, const char *authority, const nghttp2_nv *nv, size_t n,
		const struct leg_ops *ops, void *owner)
{
	leg_init(g, w, ops, owner);
	return h2_stream_connect(h, &g->stream, &stream_ops, authority, nv, n);
}

int leg_accept(struct leg *g, struct worker *w, struct h2 *h, int32_t id, const struct leg_ops *ops, void *owner)
{
	leg_init(g, w, ops, owner);
	return h2_stream_accept(h, &g->stream, &stream_ops, id);
}

void leg_refuse(struct leg *g, int status)
{
	h2_stream_refuse(&g->stream, status);
	leg_kill(g, NGHTTP2_NO_ERROR);
}

void leg_join(struct leg *g, int fd)
{
	io_init(&g->app, fd, app_ready);
	g->joined = true;
	watch(g);
	if (g->stream.end_told) { /* the end came before the application did */
		g->app_shut = true;
		shutdown(fd, SHUT_WR);
	}
	h2_stream_resume(&g->stream);
}

void leg_kill(struct leg *g, uint32_t code)
{
	if (!g->w || g->over)
		return;
	g->over = true;
	grace_stop(&g->grace);
	task_cancel(&g->fail);
	h2_stream_free(&g->stream, code);
	if (g->app.fd >= 0) {
		sock_reset_on_close(g->app.fd);
		io_close(g->w->loop, &g->app);
	}
}
