/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC calls over HTTP/2 (nghttp2), unary and streaming, to one server. All on one loop.
 *
 * A channel connects when a call needs it, shares the connection among calls, replaces it after GOAWAY and closes it
 * when it has been idle; it never retries a call: that is the caller's business. Roots are read for each connection. */
#pragma once
#include <stddef.h>

#include "net/wire.h"

enum grpc_status {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_UNAUTHENTICATED = 16,
};
enum {
	GRPC_WHY_MAX = 256,
	GRPC_HEADERS_MAX = 32,		/* of the caller, per call */
	GRPC_CALLS_MAX = 256,		/* per channel */
	GRPC_MESSAGE_DEFAULT = 4 << 20, /* longest message of an answer, unless the call says otherwise */
	GRPC_WINDOW = 4 << 20,
	GRPC_PING_MS = 30000, /* silence while a call is open: ask */
	GRPC_PONG_MS = 10000, /* silence after that: the connection is dead */
	GRPC_IDLE_MS = 60000, /* no call for so long: the connection is closed */
};

struct grpc_options {
	const char *address;  /* http://HOST[:PORT] or https://HOST[:PORT] */
	const char *root;     /* see wire.h */
	const char *alt_host; /* see wire.h */
	bool tls12;
	bool pqc; /* see wire.h */
};

struct grpc_channel;
/* NULL on failure, with one line in `why`. Strings are copied. */
struct grpc_channel *grpc_channel_new(struct loop *l, const struct grpc_options *o, char why[GRPC_WHY_MAX]);
/* Not from inside a call's event. Open calls end without an event. */
void grpc_channel_free(struct grpc_channel *c);

/* The next call gets a new connection, for which the roots are read anew; calls that are under way end on theirs. */
void grpc_channel_renew(struct grpc_channel *c);

struct grpc_header {
	const char *name, *value; /* lower case; printable ASCII */
};
struct grpc_call_options {
	const char *path;		   /* "/package.Service/Method" */
	const struct grpc_header *headers; /* copied */
	unsigned n_headers;
	unsigned deadline_ms; /* 0: none, for streams */
	size_t message_max;   /* 0: GRPC_MESSAGE_DEFAULT */
	unsigned message_ms;  /* 0: none; from a message's first byte to its last */
};
struct grpc_call_events {
	void (*message)(void *arg, const uint8_t *msg, size_t len);
	/* Once, from a later turn than grpc_call_new()'s, unless cancelled; the call is gone then. `why`: one line. */
	void (*closed)(void *arg, enum grpc_status status, const char *why);
};

struct grpc_call;
/* NULL: no memory, or GRPC_CALLS_MAX. */
struct grpc_call *grpc_call_new(struct grpc_channel *c, const struct grpc_call_options *o,
				const struct grpc_call_events *ev, void *arg);
/* Queues one message; `last` ends our side. 0 or -ENOMEM. */
int grpc_call_send(struct grpc_call *call, const void *msg, size_t len, bool last);
/* Bytes of messages that the connection has not taken yet. */
size_t grpc_call_queued(const struct grpc_call *call);
/* No event follows. Allowed inside the call's own `message`. */
void grpc_call_cancel(struct grpc_call *call);

const char *grpc_status_name(enum grpc_status s);
