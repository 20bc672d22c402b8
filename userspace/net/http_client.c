/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the connections of an HTTP server: how many there may be, and each one's deadline.
 *
 * evhttp knows timeouts between two reads but none for a whole request, so each connection has a client here, with a
 * timer: until the request is there, then until the answer has gone, or the next part of it.
 * evhttp does not say when it closes a connection that never sent a request; therefore a client holds a
 * reference to its bufferevent and, in that case, keeps it (shut down, reading no more) until the timer
 * fires. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdlib.h>

#include "net/http_internal.h"

enum { INPUT_MORE = HTTP_HEADERS_MAX + 4096 }; /* waits for evhttp beside a body, which it takes when it is whole */

struct client {
	struct list link; /* oldest first, those with an answer under way last */
	struct http_server *server;
	struct bufferevent *bev; /* referenced */
	struct event *timer;
	size_t taken; /* of the answer, since the timer was set */
};

static void answer_moved(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg);

static void client_free(struct client *c)
{
	struct http_server *s = c->server;

	evbuffer_remove_cb(bufferevent_get_output(c->bev), answer_moved, c);
	list_del(&c->link);
	s->n_clients--;
	event_free(c->timer);
	bufferevent_decref(c->bev);
	free(c);
	if (s->stopping && !s->n_clients)
		event_base_loopbreak(s->base);
}

/* evhttp takes it for a timeout and closes; where it has done so already, nobody listens to the event. */
static void client_close(struct client *c)
{
	struct bufferevent *bev = c->bev;

	bufferevent_incref(bev);
	client_free(c);
	bufferevent_trigger_event(bev, BEV_EVENT_TIMEOUT | BEV_EVENT_READING, 0);
	bufferevent_decref(bev);
}

static void client_expired(evutil_socket_t fd, short what, void *arg)
{
	client_close(arg);
}

static struct client *client_find(struct http_server *s, const struct bufferevent *bev)
{
	list_for_each (pos, &s->clients) {
		struct client *c = list_entry(pos, struct client, link);

		if (c->bev == bev)
			return c;
	}
	return NULL;
}

struct bufferevent *http_client_new(struct event_base *base, void *arg)
{
	struct listener *l = arg;
	struct http_server *s = l->server;
	struct client *c = calloc(1, sizeof *c);
	struct timeval deadline = http_in_ms(HTTP_HEADER_MS);

	if (s->n_clients >= HTTP_CONNECTIONS_MAX) {
		client_close(list_entry(s->clients.next, struct client, link));
		/* The descriptor is closed at the end of this turn, and evhttp would accept on. */
		http_listener_pause(l, 0);
	}
	if (!c)
		return NULL;
	c->bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	c->timer = event_new(base, -1, 0, client_expired, c);
	if (!c->bev || !c->timer || event_add(c->timer, &deadline) < 0) {
		if (c->timer)
			event_free(c->timer);
		if (c->bev)
			bufferevent_free(c->bev);
		free(c);
		return NULL;
	}
	bufferevent_setwatermark(c->bev, EV_READ, 0, s->body_max + INPUT_MORE);
	bufferevent_incref(c->bev);
	c->server = s;
	list_add_tail(&s->clients, &c->link);
	s->n_clients++;
	return c->bev;
}

static void client_gone(struct evhttp_connection *conn, void *arg)
{
	struct client *c = client_find(arg, evhttp_connection_get_bufferevent(conn));

	if (c)
		client_free(c);
}

static void answer_moved(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg)
{
	struct client *c = arg;
	struct timeval deadline = http_in_ms(c->server->answer_ms);

	c->taken += info->n_deleted;
	if (c->taken < HTTP_ANSWER_STEP)
		return;
	c->taken = 0;
	event_add(c->timer, &deadline);
}

void http_client_answering(struct http_server *s, struct evhttp_connection *conn)
{
	struct client *c = client_find(s, evhttp_connection_get_bufferevent(conn));
	struct timeval deadline = http_in_ms(s->answer_ms);

	if (!c)
		return;
	evbuffer_add_cb(bufferevent_get_output(c->bev), answer_moved, c); /* without memory the first deadline is all */
	evhttp_connection_set_closecb(conn, client_gone, s);
	event_add(c->timer, &deadline);
	list_del(&c->link);
	list_add_tail(&s->clients, &c->link);
}

void http_clients_free(struct http_server *s)
{
	while (!list_empty(&s->clients))
		client_free(list_entry(s->clients.next, struct client, link));
}
