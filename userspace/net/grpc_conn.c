/* SPDX-License-Identifier: Apache-2.0 */
/* Owns one HTTP/2 connection of a gRPC channel: nghttp2's session on a wire, and the calls on it.
 *
 * A connection that failed, or that the server wants to be left (GOAWAY), is no longer the channel's `current` one; it
 * goes when its last call has gone. Its memory goes at the end of the turn: nghttp2 and the wire may be on the
 * stack. */
#include <errno.h>
#include <stdlib.h>

#include "net/grpc_internal.h"

enum { CARE_MS = 10000 }; /* how often pings and idleness are looked at */

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

static int on_header(nghttp2_session *s, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct grpc_call *call = call_of(s, frame->hd.stream_id);

	if (call)
		call_header(call, name, name_len, value, value_len);
	return 0;
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t stream, const uint8_t *data, size_t len, void *arg)
{
	struct grpc_call *call = call_of(s, stream);

	if (call)
		call_data(call, data, len);
	return 0;
}

static int on_stream_close(nghttp2_session *s, int32_t stream, uint32_t code, void *arg)
{
	struct grpc_call *call = call_of(s, stream);

	if (!call)
		return 0;
	call->stream = 0; /* closed already: nothing to reset */
	call_over(call, code);
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
		call_over(call, NGHTTP2_NO_ERROR);
	return 0;
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

/* Every write to the session and the wire happens here, at the end of a turn. */
static void pump(struct task *t)
{
	struct conn *n = container_of(t, struct conn, pump);

	list_for_each_safe (p, tmp, &n->calls) {
		struct grpc_call *call = list_entry(p, struct grpc_call, link);
		if (!call->stream && call_submit(call, n->session) < 0) {
			retire(n); /* first: who is told may call again at once */
			call_close(call, GRPC_UNAVAILABLE, "the connection takes no more calls");
		}
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
