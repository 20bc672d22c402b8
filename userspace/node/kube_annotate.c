/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the status annotation: istiod tells other nodes to use HBONE for pods that have "enabled". It is written after
 * the pod is steered and the tunnel knows it, never before, and waited for by nobody. A patch names the pod's uid, so
 * that it cannot reach a successor of the same name. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/kube_internal.h"

static const char target[] = "kube";

static const char *const values[] = {
	[KUBE_ENABLED] = "\"enabled\"", [KUBE_PENDING] = "\"pending\"", [KUBE_ABSENT] = "null"};

/* What it ought to be, given what it is. */
static enum kube_redirection truth(const struct kube_pod *p)
{
	const struct enrol_pod *e = enrol_find(p->kube->o.enrol, p->facts.uid);
	enum kube_redirection is = p->facts.redirection;
	enum kube_reason reason = KUBE_NOT_SELECTED;

	if (e && enrol_pod_state(e) == POD_ENROLLED)
		return KUBE_ENABLED;
	if (e) /* on its way in, out or back: nothing is certain */
		return is;
	if (p->facts.terminal && is != KUBE_OTHER)
		return KUBE_ABSENT;
	if (is == KUBE_OTHER || is == KUBE_ABSENT || kube_pod_decide(p->kube, &p->facts, &reason) < 0)
		return is;
	/* It says that it is redirected, and is not. */
	if (reason != KUBE_SELECTED)
		return KUBE_ABSENT;
	return p->failed || p->kube->no_tunnel ? KUBE_PENDING : is;
}

static void next_patches(struct kube *k)
{
	while (!list_empty(&k->to_patch) && k->n_patching < KUBE_PATCHES_MAX) {
		struct kube_pod *p = list_entry(k->to_patch.next, struct kube_pod, patching);

		list_del(&p->patching);
		kube_annotate(p);
	}
}

static void again(struct timer *t)
{
	kube_annotate(container_of(t, struct kube_pod, patch_retry));
}

static void patch_failed(struct kube_pod *p, const char *why, unsigned after_ms)
{
	unsigned ms = kube_pause_ms(++p->patch_failed, KUBE_RETRY_MIN_MS, KUBE_RETRY_MAX_MS);

	if (p->patch_failed == 1)
		log_warn(target, "pod %s/%s: cannot write its annotation: %s; trying again", p->facts.identity.ns,
			 p->facts.identity.name, why);
	after_ms = after_ms < KUBE_RETRY_AFTER_MS ? after_ms : KUBE_RETRY_AFTER_MS;
	timer_set(p->kube->loop, &p->patch_retry, ms > after_ms ? ms : after_ms, again);
}

static void patched(void *arg, const struct kube_reply *r)
{
	struct kube_pod *p = arg;
	struct kube *k = p->kube;

	p->patch = NULL;
	k->n_patching--;
	if (!r->err && r->status == 404) { /* it is gone; the watch will say so */
		p->patch_failed = 0;
	} else if (r->err || r->status / 100 != 2) {
		patch_failed(p, r->why, r->retry_after_ms);
	} else {
		p->patch_failed = 0;
		p->facts.redirection = p->patched;
		p->patched_ms = loop_now(k->loop);
		log_debug(target, "pod %s/%s: annotation %s", p->facts.identity.ns, p->facts.identity.name,
			  values[p->patched]);
		kube_annotate(p); /* it may have changed meanwhile */
	}
	next_patches(k);
}

static void patch_send(struct kube_pod *p)
{
	char path[KUBE_PATH_MAX], body[512], why[POD_WHY_MAX];
	const struct kube_request rq = {.method = "PATCH",
					.path = path,
					.body = body,
					.body_max = KUBE_LINE_MAX,
					.deadline_ms = KUBE_PATCH_MS,
					.done = patched,
					.arg = p};

	/* Names and uids were checked: nothing in them needs escaping. */
	snprintf(path, sizeof path, "/api/v1/namespaces/%s/pods/%s/status", p->facts.identity.ns,
		 p->facts.identity.name);
	snprintf(body, sizeof body, "{\"metadata\":{\"uid\":\"%s\",\"annotations\":{\"" KUBE_REDIRECTION "\":%s}}}",
		 p->facts.uid, values[p->patched]);
	if (kube_call_new(&p->patch, p->kube->api, &rq, why) < 0) {
		p->patch = NULL;
		patch_failed(p, why, 0);
		return;
	}
	p->kube->n_patching++;
}

void kube_annotate(struct kube_pod *p)
{
	struct kube *k = p->kube;
	enum kube_redirection want = p->gone || p->missing ? p->facts.redirection : truth(p);
	uint64_t since = loop_now(k->loop) - p->patched_ms;

	if (p->patch || !k->settled)
		return; /* its end, or the lists, come back to it */
	if (want == p->facts.redirection) {
		list_del(&p->patching);
		timer_cancel(&p->patch_retry);
		return;
	}
	if (timer_armed(&p->patch_retry))
		return;
	if (p->patched_ms && since < KUBE_PATCH_GAP_MS) {
		timer_set(k->loop, &p->patch_retry, KUBE_PATCH_GAP_MS - since, again);
		return;
	}
	if (k->n_patching >= KUBE_PATCHES_MAX) {
		if (list_empty(&p->patching))
			list_add_tail(&k->to_patch, &p->patching);
		return;
	}
	list_del(&p->patching);
	p->patched = want;
	patch_send(p);
}
