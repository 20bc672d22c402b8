// SPDX-License-Identifier: Apache-2.0
/* nghttp2's session and its callbacks: frames to streams, and the limits on what a peer may make us do (control-frame
 * floods, rapid resets). */
#include "net/h2_internal.h"

#include <string.h>

static struct h2_stream *stream_of(struct h2 *h, int32_t id)
{
	return id ? nghttp2_session_get_stream_user_data(h->session, id) : NULL;
}

static int flood(struct h2 *h)
{
	if (!h->ending) {
		h2_limited(h, H2_LIMIT_CONTROL);
		h2_terminate(h, NGHTTP2_ENHANCE_YOUR_CALM, h2_too_many_frames);
	}
	return 0;
}

/* A request that came to nothing: the client reset it before its answer, or made us reset it by what it sent. */
static void count_reset(struct h2 *h)
{
	if (!h->server || h->ending || h2_bucket_take(h, &h->resets, H2_RESET_BURST, H2_RESET_PER_MS))
		return;
	h2_limited(h, H2_LIMIT_RESETS);
	h2_terminate(h, NGHTTP2_ENHANCE_YOUR_CALM, "too many resets");
}

static ssize_t on_send(nghttp2_session *ng, const uint8_t *data, size_t len, int flags, void *user)
{
	struct h2 *h = user;

	if (record_write(h->record, data, len) == 0)
		return (ssize_t)len;
	/* No slot is free: make room once, and leave the rest for when the socket takes it. */
	if (!h->stuck && h2_record_flush(h) == 0 && record_write(h->record, data, len) == 0)
		return (ssize_t)len;
	h->wake = true;
	return h->dead ? NGHTTP2_ERR_CALLBACK_FAILURE : NGHTTP2_ERR_WOULDBLOCK;
}

/* The payload lies behind the place of its header already (h2_stream_pump). */
static int on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
			nghttp2_data_source *source, void *user)
{
	struct h2 *h = user;

	if (!h->slot) { /* an empty frame that carries END_STREAM */
		ssize_t n = on_send(ng, framehd, H2_FRAME_HEADER, 0, user);

		return n < 0 ? (int)n : 0;
	}
	memcpy(h->slot, framehd, H2_FRAME_HEADER);
	record_tx_commit(h->record, H2_FRAME_HEADER + length);
	h->slot = NULL;
	return 0;
}

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user)
{
	struct h2 *h = user;

	h->frames++;
	if (hd->type == NGHTTP2_HEADERS)
		h2_closed_headers(h, hd->stream_id);
	if (hd->type == NGHTTP2_DATA && hd->length > 0)
		return 0;
	if (hd->type == NGHTTP2_HEADERS || (hd->type == NGHTTP2_DATA && hd->flags & NGHTTP2_FLAG_END_STREAM))
		return 0; /* bounded by the streams and their limits */
	return h2_bucket_take(h, &h->control, H2_CONTROL_BURST, H2_CONTROL_PER_MS) ? 0 : flood(h);
}

/* Frames of types that we do not know count like control frames; nghttp2 would skip them unseen. */
static int on_unknown(nghttp2_session *ng, const nghttp2_frame_hd *hd, const uint8_t *data, size_t len, void *user)
{
	return 0;
}

static int on_unknown_done(nghttp2_session *ng, void **payload, const nghttp2_frame_hd *hd, void *user)
{
	return NGHTTP2_ERR_CANCEL;
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
	struct h2 *h = user;
	struct h2_stream *s;

	if (frame->hd.type == NGHTTP2_HEADERS)
		h2_headers_done(h, frame);
	s = stream_of(h, frame->hd.stream_id);
	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
	case NGHTTP2_DATA:
		if (s && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
			s->end_in = true;
			h2_stream_mark(s);
		}
		break;
	case NGHTTP2_WINDOW_UPDATE:
		h->wake = true;
		if (!frame->hd.stream_id)
			h->credited_at = loop_now(h->loop);
		break;
	case NGHTTP2_SETTINGS:
		h->wake = h->greeted = true;
		break;
	case NGHTTP2_PING:
		if (frame->hd.flags & NGHTTP2_FLAG_ACK)
			h2_goaway_pong(h, frame->ping.opaque_data);
		break;
	case NGHTTP2_GOAWAY:
		h->leaving = true;
		break;
	case NGHTTP2_RST_STREAM:
		h->reset_by_peer = frame->hd.stream_id;
		if (!(s && s->answered))
			count_reset(h);
		break;
	}
	return 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *user)
{
	struct h2 *h = user;
	struct h2_stream *s = stream_of(h, id);

	if (s && !s->over)
		return h2_stream_data(s, data, len) < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
	nghttp2_session_consume(ng, id, len); /* of a stream that we have let go */
	return 0;
}

static int on_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
	struct h2_stream *s = stream_of(user, id);
	struct h2 *h = user;

	h2_closed_add(h, id);
	if (!s)
		return 0;
	if (code == NGHTTP2_FLOW_CONTROL_ERROR) /* more than its window is not always told as an invalid frame */
		count_reset(user);
	h2_stream_over(s, code);
	return 0;
}

static int on_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
	struct h2 *h = user;
	int32_t id = frame->hd.stream_id;

	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
		h->blamed = true;
		if (!h->ending) { /* nghttp2's own */
			h2_limited(h, H2_LIMIT_PROTOCOL);
			h->why = h->why ? h->why : nghttp2_http2_strerror(frame->goaway.error_code);
		}
	}
	/* Behind a refusal: we take nothing more of the stream (RFC 9113, 8.1). Not before it, or nghttp2 drops the
	 * answer. */
	if (h->server && frame->hd.type == NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM &&
	    nghttp2_session_get_stream_remote_close(ng, id) == 0)
		nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
	return 0;
}

static int on_invalid(nghttp2_session *ng, const nghttp2_frame *frame, int code, void *user)
{
	struct h2 *h = user;

	if (!frame->hd.stream_id)
		h->why = nghttp2_strerror(code);
	else if (code != NGHTTP2_ERR_FLOW_CONTROL) /* on_close() has those */
		count_reset(h);			   /* nghttp2 resets the stream */
	return 0;
}

static nghttp2_session_callbacks *callbacks_new(void)
{
	nghttp2_session_callbacks *c;

	if (nghttp2_session_callbacks_new(&c) != 0)
		return NULL;
	nghttp2_session_callbacks_set_send_callback(c, on_send);
	nghttp2_session_callbacks_set_send_data_callback(c, on_send_data);
	nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
	nghttp2_session_callbacks_set_on_extension_chunk_recv_callback(c, on_unknown);
	nghttp2_session_callbacks_set_unpack_extension_callback(c, on_unknown_done);
	nghttp2_session_callbacks_set_on_begin_headers_callback(c, h2_headers_begin);
	nghttp2_session_callbacks_set_on_header_callback(c, h2_headers_field);
	nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(c, on_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(c, on_sent);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, on_invalid);
	return c;
}

static int announce(nghttp2_session *ng, const struct h2 *h)
{
	const nghttp2_settings_entry client[] =
		{
			{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
			{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, h->large ? H2_LARGE_STREAM : H2_STREAM_START},
			{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADERS_MAX / 4},
		},
				     srv[] = {
					     {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_STREAMS_MAX},
					     {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_START},
					     {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADERS_MAX},
				     };
	int e = nghttp2_submit_settings(ng, NGHTTP2_FLAG_NONE, h->server ? srv : client, 3);

	return e ? e : nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, 0, (int32_t)h->window);
}

/* Newer than 1.52, but in what distributions made of 1.52 as well. Its own limit, 33 resets a second, would end the
 * tunnel of applications that like to reset. */
extern void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *o, uint64_t burst, uint64_t rate)
	__attribute__((weak));

nghttp2_session *h2_session_new(struct h2 *h)
{
	nghttp2_session_callbacks *c = callbacks_new();
	nghttp2_option *o = NULL;
	nghttp2_session *ng = NULL;
	int e = -1;

	if (c && nghttp2_option_new(&o) == 0) {
		nghttp2_option_set_no_auto_window_update(o, 1);
		nghttp2_option_set_no_closed_streams(o, 1);
		nghttp2_option_set_peer_max_concurrent_streams(o, 100);
		for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; type++)
			nghttp2_option_set_user_recv_extension_type(o, (uint8_t)type);
		if (nghttp2_option_set_stream_reset_rate_limit)
			nghttp2_option_set_stream_reset_rate_limit(o, H2_CONTROL_BURST, 1000 * H2_CONTROL_PER_MS);
		e = h->server ? nghttp2_session_server_new2(&ng, c, h, o) : nghttp2_session_client_new2(&ng, c, h, o);
	}
	nghttp2_option_del(o);
	nghttp2_session_callbacks_del(c);
	if (e == 0 && announce(ng, h) != 0) {
		nghttp2_session_del(ng);
		ng = NULL;
	}
	return e == 0 ? ng : NULL;
}
