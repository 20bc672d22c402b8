/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what is said on a call's stream: the request's fields and messages; of the answer fields, messages and trailers,
 * and which status comes of how it ended. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hex.h"
#include "net/grpc_internal.h"

enum { OUT_KEEP = 64 << 10 }; /* bytes of room that a call keeps when all was sent */

/* --- the request ---------------------------------------------------------------------------------------- */

static ssize_t read_out(nghttp2_session *s, int32_t stream, uint8_t *buf, size_t len, uint32_t *flags,
			nghttp2_data_source *source, void *arg)
{
	struct grpc_call *call = nghttp2_session_get_stream_user_data(s, stream);
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

static nghttp2_nv pair(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

int call_submit(struct grpc_call *call, nghttp2_session *s)
{
	nghttp2_data_provider body = {.read_callback = read_out};
	nghttp2_nv nv[8 + GRPC_HEADERS_MAX];
	char timeout[16];
	size_t k = 0;

	nv[k++] = pair(":method", "POST");
	nv[k++] = pair(":scheme", call->channel->tls ? "https" : "http");
	nv[k++] = pair(":path", call->path);
	nv[k++] = pair(":authority", call->channel->authority);
	nv[k++] = pair("te", "trailers");
	nv[k++] = pair("content-type", "application/grpc");
	nv[k++] = pair("user-agent", "culvert");
	snprintf(timeout, sizeof timeout, "%um", call->deadline_ms);
	if (call->deadline_ms)
		nv[k++] = pair("grpc-timeout", timeout);
	for (unsigned i = 0; i < call->n_headers; i++)
		nv[k++] = pair(call->headers[i].name, call->headers[i].value);
	call->stream = nghttp2_submit_request(s, NULL, nv, k, &body, call);
	if (call->stream >= 0)
		return 0;
	call->stream = 0;
	return -ENOTCONN;
}

/* --- the answer's fields -------------------------------------------------------------------------------- */

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

/* grpc-message is percent-encoded; what is not printable does not reach a log line. */
static void message_decode(char out[GRPC_WHY_MAX], const uint8_t *v, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n < GRPC_WHY_MAX - 1; n++) {
		i += percent_next((const char *)v + i, len - i, &out[n]);
		if ((uint8_t)out[n] < 0x20 || out[n] == 0x7f)
			out[n] = ' ';
	}
	out[n] = 0;
}

static bool is(const uint8_t *v, size_t len, const char *text)
{
	return len == strlen(text) && !memcmp(v, text, len);
}

void call_header(struct grpc_call *call, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len)
{
	if (is(name, name_len, ":status"))
		call->http_status = number(value, value_len);
	else if (is(name, name_len, "grpc-status"))
		call->status = (int)number(value, value_len);
	else if (is(name, name_len, "grpc-message"))
		message_decode(call->why, value, value_len);
}

/* --- its messages --------------------------------------------------------------------------------------- */

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

void call_data(struct grpc_call *call, const uint8_t *data, size_t len)
{
	unsigned before = call->n_messages;
	int err;

	if (call->http_status != 200)
		return;
	err = grpc_frames_feed(&call->frames, data, len, deliver, call);
	if (err == -ECANCELED)
		call_free(call);
	else if (err == -EMSGSIZE)
		call_close(call, GRPC_RESOURCE_EXHAUSTED, "the server sent a message that is too long");
	else if (err)
		call_close(call, GRPC_INTERNAL, err == -ENOMEM ? "out of memory" : "the server sent a bad message");
	else if (call->message_ms)
		watch_message(call, call->n_messages != before);
}

/* --- its end -------------------------------------------------------------------------------------------- */

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

void call_over(struct grpc_call *call, uint32_t code)
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
