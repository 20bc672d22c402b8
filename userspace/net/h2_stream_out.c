// SPDX-License-Identifier: Apache-2.0
/* A stream's way out: the application's socket into record slots, as far as windows and slots allow; and who waits for
 * them. `blocked` streams are called when there may be more. */
#include "net/h2_internal.h"

#include <errno.h>

enum { FIRST_MIN = 512 }; /* a piece of an open slot smaller than this is not worth a frame of its own */

/* How much the stream may send now. What one stream has outstanding is at most a quarter of what the connection has
 * left: stalled streams then never hold the last part of it (fairness). But many peers give window back only
 * when half of it is used, so until the connection is nearly exhausted a stream may send that half: a limit below it
 * would wait for credit that never comes. */
static int32_t send_window(struct h2_stream *s)
{
	nghttp2_session *ng = s->h2->session;
	int64_t conn = h2_window(s->h2), last = s->h2->window_top / 8;
	int64_t own = nghttp2_session_get_stream_remote_window_size(ng, s->id);
	int64_t initial = nghttp2_session_get_remote_settings(ng, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
	int64_t used = initial - own, share = conn / 4 - used, half = initial / 2 + RECORD_PLAIN_MAX - used;

	if (half > conn - last)
		half = conn - last;
	if (share < half)
		share = half;
	share = share < conn ? share : conn;
	share = share < own ? share : own;
	return share > 0 ? (int32_t)share : 0;
}

static ssize_t block(struct h2_stream *s)
{
	list_del(&s->blocked);
	list_add_tail(&s->h2->blocked, &s->blocked);
	return -ENOBUFS;
}

/* Record slots to read into; 0: none until the socket takes what waits; -ENOMEM. */
static int room(struct h2 *h, struct iovec *iov)
{
	int n = h->stuck ? 0 : record_tx_room(h->record, iov, RECORD_SLOTS, FIRST_MIN);

	if (n || h->stuck)
		return n;
	if (h2_record_flush(h) == 0)
		return record_tx_room(h->record, iov, RECORD_SLOTS, FIRST_MIN);
	h2_touch(h);
	return 0;
}

ssize_t h2_stream_read_cb(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
			  nghttp2_data_source *src, void *user)
{
	struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);
	uint32_t n;

	if (!s || (!s->feed && !s->feed_end))
		return NGHTTP2_ERR_DEFERRED;
	n = s->feed;
	if (n > length) /* the pump looked at the windows before: this cannot be */
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	s->feed = 0;
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (s->feed_end) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		s->feed_end = false;
		s->end_out = true;
	}
	return n;
}

static int emit(struct h2_stream *s, uint8_t *slot, uint32_t len, bool end)
{
	struct h2 *h = s->h2;
	int e;

	h->slot = slot;
	s->feed = len;
	s->feed_end = end;
	e = nghttp2_session_resume_data(h->session, s->id);
	if (e == 0)
		e = nghttp2_session_send(h->session);
	if (e == 0 && len && h->slot) /* the frame did not go: bytes would be lost */
		e = NGHTTP2_ERR_INTERNAL;
	h->slot = NULL;
	if (e == 0)
		return 0;
	h2_die(h, nghttp2_strerror(e));
	return -EIO;
}

ssize_t h2_stream_pump(struct h2_stream *s, int fd)
{
	struct h2 *h = s->h2;
	struct iovec iov[RECORD_SLOTS];
	int n_iov, used = 0;
	int32_t window;
	ssize_t n;

	if (!s->id || s->over || s->end_out || !s->answered)
		return -EPIPE;
	h2_frames_out(h); /* nothing may come between the read and its frames */
	if (h->dead || h->ending || !nghttp2_session_want_read(h->session)) /* behind the last GOAWAY no data goes */
		return -EPIPE;
	window = send_window(s);
	if (window)
		s->stalled_since = 0;
	else if (!s->stalled_since)
		s->stalled_since = loop_now(h->loop);
	if (!window || nghttp2_session_want_write(h->session))
		return block(s);
	n_iov = room(h, iov);
	if (n_iov < 0)
		return n_iov;
	if (n_iov == 0)
		return block(s);
	for (; used < n_iov && window > 0; used++) {
		iov[used].iov_base = (uint8_t *)iov[used].iov_base + H2_FRAME_HEADER;
		iov[used].iov_len -= H2_FRAME_HEADER;
		if ((int32_t)iov[used].iov_len > window)
			iov[used].iov_len = (size_t)window;
		window -= (int32_t)iov[used].iov_len;
	}
	n = readv(fd, iov, used);
	if (n < 0) {
		int e = -errno;

		record_tx_commit(h->record, 0); /* an idle connection holds no buffer */
		return e;
	}
	h2_touch(h);
	if (n == 0)
		return emit(s, NULL, 0, true) < 0 ? -EPIPE : 0;
	if (s->ops->pumped)
		s->ops->pumped(s, iov, (size_t)n);
	for (ssize_t left = n, i = 0; left > 0; i++) {
		uint32_t len = left < (ssize_t)iov[i].iov_len ? (uint32_t)left : (uint32_t)iov[i].iov_len;

		if (emit(s, (uint8_t *)iov[i].iov_base - H2_FRAME_HEADER, len, false) < 0)
			return -EPIPE;
		left -= len;
	}
	h2_sent(h, (size_t)n);
	return n;
}

void h2_streams_wake(struct h2 *h)
{
	struct list now;

	list_init(&now);
	list_move_all(&now, &h->blocked);
	while (!list_empty(&now)) {
		struct h2_stream *s = list_entry(now.next, struct h2_stream, blocked);

		list_del(&s->blocked);
		s->ops->writable(s);
	}
}

void h2_streams_unstall(struct h2 *h)
{
	uint64_t now = loop_now(h->loop);

	list_for_each (pos, &h->blocked) {
		struct h2_stream *s = list_entry(pos, struct h2_stream, blocked);

		if (s->over || !s->stalled_since || now - s->stalled_since < H2_STALL_MS)
			continue;
		h2_limited(h, H2_LIMIT_STALLED);
		s->stalled = true;
		nghttp2_session_set_stream_user_data(h->session, s->id, NULL);
		nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
		h2_stream_over(s, NGHTTP2_CANCEL);
	}
}
