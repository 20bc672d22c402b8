// SPDX-License-Identifier: Apache-2.0
/* The tunnel's leg. FIN and END_STREAM stand for each other; anything but a clean end of the stream resets the app's
 * socket (an error RST is not an end of file), and the app's reset is the stream's INTERNAL_ERROR.
 * RFC 9113 (8.5) would have CONNECT_ERROR, but Envoy makes a clean end of that, Node and ztunnel one of CANCEL.
 *
 * A peer may end its whole side after END_STREAM with RST_STREAM(NO_ERROR) (Envoy, Go): all that came is delivered, and
 * what the app still sends is answered as TCP would, by a reset, but not before the app's kernel has the last byte.
 * So it is with any other reset by the peer: Envoy ends requests that it has answered in full that way. */
#include "data/leg.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
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
	timer_cancel(&g->linger);
	task_cancel(&g->fail);
	h2_stream_free(&g->stream, code);
	if (g->app.fd >= 0) {
		if (why)
			sock_reset_on_close(g->app.fd);
		io_close(g->w->loop, &g->app);
	}
	g->ops->done(g->owner, why, refused);
}

static void fail_run(struct task *t)
{
	struct leg *g = container_of(t, struct leg, fail);

	finish(g, g->why, NGHTTP2_INTERNAL_ERROR, false);
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

/* Bytes of the peer's that the app's kernel has not acknowledged. */
static uint32_t undelivered(const struct leg *g)
{
	int queued = 0;

	if (ioctl(g->app.fd, SIOCOUTQ, &queued) < 0 || queued < 0)
		queued = 0;
	return h2_stream_held(&g->stream) + (uint32_t)queued;
}

/* Resets the app once it has what came before the reset, or takes no more of it. */
static void fail_if_delivered(struct leg *g)
{
	uint32_t left = undelivered(g);

	if (left < g->left)
		g->stalled = 0;
	g->left = left;
	if (!left || g->stalled > LEG_STALL_MS || g->lingered > LEG_LINGER_MS)
		finish(g, g->why, NGHTTP2_INTERNAL_ERROR, false);
}

static void linger_check(struct leg *g)
{
	char c;
	ssize_t n;

	if (g->failing) {
		fail_if_delivered(g);
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
	if ((n > 0 && !undelivered(g)) || g->lingered > LEG_LINGER_MS)
		finish(g, "the peer has closed the stream", NGHTTP2_INTERNAL_ERROR, false);
}

static void linger_tick(struct timer *t)
{
	struct leg *g = container_of(t, struct leg, linger);

	timer_set(g->w->loop, &g->linger, LEG_LINGER_TICK_MS, linger_tick);
	g->lingered += LEG_LINGER_TICK_MS;
	g->stalled += LEG_LINGER_TICK_MS;
	linger_check(g);
}

static void linger(struct leg *g)
{
	g->lingering = true;
	timer_set(g->w->loop, &g->linger, LEG_LINGER_TICK_MS, linger_tick);
	watch(g);
}

static void app_ready(struct io *io, uint32_t events)
{
	struct leg *g = container_of(io, struct leg, app);

	if (events & EPOLLERR) {
		int e = sock_connect_result(io->fd);

		finish(g, e == -ECONNRESET || !e ? "connection reset by the application" : strerror(-e),
		       NGHTTP2_INTERNAL_ERROR, false);
		return;
	}
	if (events & EPOLLOUT && g->full) {
		g->full = g->stream.h2; /* else its connection was freed, and there is no more */
		h2_stream_resume(&g->stream);
	}
	if (g->lingering)
		linger_check(g);
	else if (events & EPOLLIN && !g->blocked && !g->app_eof)
		pump(g);
	watch(g);
}

/* What the socket's interest is, from the state alone. */
static void watch(struct leg *g)
{
	uint32_t m = 0;

	if (g->over || !g->joined)
		return;
	if (!g->app_eof && !g->blocked && !g->lingering)
		m |= EPOLLIN;
	if (g->full)
		m |= EPOLLOUT;
	if (io_want(g->w->loop, &g->app, m ? m : EPOLLRDHUP | EPOLLET) < 0) {
		g->why = "epoll failed";
		loop_defer(g->w->loop, &g->fail, fail_run);
	}
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
	k = sendmsg(g->app.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (k > 0)
		g->ops->moved(g->owner, false, iov, (size_t)k);
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		k = 0;
	if (k < 0) {
		k = -errno;
		g->why = "connection reset by the application";
		loop_defer(g->w->loop, &g->fail, fail_run);
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
	int queued = 0;

	if (!g->joined || ioctl(g->app.fd, SIOCOUTQ, &queued) < 0 || queued < 0)
		return taken;
	return (size_t)queued < taken ? taken - (size_t)queued : 0;
}

static void on_end(struct h2_stream *s)
{
	struct leg *g = container_of(s, struct leg, stream);

	if (!g->joined) /* a server's client that ended before we had the application */
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
	if (g->joined && !g->app_eof && !g->lingering)
		pump(g);
	watch(g);
}

static void on_reset(struct h2_stream *s, uint32_t code, bool refused, const char *why)
{
	struct leg *g = container_of(s, struct leg, stream);

	if (code == NGHTTP2_NO_ERROR && g->app_shut && g->joined) {
		if (g->app_eof) {
			finish(g, NULL, code, false);
			return;
		}
		h2_stream_free(s, code); /* over: the tunnel need not wait for the application */
		linger(g);
		return;
	}
	if (!g->joined || !(g->left = undelivered(g))) {
		finish(g, why, NGHTTP2_INTERNAL_ERROR, refused);
		return;
	}
	if (!g->why) /* else the application has ended it just now */
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
	timer_cancel(&g->linger);
	task_cancel(&g->fail);
	h2_stream_free(&g->stream, code);
	if (g->app.fd >= 0) {
		sock_reset_on_close(g->app.fd);
		io_close(g->w->loop, &g->app);
	}
}
