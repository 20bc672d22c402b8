/* SPDX-License-Identifier: Apache-2.0 */
/* culvert-cni-api: is a pod in the mesh? For the CNI plugin, which runs it when nobody answers at the keeper's socket. The
 * question is a JSON object on stdin, the answer one line on stdout: "in", "out", or why it cannot be told.
 *
 *   {"kubeconfig": path, "namespace", "name", "uid": "" if it is not known, "milliseconds": how long to try,
 *    "selectors": as the plugin's configuration has them; missing: Istio's default, "systemNamespace": text} */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/monotonic.h"
#include "cni_api.h"
#include "node/kube_rule.h"

enum { QUESTION_MAX = 1024 * 1024, PAUSE_MS = 300 };

struct question {
	json_t *text;
	const char *kubeconfig, *namespace, *name, *uid, *system_namespace;
	json_t *selectors;
	int ms;
	struct kube_config api;
	struct kube_rule *rule;
};

/* --- the question -------------------------------------------------------------------------------------------- */

static json_t *stdin_read(void)
{
	char *buf = malloc(QUESTION_MAX);
	size_t used = 0;
	ssize_t n = 1;
	json_t *o;

	while (buf && n > 0 && used < QUESTION_MAX) {
		n = read(STDIN_FILENO, buf + used, QUESTION_MAX - used);
		used += n > 0 ? (size_t)n : 0;
	}
	o = buf ? json_loadb(buf, used, 0, NULL) : NULL;
	free(buf);
	return o;
}

static bool name_is_plain(const char *text)
{
	return text[0] && !text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-")] && text[0] != '.';
}

/* Owed whatever became of question_read(): the token does not stay in memory. */
static void question_free(struct question *q)
{
	kube_rule_free(q->rule);
	kube_config_close(&q->api);
	json_decref(q->text);
}

static int question_read(struct question *q, char why[POD_WHY_MAX])
{
	struct kube_config_sources file = {.kubeconfig = ""};
	struct kube_rule_settings settings = {.selectors = NULL};
	char *selectors = NULL;
	int e;

	*q = (struct question){.text = stdin_read(), .uid = "", .system_namespace = "", .api.ca_fd = -1};
	if (json_unpack(q->text, "{s:s s:s s:s s?s s:i s?o s?s}", "kubeconfig", &q->kubeconfig, "namespace",
			&q->namespace, "name", &q->name, "uid", &q->uid, "milliseconds", &q->ms, "selectors",
			&q->selectors, "systemNamespace", &q->system_namespace) < 0 ||
	    !name_is_plain(q->namespace) || !name_is_plain(q->name)) {
		snprintf(why, POD_WHY_MAX, "the question is not understood");
		return -EINVAL;
	}
	file.kubeconfig = q->kubeconfig;
	e = kube_config_read(&q->api, &file, why);
	if (e)
		return e;
	if (q->selectors)
		selectors = json_dumps(q->selectors, JSON_COMPACT);
	settings.selectors = selectors;
	settings.system_namespace = q->system_namespace[0] ? q->system_namespace : NULL;
	e = kube_rule_new(&q->rule, &settings, why);
	free(selectors);
	return e;
}

/* --- the answer ---------------------------------------------------------------------------------------------- */

/* The object at `path`. -ENOENT, -EACCES, or another error. */
static int object_get(struct question *q, const char *path, uint64_t deadline, json_t **out, char why[POD_WHY_MAX])
{
	char *body = NULL;
	int status = 0, e;
	size_t len = 0;

	e = api_get(&q->api, path, deadline, &status, &body, &len, why);
	if (e)
		return e;
	*out = status == 200 ? json_loadb(body, len, 0, NULL) : NULL;
	free(body);
	if (*out)
		return 0;
	snprintf(why, POD_WHY_MAX, "the API server answers %d", status);
	return status == 404 ? -ENOENT : status == 401 || status == 403 ? -EACCES : -EIO;
}

static int pod_get(struct question *q, uint64_t deadline, struct kube_pod_facts *pod, char why[POD_WHY_MAX])
{
	char path[512], notes[POD_WHY_MAX];
	json_t *o = NULL;
	int e;

	snprintf(path, sizeof path, "/api/v1/namespaces/%s/pods/%s", q->namespace, q->name);
	e = object_get(q, path, deadline, &o, why);
	if (!e)
		e = kube_pod_read(pod, o, q->rule, notes, why);
	json_decref(o);
	/* Of another pod of this name, which is gone or comes: a static pod has two uids. */
	if (!e && q->uid[0] && strcmp(q->uid, pod->uid) != 0 && strcmp(q->uid, pod->mirror) != 0) {
		snprintf(why, POD_WHY_MAX, "the API server knows another pod of this name");
		e = -ENOENT;
	}
	return e;
}

static int decide(struct question *q, uint64_t deadline, bool *in, char why[POD_WHY_MAX])
{
	struct kube_namespace_facts ns = {.name = ""};
	struct kube_pod_facts pod;
	json_t *o = NULL;
	char path[512];
	int e = pod_get(q, deadline, &pod, why);

	snprintf(path, sizeof path, "/api/v1/namespaces/%s", q->namespace);
	if (!e)
		e = object_get(q, path, deadline, &o, why);
	if (!e)
		e = kube_namespace_read(&ns, o, q->rule, why);
	if (!e)
		*in = kube_rule_decide(q->rule, &pod, ns.selected) == KUBE_SELECTED;
	json_decref(o);
	return e;
}

static void pause_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

	nanosleep(&t, NULL);
}

/* A token that is refused will be refused again, for it is a copy; and so is a certificate. */
static int decide_in_time(struct question *q, bool *in, char why[POD_WHY_MAX])
{
	uint64_t end = monotonic_ms() + (uint64_t)(q->ms > 0 ? q->ms : 0), now;
	int e = -ETIMEDOUT;

	while ((now = monotonic_ms()) + PAUSE_MS < end && e && e != -EACCES) {
		uint64_t deadline = now + API_ANSWER_MS < end ? now + API_ANSWER_MS : end - PAUSE_MS / 2;

		e = decide(q, deadline, in, why);
		if (e && e != -EACCES)
			pause_ms(PAUSE_MS);
	}
	return e;
}

int main(void)
{
	char why[POD_WHY_MAX] = "no time to ask";
	struct question q;
	bool in = false;
	int e = question_read(&q, why);

	if (!e)
		e = decide_in_time(&q, &in, why);
	question_free(&q);
	printf("%s\n", e ? why : in ? "in" : "out");
	return e ? 1 : 0;
}
