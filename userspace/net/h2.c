/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP/2 connection: its record, its silence, and the order of things in a turn. How it reads: h2_read.c; how it ends:
 * h2_end.c.
 *
 * While events are handled, frames only gather: what arrives is parsed and handed to streams at the end of each read,
 * what leaves is put into record slots. The deferred task then settles streams that changed, lets blocked ones go on,
 * collects the control frames of nghttp2 (window updates), seals and sends once, and at last tells the owner what
 * became of the connection. Callbacks to owners happen only from record reads and from that task. */
#include "net/h2_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

const char h2_too_many_frames[] = "too many control frames", h2_endless_block[] = "a header block without end";

static void turn_run(struct task *t);
static void io_ready(struct io *io, uint32_t events);
static void timer_fire(struct timer *t);

void h2_touch(struct h2 *h)
{
	loop_defer(h->loop, &h->turn, turn_run);
}

void h2_die(struct h2 *h, const char *why)
{
	if (!h->dead && !h->ending)
		h->why = why;
	h->dead = true;
	h2_touch(h);
}

bool h2_bucket_take(struct h2 *h, struct h2_bucket *b, uint32_t burst, uint32_t per_ms)
{
	uint64_t now = loop_now(h->loop), grown = (now - b->at) * per_ms + b->left;

	b->at = now;
	b->left = grown > burst ? burst : (uint32_t)grown;
	if (!b->left)
		return false;
	b->left--;
	return true;
}

/* While a socket seems readable but is not (part of a record, for kernels that say so), only a change is worth waking
 * for. */
static void watch(struct h2 *h)
{
	uint32_t mask = h->dead ? 0
				: (h->ending ? 0 : EPOLLIN) | (record_tx_pending(h->record) ? EPOLLOUT : 0) |
					  (h->unreadable ? EPOLLET : 0);

	if (io_want(h->loop, &h->io, mask) < 0 && !h->dead)
		h2_die(h, "epoll failed");
}

int h2_flush(struct h2 *h)
{
	int e = record_flush(h->record);

	if (h->stuck && !e)
		h->wake = true;
	if (!h->stuck)
		h->stuck_since = loop_now(h->loop);
	h->stuck = e == -EAGAIN;
	return e;
}

int h2_record_flush(struct h2 *h)
{
	int e = h2_flush(h);

	if (e < 0 && e != -EAGAIN)
		h2_die(h, e == -EKEYEXPIRED ? record_error(h->record) : "connection reset by peer");
	return e;
}

bool h2_session_begin(struct h2 *h)
{
	if (h->session)
		return true;
	h->session = h2_session_new(h);
	if (!h->session) {
		h2_die(h, "out of memory");
		return false;
	}
	timer_set(h->loop, &h->timer, H2_PREFACE_MS, timer_fire);
	return true;
}

void h2_limited(struct h2 *h, enum h2_limit what)
{
	if (h->ops->limited)
		h->ops->limited(h, what);
}

void h2_frames_out(struct h2 *h)
{
	int e;

	if (h->dead || h->lingering || !h->session || !nghttp2_session_want_write(h->session))
		return;
	e = nghttp2_session_send(h->session);
	if (e < 0)
		h2_die(h, nghttp2_strerror(e));
}

static void tell(struct h2 *h)
{
	if (h->dead && !h->told_closed) {
		h->told_closed = true;
		h->ops->closed(h, h->why);
	} else if (h->leaving && !h->told_leaving) {
		h->told_leaving = true;
		if (h->ops->leaving)
			h->ops->leaving(h);
	}
	if (h->saw_idle) {
		h->saw_idle = false;
		if (!h->n_streams && h->ops->idle)
			h->ops->idle(h);
	}
}

int32_t h2_window(struct h2 *h)
{
	int32_t now = nghttp2_session_get_remote_window_size(h->session);

	if (now > h->window_top)
		h->window_top = now;
	return now;
}

void h2_sent(struct h2 *h, size_t n)
{
	h->control.left += (uint32_t)(n / H2_CONTROL_BYTES);
	if (h->control.left > H2_CONTROL_BURST)
		h->control.left = H2_CONTROL_BURST;
}

/* Streams that ended cleanly before may still deliver what they hold, unless `all` must go. */
static void die_streams(struct h2 *h, bool all)
{
	list_for_each (pos, &h->streams) {
		struct h2_stream *s = list_entry(pos, struct h2_stream, all);

		if (!s->over || all)
			h2_stream_over(s, NGHTTP2_CONNECT_ERROR);
	}
}

static void turn_run(struct task *t)
{
	struct h2 *h = container_of(t, struct h2, turn);

	h2_streams_settle(h);
	if (record_retiring(h->record))
		h2_shutdown(h, true);
	h2_frames_out(h);
	if (!h->dead && h2_record_flush(h) == 0 && h->wake) {
		h->wake = false;
		h2_streams_wake(h);
		h2_frames_out(h);
		if (!h->dead)
			h2_record_flush(h);
	}
	h2_end_if_finished(h);
	if (h->dead) {
		die_streams(h, false);
		h2_streams_settle(h);
		if (h->n_streams) /* they take what they hold; the peer need not wait for that */
			shutdown(record_fd(h->record), SHUT_RDWR);
	}
	watch(h);
	tell(h);
}

static void io_ready(struct io *io, uint32_t events)
{
	struct h2 *h = container_of(io, struct h2, io);

	if (h->dead)
		return;
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		h2_read(h);
	h2_touch(h);
}

static void timer_fire(struct timer *t)
{
	struct h2 *h = container_of(t, struct h2, timer);
	uint64_t now = loop_now(h->loop), silent;

	if (!h->greeted) {
		h2_die(h, "no HTTP/2 preface in time");
		return;
	}
	if (h2_takes(h) && h->unsent) /* the answer to a ping is as far behind as what waits is long */
		h->seen = h->stuck_since = now;
	silent = now - h->seen;
	if (h->stuck && now - h->stuck_since >= H2_PING_MS + H2_PING_DEADLINE_MS) {
		h2_limited(h, H2_LIMIT_UNREAD);
		h2_die(h, "the peer reads nothing");
		return;
	}
	if (h->pinged && silent >= H2_PING_MS + H2_PING_DEADLINE_MS) {
		h2_die(h, "ping timeout");
		return;
	}
	h2_streams_unstall(h);
	if (!h->pinged && silent >= H2_PING_MS) {
		static const uint8_t payload[8] = "culvert";

		if (nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, payload) == 0)
			h->pinged = true;
		h2_touch(h);
	}
	timer_set(h->loop, &h->timer, h->pinged || silent >= H2_PING_MS ? H2_PING_MS / 2 : H2_PING_MS - silent,
		  timer_fire);
}

static uint32_t first_window(const struct h2 *h)
{
	if (h->large)
		return H2_LARGE_CONN;
	return h->share->n < H2_SHARE_WIDE ? H2_CONN_START : H2_CONN_NARROW;
}

struct h2 *h2_new(struct loop *l, struct record *r, enum h2_role role, struct h2_share *share, const struct h2_ops *ops,
		  void *owner)
{
	struct h2 *h = calloc(1, sizeof *h);

	if (!h)
		return NULL;
	h->loop = l;
	h->ops = ops;
	h->owner = owner;
	h->server = role == H2_SERVER;
	h->large = role == H2_CLIENT_LARGE;
	h->share = share ? share : &h->alone;
	h->window = first_window(h);
	h->control.left = H2_CONTROL_BURST;
	h->resets.left = H2_RESET_BURST;
	h->control.at = h->resets.at = h->credited_at = loop_now(l);
	list_init(&h->streams);
	list_init(&h->dirty);
	list_init(&h->blocked);
	io_init(&h->io, record_fd(r), io_ready);
	h->record = r;
	h2_look_init(h);
	if (!h->server)
		h->session = h2_session_new(h);
	if ((!h->server && !h->session) || io_want(l, &h->io, EPOLLIN) < 0) {
		nghttp2_session_del(h->session);
		free(h);
		return NULL;
	}
	h->share->n++;
	timer_set(l, &h->timer, h->server ? H2_SILENT_MS : H2_PREFACE_MS, timer_fire);
	/* Records may already wait in the kernel behind the handshake; epoll says so. */
	h2_touch(h);
	return h;
}

void h2_free(struct h2 *h)
{
	if (!h)
		return;
	h->dead = true;
	die_streams(h, true);
	h2_streams_settle(h);
	list_for_each_safe (pos, tmp, &h->streams)
		h2_stream_free(list_entry(pos, struct h2_stream, all), NGHTTP2_CANCEL);
	h->share->n--;
	io_stop(h->loop, &h->io);
	timer_cancel(&h->timer);
	timer_cancel(&h->goaway);
	task_cancel(&h->turn);
	nghttp2_session_del(h->session);
	record_free(h->record);
	free(h->collect);
	free(h);
}

void *h2_owner(const struct h2 *h)
{
	return h->owner;
}

unsigned h2_streams(const struct h2 *h)
{
	return h->n_streams;
}

void h2_offload_of(const struct h2 *h, struct record_offload *out)
{
	record_offload_of(h->record, out);
}

bool h2_greeted(const struct h2 *h)
{
	return h->greeted;
}

uint32_t h2_peer_streams(const struct h2 *h)
{
	return nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

/* Nearly no window left, and not because it is being used: stalled streams hold it. */
static bool is_exhausted(struct h2 *h)
{
	return h2_window(h) <= h->window_top / 8 && loop_now(h->loop) - h->credited_at > H2_EXHAUSTED_MS;
}

bool h2_open_for_streams(struct h2 *h, unsigned max)
{
	return !h->dead && !h->leaving && !h->shutdown && h->n_streams < max && h->n_streams < h2_peer_streams(h) &&
	       !is_exhausted(h) && nghttp2_session_check_request_allowed(h->session);
}
