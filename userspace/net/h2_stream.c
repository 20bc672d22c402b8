// SPDX-License-Identifier: Apache-2.0
/* CONNECT streams: opening and answering, the way in (pieces of records to the receiver, the rest held), the way out
 * (the application's socket into record slots), and endings.
 *
 * A stream is over for nghttp2 before it is over for its owner: data that is held is delivered first when the peer
 * ended cleanly. `dirty` streams are settled at the end of each read and of each turn; `blocked` ones wait for window
 * or for room in the record. */
#include "net/h2_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	FRAME_HEADER = 9,
	FIRST_MIN = 512, /* a piece of an open slot smaller than this is not worth a frame of its own */
	HELD_MIN = 4096,
};

void h2_stream_mark(struct h2_stream *s)
{
	list_del(&s->dirty);
	list_add_tail(&s->h2->dirty, &s->dirty);
	h2_touch(s->h2);
}

static void stream_init(struct h2 *h, struct h2_stream *s, const struct h2_stream_ops *ops, int32_t id)
{
	memset(s, 0, sizeof *s);
	s->h2 = h;
	s->ops = ops;
	s->id = id;
	s->look = H2_STREAM_WIDE;
	list_init(&s->dirty);
	list_init(&s->blocked);
	list_add_tail(&h->streams, &s->all);
	h->n_streams++;
}

/* --- opening and answering ------------------------------------------------------------------------------ */

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

#define NV(n, v)                                                                                       \
	(nghttp2_nv)                                                                                   \
	{                                                                                              \
		(uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, strlen(v), NGHTTP2_NV_FLAG_NO_COPY_NAME \
	}
enum { EXTRA_MAX = 6 };

int h2_stream_connect(struct h2 *h, struct h2_stream *s, const struct h2_stream_ops *ops, const char *authority,
		      const nghttp2_nv *extra, size_t n_extra)
{
	nghttp2_nv nv[2 + EXTRA_MAX] = {NV(":method", "CONNECT"), NV(":authority", authority)};
	nghttp2_data_provider dp = {.read_callback = h2_stream_read_cb};
	int32_t id;

	if (n_extra > EXTRA_MAX)
		return -EINVAL;
	if (h->dead)
		return -ENOTCONN;
	memcpy(nv + 2, extra, n_extra * sizeof *nv);
	id = nghttp2_submit_request(h->session, NULL, nv, 2 + n_extra, &dp, s);
	if (id < 0)
		return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -ENOTCONN;
	stream_init(h, s, ops, id);
	h2_touch(h);
	return 0;
}

int h2_stream_accept(struct h2 *h, struct h2_stream *s, const struct h2_stream_ops *ops, int32_t id)
{
	if (h->dead || nghttp2_session_set_stream_user_data(h->session, id, s) != 0)
		return -ENOENT;
	stream_init(h, s, ops, id);
	return 0;
}

int h2_stream_accepted(struct h2_stream *s, const nghttp2_nv *extra, size_t n_extra)
{
	nghttp2_nv nv[1 + EXTRA_MAX] = {NV(":status", "200")};
	nghttp2_data_provider dp = {.read_callback = h2_stream_read_cb};

	if (n_extra > EXTRA_MAX)
		return -EINVAL;
	if (!s->id || s->over)
		return -ENOENT;
	memcpy(nv + 1, extra, n_extra * sizeof *nv);
	if (nghttp2_submit_response(s->h2->session, s->id, nv, 1 + n_extra, &dp) != 0)
		return -ENOMEM;
	s->answered = true;
	h2_touch(s->h2);
	return 0;
}

void h2_refuse(struct h2 *h, int32_t id, int status)
{
	char text[12] = "500";
	nghttp2_nv nv = NV(":status", text);

	if (status >= 100 && status <= 999)
		snprintf(text, sizeof text, "%d", status);
	nghttp2_session_set_stream_user_data(h->session, id, NULL);
	if (nghttp2_submit_response(h->session, id, &nv, 1, NULL) != 0)
		nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
	h2_touch(h);
}

void h2_stream_refuse(struct h2_stream *s, int status)
{
	if (s->id && !s->over && !s->h2->dead)
		h2_refuse(s->h2, s->id, status);
	s->id = 0;
}

/* Pieces that nobody will take: the connection must not lose their credit. */
static void drop_pieces(struct h2_stream *s)
{
	size_t total = 0;

	for (unsigned i = 0; i < s->n_in; i++)
		total += s->in[i].iov_len;
	if (total && !s->h2->dead)
		nghttp2_session_consume_connection(s->h2->session, total);
	s->n_in = 0;
}

void h2_stream_free(struct h2_stream *s, uint32_t code)
{
	struct h2 *h = s->h2;

	if (!h)
		return;
	if (s->id && !s->over && !h->dead && !(s->end_in && s->end_out)) {
		nghttp2_session_set_stream_user_data(h->session, s->id, NULL);
		nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, code);
	} else if (s->id && !s->over && !h->dead) {
		nghttp2_session_set_stream_user_data(h->session, s->id, NULL);
	}
	drop_pieces(s);
	if (s->held_owed && !h->dead)
		nghttp2_session_consume_connection(h->session, s->held_owed);
	h->share->held -= s->held_len;
	list_del(&s->dirty);
	list_del(&s->blocked);
	list_del(&s->all);
	free(s->held);
	free(s->in);
	if (--h->n_streams == 0)
		h->saw_idle = true;
	h2_touch(h);
	memset(s, 0, sizeof *s);
}

/* --- the way in ----------------------------------------------------------------------------------------- */

/* Copies what the receiver left. The connection is paid at once while all held bytes are few; else when they go. */
static int hold(struct h2_stream *s, const uint8_t *p, size_t len)
{
	struct h2 *h = s->h2;

	if (s->held_off && s->held_off + s->held_len + len > s->held_cap) {
		memmove(s->held, s->held + s->held_off, s->held_len);
		s->held_off = 0;
	}
	if (s->held_len + len > s->held_cap) {
		size_t cap = s->held_cap ? s->held_cap : HELD_MIN;
		uint8_t *n;

		while (cap < s->held_len + len)
			cap *= 2;
		n = realloc(s->held, cap);
		if (!n)
			return -ENOMEM;
		s->held = n;
		s->held_cap = (uint32_t)cap;
	}
	memcpy(s->held + s->held_off + s->held_len, p, len);
	s->held_len += (uint32_t)len;
	h->share->held += len;
	if (h->share->held <= H2_HELD_FREE)
		nghttp2_session_consume_connection(h->session, len);
	else
		s->held_owed += (uint32_t)len;
	return 0;
}

static int hold_pieces(struct h2_stream *s, size_t skip)
{
	for (unsigned i = 0; i < s->n_in; i++) {
		struct iovec *v = &s->in[i];

		if (skip >= v->iov_len) {
			skip -= v->iov_len;
			continue;
		}
		if (hold(s, (uint8_t *)v->iov_base + skip, v->iov_len - skip) < 0)
			return -ENOMEM;
		skip = 0;
	}
	s->n_in = 0;
	return 0;
}

/* Whose bytes arrive gets more of them under way. */
static bool is_wide(struct h2_stream *s, size_t n)
{
	if (s->wide || !s->id || s->over)
		return s->wide;
	s->taken += (uint32_t)n;
	if (s->taken < s->look)
		return false;
	s->look = s->taken + H2_STREAM_START;
	if ((s->ops->reached ? s->ops->reached(s, s->taken) : s->taken) < H2_STREAM_WIDE)
		return false;
	nghttp2_session_set_local_window_size(s->h2->session, NGHTTP2_FLAG_NONE, s->id, H2_STREAM_WINDOW);
	return s->wide = true;
}

static void widen(struct h2_stream *s, size_t n)
{
	struct h2 *h = s->h2;

	if (!is_wide(s, n) || h->window >= H2_CONN_WINDOW)
		return;
	h->taken += (uint32_t)n;
	if (h->taken < h->window)
		return;
	h->taken = 0;
	h->window = 2 * h->window < H2_CONN_WINDOW ? 2 * h->window : H2_CONN_WINDOW;
	nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, (int32_t)h->window);
}

static void credit(struct h2_stream *s, size_t n, size_t connection)
{
	if (s->h2->dead)
		return;
	if (s->id && !s->over)
		nghttp2_session_consume_stream(s->h2->session, s->id, n);
	if (connection)
		nghttp2_session_consume_connection(s->h2->session, connection);
	widen(s, n);
}

/* Hands the held bytes out; false when the receiver cannot take all or has gone. */
static bool take_held(struct h2_stream *s)
{
	while (s->held_len) {
		struct iovec v = {s->held + s->held_off, s->held_len};
		ssize_t n = s->ops->take(s, &v, 1);
		uint32_t owed;

		if (n <= 0)
			return false;
		s->held_off += (uint32_t)n;
		s->held_len -= (uint32_t)n;
		s->h2->share->held -= (size_t)n;
		owed = s->held_owed < n ? s->held_owed : (uint32_t)n;
		s->held_owed -= owed;
		credit(s, (size_t)n, owed);
	}
	free(s->held);
	s->held = NULL;
	s->held_off = s->held_cap = 0;
	return true;
}

static void take_pieces(struct h2_stream *s)
{
	size_t total = 0;
	ssize_t n = 0;

	if (!s->n_in)
		return;
	for (unsigned i = 0; i < s->n_in; i++)
		total += s->in[i].iov_len;
	if (!s->held_len)
		n = s->ops->take(s, s->in, s->n_in);
	if (n < 0) /* the owner resets the stream; the connection is paid now */
		n = (ssize_t)total;
	credit(s, (size_t)n, (size_t)n);
	if (hold_pieces(s, (size_t)n) < 0)
		h2_die(s->h2, "out of memory");
}

/* Is the piece behind the last one with nothing but a frame header between them? Then no other stream's data is there,
 * and the header has been read: small pieces may close ranks. */
static bool join(struct h2_stream *s, const uint8_t *p, size_t len)
{
	struct iovec *last = s->n_in ? &s->in[s->n_in - 1] : NULL;

	if (!last || p != s->in_end + FRAME_HEADER || len > H2_TINY)
		return false;
	memmove((uint8_t *)last->iov_base + last->iov_len, p, len);
	last->iov_len += len;
	s->in_end = p + len;
	return true;
}

int h2_stream_data(struct h2_stream *s, const uint8_t *p, size_t len)
{
	if (join(s, p, len))
		return 0;
	if (s->n_in == H2_TAKE_MAX)
		take_pieces(s);
	if (s->n_in == s->in_cap) {
		unsigned cap = s->in_cap ? 4u * s->in_cap : 4;
		struct iovec *v = realloc(s->in, cap * sizeof *v);

		if (!v)
			return -ENOMEM;
		s->in = v;
		s->in_cap = (uint16_t)cap;
	}
	s->in[s->n_in++] = (struct iovec){(void *)p, len};
	s->in_end = p + len;
	h2_stream_mark(s);
	return 0;
}

void h2_stream_resume(struct h2_stream *s)
{
	h2_stream_mark(s);
}

/* --- the way out ---------------------------------------------------------------------------------------- */

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
	if (h->dead)
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
		iov[used].iov_base = (uint8_t *)iov[used].iov_base + FRAME_HEADER;
		iov[used].iov_len -= FRAME_HEADER;
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

		if (emit(s, (uint8_t *)iov[i].iov_base - FRAME_HEADER, len, false) < 0)
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

/* --- endings -------------------------------------------------------------------------------------------- */

void h2_stream_over(struct h2_stream *s, uint32_t code)
{
	s->over = true;
	s->code = code;
	s->refused = code == NGHTTP2_REFUSED_STREAM;
	h2_stream_mark(s);
}

static const char *reason(const struct h2_stream *s)
{
	if (s->h2->dead)
		return s->h2->why;
	if (s->stalled)
		return "the peer has given no window for an hour";
	return s->code ? nghttp2_http2_strerror(s->code) : "the peer left the stream without ending it";
}

static void settle(struct h2_stream *s)
{
	bool clean = !s->over || (s->code == NGHTTP2_NO_ERROR && s->end_in);

	if (clean) {
		take_pieces(s); /* frees nothing, so `s` is still here */
		if (s->held_len && !take_held(s))
			return;
		if (s->end_in && !s->end_told) {
			s->end_told = true;
			s->ops->end(s);
			if (!s->h2) /* freed by its owner */
				return;
		}
		if (!s->over || s->end_out)
			return;
	}
	if (s->over && !s->over_told) {
		s->over_told = true;
		drop_pieces(s);
		s->ops->reset(s, s->code, s->refused, reason(s));
	}
}

void h2_streams_settle(struct h2 *h)
{
	while (!list_empty(&h->dirty)) {
		struct h2_stream *s = list_entry(h->dirty.next, struct h2_stream, dirty);

		list_del(&s->dirty);
		settle(s);
	}
}
