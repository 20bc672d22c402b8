/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the HTTP server share: http.c has requests and the thread, http_listen.c the listeners, http_client.c
 * their connections, http_ticket.c answers that are given later. */
#pragma once
#include <event2/event.h>
#include <event2/http.h>
#include <pthread.h>

#include "base/list.h"
#include "net/http.h"

struct listener {
	struct http_server *server;
	struct evhttp *http;
	struct evhttp_bound_socket *bound;
	struct event *resume;
	bool later; /* does not listen before the thread runs */
	http_serve serve;
	void *arg;
};

struct http_server {
	struct event_base *base;
	struct event *wake, *closing, *deadline;
	int wake_fd;
	size_t body_max;
	unsigned answer_ms;
	bool running, stopping;
	bool shared, beside; /* http_share_ports() */
	pthread_t thread;
	struct http_tickets *tickets;
	struct list clients;
	unsigned n_clients, n_listeners;
	struct listener listener[HTTP_LISTENERS_MAX];
};

static inline struct timeval http_in_ms(unsigned ms)
{
	return (struct timeval){ms / 1000, (ms % 1000) * 1000};
}

/* evhttp's callbacks of a listener: it makes a connection, it has a request. */
struct bufferevent *http_client_new(struct event_base *base, void *listener);
void http_request_serve(struct evhttp_request *rq, void *listener);
/* The connection's request is there: from now on its answer has a deadline, and it is among the last to make room. */
void http_client_answering(struct http_server *s, struct evhttp_connection *conn);
void http_clients_free(struct http_server *s);

/* Accepts nothing for a while; with 0 until the next turn. */
void http_listener_pause(struct listener *l, unsigned ms);
/* Those that were to listen later do; 0 or -errno. */
int http_listeners_start(struct http_server *s);
/* The calling thread is the one that accepts for the server. */
void http_listeners_here(struct http_server *s);
void http_listeners_close(struct http_server *s);
void http_listeners_free(struct http_server *s);

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
