/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the questions about pods that the watch does not answer: where their namespaces are, by one look at /proc for
 * many pods, and whether those that a list lacks are gone, by asking for each by name. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/monotonic.h"
#include "node/kube_internal.h"
#include "node/kube_netns.h"

enum { BATCH_MAX = 512, BATCH_SHARE = 10 /* a look takes no more than a tenth of the time */ };

static const char target[] = "kube";

/* --- the look at /proc ---------------------------------------------------------------------------------- */

static void take_ended(struct kube_pod *p, const struct kube_sought *s)
{
	if (s->lives)
		kube_pod_fails(p, p->gone ? "it is deleted, but processes of it live on; it stays steered"
					  : "it has ended, but processes of it live on; it stays steered");
	else if (s->unsure)
		kube_pod_fails(p, "whether processes of it live on cannot be told; it stays steered");
	else
		kube_pod_end(p);
}

static void take_found(struct kube_pod *p, const struct kube_sought *s)
{
	struct kube *k = p->kube;
	const struct enrol_pod *e = enrol_find(k->o.enrol, p->facts.uid);
	const struct pod_record *r = e ? enrol_pod_record(e) : NULL;
	const struct pod_overlay overlay = kube_pod_overlay(p, e);

	if (p->gone || p->facts.terminal) {
		take_ended(p, s);
		return;
	}
	if (!s->cookie && !e) {
		kube_pod_fails(p, s->lives ? "none of its processes is in a namespace with its address"
					   : "none of its processes was found");
		return;
	}
	if (!s->cookie || (r && r->cookie == s->cookie)) {
		p->is_verified = true;
		p->verified = p->facts.sandbox;
	}
	if (!s->cookie || (r && r->cookie == s->cookie && !memcmp(&r->overlay, &overlay, sizeof overlay))) {
		kube_pod_works(p);
		kube_annotate(p);
		return;
	}
	if (r && r->cookie != s->cookie)
		log_warn(target, "pod %s/%s has a sandbox that nobody told of: it is enrolled anew",
			 p->facts.identity.ns, p->facts.identity.name);
	p->cookie = s->cookie;
	memcpy(p->netns, s->netns, sizeof p->netns);
	list_add_tail(&k->to_enrol, &p->sought);
}

static unsigned batch_take(struct kube *k, struct kube_pod *pod[BATCH_MAX], struct kube_sought *s)
{
	unsigned n = 0;

	while (n < BATCH_MAX && !list_empty(&k->sought)) {
		struct kube_pod *p = list_entry(k->sought.next, struct kube_pod, sought);

		list_del(&p->sought);
		s[n] = (struct kube_sought){.uid = p->facts.mirror[0] ? p->facts.mirror : p->facts.uid,
					    .ip = p->facts.ip,
					    .n_ips = p->facts.n_ips,
					    .own_users = p->facts.own_users};
		pod[n++] = p;
	}
	return n;
}

static void batch_over(struct timer *t)
{
	struct kube *k = container_of(t, struct kube, batch);
	struct kube_sought *s = calloc(BATCH_MAX, sizeof *s);
	struct kube_pod *pod[BATCH_MAX];
	uint64_t before = monotonic_us();
	unsigned n = s ? batch_take(k, pod, s) : 0;
	int e = s ? kube_netns_find(k->o.proc, s, n) : -ENOMEM;

	k->batch_gap_ms = (monotonic_us() - before) * BATCH_SHARE / 1000;
	for (unsigned i = 0; i < n; i++) {
		if (e)
			kube_pod_fails(pod[i], "the host's /proc cannot be read");
		else
			take_found(pod[i], &s[i]);
	}
	free(s);
	if (!list_empty(&k->sought))
		timer_set(k->loop, &k->batch, KUBE_BATCH_MS + k->batch_gap_ms, batch_over);
	kube_enrol_more(k);
}

void kube_pod_seek(struct kube_pod *p)
{
	struct kube *k = p->kube;

	if (!list_empty(&p->sought) || timer_armed(&p->retry))
		return;
	list_add_tail(&k->sought, &p->sought);
	if (!timer_armed(&k->batch))
		timer_set(k->loop, &k->batch, KUBE_BATCH_MS + k->batch_gap_ms, batch_over);
}

/* --- those that a list lacks ---------------------------------------------------------------------------- */

static void answered(void *arg, const struct kube_reply *r)
{
	struct kube_pod *p = arg, *now = NULL;
	char why[POD_WHY_MAX];
	int e;

	p->get.call = NULL;
	if (!p->missing) { /* the watch has brought it meanwhile */
		kube_pod_look(p);
		return;
	}
	e = kube_get_pod(p->kube, &p->get, r, &now, why);
	if (e && e != -ENOENT) {
		kube_pod_fails(p, why);
		return;
	}
	p->gone = now != p;
	p->missing = false;
	kube_pod_works(p);
	kube_pod_look(p);
	if (now && now != p)
		kube_pod_look(now);
}

void kube_pod_ask(struct kube_pod *p)
{
	const struct pod_identity *id = &p->facts.identity;
	char why[POD_WHY_MAX];

	if (p->get.call || timer_armed(&p->retry))
		return;
	if (kube_get_begin(&p->get, p->kube, id->ns, id->name, answered, p, why) < 0)
		kube_pod_fails(p, why);
}
