/* SPDX-License-Identifier: Apache-2.0 */
/* culvert-cni, a chained CNI plugin: brings pods of the mesh into it before their first instruction. It changes nothing
 * in the pod itself: the keeper steers it, and this program waits for that.
 *
 * ADD, when nobody answers at the socket: a pod that the API server says is outside the mesh starts; any other fails, and
 * the kubelet tries again. A pod whose labels say that it belongs to the mesh never starts without it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "base/version.h"
#include "conf.h"
#include "env.h"
#include "fallback.h"
#include "report.h"
#include "result.h"

/* People and their tools look for these words. */
#define CANNOT_CONTACT "cmdAdd failed to contact node Istio CNI agent"

/* --- ADD -------------------------------------------------------------------------------------------------------- */

/* The keeper's own pod must be able to start without a keeper. */
static bool is_keepers(const struct conf *c, const struct env *e)
{
	static const char prefix[] = "istio-cni-node-";

	return c->pod_namespace[0] && !strcmp(e->pod_namespace, c->pod_namespace) &&
	       !strncmp(e->pod_name, prefix, sizeof prefix - 1);
}

static bool is_outside(const struct conf *c, const struct env *e)
{
	return !c->ambient || !e->pod_name[0] || !e->pod_namespace[0] || is_keepers(c, e) ||
	       conf_excludes(c, e->pod_namespace);
}

/* `why` nobody could help. */
static int add_alone(const struct conf *c, const struct env *e, const char *why, struct failure *f)
{
	char unknown[FALLBACK_TEXT_MAX] = "";
	enum mesh mesh = fallback_ask(c, e, unknown);

	if (mesh == MESH_OUT) {
		report(REPORT_WARN, "pod %s/%s is outside the mesh and starts without the keeper: %s", e->pod_namespace,
		       e->pod_name, why);
		return 0;
	}
	return failed(f, E_AGAIN, CANNOT_CONTACT ": %s%s%s", why,
		      mesh == MESH_IN ? "" : "; whether the pod is in the mesh cannot be told: ", unknown);
}

static int add_answered(const struct conf *c, const struct env *e, const struct agent_answer *a, struct failure *f)
{
	char why[AGENT_TEXT_MAX + 64];

	snprintf(why, sizeof why, "status %d: %s", a->status, a->text);
	switch (a->status) {
	case 200:
		return 0;
	case 404:
	case 500: /* Istio's agent, who says so of pods outside the mesh as well */
		return add_alone(c, e, why, f);
	case 503:
		return failed(f, E_AGAIN, CANNOT_CONTACT ": %s", why);
	default:
		return failed(f, E_INTERNAL, CANNOT_CONTACT ": %s", why);
	}
}

static int add(const struct conf *c, const struct env *e, struct failure *f)
{
	struct agent_answer a = {0};
	json_t *ips = NULL;
	char *body;
	int err = result_ips(c, &ips, f);

	if (err)
		return err;
	body = agent_pod_body(c, e, ips);
	if (!body)
		return failed(f, E_INTERNAL, "names in the environment are not UTF-8");
	err = agent_call(c->socket, CNI_ADD, body, now_ms() + CNI_PLUGIN_MS, &a);
	free(body);
	return err ? add_alone(c, e, a.text, f) : add_answered(c, e, &a, f);
}

static int serve_add(const struct conf *c, const struct env *e, char **out, size_t *len, struct failure *f)
{
	int err = result_make(c, out, len, f); /* first: what cannot be printed need not be steered */

	if (!err && !is_outside(c, e))
		err = add(c, e, f);
	if (!err && c->ambient && (!e->pod_name[0] || !e->pod_namespace[0]))
		report(REPORT_INFO, "it stays outside the mesh: its runtime tells no pod's name and namespace");
	else if (!err)
		report(REPORT_DEBUG, "pod %s/%s is added", e->pod_namespace, e->pod_name);
	return err;
}

/* --- the others ------------------------------------------------------------------------------------------------- */

/* Whatever happens, the sandbox goes. A keeper that is away finds out by itself when it is back. */
static void serve_del(const struct conf *c, const struct env *e)
{
	struct agent_answer a = {0};
	char *body = agent_pod_body(c, e, NULL);

	if (body && agent_call(c->socket, CNI_DEL, body, now_ms() + CNI_PLUGIN_MS, &a) < 0)
		report(REPORT_INFO, "the keeper does not hear of the end of the pod: %s", a.text);
	else if (body && a.status != 200 && a.status != 404 && a.status != 500)
		report(REPORT_WARN, "the keeper: status %d: %s", a.status, a.text);
	free(body);
}

/* Istio's agent knows ADD alone: nothing can be said against the pod. */
static bool is_istios(const struct agent_answer *a)
{
	return a->status == 404 || a->status == 500;
}

static int serve_check(const struct conf *c, const struct env *e, struct failure *f)
{
	struct agent_answer a = {0};
	char *body;
	int err;

	if (is_outside(c, e))
		return 0;
	body = agent_pod_body(c, e, NULL);
	if (!body)
		return failed(f, E_INTERNAL, "names in the environment are not UTF-8");
	err = agent_call(c->socket, CNI_CHECK, body, now_ms() + CNI_PLUGIN_MS, &a);
	free(body);
	if (err)
		return failed(f, E_AGAIN, "the pod's steering cannot be checked: %s", a.text);
	if (a.status == 200 || is_istios(&a))
		return 0;
	return failed(f, a.status == 503 ? E_AGAIN : E_BROKEN, "%s", a.text);
}

static char *gc_body(const struct conf *c, struct failure *f)
{
	json_t *in = json_object_get(c->root, "cni.dev/valid-attachments"), *o, *list;
	char *text = NULL;

	if (!json_is_array(in) && !json_is_null(in)) { /* Go writes an empty list as null */
		failed(f, E_CONFIG, "\"cni.dev/valid-attachments\" must be an array");
		return NULL;
	}
	list = json_array();
	for (size_t i = 0; i < json_array_size(in); i++) {
		const json_t *v = json_array_get(in, i);
		const char *id = json_string_value(json_object_get(v, "containerID"));
		const char *ifname = json_string_value(json_object_get(v, "ifname"));

		if (!id || !ifname) {
			json_decref(list);
			failed(f, E_CONFIG, "\"cni.dev/valid-attachments\": each needs containerID and ifname");
			return NULL;
		}
		json_array_append_new(list, json_pack("{ss ss}", "ContainerID", id, "IfName", ifname));
	}
	o = json_pack("{ss so}", "Network", c->name, "Attachments", list);
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!text)
		failed(f, E_INTERNAL, "out of memory");
	return text;
}

static int serve_gc(const struct conf *c, struct failure *f)
{
	struct agent_answer a = {0};
	char *body = gc_body(c, f);
	int err;

	if (!body)
		return f->code;
	err = agent_call(c->socket, CNI_GC, body, now_ms() + CNI_PLUGIN_MS, &a);
	free(body);
	if (err)
		return failed(f, E_AGAIN, "the keeper cannot be told: %s", a.text);
	return a.status == 200 || is_istios(&a) ? 0 : failed(f, E_INTERNAL, "status %d: %s", a.status, a.text);
}

static int serve_status(const struct conf *c, struct failure *f)
{
	struct agent_answer a = {0};

	if (!c->strict_status)
		return 0;
	if (agent_call(c->socket, CNI_STATUS, "{}", now_ms() + CNI_PLUGIN_MS, &a) < 0)
		return failed(f, E_UNAVAILABLE, "the keeper does not answer: %s", a.text);
	if (a.status == 200 || is_istios(&a))
		return 0;
	return failed(f, a.status == 409 ? E_LIMITED : E_UNAVAILABLE, "%s", a.text);
}

/* Which versions know the command. */
static int check_command(const struct conf *c, const struct env *e, struct failure *f)
{
	if (e->command == CMD_CHECK && !conf_since(c, "0.4.0"))
		return failed(f, E_VERSION, "CHECK needs cniVersion 0.4.0 or later, the configuration has %s",
			      c->version);
	if ((e->command == CMD_GC || e->command == CMD_STATUS) && !conf_since(c, "1.1.0"))
		return failed(f, E_VERSION, "GC and STATUS need cniVersion 1.1.0, the configuration has %s",
			      c->version);
	return 0;
}

static int serve(const struct conf *c, const struct env *e, char **out, size_t *len, struct failure *f)
{
	int err = check_command(c, e, f);

	if (!err)
		err = env_check_netns(e, f);
	if (err)
		return err;
	switch (e->command) {
	case CMD_ADD:
		return serve_add(c, e, out, len, f);
	case CMD_CHECK:
		return serve_check(c, e, f);
	case CMD_GC:
		return serve_gc(c, f);
	case CMD_STATUS:
		return serve_status(c, f);
	default:
		serve_del(c, e);
		return 0;
	}
}

/* --- the process --------------------------------------------------------------------------------------------------- */

static int print(const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, text, len);

		if (n < 0 && errno != EINTR)
			return 1;
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int print_text(char *text)
{
	int rc = text ? print(text, strlen(text)) : 1;

	free(text);
	return rc;
}

/* stdin need not hold anything. */
static int serve_version(void)
{
	char asked[16] = "", *text = NULL;
	struct failure ignored;
	size_t len = 0;

	if (conf_stdin(STDIN_FILENO, &text, &len, &ignored) == 0) {
		json_t *o = json_loadb(text, len, JSON_DECODE_INT_AS_REAL, NULL);
		const char *version = json_string_value(json_object_get(o, "cniVersion"));

		if (version)
			snprintf(asked, sizeof asked, "%.15s", version);
		json_decref(o);
	}
	free(text);
	return print_text(result_versions(asked));
}

static int about(void)
{
	fprintf(stderr,
		"culvert-cni %s, a chained CNI plugin; a container runtime runs it. Versions of the specification:",
		CULVERT_VERSION);
	for (unsigned i = 0; conf_versions[i]; i++)
		fprintf(stderr, " %s", conf_versions[i]);
	fprintf(stderr, "\n");
	return 0;
}

int main(void)
{
	struct failure f = {.code = 0};
	struct conf c = {.text = NULL};
	char *text = NULL, *out = NULL;
	size_t len = 0, out_len = 0;
	struct env e;
	int err = env_command(&e, &f);

	if (!err && e.command == CMD_NONE)
		return about();
	if (!err && e.command == CMD_VERSION)
		return serve_version();
	if (!err)
		err = env_read(&e, &f);
	if (!err)
		err = conf_stdin(STDIN_FILENO, &text, &len, &f);
	if (!err)
		err = conf_parse(&c, text, len, &f);
	if (!err) {
		report_setup(c.log_level, e.container_id);
		err = serve(&c, &e, &out, &out_len, &f);
	}
	if (err)
		report(REPORT_ERROR, "%s", f.msg);
	if (c.root)
		report_flush(c.socket);
	if (err)
		print_text(result_error(c.version, &f));
	else if (out)
		err = print(out, out_len);
	free(out);
	conf_free(&c);
	return err ? 1 : 0;
}
