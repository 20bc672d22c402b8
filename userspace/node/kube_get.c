/* SPDX-License-Identifier: Apache-2.0 */
/* Owns questions by name, and decides what of their answers goes into the cache. The watch of pods is of this node
 * alone, but a name may meanwhile be another node's: who takes such a pod never hears of its end. And an answer may come
 * after a watch has told of something newer. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node/kube_internal.h"

int kube_get_begin(struct kube_get *g, struct kube *k, const char *ns, const char *name,
		   void (*done)(void *arg, const struct kube_reply *r), void *arg, char why[POD_WHY_MAX])
{
	char path[KUBE_PATH_MAX];
	const struct kube_request rq = {.method = "GET",
					.path = path,
					.body_max = KUBE_LINE_MAX,
					.deadline_ms = KUBE_GET_MS,
					.done = done,
					.arg = arg};

	/* Names were checked: nothing in them needs escaping. */
	snprintf(path, sizeof path, "/api/v1/namespaces/%s%s%s", ns, name ? "/pods/" : "", name ? name : "");
	g->since = k->told;
	return kube_call_new(&g->call, k->api, &rq, why);
}

static int object_read(json_t **out, const struct kube_reply *r, char why[POD_WHY_MAX])
{
	json_t *o;

	if (r->err || r->status != 200) {
		snprintf(why, POD_WHY_MAX, "%s", r->why);
		return r->err ? r->err : r->status == 404 ? -ENOENT : -EIO;
	}
	o = json_loadb(r->body, r->len, 0, NULL);
	if (!o) {
		snprintf(why, POD_WHY_MAX, "the API server's answer cannot be read");
		return -EBADMSG;
	}
	*out = o;
	return 0;
}

static const char *text_in(const json_t *o, const char *part, const char *name)
{
	return json_string_value(json_object_get(json_object_get(o, part), name));
}

static int told_since(char why[POD_WHY_MAX])
{
	snprintf(why, POD_WHY_MAX, "it changed while the API server was asked");
	return -EAGAIN;
}

static int pod_take(struct kube *k, const struct kube_get *g, const json_t *o, struct kube_pod **out,
		    char why[POD_WHY_MAX])
{
	const char *node = text_in(o, "spec", "nodeName"), *uid = text_in(o, "metadata", "uid");
	struct kube_pod *p = uid ? kube_pod_find(k, uid) : NULL;

	if (!node || strcmp(node, k->o.node) != 0)
		return -ENOENT;
	if ((p ? p->told : k->pod_gone) > g->since)
		return told_since(why);
	p = kube_pod_take(k, o, NULL, why);
	if (!p)
		return -EBADMSG;
	*out = p;
	return 0;
}

int kube_get_pod(struct kube *k, const struct kube_get *g, const struct kube_reply *r, struct kube_pod **out,
		 char why[POD_WHY_MAX])
{
	json_t *o = NULL;
	int e = object_read(&o, r, why);

	if (!e)
		e = pod_take(k, g, o, out, why);
	if (e == -ENOENT)
		snprintf(why, POD_WHY_MAX, "the API server knows no such pod on this node");
	json_decref(o);
	return e;
}

static int namespace_take(struct kube *k, const struct kube_get *g, const json_t *o, char why[POD_WHY_MAX])
{
	struct kube_namespace_facts facts;
	const struct kube_namespace *known;

	if (kube_namespace_read(&facts, o, k->o.rule, why) < 0)
		return -EBADMSG;
	known = kube_namespace_find(k, facts.name);
	if ((known ? known->told : k->namespace_gone) > g->since)
		return told_since(why);
	if (kube_namespace_put(k, &facts))
		return 0;
	snprintf(why, POD_WHY_MAX, "too many namespaces");
	return -ENOMEM;
}

int kube_get_namespace(struct kube *k, const struct kube_get *g, const struct kube_reply *r, char why[POD_WHY_MAX])
{
	json_t *o = NULL;
	int e = object_read(&o, r, why);

	if (!e)
		e = namespace_take(k, g, o, why);
	json_decref(o);
	return e;
}
