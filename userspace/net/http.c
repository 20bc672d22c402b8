/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server: what becomes of a request, and the thread that runs it all. evhttp parses and answers. */
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "net/http_internal.h"

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

void http_request_serve(struct evhttp_request *rq, void *arg)
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

	http_client_answering(l->server, evhttp_request_get_connection(rq));
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

/* --- the thread ----------------------------------------------------------------------------------------- */

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct http_server *s = arg;

	event_base_loopbreak(s->base);
}

static void on_closing(evutil_socket_t fd, short what, void *arg)
{
	struct http_server *s = arg;
	struct timeval limit = http_in_ms(HTTP_STOP_MS);

	s->stopping = true;
	http_listeners_close(s);
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

	http_listeners_here(s);
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
	e = http_listeners_start(s);
	if (e)
		return e;
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
	http_clients_free(s);
	http_listeners_free(s);
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
