/* SPDX-License-Identifier: Apache-2.0 */
/* What the server and its tickets share. */
#pragma once
#include <event2/event.h>
#include <event2/http.h>

#include "net/http.h"

/* Sends the answer, whose body it takes. A request whose connection is gone is released. */
void http_respond(struct evhttp_request *rq, struct http_response *out);

/* Where a request may get its ticket; in serve() only. */
struct http_place {
	struct http_tickets *tickets;
	struct evhttp_request *rq;
	bool taken;
};

struct http_tickets; /* of a server */
struct http_tickets *http_tickets_new(struct event_base *base);
/* After the server's thread has ended, before its connections go: what is answered from now on is dropped. Takes NULL. */
void http_tickets_close(struct http_tickets *t);
