/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the two watches and what they bring into the cache. */
#include "node/kube.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/kube_internal.h"

static const char target[] = "kube";

/* --- pods ----------------------------------------------------------------------------------------------- */

static void bad_object(struct kube *k, const char *what, const json_t *o, const char *why)
{
	const json_t *meta = json_object_get(o, "metadata");
	const char *ns = json_string_value(json_object_get(meta, "namespace"));
	const char *name = json_string_value(json_object_get(meta, "name"));

	log_error(target, "%s %.64s%s%.256s cannot be read, and is left as it is: %s", what, ns ? ns : "",
		  ns ? "/" : "", name ? name : "(without a name)", why);
}

static void pods_begin(void *arg)
{
	struct kube *k = arg;

	k->pod_list++;
	k->listing_pods = true;
}

static void pod_put(void *arg, const json_t *o)
{
	struct kube *k = arg;
	char why[POD_WHY_MAX];
	bool is_new = false;
	struct kube_pod *p = kube_pod_take(k, o, &is_new, why);

	if (!p) {
		bad_object(k, "pod", o, why);
		return;
	}
	k->added += is_new;
	k->updated += !is_new;
	p->told = ++k->told;
	timer_cancel(&p->retry);
	kube_pod_look(p);
}

static void pod_del(void *arg, const json_t *o)
{
	struct kube *k = arg;
	const char *uid = json_string_value(json_object_get(json_object_get(o, "metadata"), "uid"));
	struct kube_pod *p = uid ? kube_pod_find(k, uid) : NULL;

	k->deleted++;
	k->pod_gone = ++k->told;
	if (!p)
		return;
	p->told = k->told;
	p->gone = true;
	p->missing = false;
	timer_cancel(&p->retry);
	kube_pod_look(p);
}

static void pods_end(void *arg)
{
	struct kube *k = arg;
	struct kube_watch_status s;

	k->listing_pods = false;
	list_for_each (l, &k->pods) {
		struct kube_pod *p = list_entry(l, struct kube_pod, link);

		p->missing |= !p->gone && p->seen != k->pod_list;
	}
	if (k->namespace_watch)
		kube_watch_status(k->namespace_watch, &s);
	if (k->settled)
		kube_look_all(k);
	else if (k->namespace_watch && s.listed)
		kube_settle(k);
}

/* --- namespaces ----------------------------------------------------------------------------------------- */

static void namespaces_begin(void *arg)
{
	struct kube *k = arg;

	k->namespace_list++;
	k->listing_namespaces = true;
}

static void namespace_put(void *arg, const json_t *o)
{
	struct kube *k = arg;
	struct kube_namespace_facts facts;
	struct kube_namespace *n;
	char why[POD_WHY_MAX];
	bool known;

	if (kube_namespace_read(&facts, o, k->o.rule, why) < 0) {
		k->bad++;
		bad_object(k, "namespace", o, why);
		return;
	}
	known = kube_namespace_find(k, facts.name) != NULL;
	k->added += !known;
	k->updated += known;
	n = kube_namespace_put(k, &facts);
	if (n)
		n->told = ++k->told;
}

static void namespace_del(void *arg, const json_t *o)
{
	struct kube *k = arg;
	const char *name = json_string_value(json_object_get(json_object_get(o, "metadata"), "name"));

	k->deleted++;
	k->namespace_gone = ++k->told;
	if (name)
		kube_namespace_drop(k, name);
}

static void namespaces_end(void *arg)
{
	struct kube *k = arg;
	struct kube_watch_status s;

	k->listing_namespaces = false;
	k->namespace_gone = ++k->told;
	kube_namespaces_sweep(k);
	kube_watch_status(k->pod_watch, &s);
	if (!k->settled && s.listed)
		kube_settle(k);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

static int watches_open(struct kube *k)
{
	const struct kube_watch_options pods = {"pods", "/api/v1/pods", k->pod_query, true, k->o.silence_ms};
	const struct kube_watch_options namespaces = {"namespaces", "/api/v1/namespaces", "", false, k->o.silence_ms};
	const struct kube_watch_handler on_pods = {pods_begin, pod_put, pod_del, pods_end, k};
	const struct kube_watch_handler on_namespaces = {namespaces_begin, namespace_put, namespace_del, namespaces_end,
							 k};

	k->pod_watch = kube_watch_new(k->loop, k->api, &pods, &on_pods);
	if (k->pod_watch)
		k->namespace_watch = kube_watch_new(k->loop, k->api, &namespaces, &on_namespaces);
	return k->namespace_watch ? 0 : -ENOMEM;
}

int kube_open(struct kube **out, struct loop *l, const struct kube_options *o, char why[POD_WHY_MAX])
{
	struct kube *k = calloc(1, sizeof *k);
	char node[3 * 254 + 4];
	int e = -ENOMEM;

	snprintf(why, POD_WHY_MAX, "out of memory");
	if (!k)
		return e;
	k->loop = l;
	k->o = *o;
	list_init(&k->pods);
	list_init(&k->sought);
	list_init(&k->to_enrol);
	list_init(&k->to_patch);
	list_init(&k->questions);
	if (kube_escape(node, sizeof node, o->node) == 0 &&
	    snprintf(k->pod_query, sizeof k->pod_query, "fieldSelector=spec.nodeName%%3D%s", node) <
		    (int)sizeof k->pod_query)
		e = kube_api_open(&k->api, l, o->api, why);
	if (!e)
		e = watches_open(k);
	if (e) {
		kube_close(k);
		return e;
	}
	enrol_watch(o->enrol, kube_enrol_changed, k);
	*out = k;
	return 0;
}

void kube_close(struct kube *k)
{
	if (!k)
		return;
	kube_questions_free(k);
	kube_watch_free(k->pod_watch);
	kube_watch_free(k->namespace_watch);
	list_for_each_safe (l, tmp, &k->pods)
		kube_pod_free(list_entry(l, struct kube_pod, link));
	kube_namespaces_free(k);
	timer_cancel(&k->batch);
	task_cancel(&k->go_on);
	kube_api_close(k->api);
	free(k);
}

void kube_tunnel_came(struct kube *k)
{
	kube_enrol_more(k);
}

/* --- status --------------------------------------------------------------------------------------------- */

/* What does not work now, or NULL. */
static const char *trouble_of(const struct kube *k)
{
	struct kube_watch_status pods, namespaces;

	kube_watch_status(k->pod_watch, &pods);
	kube_watch_status(k->namespace_watch, &namespaces);
	if (pods.trouble[0] || namespaces.trouble[0])
		return pods.trouble[0] ? pods.trouble : namespaces.trouble;
	return k->settled ? NULL : "the lists of pods and namespaces have not come yet";
}

/* Once the lists were there the cache decides, also while the API server is away: that is no reason to call the node
 * unready. */
const char *kube_unready(void *arg)
{
	const struct kube *k = arg;

	return k->settled ? NULL : trouble_of(k);
}

void kube_status(const struct kube *k, struct kube_status *out)
{
	struct kube_watch_status pods, namespaces;
	const char *trouble = trouble_of(k);

	kube_watch_status(k->pod_watch, &pods);
	kube_watch_status(k->namespace_watch, &namespaces);
	*out = (struct kube_status){.ready = k->settled && k->tried,
				    .connected = pods.watching && namespaces.watching,
				    .pods = k->n_pods,
				    .namespaces = k->n_namespaces,
				    .lists = pods.lists + namespaces.lists,
				    .failures = pods.failures + namespaces.failures,
				    .added = k->added,
				    .updated = k->updated,
				    .deleted = k->deleted,
				    .bad = k->bad};
	snprintf(out->trouble, sizeof out->trouble, "%s",
		 trouble	? trouble
		 : k->too_many	? "there are more pods or namespaces than can be looked at"
		 : k->no_tunnel ? "pods wait for a tunnel"
				: "");
	list_for_each (l, &k->pods) {
		const struct kube_pod *p = list_entry(l, struct kube_pod, link);
		const struct enrol_pod *e = enrol_find(k->o.enrol, p->facts.uid);
		bool in = p->known && !p->outside && !p->gone && !p->facts.terminal;

		out->selected += in;
		out->waiting += in && (!e || enrol_pod_state(e) != POD_ENROLLED);
	}
}
