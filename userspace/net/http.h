/* SPDX-License-Identifier: Apache-2.0 */
/* A small HTTP/1.1 server (libevent's evhttp) in a thread of its own: admin, metrics, readiness, and the
 * keeper's control socket. One request a connection. Headers and body must arrive within HTTP_HEADER_MS,
 * whatever their pace, and of the answer HTTP_ANSWER_STEP bytes, or what is left, must be taken within each HTTP_ANSWER_MS:
 * a large dump may go through a slow line, and nobody keeps it for ever. At HTTP_CONNECTIONS_MAX the oldest connection is
 * closed for the new one. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"
#include "loop/loop.h"

enum {
	HTTP_HEADER_MS = 2000,
	HTTP_HEADERS_MAX = 8192,
	HTTP_BODY_MAX = 65536,
	HTTP_PATH_MAX = 1024,
	HTTP_LISTENERS_MAX = 8,
	HTTP_CONNECTIONS_MAX = 128, /* per server */
	HTTP_ANSWER_MS = 30000,
	HTTP_ANSWER_STEP = 1 << 20,
	HTTP_STOP_MS = 1000,
	HTTP_CALL_MS = 30000, /* http_call() gives up after this */
};

struct http_request {
	const char *method, *path;	      /* path without the query, undecoded */
	const char *query;		      /* after '?', undecoded; "" if none */
	const char *accept, *accept_encoding; /* "" if none */
	const char *body;		      /* terminated */
	size_t body_len;
	struct http_place *place; /* of its ticket */
};
struct http_response {
	int status;
	const char *content_type; /* static */
	const char *encoding;	  /* Content-Encoding, static, or NULL */
	char *body;		  /* malloc'ed; freed by the server */
	size_t body_len;
};

struct http_server;
typedef void (*http_serve)(void *arg, const struct http_request *rq, struct http_response *out);

/* `serve` runs on the server's thread and fills `out` (status 200 and text/plain by default). */
struct http_server *http_server_new(void);
/* Before http_listen_tcp(): its ports may be bound by a successor as well, or with `beside` are another's already; they
 * listen from http_server_start() on. Without `beside` a port that anybody has is in use. */
void http_share_ports(struct http_server *s, bool beside);
/* 0 or -errno, with a line in `why`. Both before http_server_start(). `at`: addr_any6 means every address. */
int http_listen_tcp(struct http_server *s, const struct endpoint *at, http_serve serve, void *arg, char *why,
		    size_t why_len);
/* Replaces a socket that nobody listens on any more; -EADDRINUSE if somebody does. The file stays when the
 * server goes: its successor may have taken the path. */
int http_listen_unix(struct http_server *s, const char *path, unsigned mode, http_serve serve, void *arg, char *why,
		     size_t why_len);
/* The port of the nth listener, for tests that let the kernel choose; 0 if there is none. */
unsigned http_port(const struct http_server *s, unsigned n);
/* Of requests, in place of HTTP_BODY_MAX. Before http_listen_*(). */
void http_body_max(struct http_server *s, size_t bytes);
/* In place of HTTP_ANSWER_MS, for tests. Before http_server_start(). */
void http_answer_ms(struct http_server *s, unsigned ms);
int http_server_start(struct http_server *s); /* starts the thread, once; 0 or -errno */
void http_server_free(struct http_server *s); /* stops accepting, finishes what is in flight (HTTP_STOP_MS at most) */

/* For an answer that takes time: serve() takes a ticket and leaves its `out` alone, and the connection waits
 * (HTTP_ANSWER_MS). NULL: no memory. Each ticket is answered once, from any thread, also when the client or the server
 * is gone; the answer's body is taken over. */
struct http_ticket;
struct http_ticket *http_ticket_take(const struct http_request *rq);
void http_ticket_answer(struct http_ticket *t, const struct http_response *out);

/* Runs `fn(arg)` on the loop's thread and waits for it: how a handler reads or changes what belongs to that
 * thread. 0: `arg` is the caller's again. -ETIMEDOUT after HTTP_CALL_MS: fn may still run, `release` frees
 * `arg` after it. -ENOMEM: nothing happened. */
int http_call(struct loop *l, void (*fn)(void *arg), void *arg, void (*release)(void *arg));

void http_text(struct http_response *out, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Value of a query parameter, decoded, cut at `len`; "" for a name without a value; NULL if absent. */
const char *http_query(const struct http_request *rq, const char *name, char *buf, size_t len);
