/* SPDX-License-Identifier: Apache-2.0 */
/* A small HTTP/1.1 server (libevent's evhttp) in a thread of its own: admin, metrics, readiness, and the keeper's control
 * socket. Headers must arrive within HTTP_HEADER_MS, bodies are at most HTTP_BODY_MAX. */
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
	HTTP_CALL_MS = 30000, /* http_call() gives up after this */
};

struct http_request {
	const char *method, *path; /* path without the query */
	const char *query;         /* after '?', undecoded; "" if none */
	const char *accept, *accept_encoding; /* "" if none */
	const char *body;
	size_t body_len;
};
struct http_response {
	int status;
	const char *content_type; /* static */
	const char *encoding;     /* Content-Encoding, static, or NULL */
	char *body;               /* malloc'ed; freed by the server */
	size_t body_len;
};

struct http_server;
/* `serve` runs on the server's thread and fills `out` (status 200 and text/plain by default). */
struct http_server *http_server_new(void);
int http_listen_tcp(struct http_server *s, const struct endpoint *at,
		    void (*serve)(void *arg, const struct http_request *rq, struct http_response *out), void *arg,
		    char *why, size_t why_len);
int http_listen_unix(struct http_server *s, const char *path, unsigned mode,
		     void (*serve)(void *arg, const struct http_request *rq, struct http_response *out), void *arg,
		     char *why, size_t why_len);
int http_server_start(struct http_server *s); /* starts the thread */
void http_server_free(struct http_server *s); /* stops accepting, finishes what is in flight (1 s at most) */

/* Runs `fn(arg)` on the loop's thread and waits for it: how a handler reads or changes what belongs to that thread.
 * -ETIMEDOUT after HTTP_CALL_MS; fn may still run later then, so `arg` must outlive it (it is freed by `release`). */
int http_call(struct loop *l, void (*fn)(void *arg), void *arg, void (*release)(void *arg));

void http_text(struct http_response *out, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Value of a query parameter, decoded; NULL if absent. */
const char *http_query(const struct http_request *rq, const char *name, char *buf, size_t len);
