/* SPDX-License-Identifier: Apache-2.0 */
/* What the control socket serves, on the keeper's loop, and the operations that clients wait for. Only the loop touches
 * operations, so that a long one stops nobody. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ctl_abi.h"
#include "node/ctl_internal.h"

struct operation {
	struct list link; /* of ctl.operations, oldest first */
	uint64_t id, ended_ms;
	bool running;
	int err;
	char why[POD_WHY_MAX];
	struct ctl *ctl;
};

/* --- answers -------------------------------------------------------------------------------------------- */

static void answer_json(struct ctl_call *c, int status, json_t *o)
{
	c->status = o ? status : 500;
	c->content_type = CTL_CONTENT_TYPE;
	c->text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
	json_decref(o);
}

json_t *ctl_error_json(const char *why)
{
	return json_pack("{ss%}", "error", why, strnlen(why, POD_WHY_MAX));
}

static void serve_status(struct ctl_call *c)
{
	answer_json(c, 200, ctl_status_json(&c->ctl->from, (loop_now(c->ctl->from.loop) - c->ctl->started_ms) / 1000));
}

static void serve_pods(struct ctl_call *c)
{
	answer_json(c, 200, ctl_pods_json(&c->ctl->from));
}

static void serve_drops(struct ctl_call *c)
{
	answer_json(c, 200, ctl_drops_json(&c->ctl->from));
}

static void serve_metrics(struct ctl_call *c)
{
	c->text = ctl_metrics_text(&c->ctl->from);
	c->status = c->text ? 200 : 500;
	c->content_type = CTL_METRICS_TYPE;
}

static void serve_log(struct ctl_call *c)
{
	const char *level = c->argument[0];
	char filter[LOG_SPEC_MAX];
	bool reset = strcmp(level, "reset") == 0;

	if (strcmp(c->route->method, "POST") == 0 &&
	    (reset ? log_set_filter(c->ctl->from.log_default) : log_change_filter(NULL, level)) < 0) {
		answer_json(c, 400,
			    ctl_error_json("level: want LEVEL or TARGET=LEVEL, with commas; levels are off, error, "
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

static void operation_answer(struct ctl_call *c, int status, const struct operation *o)
{
	json_t *j = json_pack("{sI ss}", "operation", (json_int_t)o->id, "state",
			      o->running ? "running"
			      : o->err	 ? "failed"
					 : "done");

	if (j && !o->running && o->err)
		json_object_set_new(j, "error", json_string(o->why));
	answer_json(c, status, j);
}

static void serve_enrol(struct ctl_call *c)
{
	const struct enrol_request q = {.netns = c->argument[0], .identity = c->argument[1]};
	struct operation *o = operation_new(c->ctl);

	if (!o) {
		answer_json(c, 503, ctl_error_json("too many operations are under way"));
		return;
	}
	enrol_add(c->ctl->from.enrol, &q, operation_ended, o);
	operation_answer(c, 202, o);
}

static void serve_unenrol(struct ctl_call *c)
{
	struct operation *o = operation_new(c->ctl);

	if (!o) {
		answer_json(c, 503, ctl_error_json("too many operations are under way"));
		return;
	}
	enrol_remove(c->ctl->from.enrol, c->argument[0], operation_ended, o);
	operation_answer(c, 202, o);
}

static void serve_upgrade(struct ctl_call *c)
{
	struct operation *o;

	if (!c->ctl->from.supervise) {
		answer_json(c, 409,
			    ctl_error_json(
				    "the tunnel is not run by this keeper; whoever runs it replaces it (in Kubernetes: "
				    "kubectl rollout restart daemonset/ztunnel)"));
		return;
	}
	o = operation_new(c->ctl);
	if (!o) {
		answer_json(c, 503, ctl_error_json("too many operations are under way"));
		return;
	}
	supervise_upgrade(c->ctl->from.supervise, operation_ended, o);
	operation_answer(c, 202, o);
}

static void serve_operation(struct ctl_call *c)
{
	uint64_t id = strtoull(c->argument[0], NULL, 10);

	list_for_each (l, &c->ctl->operations) {
		struct operation *o = list_entry(l, struct operation, link);

		if (o->id == id) {
			operation_answer(c, 200, o);
			return;
		}
	}
	answer_json(c, 404, ctl_error_json("no such operation"));
}

void ctl_operations_free(struct ctl *c)
{
	list_for_each_safe (p, tmp, &c->operations)
		operation_free(list_entry(p, struct operation, link));
}

/* --- which is which ------------------------------------------------------------------------------------- */

static const struct ctl_route routes[] = {
	{"POST", CTL_ENROL, serve_enrol, {"netns", "identity"}, NULL},
	{"POST", CTL_UNENROL, serve_unenrol, {"pod"}, NULL},
	{"POST", CTL_UPGRADE, serve_upgrade, {NULL}, NULL},
	{"GET", CTL_OPERATIONS, serve_operation, {NULL}, "id"},
	{"GET", CTL_STATUS, serve_status, {NULL}, NULL},
	{"GET", CTL_PODS, serve_pods, {NULL}, NULL},
	{"GET", CTL_DROPS, serve_drops, {NULL}, NULL},
	{"GET", CTL_LOG, serve_log, {NULL}, "level"},
	{"POST", CTL_LOG, serve_log, {NULL}, "level"},
	{"GET", CTL_METRICS, serve_metrics, {NULL}, NULL},
};

const struct ctl_route *ctl_route_find(const char *method, const char *path, int *status)
{
	*status = 404;
	for (unsigned i = 0; i < sizeof routes / sizeof *routes; i++) {
		if (strcmp(path, routes[i].path) != 0)
			continue;
		if (strcmp(method, routes[i].method) == 0)
			return &routes[i];
		*status = 405;
	}
	return NULL;
}
