/* SPDX-License-Identifier: Apache-2.0 */
/* Owns one HTTP/2 connection of a gRPC channel: nghttp2's session on a wire, and the calls on it.
 *
 * A connection that failed, or that the server wants to be left (GOAWAY), is no longer the channel's `current` one; it
 * goes when its last call has gone. Its memory goes at the end of the turn: nghttp2 and the wire may be on the stack.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/grpc_internal.h"

enum {
	CARE_MS = 10000,     /* how often pings and idleness are looked at */
	OUT_KEEP = 64 << 10, /* bytes of room that a call keeps when all was sent */
};

struct conn {
	struct list link; /* channel->conns; first member */
	struct grpc_channel *channel;
	struct wire *wire;
	nghttp2_session *session; /* NULL: not up yet */
	struct list calls;
	struct task pump, bury;
	struct timer care;
	uint64_t heard_at, busy_at; /* loop time of the last byte, and of the last moment with a call */
	const uint8_t *out;	    /* nghttp2's, until its next call */
	size_t out_len;
	bool dead;
};

static void pump(struct task *t);
static void bury(struct task *t);

static void retire(struct conn *n)
{
	if (n->channel->current == n)
		n->channel->current = NULL;
}

static void fail(struct conn *n, const char *why)
{
	if (n->dead)
		return;
	n->dead = true;
	retire(n);
	timer_cancel(&n->care);
	task_cancel(&n->pump);
	while (!list_empty(&n->calls)) {
		struct grpc_call *call = list_entry(n->calls.next, struct grpc_call, link);

		list_del(&call->link);
		call->conn = NULL;
		call_close(call, GRPC_UNAVAILABLE, why);
	}
	loop_defer(n->channel->loop, &n->bury, bury);
}

/* --- what nghttp2 calls --------------------------------------------------------------------------------- */

static struct grpc_call *call_of(nghttp2_session *s, int32_t stream)
{
	return nghttp2_session_get_stream_user_data(s, stream);
}

static unsigned number(const uint8_t *v, size_t len)
{
	unsigned n = 0;

	for (size_t i = 0; i < len; i++) {
		if (v[i] < '0' || v[i] > '9' || n > 99999)
			return 0xffff;
		n = n * 10 + (unsigned)(v[i] - '0');
	}
	return len ? n : 0xffff;
}

static int hex(uint8_t c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* grpc-message is percent-encoded; what is not printable does not reach a log line. */
static void message_decode(char out[GRPC_WHY_MAX], const uint8_t *v, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n < GRPC_WHY_MAX - 1; i++) {
		int c = v[i];

		if (c == '%' && i + 2 < len && hex(v[i + 1]) >= 0 && hex(v[i + 2]) >= 0) {
			c = hex(v[i + 1]) << 4 | hex(v[i + 2]);
			i += 2;
		}
		out[n++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
	}
	out[n] = 0;
}

static bool is(const uint8_t *v, size_t len, const char *text)
{
	return len == strlen(text) && !memcmp(v, text, len);
}

static int on_header(nghttp2_session *s, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct grpc_call *call = call_of(s, frame->hd.stream_id);

	if (!call)
		return 0;
	if (is(name, name_len, ":status"))
		call->http_status = number(value, value_len);
	else if (is(name, name_len, "grpc-status"))
		call->status = (int)number(value, value_len);
	else if (is(name, name_len, "grpc-message"))
		message_decode(call->why, value, value_len);
	return 0;
}

static int deliver(void *arg, const uint8_t *msg, size_t len)
{
	struct grpc_call *call = arg;

	call->busy = true;
	call->n_messages++;
	call->ev.message(call->arg, msg, len);
	call->busy = false;
	return call->cancelled ? -ECANCELED : 0;
}

static void too_slow(struct timer *t)
{
	call_close(container_of(t, struct grpc_call, slow), GRPC_DEADLINE_EXCEEDED, "a message did not end in time");
}

/* `complete`: a message has ended, so one that is under way is another. */
static void watch_message(struct grpc_call *call, bool complete)
{
	if (complete || !grpc_frames_partial(&call->frames))
		timer_cancel(&call->slow);
	if (grpc_frames_partial(&call->frames) && !timer_armed(&call->slow))
		timer_set(call->channel->loop, &call->slow, call->message_ms, too_slow);
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t stream, const uint8_t *data, size_t len, void *arg)
{
	struct grpc_call *call = call_of(s, stream);
	unsigned before;
	int err;

	if (!call || call->http_status != 200)
		return 0;
	before = call->n_messages;
	err = grpc_frames_feed(&call->frames, data, len, deliver, call);
	if (err == -ECANCELED)
		call_free(call);
	else if (err == -EMSGSIZE)
		call_close(call, GRPC_RESOURCE_EXHAUSTED, "the server sent a message that is too long");
	else if (err)
		call_close(call, GRPC_INTERNAL, err == -ENOMEM ? "out of memory" : "the server sent a bad message");
	else if (call->message_ms)
		watch_message(call, call->n_messages != before);
	return 0;
}

static enum grpc_status from_http(unsigned status)
{
	switch (status) {
	case 400:
		return GRPC_INTERNAL;
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 403:
		return GRPC_PERMISSION_DENIED;
	case 404:
		return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return GRPC_UNAVAILABLE;
	default:
		return GRPC_UNKNOWN;
	}
}

static void finish(struct grpc_call *call, uint32_t code)
{
	char why[GRPC_WHY_MAX];

	if (call->status >= 0) {
		if (call->status == GRPC_OK && grpc_frames_partial(&call->frames))
			call_close(call, GRPC_INTERNAL, "the answer ends inside a message");
		else
			call_close(call,
				   call->status <= GRPC_UNAUTHENTICATED ? (enum grpc_status)call->status : GRPC_UNKNOWN,
				   call->why);
	} else if (code != NGHTTP2_NO_ERROR) {
		snprintf(why, sizeof why, "stream reset: %s", nghttp2_http2_strerror(code));
		call_close(call,
			   code == NGHTTP2_REFUSED_STREAM ? GRPC_UNAVAILABLE
			   : code == NGHTTP2_CANCEL	  ? GRPC_CANCELLED
							  : GRPC_INTERNAL,
			   why);
	} else {
		snprintf(why, sizeof why, "no gRPC status in the answer (HTTP status %u)", call->http_status);
		call_close(call, from_http(call->http_status), why);
	}
}

static int on_stream_close(nghttp2_session *s, int32_t stream, uint32_t code, void *arg)
{
	struct grpc_call *call = call_of(s, stream);

	if (!call)
		return 0;
	call->stream = 0; /* closed already: nothing to reset */
	finish(call, code);
	return 0;
}

/* A server may end a stream that we have not ended: the call is over all the same. */
static int on_frame(nghttp2_session *s, const nghttp2_frame *frame, void *arg)
{
	bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
		    frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	struct grpc_call *call = ends ? call_of(s, frame->hd.stream_id) : NULL;

	if (frame->hd.type == NGHTTP2_GOAWAY)
		retire(arg);
	if (call && !(call->last && call->out_at == call->out_len))
		finish(call, NGHTTP2_NO_ERROR);
	return 0;
}

static ssize_t read_out(nghttp2_session *s, int32_t stream, uint8_t *buf, size_t len, uint32_t *flags,
			nghttp2_data_source *source, void *arg)
{
	struct grpc_call *call = call_of(s, stream);
	size_t n;

	if (!call)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	n = call->out_len - call->out_at;
	if (!n && !call->last)
		return NGHTTP2_ERR_DEFERRED;
	n = n < len ? n : len;
	if (n)
		memcpy(buf, call->out + call->out_at, n);
	call->out_at += n;
	if (call->last && call->out_at == call->out_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (call->out_at == call->out_len && call->out_cap > OUT_KEEP) {
		free(call->out);
		call->out = NULL;
		call->out_at = call->out_len = call->out_cap = 0;
	}
	return (ssize_t)n;
}

static int session_new(struct conn *n)
{
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, GRPC_WINDOW},
	};
	nghttp2_session_callbacks *cb;
	int err = nghttp2_session_callbacks_new(&cb);

	if (err)
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	err = nghttp2_session_client_new(&n->session, cb, n);
	nghttp2_session_callbacks_del(cb);
	if (err || nghttp2_submit_settings(n->session, NGHTTP2_FLAG_NONE, settings, 2) ||
	    nghttp2_session_set_local_window_size(n->session, NGHTTP2_FLAG_NONE, 0, GRPC_WINDOW))
		return -ENOMEM;
	return 0;
}

/* --- sending -------------------------------------------------------------------------------------------- */

static nghttp2_nv pair(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static void submit(struct conn *n, struct grpc_call *call)
{
	nghttp2_data_provider body = {.read_callback = read_out};
	nghttp2_nv nv[8 + GRPC_HEADERS_MAX];
	char timeout[16];
	size_t k = 0;

	nv[k++] = pair(":method", "POST");
	nv[k++] = pair(":scheme", n->channel->tls ? "https" : "http");
	nv[k++] = pair(":path", call->path);
	nv[k++] = pair(":authority", n->channel->authority);
	nv[k++] = pair("te", "trailers");
	nv[k++] = pair("content-type", "application/grpc");
	nv[k++] = pair("user-agent", "culvert");
	snprintf(timeout, sizeof timeout, "%um", call->deadline_ms);
	if (call->deadline_ms)
		nv[k++] = pair("grpc-timeout", timeout);
	for (unsigned i = 0; i < call->n_headers; i++)
		nv[k++] = pair(call->headers[i].name, call->headers[i].value);
	call->stream = nghttp2_submit_request(n->session, NULL, nv, k, &body, call);
	if (call->stream < 0) {
		call->stream = 0;
		retire(n); /* first: who is told may call again at once */
		call_close(call, GRPC_UNAVAILABLE, "the connection takes no more calls");
	}
}

/* Every write to the session and the wire happens here, at the end of a turn. */
static void pump(struct task *t)
{
	struct conn *n = container_of(t, struct conn, pump);

	list_for_each_safe (p, tmp, &n->calls) {
		struct grpc_call *call = list_entry(p, struct grpc_call, link);
		if (!call->stream)
			submit(n, call);
	}
	for (;;) {
		ssize_t len;

		if (!n->out_len) {
			len = nghttp2_session_mem_send(n->session, &n->out);
			if (len < 0)
				fail(n, nghttp2_strerror((int)len));
			if (len <= 0)
				break;
			n->out_len = (size_t)len;
		}
		len = wire_write(n->wire, n->out, n->out_len);
		if (len == -EAGAIN)
			return;
		if (len < 0) {
			fail(n, "connection lost while sending");
			return;
		}
		n->out += len;
		n->out_len -= (size_t)len;
	}
	if (n->dead)
		return;
	if (!nghttp2_session_want_read(n->session) && !nghttp2_session_want_write(n->session))
		fail(n, "the server closed the session");
	else if (n != n->channel->current && list_empty(&n->calls))
		fail(n, "");
}

static void pump_soon(struct conn *n)
{
	if (n->session && !n->dead)
		loop_defer(n->channel->loop, &n->pump, pump);
}

/* --- what the wire tells -------------------------------------------------------------------------------- */

static void wire_up(void *arg)
{
	struct conn *n = arg;

	n->heard_at = loop_now(n->channel->loop);
	if (session_new(n)) {
		fail(n, "out of memory");
		return;
	}
	pump_soon(n);
}

static void wire_data(void *arg, const uint8_t *data, size_t len)
{
	struct conn *n = arg;
	ssize_t used;

	if (n->dead)
		return;
	n->heard_at = loop_now(n->channel->loop);
	used = nghttp2_session_mem_recv(n->session, data, len);
	if (used < 0)
		fail(n, nghttp2_strerror((int)used));
}

static void wire_turn(void *arg)
{
	pump_soon(arg);
}

static void wire_down(void *arg, const char *why)
{
	fail(arg, why);
}

static const struct wire_events wire_events = {.up = wire_up, .data = wire_data, .turn = wire_turn, .down = wire_down};

/* --- care: silence and idleness ------------------------------------------------------------------------- */

static void take_care(struct timer *t)
{
	struct conn *n = container_of(t, struct conn, care);
	uint64_t now = loop_now(n->channel->loop), silent = now - n->heard_at;

	timer_set(n->channel->loop, t, CARE_MS, take_care);
	if (!list_empty(&n->calls))
		n->busy_at = now;
	if (!n->session)
		return; /* the wire has deadlines of its own */
	if (now - n->busy_at >= GRPC_IDLE_MS) {
		fail(n, "");
	} else if (n->busy_at == now && silent >= GRPC_PING_MS + GRPC_PONG_MS) {
		fail(n, "the server does not answer pings");
	} else if (n->busy_at == now && silent >= GRPC_PING_MS) {
		nghttp2_submit_ping(n->session, NGHTTP2_FLAG_NONE, NULL);
		pump_soon(n);
	}
}

/* --- life ----------------------------------------------------------------------------------------------- */

struct conn *conn_new(struct grpc_channel *c)
{
	const struct wire_options o = {.host = c->host,
				       .port = c->port,
				       .tls = c->tls,
				       .tls12 = c->tls12,
				       .pqc = c->pqc,
				       .root = c->root,
				       .alt_host = c->alt_host};
	struct conn *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->channel = c;
	list_init(&n->link);
	list_init(&n->calls);
	n->busy_at = loop_now(c->loop);
	n->wire = wire_new(c->loop, &o, &wire_events, n);
	if (!n->wire) {
		conn_free(n);
		return NULL;
	}
	list_add_tail(&c->conns, &n->link);
	timer_set(c->loop, &n->care, CARE_MS, take_care);
	return n;
}

void conn_add_call(struct conn *n, struct grpc_call *call)
{
	call->conn = n;
	list_add_tail(&n->calls, &call->link);
	pump_soon(n);
}

void conn_retire(struct conn *n)
{
	retire(n);
	pump_soon(n);
}

void conn_resume(struct conn *n, struct grpc_call *call)
{
	if (call->stream)
		nghttp2_session_resume_data(n->session, call->stream);
	pump_soon(n);
}

void conn_drop_call(struct conn *n, struct grpc_call *call)
{
	list_del(&call->link);
	call->conn = NULL;
	n->busy_at = loop_now(n->channel->loop);
	if (!call->stream || n->dead)
		return;
	nghttp2_session_set_stream_user_data(n->session, call->stream, NULL);
	nghttp2_submit_rst_stream(n->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
	pump_soon(n);
}

static void bury(struct task *t)
{
	conn_free(container_of(t, struct conn, bury));
}

void conn_free(struct conn *n)
{
	if (!n)
		return;
	n->dead = true;
	retire(n);
	while (!list_empty(&n->calls))
		call_free(list_entry(n->calls.next, struct grpc_call, link));
	timer_cancel(&n->care);
	task_cancel(&n->pump);
	task_cancel(&n->bury);
	list_del(&n->link);
	nghttp2_session_del(n->session);
	wire_free(n->wire);
	free(n);
}
