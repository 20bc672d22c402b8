/* SPDX-License-Identifier: Apache-2.0 */
/* Brings pods that run to where they ought to be. There is one function that looks at a pod and begins whatever is due;
 * everything that happens ends in it: an event, the end of an operation, a pause that is over.
 *
 * In:  its processes' namespace is looked for (many pods at once) - enrolled - annotated. The same look tells
 *      whether a pod that is enrolled still has the namespace that was: a sandbox may have been made anew behind the
 *      CNI's back.
 * Out: un-enrolled. Of a pod that is deleted or has ended only when none of its processes is left: its traffic must not
 *      leave in plaintext because somebody deleted the object, or wrote the phase, first. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/kube_internal.h"

static const char target[] = "kube";

int kube_pod_decide(struct kube *k, const struct kube_pod_facts *facts, enum kube_reason *out)
{
	const struct kube_namespace *ns = kube_namespace_find(k, facts->identity.ns);

	if (!ns)
		return -ENOENT;
	*out = kube_rule_decide(k->o.rule, facts, ns->selected);
	return 0;
}

/* --- failures ------------------------------------------------------------------------------------------- */

static void retry_over(struct timer *t)
{
	kube_pod_look(container_of(t, struct kube_pod, retry));
}

void kube_pod_fails(struct kube_pod *p, const char *why)
{
	p->failed++;
	if (strncmp(p->trouble, why, sizeof p->trouble - 1) != 0)
		log_warn(target, "pod %s/%s: %s; trying again", p->facts.identity.ns, p->facts.identity.name, why);
	snprintf(p->trouble, sizeof p->trouble, "%s", why);
	timer_set(p->kube->loop, &p->retry, kube_pause_ms(p->failed, KUBE_RETRY_MIN_MS, KUBE_RETRY_MAX_MS), retry_over);
	kube_annotate(p);
}

void kube_pod_works(struct kube_pod *p)
{
	p->failed = 0;
	p->trouble[0] = '\0';
}

/* --- in ------------------------------------------------------------------------------------------------- */

static void tried(struct kube *k)
{
	if (!k->tried && k->settled && list_empty(&k->sought) && !k->n_enrolling &&
	    (list_empty(&k->to_enrol) || k->no_tunnel)) {
		k->tried = true;
		log_info(target, "pods that ran already have been looked at: %u, in %u namespaces", k->n_pods,
			 k->n_namespaces);
	}
}

static void go_on(struct task *t)
{
	kube_enrol_more(container_of(t, struct kube, go_on));
}

static void joined(void *arg, int err, const char *why)
{
	struct kube_pod *p = arg;
	struct kube *k = p->kube;
	const struct enrol_pod *e = enrol_find(k->o.enrol, p->facts.uid);

	p->busy = false;
	k->n_enrolling--;
	if (err) {
		kube_pod_fails(p, why[0] ? why : strerror(-err));
	} else if (e && enrol_pod_record(e)->cookie == p->cookie) {
		kube_pod_works(p);
		p->found = p->is_verified = true;
		p->verified = p->facts.sandbox;
	}
	loop_defer(k->loop, &k->go_on, go_on);
	if (!err)
		kube_pod_look(p);
}

/* What annotations ask for, as far as a pod that is enrolled can have it: its tunnel takes no more sockets, so DNS
 * can be captured from its beginning only, or not. */
struct pod_overlay kube_pod_overlay(struct kube_pod *p, const struct enrol_pod *e)
{
	struct pod_overlay o = p->facts.overlay;
	bool without = e && enrol_pod_state(e) == POD_ENROLLED && enrol_pod_sockets(e)->fd[STEER_TCP15053] < 0 &&
		       !enrol_pod_record(e)->foreign;

	if (!without || o.dns_capture == enrol_pod_record(e)->overlay.dns_capture)
		return o;
	o.dns_capture = enrol_pod_record(e)->overlay.dns_capture;
	if (!p->dns_later)
		log_warn(target, "pod %s/%s: DNS capture begins when its sandbox is made anew", p->facts.identity.ns,
			 p->facts.identity.name);
	p->dns_later = true;
	return o;
}

static void enrol(struct kube_pod *p)
{
	const struct pod_identity *id = &p->facts.identity;
	const struct enrol_pod *e = enrol_find(p->kube->o.enrol, p->facts.uid);
	bool same = e && enrol_pod_record(e)->cookie == p->cookie;
	const struct pod_overlay overlay = kube_pod_overlay(p, same ? e : NULL);
	char identity[sizeof *id + 2];
	const struct enrol_request q = {.netns = p->netns,
					.identity = identity,
					.uid = p->facts.uid,
					.overlay = &overlay,
					.deadline_ms = KUBE_ENROL_MS,
					.found = p->found};

	snprintf(identity, sizeof identity, "%s/%s/%s", id->ns, id->name, id->sa);
	p->busy = true;
	p->kube->n_enrolling++;
	enrol_add(p->kube->o.enrol, &q, joined, p);
}

void kube_enrol_more(struct kube *k)
{
	struct zds_client *tunnel = zds_server_newest(k->o.zds);
	bool none = !list_empty(&k->to_enrol) && (!tunnel || !zds_client_live(tunnel));

	if (none && !k->no_tunnel)
		log_warn(target, "no tunnel is connected: pods that are to be enrolled wait for one");
	k->no_tunnel = none;
	if (none)
		list_for_each (l, &k->to_enrol)
			kube_annotate(list_entry(l, struct kube_pod, sought));
	while (!none && !list_empty(&k->to_enrol) && k->n_enrolling < KUBE_ENROLS_MAX) {
		struct kube_pod *p = list_entry(k->to_enrol.next, struct kube_pod, sought);
		enum kube_reason reason;

		list_del(&p->sought);
		if (p->gone || p->facts.terminal || kube_pod_decide(k, &p->facts, &reason) < 0 ||
		    reason != KUBE_SELECTED)
			kube_pod_look(p);
		else
			enrol(p);
	}
	tried(k);
}

static void bring_in(struct kube_pod *p)
{
	const struct enrol_pod *e = enrol_find(p->kube->o.enrol, p->facts.uid);
	bool steady = e && (enrol_pod_state(e) == POD_ENROLLED || enrol_pod_state(e) == POD_RECOVERING);
	const struct pod_overlay overlay = kube_pod_overlay(p, e);

	if (!p->known || p->outside)
		p->found = steady || p->facts.redirection == KUBE_ENABLED || p->facts.redirection == KUBE_PENDING ||
			   (!p->known && p->kube->tried);
	p->known = true;
	p->outside = false;
	if ((e && !steady) || !p->facts.n_ips)
		return;
	if (!e || !p->is_verified || p->verified != p->facts.sandbox ||
	    memcmp(&enrol_pod_record(e)->overlay, &overlay, sizeof overlay) != 0)
		kube_pod_seek(p);
}

/* --- out ------------------------------------------------------------------------------------------------ */

static void left(void *arg, int err, const char *why)
{
	struct kube_pod *p = arg;

	p->busy = false;
	p->is_verified = false;
	if (err && err != -ENOENT)
		kube_pod_fails(p, why[0] ? why : strerror(-err));
	else
		kube_pod_works(p);
	kube_pod_look(p);
}

void kube_pod_end(struct kube_pod *p)
{
	const struct enrol_pod *e = enrol_find(p->kube->o.enrol, p->facts.uid);

	if (!e) {
		kube_pod_look(p);
		return;
	}
	p->busy = true;
	enrol_end(p->kube->o.enrol, e, left, p);
}

static void bring_out(struct kube_pod *p)
{
	const struct enrol_pod *e = enrol_find(p->kube->o.enrol, p->facts.uid);

	p->known = p->outside = true;
	p->found = false;
	list_del(&p->sought);
	if (!e || enrol_pod_state(e) == POD_JOINING || enrol_pod_state(e) == POD_LEAVING || timer_armed(&p->retry))
		return;
	log_info(target, "pod %s/%s leaves the mesh: labels or annotations changed", p->facts.identity.ns,
		 p->facts.identity.name);
	p->busy = true;
	enrol_remove(p->kube->o.enrol, p->facts.uid, left, p);
}

/* Gone, or all its containers have ended. */
static void let_go(struct kube_pod *p)
{
	const struct enrol_pod *e = enrol_find(p->kube->o.enrol, p->facts.uid);

	if (!e && p->gone) {
		kube_pod_free(p);
		return;
	}
	if (e && enrol_pod_state(e) != POD_LEAVING)
		kube_pod_seek(p);
}

/* --- all of them ---------------------------------------------------------------------------------------- */

void kube_pod_look(struct kube_pod *p)
{
	enum kube_reason reason;

	if (!p->kube->settled || p->busy)
		return;
	if (p->missing) {
		kube_pod_ask(p);
		return;
	}
	if (p->gone) {
		let_go(p);
		return;
	}
	if (p->facts.terminal)
		let_go(p);
	else if (kube_pod_decide(p->kube, &p->facts, &reason) < 0)
		return; /* when its namespace comes, it is looked at */
	else if (reason == KUBE_SELECTED)
		bring_in(p);
	else
		bring_out(p);
	kube_annotate(p);
}

void kube_look_all(struct kube *k)
{
	list_for_each_safe (l, tmp, &k->pods)
		kube_pod_look(list_entry(l, struct kube_pod, link));
}

void kube_look_in(struct kube *k, const char *ns)
{
	list_for_each_safe (l, tmp, &k->pods) {
		struct kube_pod *p = list_entry(l, struct kube_pod, link);

		if (!strcmp(p->facts.identity.ns, ns))
			kube_pod_look(p);
	}
}

void kube_enrol_changed(void *arg, const char *uid)
{
	struct kube *k = arg;
	struct kube_pod *p = kube_pod_find(k, uid);

	if (p)
		kube_pod_look(p);
}

/* Of an earlier keeper, and not in the lists: it may have gone meanwhile. */
static void on_enrolled(void *arg, const struct enrol_pod *e)
{
	const struct pod_record *r = enrol_pod_record(e);
	struct kube_pod_facts facts = {.identity = r->identity, .overlay = r->overlay};
	struct kube *k = arg;
	char by_hand[POD_UID_MAX];
	struct kube_pod *p;

	pod_uid_make(by_hand, r->cookie);
	if (!strcmp(by_hand, r->uid) || kube_pod_find(k, r->uid))
		return;
	memcpy(facts.uid, r->uid, sizeof facts.uid);
	p = kube_pod_new(k, &facts);
	if (p)
		p->missing = true;
}

void kube_settle(struct kube *k)
{
	k->settled = true;
	enrol_each(k->o.enrol, on_enrolled, k);
	kube_look_all(k);
	tried(k);
}
