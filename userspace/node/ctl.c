/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the control socket: takes requests apart on the server's thread, serves them on the keeper's loop, and keeps the
 * operations that clients wait for. Only the loop touches operations, so that a long one stops nobody. */
#include "node/ctl.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ctl_abi.h"
#include "net/http.h"
#include "node/ctl_internal.h"

enum { ARGUMENT_MAX = 1024 };

struct operation {
	struct list link; /* of ctl.operations, oldest first */
	uint64_t id, ended_ms;
	bool running;
	int err;
	char why[POD_WHY_MAX];
	struct ctl *ctl;
};

struct ctl {
	struct ctl_sources from;
	struct http_server *server;
	struct list operations;
	unsigned n_operations;
	uint64_t last_id, started_ms;
	struct msg closed;
	void (*done)(void *arg);
	void *arg;
};

struct call;
struct route {
	const char *method, *path;
	void (*serve)(struct call *c);
	const char *field[2]; /* of the body, both needed: one goes to each argument */
};

struct call { /* one request on its way through the loop */
	struct ctl *ctl;
	const struct route *route;
	char argument[2][ARGUMENT_MAX];
	int status;
	const char *content_type;
	char *text;
};

/* --- answers -------------------------------------------------------------------------------------------- */

static void answer_json(struct call *c, int status, json_t *o)
{
	c->status = o ? status : 500;
	c->content_type = CTL_CONTENT_TYPE;
	c->text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
	json_decref(o);
}

static json_t *error_json(const char *why)
{
	return json_pack("{ss%}", "error", why, strnlen(why, POD_WHY_MAX));
}

static void serve_status(struct call *c)
{
	answer_json(c, 200, ctl_status_json(&c->ctl->from, (loop_now(c->ctl->from.loop) - c->ctl->started_ms) / 1000));
}

static void serve_pods(struct call *c)
{
	answer_json(c, 200, ctl_pods_json(&c->ctl->from));
}

static void serve_drops(struct call *c)
{
	answer_json(c, 200, ctl_drops_json(&c->ctl->from));
}

static void serve_metrics(struct call *c)
{
	c->text = ctl_metrics_text(&c->ctl->from);
	c->status = c->text ? 200 : 500;
	c->content_type = CTL_METRICS_TYPE;
}

static void serve_log(struct call *c)
{
	char filter[LOG_SPEC_MAX];

	if (strcmp(c->route->method, "POST") == 0 && log_change_filter(NULL, c->argument[0]) < 0) {
		answer_json(c, 400,
			    error_json("level: want LEVEL or TARGET=LEVEL, with commas; levels are off, error, "
				       "warn, info, debug, trace"));
		return;
	}
	answer_json(c, 200, json_pack("{ss}", "filter", log_filter(filter)));
}

/* --- operations ----------------------------------------------------------------------------------------- */

static void operation_free(struct operation *o)
{
	list_del(&o->link);
	o->ctl->n_operations--;
	free(o);
}

/* Makes room: what ended long ago, and at the limit what ended first. */
static void operations_forget(struct ctl *c)
{
	uint64_t now = loop_now(c->from.loop);

	list_for_each_safe (l, tmp, &c->operations) {
		struct operation *o = list_entry(l, struct operation, link);

		if (!o->running && (now - o->ended_ms > CTL_OPERATION_MS || c->n_operations >= CTL_OPERATIONS_MAX))
			operation_free(o);
	}
}

static struct operation *operation_new(struct ctl *c)
{
	struct operation *o;

	operations_forget(c);
	o = c->n_operations < CTL_OPERATIONS_MAX ? calloc(1, sizeof *o) : NULL;
	if (!o)
		return NULL;
	o->ctl = c;
	o->id = ++c->last_id;
	o->running = true;
	list_init(&o->link);
	list_add_tail(&c->operations, &o->link);
	c->n_operations++;
	return o;
}

static void operation_ended(void *arg, int err, const char *why)
{
	struct operation *o = arg;

	o->running = false;
	o->err = err;
	o->ended_ms = loop_now(o->ctl->from.loop);
	snprintf(o->why, sizeof o->why, "%s", err && !why[0] ? strerror(-err) : why);
}

static void operation_answer(struct call *c, int status, const struct operation *o)
{
	json_t *j = json_pack("{sI ss}", "operation", (json_int_t)o->id, "state",
			      o->running ? "running"
			      : o->err	 ? "failed"
					 : "done");

	if (j && !o->running && o->err)
		json_object_set_new(j, "error", json_string(o->why));
	answer_json(c, status, j);
}

static void serve_enrol(struct call *c)
{
	const struct enrol_request q = {.netns = c->argument[0], .identity = c->argument[1]};
	struct operation *o = operation_new(c->ctl);

	if (!o) {
		answer_json(c, 503, error_json("too many operations are under way"));
		return;
	}
	enrol_add(c->ctl->from.enrol, &q, operation_ended, o);
	operation_answer(c, 202, o);
}

static void serve_unenrol(struct call *c)
{
	struct operation *o = operation_new(c->ctl);

	if (!o) {
		answer_json(c, 503, error_json("too many operations are under way"));
		return;
	}
	enrol_remove(c->ctl->from.enrol, c->argument[0], operation_ended, o);
	operation_answer(c, 202, o);
}

static void serve_upgrade(struct call *c)
{
	struct operation *o;

	if (!c->ctl->from.supervise) {
		answer_json(
			c, 409,
			error_json("the tunnel is not run by this keeper; whoever runs it replaces it (in Kubernetes: "
				   "kubectl rollout restart daemonset/ztunnel)"));
		return;
	}
	o = operation_new(c->ctl);
	if (!o) {
		answer_json(c, 503, error_json("too many operations are under way"));
		return;
	}
	supervise_upgrade(c->ctl->from.supervise, operation_ended, o);
	operation_answer(c, 202, o);
}

static void serve_operation(struct call *c)
{
	uint64_t id = strtoull(c->argument[0], NULL, 10);

	list_for_each (l, &c->ctl->operations) {
		struct operation *o = list_entry(l, struct operation, link);

		if (o->id == id) {
			operation_answer(c, 200, o);
			return;
		}
	}
	answer_json(c, 404, error_json("no such operation"));
}

/* --- requests, on the server's thread ------------------------------------------------------------------- */

static const struct route routes[] = {
	{"POST", CTL_ENROL, serve_enrol, {"netns", "identity"}},
	{"POST", CTL_UNENROL, serve_unenrol, {"pod"}},
	{"POST", CTL_UPGRADE, serve_upgrade, {NULL}},
	{"GET", CTL_OPERATIONS, serve_operation, {NULL}},
	{"GET", CTL_STATUS, serve_status, {NULL}},
	{"GET", CTL_PODS, serve_pods, {NULL}},
	{"GET", CTL_DROPS, serve_drops, {NULL}},
	{"GET", CTL_LOG, serve_log, {NULL}},
	{"POST", CTL_LOG, serve_log, {NULL}},
	{"GET", CTL_METRICS, serve_metrics, {NULL}},
};

static const struct route *route_find(const struct http_request *rq, int *status)
{
	*status = 404;
	for (unsigned i = 0; i < sizeof routes / sizeof *routes; i++) {
		if (strcmp(rq->path, routes[i].path) != 0)
			continue;
		if (strcmp(rq->method, routes[i].method) == 0)
			return &routes[i];
		*status = 405;
	}
	return NULL;
}

/* What is wrong with the request, or NULL. */
static const char *arguments_take(struct call *c, const struct http_request *rq)
{
	const char *wrong = NULL;
	json_t *body;

	if (!c->route->field[0]) {
		const char *name = c->route->serve == serve_operation ? "id" : "level";

		http_query(rq, name, c->argument[0], sizeof c->argument[0]);
		return NULL;
	}
	body = json_loadb(rq->body, rq->body_len, JSON_REJECT_DUPLICATES, NULL);
	for (unsigned i = 0; i < 2 && c->route->field[i]; i++) {
		const char *text = json_string_value(json_object_get(body, c->route->field[i]));

		if (!text || snprintf(c->argument[i], ARGUMENT_MAX, "%s", text) >= ARGUMENT_MAX)
			wrong = "the body must be a JSON object with the fields that ctl_abi.h names, as texts";
	}
	json_decref(body);
	return wrong;
}

static void call_release(void *arg)
{
	struct call *c = arg;

	free(c->text);
	free(c);
}

static void call_serve(void *arg)
{
	struct call *c = arg;

	c->route->serve(c);
}

static void respond_error(struct http_response *out, int status, const char *why)
{
	json_t *o = error_json(why);
	char *text = o ? json_dumps(o, 0) : NULL;

	json_decref(o);
	out->content_type = CTL_CONTENT_TYPE;
	http_text(out, status, "%s\n", text ? text : "{}");
	free(text);
}

static void serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	int status = 0, e;
	const struct route *route = route_find(rq, &status);
	struct call *c = route ? calloc(1, sizeof *c) : NULL;
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
		snprintf(path, sizeof path, "%s/%s", from->run_dir, CTL_SOCKET);
	}
	if (c && c->server)
		e = http_listen_unix(c->server, path, 0600, serve, c, why, POD_WHY_MAX);
	if (!e && from->kube)
		e = ctl_ports_listen(c->server, &c->from, why);
	if (!e) {
		e = http_server_start(c->server);
		if (e)
			snprintf(why, POD_WHY_MAX, "control socket: %s", strerror(-e));
	}
	if (!e) {
		*out = c;
		return 0;
	}
	if (c)
		http_server_free(c->server);
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
	list_for_each_safe (p, tmp, &c->operations)
		operation_free(list_entry(p, struct operation, link));
	free(c);
}

/* Waits for the server's thread, which may wait for the loop: so the loop must not. */
static void *close_server(void *arg)
{
	struct ctl *c = arg;

	http_server_free(c->server);
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
