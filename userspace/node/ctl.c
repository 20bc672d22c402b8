/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the control socket: takes requests apart on the server's thread, and has them served on the keeper's loop. */
#include "node/ctl.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_abi.h"
#include "net/http.h"
#include "node/ctl_internal.h"

/* What is wrong with the request, or NULL. */
static const char *arguments_take(struct ctl_call *c, const struct http_request *rq)
{
	const char *wrong = NULL;
	json_t *body;

	if (!c->route->field[0]) {
		if (c->route->query)
			http_query(rq, c->route->query, c->argument[0], sizeof c->argument[0]);
		return NULL;
	}
	body = json_loadb(rq->body, rq->body_len, JSON_REJECT_DUPLICATES, NULL);
	for (unsigned i = 0; i < 2 && c->route->field[i]; i++) {
		const char *text = json_string_value(json_object_get(body, c->route->field[i]));

		if (!text || snprintf(c->argument[i], CTL_ARGUMENT_MAX, "%s", text) >= CTL_ARGUMENT_MAX)
			wrong = "the body must be a JSON object with the fields that ctl_abi.h names, as texts";
	}
	json_decref(body);
	return wrong;
}

static void call_release(void *arg)
{
	struct ctl_call *c = arg;

	free(c->text);
	free(c);
}

static void call_serve(void *arg)
{
	struct ctl_call *c = arg;

	c->route->serve(c);
}

static void respond_error(struct http_response *out, int status, const char *why)
{
	json_t *o = ctl_error_json(why);
	char *text = o ? json_dumps(o, 0) : NULL;

	json_decref(o);
	out->content_type = CTL_CONTENT_TYPE;
	http_text(out, status, "%s\n", text ? text : "{}");
	free(text);
}

static void serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	int status = 0, e;
	const struct ctl_route *route = ctl_route_find(rq->method, rq->path, &status);
	struct ctl_call *c = route ? calloc(1, sizeof *c) : NULL;
	const char *wrong;

	if (!c) {
		respond_error(out, route ? 500 : status,
			      route	      ? "out of memory"
			      : status == 405 ? "wrong method"
					      : "no such path");
		return;
	}
	c->ctl = arg;
	c->route = route;
	wrong = arguments_take(c, rq);
	if (wrong) {
		respond_error(out, 400, wrong);
		call_release(c);
		return;
	}
	e = http_call(c->ctl->from.loop, call_serve, c, call_release);
	if (e) {
		respond_error(out, 503, "the keeper is busy");
		if (e != -ETIMEDOUT)
			call_release(c);
		return;
	}
	out->content_type = c->content_type;
	if (c->text)
		http_text(out, c->status, "%s\n", c->text);
	else
		respond_error(out, 500, "out of memory");
	call_release(c);
}

int ctl_open(struct ctl **out, const struct ctl_sources *from, char why[POD_WHY_MAX])
{
	struct ctl *c = calloc(1, sizeof *c);
	char path[512];
	int e = -ENOMEM;

	snprintf(why, POD_WHY_MAX, "control socket: out of memory");
	if (c) {
		c->from = *from;
		c->started_ms = loop_now(from->loop);
		list_init(&c->operations);
		c->server = http_server_new();
		c->ports = from->kube ? http_server_new() : NULL;
		snprintf(path, sizeof path, "%s/%s", from->run_dir, CTL_SOCKET);
	}
	if (c && c->server && !c->ports == !from->kube)
		e = http_listen_unix(c->server, path, 0600, serve, c, why, POD_WHY_MAX);
	if (!e && c->ports)
		e = ctl_ports_listen(c->ports, &c->from, why);
	if (!e) {
		e = http_server_start(c->server);
		if (!e && c->ports)
			e = http_server_start(c->ports);
		if (e)
			snprintf(why, POD_WHY_MAX, "control socket: %s", strerror(-e));
	}
	if (!e) {
		*out = c;
		return 0;
	}
	if (c) {
		http_server_free(c->server);
		http_server_free(c->ports);
	}
	free(c);
	return e;
}

static void closed(struct loop *l, struct msg *m)
{
	struct ctl *c = container_of(m, struct ctl, closed);

	c->done(c->arg);
}

void ctl_free(struct ctl *c)
{
	if (!c)
		return;
	ctl_operations_free(c);
	free(c);
}

/* Waits for the server's thread, which may wait for the loop: so the loop must not. */
static void *close_server(void *arg)
{
	struct ctl *c = arg;

	http_server_free(c->server);
	http_server_free(c->ports);
	loop_post(c->from.loop, &c->closed, closed);
	return NULL;
}

void ctl_close(struct ctl *c, void (*done)(void *arg), void *arg)
{
	pthread_t thread;

	c->done = done;
	c->arg = arg;
	if (pthread_create(&thread, NULL, close_server, c) == 0)
		pthread_detach(thread);
	else
		close_server(c);
}
