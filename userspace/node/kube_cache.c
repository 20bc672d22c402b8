/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the entries of pods and namespaces. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/kube_internal.h"
#include "state/hash.h"

static const char target[] = "kube";

/* A watch that was behind tells of what an answer was ahead of. What is listed counts always: versions of a server that
 * was restored may begin anew. */
static bool is_old(uint64_t version, uint64_t known, bool listing)
{
	return version && version < known && !listing;
}

/* --- pods ----------------------------------------------------------------------------------------------- */

struct kube_pod *kube_pod_find(struct kube *k, const char *uid)
{
	list_for_each (l, &k->pods) {
		struct kube_pod *p = list_entry(l, struct kube_pod, link);

		if (!strcmp(p->facts.uid, uid))
			return p;
	}
	return NULL;
}

/* The runtime and the kubelet know a static pod by another uid. */
bool kube_pod_is(const struct kube_pod *p, const char *uid)
{
	return !uid[0] || !strcmp(p->facts.uid, uid) || !strcmp(p->facts.mirror, uid);
}

struct kube_pod *kube_pod_named(struct kube *k, const char *ns, const char *name, const char *uid)
{
	struct kube_pod *newest = NULL;

	list_for_each (l, &k->pods) {
		struct kube_pod *p = list_entry(l, struct kube_pod, link);

		if (!p->gone && !p->missing && kube_pod_is(p, uid) && !strcmp(p->facts.identity.name, name) &&
		    !strcmp(p->facts.identity.ns, ns))
			newest = p;
	}
	return newest;
}

struct kube_pod *kube_pod_new(struct kube *k, const struct kube_pod_facts *facts)
{
	struct kube_pod *p = k->n_pods < KUBE_PODS_MAX ? calloc(1, sizeof *p) : NULL;

	if (!p) {
		if (!k->too_many++)
			log_error(target, "more than %d pods on this node, or no memory: %s/%s is not looked at",
				  KUBE_PODS_MAX, facts->identity.ns, facts->identity.name);
		return NULL;
	}
	p->kube = k;
	p->facts = *facts;
	list_init(&p->link);
	list_init(&p->sought);
	list_init(&p->patching);
	list_add_tail(&k->pods, &p->link);
	k->n_pods++;
	return p;
}

void kube_pod_free(struct kube_pod *p)
{
	timer_cancel(&p->retry);
	timer_cancel(&p->patch_retry);
	kube_call_cancel(p->get.call);
	if (p->patch) {
		kube_call_cancel(p->patch);
		p->kube->n_patching--;
	}
	list_del(&p->sought);
	list_del(&p->patching);
	list_del(&p->link);
	p->kube->n_pods--;
	free(p);
}

/* Every pod's status has them. */
static void node_learn(struct kube *k, const json_t *pod)
{
	struct addr a[STEER_NODE_ADDRS_MAX];
	unsigned n = k->node_known ? 0 : kube_node_read(a, pod);

	if (!n)
		return;
	k->node_known = true;
	enrol_node(k->o.enrol, a, n);
}

struct kube_pod *kube_pod_take(struct kube *k, const json_t *o, bool *is_new, char why[POD_WHY_MAX])
{
	struct kube_pod_facts facts;
	char notes[POD_WHY_MAX];
	struct kube_pod *p;

	if (kube_pod_read(&facts, o, k->o.rule, notes, why) < 0) {
		k->bad++;
		return NULL;
	}
	p = kube_pod_find(k, facts.uid);
	if (is_new)
		*is_new = !p;
	if (notes[0] && (!p || memcmp(&p->facts.overlay, &facts.overlay, sizeof facts.overlay) != 0))
		log_warn(target, "pod %s/%s: %s", facts.identity.ns, facts.identity.name, notes);
	if (!p)
		p = kube_pod_new(k, &facts);
	else if (!is_old(facts.version, p->facts.version, k->listing_pods))
		p->facts = facts;
	if (!p) {
		snprintf(why, POD_WHY_MAX, "too many pods");
		return NULL;
	}
	p->seen = k->pod_list;
	p->missing = false;
	node_learn(k, o);
	return p;
}

/* --- namespaces ----------------------------------------------------------------------------------------- */

static struct kube_namespace **slot(struct kube *k, const char *name)
{
	struct kube_namespace **at = &k->bucket[hash_text(0, name) % KUBE_BUCKETS];

	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	return at;
}

struct kube_namespace *kube_namespace_find(struct kube *k, const char *name)
{
	return *slot(k, name);
}

struct kube_namespace *kube_namespace_put(struct kube *k, const struct kube_namespace_facts *facts)
{
	struct kube_namespace **at = slot(k, facts->name), *n = *at;
	bool old = n && is_old(facts->version, n->version, k->listing_namespaces);
	bool changes = !n || (!old && n->selected != facts->selected);

	if (!n) {
		size_t len = strlen(facts->name) + 1;

		*at = k->n_namespaces < KUBE_NAMESPACES_MAX ? calloc(1, sizeof **at + len) : NULL;
		if (!*at) {
			if (!k->too_many++)
				log_error(target, "more than %d namespaces, or no memory: %s is not known",
					  KUBE_NAMESPACES_MAX, facts->name);
			return NULL;
		}
		memcpy((*at)->name, facts->name, len);
		k->n_namespaces++;
	}
	n = *at;
	if (!old) {
		n->selected = facts->selected;
		n->version = facts->version;
	}
	n->seen = k->namespace_list;
	if (changes)
		kube_look_in(k, n->name);
	return n;
}

static void drop_at(struct kube *k, struct kube_namespace **at)
{
	struct kube_namespace *n = *at;

	*at = n->next;
	k->n_namespaces--;
	free(n);
}

void kube_namespace_drop(struct kube *k, const char *name)
{
	struct kube_namespace **at = slot(k, name);

	if (*at)
		drop_at(k, at);
}

void kube_namespaces_sweep(struct kube *k)
{
	for (unsigned i = 0; i < KUBE_BUCKETS; i++)
		for (struct kube_namespace **at = &k->bucket[i]; *at;) {
			if ((*at)->seen != k->namespace_list)
				drop_at(k, at);
			else
				at = &(*at)->next;
		}
}

void kube_namespaces_free(struct kube *k)
{
	for (unsigned i = 0; i < KUBE_BUCKETS; i++)
		while (k->bucket[i])
			drop_at(k, &k->bucket[i]);
}
