// SPDX-License-Identifier: Apache-2.0
/* CONNECT streams from opening to ending: requests and answers, and what their owners are told.
 *
 * A stream is over for nghttp2 before it is over for its owner: data that is held is delivered first when the peer
 * ended cleanly, and offered first when it did not. `dirty` streams are settled at the end of each read and of each turn. */
#include "net/h2_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void h2_stream_mark(struct h2_stream *s)
{
	list_del(&s->dirty);
	list_add_tail(&s->h2->dirty, &s->dirty);
	h2_touch(s->h2);
}

void h2_stream_resume(struct h2_stream *s)
{
	if (s->h2)
		h2_stream_mark(s);
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
		if (!h2_stream_deliver(s))
			return;
		if (s->end_in && !s->end_told) {
			s->end_told = true;
			s->ops->end(s);
			if (!s->h2) /* freed by its owner */
				return;
		}
		if (!s->over || s->end_out)
			return;
	} else {
		h2_stream_deliver(s); /* what came before the reset goes before it */
	}
	if (s->over && !s->over_told) {
		s->over_told = true;
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
	h2_stream_in_free(s);
	list_del(&s->dirty);
	list_del(&s->blocked);
	list_del(&s->all);
	if (--h->n_streams == 0)
		h->saw_idle = true;
	h2_touch(h);
	memset(s, 0, sizeof *s);
}
