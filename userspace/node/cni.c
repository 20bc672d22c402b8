/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the CNI socket and the life of a request: taken apart on the server's thread, served on the keeper's loop, answered
 * once, at the latest when its time is over. What was begun for it may end later: callbacks hold the call. */
#include "node/cni.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/cni_internal.h"
#include "node/cni_log.h"

static const char target[] = "cni";

/* --- counts ----------------------------------------------------------------------------------------------- */

static const int statuses[CNI_STATUSES] = {200, 400, 403, 404, 409, 503};

void cni_count(struct cni *c, int status)
{
	for (unsigned i = 0; i < CNI_STATUSES; i++)
		if (statuses[i] == status)
			__atomic_add_fetch(&c->answers[i], 1, __ATOMIC_RELAXED);
}

void cni_answers(const struct cni *c, struct cni_answers out[CNI_STATUSES])
{
	for (unsigned i = 0; i < CNI_STATUSES; i++)
		out[i] = (struct cni_answers){statuses[i], __atomic_load_n(&c->answers[i], __ATOMIC_RELAXED)};
}

/* --- calls ------------------------------------------------------------------------------------------------ */

static void call_free(struct cni_call *c)
{
	timer_cancel(&c->limit);
	cni_request_free(&c->request);
	free(c);
}

void cni_call_put(struct cni_call *c)
{
	if (--c->refs)
		return;
	list_del(&c->link);
	c->cni->n_calls--;
	call_free(c);
}

static const char *pod_text(const struct cni_request *r, char text[POD_LABEL_MAX + POD_NAME_MAX])
{
	snprintf(text, POD_LABEL_MAX + POD_NAME_MAX, "%s%s%s", r->ns, r->name[0] ? "/" : "", r->name);
	return text;
}

void cni_answer(struct cni_call *c, int status, const char *fmt, ...)
{
	struct http_response out = {.content_type = "text/plain; charset=utf-8"};
	char why[POD_WHY_MAX], pod[POD_LABEL_MAX + POD_NAME_MAX];
	va_list ap;

	if (!c->ticket)
		return;
	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	if (status == 200)
		log_debug(target, "%s %s: done", c->route->path, pod_text(&c->request, pod));
	else
		log_warn(target, "%s %s: %d: %s", c->route->path, pod_text(&c->request, pod), status, why);
	cni_count(c->cni, status);
	http_text(&out, status, "%s%s", why, why[0] ? "\n" : "");
	http_ticket_answer(c->ticket, &out);
	c->ticket = NULL;
	timer_cancel(&c->limit);
	cni_call_put(c);
}

void cni_call_expired(struct timer *t)
{
	struct cni_call *c = container_of(t, struct cni_call, limit);

	if (!list_empty(&c->turn))
		cni_answer(c, 503, "too many pods are added at once");
	else if (c->route->always_done)
		cni_answer(c, 200, "%s", "");
	else
		cni_answer(c, 503, "not done within %d ms", CNI_ANSWER_MS);
}

static void call_begin(struct loop *l, struct msg *m)
{
	struct cni_call *c = container_of(m, struct cni_call, msg);
	struct cni *cni = c->cni;

	c->started_ms = loop_now(l);
	list_init(&c->link);
	list_init(&c->turn);
	list_add_tail(&cni->calls, &c->link);
	cni->n_calls++;
	if (cni->closing || cni->n_calls > CNI_CALLS_MAX) {
		cni_answer(c, 503, cni->closing ? "the keeper ends" : "too many requests are under way");
		return;
	}
	timer_set(l, &c->limit, CNI_ANSWER_MS, cni_call_expired);
	c->refs++; /* serving may answer it */
	c->route->serve(c);
	cni_call_put(c);
}

/* --- requests, on the server's thread ------------------------------------------------------------------------ */

static const struct cni_route *route_find(const char *path)
{
	for (unsigned i = 0; i < cni_n_routes; i++)
		if (!strcmp(path, cni_routes[i].path))
			return &cni_routes[i];
	return NULL;
}

static void serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	const struct cni_route *route = route_find(rq->path);
	struct cni_call *c = route ? calloc(1, sizeof *c) : NULL;
	char why[POD_WHY_MAX] = "out of memory";

	if (!c) {
		cni_count(arg, route ? 503 : 404);
		http_text(out, route ? 503 : 404, "%s\n", route ? why : "no such path");
		return;
	}
	c->cni = arg;
	c->route = route;
	c->refs = 1;
	if (cni_request_parse(&c->request, route->kind, rq->body, rq->body_len, why) < 0) {
		cni_count(c->cni, 400);
		http_text(out, 400, "%s\n", why);
		call_free(c);
		return;
	}
	c->ticket = http_ticket_take(rq);
	if (c->ticket) {
		loop_post(c->cni->loop, &c->msg, call_begin);
		return;
	}
	http_text(out, 503, "out of memory\n");
	call_free(c);
}

static void serve_log(void *arg, const struct http_request *rq, struct http_response *out)
{
	if (strcmp(rq->path, CNI_LOG_PATH) != 0)
		http_text(out, 404, "no such path\n");
	else
		cni_log_take(rq->body, rq->body_len);
}

/* --- the socket ------------------------------------------------------------------------------------------- */

static int listen_both(struct cni *c, const char *path, char why[POD_WHY_MAX])
{
	const char *slash = strrchr(path, '/');
	char log[PATH_MAX];
	int e;

	http_body_max(c->server, CNI_REQUEST_MAX);
	e = http_listen_unix(c->server, path, 0600, serve, c, why, POD_WHY_MAX);
	snprintf(log, sizeof log, "%.*s/%s", slash ? (int)(slash - path) : 0, path, CNI_LOG_SOCKET);
	return e ? e : http_listen_unix(c->server, log, 0600, serve_log, c, why, POD_WHY_MAX);
}

int cni_open(struct cni **out, struct loop *l, struct enrol *e, struct zds_server *z, const char *path,
	     const struct cni_decider *d, char why[POD_WHY_MAX])
{
	struct cni *c = calloc(1, sizeof *c);
	int err = -ENOMEM;

	snprintf(why, POD_WHY_MAX, "CNI socket: out of memory");
	if (c) {
		*c = (struct cni){.loop = l, .enrol = e, .zds = z, .decider = *d};
		list_init(&c->calls);
		list_init(&c->waiting);
		c->server = http_server_new();
	}
	if (c && c->server)
		err = listen_both(c, path, why);
	if (!err) {
		*out = c;
		return 0;
	}
	if (c)
		http_server_free(c->server);
	free(c);
	return err;
}

int cni_serve(struct cni *c)
{
	return http_server_start(c->server);
}

static void closed(struct loop *l, struct msg *m)
{
	struct cni *c = container_of(m, struct cni, closed);

	c->done(c->arg);
}

/* The server's thread may wait for an answer of the loop: so the loop must not wait for it. */
static void *close_server(void *arg)
{
	struct cni *c = arg;

	http_server_free(c->server);
	c->server = NULL;
	loop_post(c->loop, &c->closed, closed);
	return NULL;
}

void cni_close(struct cni *c, void (*done)(void *arg), void *arg)
{
	pthread_t thread;

	c->done = done;
	c->arg = arg;
	c->closing = true;
	list_for_each_safe (l, tmp, &c->calls)
		cni_answer(list_entry(l, struct cni_call, link), 503, "the keeper ends");
	if (pthread_create(&thread, NULL, close_server, c) == 0)
		pthread_detach(thread);
	else
		close_server(c);
}

void cni_free(struct cni *c)
{
	if (!c)
		return;
	http_server_free(c->server);
	list_for_each_safe (l, tmp, &c->calls) {
		struct cni_call *call = list_entry(l, struct cni_call, link);

		list_del(&call->link);
		call_free(call);
	}
	free(c);
}
