/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the gRPC client share: grpc.c has channels and calls, grpc_conn.c one HTTP/2 connection, grpc_stream.c
 * what is said on it. */
#pragma once
#include <nghttp2/nghttp2.h>

#include "net/grpc.h"
#include "net/grpc_frame.h"

struct conn;

struct grpc_channel {
	struct loop *loop;
	char *root, *alt_host;
	char host[WIRE_HOST_MAX], authority[WIRE_HOST_MAX + 8];
	uint16_t port;
	bool tls, tls12, pqc;
	struct conn *current; /* takes new calls; may be NULL */
	struct list conns;    /* all that still carry calls */
	unsigned n_calls;
};

struct grpc_call {
	struct list link; /* conn->calls */
	struct grpc_channel *channel;
	struct conn *conn;
	struct grpc_call_events ev;
	void *arg;
	struct timer deadline;
	unsigned deadline_ms;
	struct timer slow; /* a message has begun */
	unsigned message_ms, n_messages;
	int32_t stream; /* 0: not submitted yet */
	bool last;	/* nothing follows `out` */
	bool busy;	/* inside an event: it is freed by whoever raised that */
	bool cancelled;
	char *path;
	struct grpc_header *headers; /* strings are ours */
	unsigned n_headers;
	uint8_t *out; /* bytes that wait to be framed */
	size_t out_len, out_at, out_cap;
	struct grpc_frames frames;
	unsigned http_status;
	int status; /* -1: none received */
	char why[GRPC_WHY_MAX];
};

/* Ends a call with its event, and frees it. */
void call_close(struct grpc_call *call, enum grpc_status status, const char *why);
void call_free(struct grpc_call *call);

/* NULL: no memory. */
struct conn *conn_new(struct grpc_channel *c);
/* The call goes out as soon as the connection is up. */
void conn_add_call(struct conn *n, struct grpc_call *call);
/* Takes no more calls, and ends when it has none. */
void conn_retire(struct conn *n);
/* There is something to send for it. */
void conn_resume(struct conn *n, struct grpc_call *call);
/* The call leaves the connection; its stream is reset. */
void conn_drop_call(struct conn *n, struct grpc_call *call);
void conn_free(struct conn *n);

/* 0, or -errno: the session takes no more. */
int call_submit(struct grpc_call *call, nghttp2_session *s);
/* What came on the call's stream. Messages go to its owner; the call may be gone afterwards. */
void call_header(struct grpc_call *call, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len);
void call_data(struct grpc_call *call, const uint8_t *data, size_t len);
/* The stream ended, with an HTTP/2 error code or NGHTTP2_NO_ERROR: so does the call. */
void call_over(struct grpc_call *call, uint32_t code);
