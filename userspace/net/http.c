/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server: listeners, connections with deadlines, and the thread that runs them.
 *
 * evhttp parses and answers. It knows timeouts between two reads but none for a whole request, so each
 * connection has a client here, with a timer: until the request is there, then until the answer has gone, or the next
 * part of it.
 * evhttp does not say when it closes a connection that never sent a request; therefore a client holds a
 * reference to its bufferevent and, in that case, keeps it (shut down, reading no more) until the timer
 * fires. */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "net/http_internal.h"
#include "net/sock.h"
#include "net/unix_path.h"

enum {
	METHODS = EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
		  EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH,
	INPUT_MORE = HTTP_HEADERS_MAX + 4096, /* waits for evhttp beside a body, which it takes when it is whole */
	ACCEPT_PAUSE_MS = 100,		      /* after a failed accept, which fails again at once */
};

struct client {
	struct list link; /* oldest first, those with an answer under way last */
	struct http_server *server;
	struct bufferevent *bev; /* referenced */
	struct event *timer;
	size_t taken; /* of the answer, since the timer was set */
};

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

static struct timeval in_ms(unsigned ms)
{
	return (struct timeval){ms / 1000, (ms % 1000) * 1000};
}

/* --- clients -------------------------------------------------------------------------------------------- */

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

static void listener_pause(struct listener *l, unsigned ms)
{
	struct timeval pause = in_ms(ms);

	if (event_add(l->resume, &pause) == 0)
		evconnlistener_disable(evhttp_bound_socket_get_listener(l->bound));
}

static struct bufferevent *client_new(struct event_base *base, void *arg)
{
	struct listener *l = arg;
	struct http_server *s = l->server;
	struct client *c = calloc(1, sizeof *c);
	struct timeval deadline = in_ms(HTTP_HEADER_MS);

	if (s->n_clients >= HTTP_CONNECTIONS_MAX) {
		client_close(list_entry(s->clients.next, struct client, link));
		listener_pause(l, 0); /* the descriptor is closed at the end of this turn, and evhttp would accept on */
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
	struct timeval deadline = in_ms(c->server->answer_ms);

	c->taken += info->n_deleted;
	if (c->taken < HTTP_ANSWER_STEP)
		return;
	c->taken = 0;
	event_add(c->timer, &deadline);
}

static void client_answering(struct http_server *s, struct evhttp_connection *conn)
{
	struct client *c = client_find(s, evhttp_connection_get_bufferevent(conn));
	struct timeval deadline = in_ms(s->answer_ms);

	if (!c)
		return;
	evbuffer_add_cb(bufferevent_get_output(c->bev), answer_moved, c); /* without memory the first deadline is all */
	evhttp_connection_set_closecb(conn, client_gone, s);
	event_add(c->timer, &deadline);
	list_del(&c->link);
	list_add_tail(&s->clients, &c->link);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static const char *method_name(enum evhttp_cmd_type type)
{
	static const char *const names[] = {"GET",     "POST",	"HEAD",	   "PUT",  "DELETE",
					    "OPTIONS", "TRACE", "CONNECT", "PATCH"};

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (type == (enum evhttp_cmd_type)(1u << i))
			return names[i];
	return "";
}

static const char *header(struct evhttp_request *rq, const char *name)
{
	const char *v = evhttp_find_header(evhttp_request_get_input_headers(rq), name);

	return v ? v : "";
}

static void body_release(const void *data, size_t len, void *body)
{
	free(body);
}

void http_respond(struct evhttp_request *rq, struct http_response *out)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(rq);
	struct evbuffer *body = evbuffer_new();

	evhttp_add_header(headers, "Connection", "close");
	evhttp_add_header(headers, "Content-Type", out->content_type);
	if (out->encoding)
		evhttp_add_header(headers, "Content-Encoding", out->encoding);
	if (body && out->body && evhttp_request_get_command(rq) != EVHTTP_REQ_HEAD &&
	    evbuffer_add_reference(body, out->body, out->body_len, body_release, out->body) == 0)
		out->body = NULL;
	free(out->body);
	evhttp_send_reply(rq, out->status, NULL, body);
	if (body)
		evbuffer_free(body);
}

static void on_request(struct evhttp_request *rq, void *arg)
{
	struct listener *l = arg;
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(rq);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL, *query = uri ? evhttp_uri_get_query(uri) : NULL;
	struct evbuffer *in = evhttp_request_get_input_buffer(rq);
	struct http_response out = {.status = 200, .content_type = "text/plain; charset=utf-8"};
	struct http_place place = {l->server->tickets, rq, false};
	struct http_request in_words = {
		.method = method_name(evhttp_request_get_command(rq)),
		.path = path && *path ? path : "/",
		.query = query ? query : "",
		.accept = header(rq, "Accept"),
		.accept_encoding = header(rq, "Accept-Encoding"),
		.body = "",
		.body_len = evbuffer_get_length(in),
		.place = &place,
	};

	client_answering(l->server, evhttp_request_get_connection(rq));
	evbuffer_add(in, "", 1);
	in_words.body = (const char *)evbuffer_pullup(in, -1);
	if (strlen(in_words.path) >= HTTP_PATH_MAX)
		http_text(&out, 414, "the path is too long\n");
	else if (!in_words.body)
		http_text(&out, 500, "out of memory\n");
	else
		l->serve(l->arg, &in_words, &out);
	if (!place.taken)
		http_respond(rq, &out);
}

/* --- listeners ------------------------------------------------------------------------------------------ */

static void accept_resume(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	if (l->bound)
		evconnlistener_enable(evhttp_bound_socket_get_listener(l->bound));
}

/* Of the thread. A failed accept says only which evhttp it was: the listener's argument is evhttp's own. */
static _Thread_local struct http_server *here;

static void accept_failed(struct evconnlistener *e, void *http)
{
	for (unsigned i = 0; i < here->n_listeners; i++)
		if (here->listener[i].http == http)
			listener_pause(&here->listener[i], ACCEPT_PAUSE_MS);
}

static void listener_close(struct listener *l)
{
	if (l->bound)
		evhttp_del_accept_socket(l->http, l->bound);
	l->bound = NULL;
}

static void listener_free(struct listener *l)
{
	listener_close(l);
	if (l->http)
		evhttp_free(l->http);
	if (l->resume)
		event_free(l->resume);
	memset(l, 0, sizeof *l);
}

/* Takes `fd` over. */
static int listener_add(struct http_server *s, int fd, http_serve serve, void *arg)
{
	struct listener *l;

	if (s->n_listeners == HTTP_LISTENERS_MAX) {
		close(fd);
		return -ENOSPC;
	}
	l = &s->listener[s->n_listeners];
	*l = (struct listener){.server = s, .serve = serve, .arg = arg};
	l->http = evhttp_new(s->base);
	l->resume = event_new(s->base, -1, 0, accept_resume, l);
	l->bound = l->http && l->resume ? evhttp_accept_socket_with_handle(l->http, fd) : NULL;
	if (!l->bound) {
		close(fd);
		listener_free(l);
		return -ENOMEM;
	}
	evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(l->bound), accept_failed);
	evhttp_set_allowed_methods(l->http, METHODS);
	evhttp_set_max_headers_size(l->http, HTTP_HEADERS_MAX);
	evhttp_set_max_body_size(l->http, (ev_ssize_t)s->body_max);
	evhttp_set_timeout(l->http, HTTP_ANSWER_MS / 1000);
	evhttp_set_bevcb(l->http, client_new, l);
	evhttp_set_gencb(l->http, on_request, l);
	s->n_listeners++;
	return 0;
}

static int refused(int err, const char *at, char *why, size_t why_len)
{
	snprintf(why, why_len, "%s: %s", at, strerror(-err));
	return err;
}

static int tcp_open(const struct http_server *s, const struct endpoint *at)
{
	struct sock_listen how = {.at = *at};
	int fd = s->beside ? -1 : sock_listen_tcp(&how);

	if (!s->shared || (fd < 0 && !s->beside))
		return fd;
	if (fd >= 0)
		close(fd); /* nobody has it */
	how.reuseport = true;
	return sock_bind_tcp(&how);
}

int http_listen_tcp(struct http_server *s, const struct endpoint *at, http_serve serve, void *arg, char *why,
		    size_t why_len)
{
	char text[ENDPOINT_STRLEN];
	int fd = tcp_open(s, at), e = fd < 0 ? fd : listener_add(s, fd, serve, arg);

	if (!e)
		s->listener[s->n_listeners - 1].later = s->shared;
	return e ? refused(e, endpoint_str(at, text), why, why_len) : 0;
}

static int unix_open(const struct sockaddr_un *at, unsigned mode)
{
	int e = unix_path_clear(at->sun_path, SOCK_STREAM), fd;

	if (e < 0)
		return e;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The file has the socket's mode from its first moment; chmod() gives back what the umask took. */
	if (fchmod(fd, mode) < 0 || bind(fd, (const struct sockaddr *)at, sizeof *at) < 0 ||
	    chmod(at->sun_path, mode) < 0 || listen(fd, SOCK_BACKLOG) < 0)
		e = -errno;
	if (!e)
		return fd;
	close(fd);
	return e;
}

int http_listen_unix(struct http_server *s, const char *path, unsigned mode, http_serve serve, void *arg, char *why,
		     size_t why_len)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd, e;

	if (strlen(path) >= sizeof at.sun_path)
		return refused(-ENAMETOOLONG, path, why, why_len);
	memcpy(at.sun_path, path, strlen(path) + 1);
	fd = unix_open(&at, mode);
	e = fd < 0 ? fd : listener_add(s, fd, serve, arg);
	return e ? refused(e, path, why, why_len) : 0;
}

unsigned http_port(const struct http_server *s, unsigned n)
{
	struct endpoint at;

	if (n >= s->n_listeners || sock_local(evhttp_bound_socket_get_fd(s->listener[n].bound), &at) < 0)
		return 0;
	return at.port;
}

/* --- the thread ----------------------------------------------------------------------------------------- */

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct http_server *s = arg;

	event_base_loopbreak(s->base);
}

static void on_closing(evutil_socket_t fd, short what, void *arg)
{
	struct http_server *s = arg;
	struct timeval limit = in_ms(HTTP_STOP_MS);

	s->stopping = true;
	for (unsigned i = 0; i < s->n_listeners; i++)
		listener_close(&s->listener[i]);
	if (!s->n_clients || event_add(s->deadline, &limit) < 0)
		event_base_loopbreak(s->base);
}

/* One turn later, so that those who wait to be accepted are: closing a listener resets them. */
static void on_stop(evutil_socket_t fd, short what, void *arg)
{
	struct http_server *s = arg;
	struct timeval now = {0, 0};

	if (event_add(s->closing, &now) < 0)
		on_closing(fd, what, arg);
}

static void library_log(int severity, const char *message)
{
	if (severity >= EVENT_LOG_WARN)
		log_debug("http", "%s", message);
}

struct http_server *http_server_new(void)
{
	struct http_server *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	event_set_log_callback(library_log);
	list_init(&s->clients);
	s->body_max = HTTP_BODY_MAX;
	s->answer_ms = HTTP_ANSWER_MS;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->base = event_base_new();
	if (s->base && s->wake_fd >= 0) {
		s->wake = event_new(s->base, s->wake_fd, EV_READ, on_stop, s);
		s->closing = event_new(s->base, -1, 0, on_closing, s);
		s->deadline = event_new(s->base, -1, 0, on_deadline, s);
		s->tickets = http_tickets_new(s->base);
	}
	if (!s->wake || !s->closing || !s->deadline || !s->tickets || event_add(s->wake, NULL) < 0) {
		http_server_free(s);
		return NULL;
	}
	return s;
}

void http_share_ports(struct http_server *s, bool beside)
{
	s->shared = true;
	s->beside = beside;
}

void http_body_max(struct http_server *s, size_t bytes)
{
	s->body_max = bytes;
}

void http_answer_ms(struct http_server *s, unsigned ms)
{
	s->answer_ms = ms;
}

static void *run(void *arg)
{
	struct http_server *s = arg;

	here = s;
	event_base_dispatch(s->base);
	return NULL;
}

/* The thread takes no signals: they are the main thread's, and a SIGPIPE stays pending here. */
int http_server_start(struct http_server *s)
{
	sigset_t all, before;
	int e;

	if (s->running)
		return 0;
	for (unsigned i = 0; i < s->n_listeners; i++)
		if (s->listener[i].later && listen(evhttp_bound_socket_get_fd(s->listener[i].bound), SOCK_BACKLOG) < 0)
			return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&s->thread, NULL, run, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e)
		return -e;
	pthread_setname_np(s->thread, "http");
	s->running = true;
	return 0;
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	if (s->running && eventfd_write(s->wake_fd, 1) == 0)
		pthread_join(s->thread, NULL);
	http_tickets_close(s->tickets);
	while (!list_empty(&s->clients))
		client_free(list_entry(s->clients.next, struct client, link));
	for (unsigned i = 0; i < s->n_listeners; i++)
		listener_free(&s->listener[i]);
	if (s->deadline)
		event_free(s->deadline);
	if (s->closing)
		event_free(s->closing);
	if (s->wake)
		event_free(s->wake);
	if (s->base)
		event_base_free(s->base);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	free(s);
}
