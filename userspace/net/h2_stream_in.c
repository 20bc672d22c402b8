// SPDX-License-Identifier: Apache-2.0
/* A stream's way in: pieces of records to the receiver, the rest held; and the windows, which grow with what was taken.
 *
 * Pieces point into the record that is being read: they are taken or held before the next one is. */
#include "net/h2_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HELD_MIN = 4096 };

/* --- what was not taken --------------------------------------------------------------------------------- */

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

/* --- windows -------------------------------------------------------------------------------------------- */

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

	if (h->large || !is_wide(s, n) || h->window >= H2_CONN_WINDOW)
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

/* --- to the receiver ------------------------------------------------------------------------------------ */

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

int h2_stream_data(struct h2_stream *s, const uint8_t *p, size_t len)
{
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
	h2_stream_mark(s);
	return 0;
}

bool h2_stream_deliver(struct h2_stream *s)
{
	take_pieces(s); /* frees nothing, so `s` is still here */
	return !s->held_len || take_held(s);
}

static void drop(struct h2_stream *s)
{
	size_t total = 0;

	for (unsigned i = 0; i < s->n_in; i++)
		total += s->in[i].iov_len;
	if (total && !s->h2->dead)
		nghttp2_session_consume_connection(s->h2->session, total);
	s->n_in = 0;
}

void h2_stream_in_free(struct h2_stream *s)
{
	drop(s);
	if (s->held_owed && !s->h2->dead)
		nghttp2_session_consume_connection(s->h2->session, s->held_owed);
	s->h2->share->held -= s->held_len;
	free(s->held);
	free(s->in);
}
