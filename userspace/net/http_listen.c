/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the listeners of an HTTP server: their sockets, TCP and Unix, and when they accept. */
#include <errno.h>
#include <event2/listener.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/http_internal.h"
#include "net/sock.h"
#include "net/unix_path.h"

enum {
	METHODS = EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
		  EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH,
	ACCEPT_PAUSE_MS = 100, /* after a failed accept, which fails again at once */
};

/* --- accepting ------------------------------------------------------------------------------------------ */

void http_listener_pause(struct listener *l, unsigned ms)
{
	struct timeval pause = http_in_ms(ms);

	if (event_add(l->resume, &pause) == 0)
		evconnlistener_disable(evhttp_bound_socket_get_listener(l->bound));
}

static void accept_resume(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	if (l->bound)
		evconnlistener_enable(evhttp_bound_socket_get_listener(l->bound));
}

/* Of the thread. A failed accept says only which evhttp it was: the listener's argument is evhttp's own. */
static _Thread_local struct http_server *here;

void http_listeners_here(struct http_server *s)
{
	here = s;
}

static void accept_failed(struct evconnlistener *e, void *http)
{
	for (unsigned i = 0; i < here->n_listeners; i++)
		if (here->listener[i].http == http)
			http_listener_pause(&here->listener[i], ACCEPT_PAUSE_MS);
}

/* --- sockets -------------------------------------------------------------------------------------------- */

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
	evhttp_set_bevcb(l->http, http_client_new, l);
	evhttp_set_gencb(l->http, http_request_serve, l);
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

/* --- all of a server's ---------------------------------------------------------------------------------- */

int http_listeners_start(struct http_server *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++)
		if (s->listener[i].later && listen(evhttp_bound_socket_get_fd(s->listener[i].bound), SOCK_BACKLOG) < 0)
			return -errno;
	return 0;
}

void http_listeners_close(struct http_server *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++)
		listener_close(&s->listener[i]);
}

void http_listeners_free(struct http_server *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++)
		listener_free(&s->listener[i]);
}
