/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the questions of the CNI socket. That a pod belongs to the mesh is answered from the cache at once. Else the pod,
 * and then its namespace, is asked for by name, and again after short pauses until the time is over: a pod about which
 * nobody can tell must not start. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/kube_internal.h"

enum { PAUSE_MIN_MS = 50, PAUSE_MAX_MS = 400 };

static const char target[] = "kube";

struct question {
	struct list link; /* of kube.questions */
	struct kube *kube;
	struct cni_question *asked;
	char ns[POD_LABEL_MAX], name[POD_NAME_MAX], uid[POD_UID_MAX];
	struct kube_get get;
	bool pod_told, namespace_told; /* by the API server, since this was asked */
	bool late;		       /* it has not told in time */
	struct timer limit, pause;
	unsigned failed;
	char why[POD_WHY_MAX];
};

static void question_free(struct question *q)
{
	timer_cancel(&q->limit);
	timer_cancel(&q->pause);
	kube_call_cancel(q->get.call);
	list_del(&q->link);
	free(q);
}

void kube_questions_free(struct kube *k)
{
	list_for_each_safe (l, tmp, &k->questions)
		question_free(list_entry(l, struct question, link));
}

static void answer(struct question *q, const struct cni_decision *d)
{
	struct cni_question *asked = q->asked;

	question_free(q);
	cni_decided(asked, d);
}

static void answer_why(struct question *q, enum cni_verdict verdict, const char *why)
{
	const struct cni_decision d = {.verdict = verdict, .why = why};
	struct cni_question *asked = q->asked;

	cni_decided(asked, &d);
	question_free(q);
}

/* A watch may be behind and not know it, and the connections of a pod that started outside the mesh stay there: that no
 * selector matches is believed when the API server said so after the question came. If it does not answer in time, the
 * watch's word counts after all: pods outside the mesh start also while the API server is away. */
static bool is_sure(const struct question *q, enum kube_reason reason)
{
	if (reason != KUBE_NOT_SELECTED || (q->pod_told && q->namespace_told))
		return true;
	if (q->late)
		log_warn(target,
			 "pod %s/%s starts outside the mesh, as the API server told earlier: now it does not: %s",
			 q->ns, q->name, q->why);
	return q->late;
}

/* From the cache. False: something is not known, or not sure. */
static bool decide_known(struct question *q)
{
	struct kube_pod *p = kube_pod_named(q->kube, q->ns, q->name, q->uid);
	struct cni_decision d = {.verdict = CNI_NOT_IN_MESH};
	enum kube_reason reason;

	if (!p || kube_pod_decide(q->kube, &p->facts, &reason) < 0 || !is_sure(q, reason))
		return false;
	log_debug(target, "pod %s/%s: %s", q->ns, q->name, kube_reason_text(reason));
	if (reason == KUBE_SELECTED)
		d = (struct cni_decision){.verdict = CNI_ENROL,
					  .sa = p->facts.identity.sa,
					  .uid = p->facts.uid,
					  .overlay = p->facts.overlay};
	answer(q, &d);
	return true;
}

static void ask(struct question *q);

static void pause_over(struct timer *t)
{
	struct question *q = container_of(t, struct question, pause);

	if (!decide_known(q))
		ask(q);
}

static void later(struct question *q, const char *why)
{
	snprintf(q->why, sizeof q->why, "%s", why);
	timer_set(q->kube->loop, &q->pause, kube_pause_ms(++q->failed, PAUSE_MIN_MS, PAUSE_MAX_MS), pause_over);
}

static void pod_came(void *arg, const struct kube_reply *r)
{
	struct question *q = arg;
	struct kube_pod *p = NULL;
	char why[POD_WHY_MAX];
	int e;

	q->get.call = NULL;
	e = kube_get_pod(q->kube, &q->get, r, &p, why);
	if (e == -ENOENT) {
		answer_why(q, CNI_UNKNOWN_POD, why);
	} else if (e) {
		later(q, why);
	} else if (!kube_pod_is(p, q->uid)) {
		answer_why(q, CNI_UNKNOWN_POD, "the pod of this name is another, by its uid");
	} else if (p != kube_pod_named(q->kube, q->ns, q->name, q->uid)) {
		later(q, "the API server told of a pod that is gone");
	} else {
		q->pod_told = true;
		if (!decide_known(q))
			ask(q);
	}
}

static void namespace_came(void *arg, const struct kube_reply *r)
{
	struct question *q = arg;
	char why[POD_WHY_MAX];

	q->get.call = NULL;
	if (kube_get_namespace(q->kube, &q->get, r, why) < 0) {
		later(q, why);
		return;
	}
	q->namespace_told = true;
	if (!decide_known(q))
		later(q, "the pod went while its namespace was asked for");
}

/* For whatever is not known or not sure: the pod first. */
static void ask(struct question *q)
{
	bool pod = !q->pod_told || !kube_pod_named(q->kube, q->ns, q->name, q->uid);
	char why[POD_WHY_MAX];

	if (kube_get_begin(&q->get, q->kube, q->ns, pod ? q->name : NULL, pod ? pod_came : namespace_came, q, why) < 0)
		later(q, why);
}

static void too_late(struct timer *t)
{
	struct question *q = container_of(t, struct question, limit);
	char why[POD_WHY_MAX + 64];

	if (!q->why[0])
		snprintf(q->why, sizeof q->why, "the API server has not answered yet");
	q->late = true;
	if (decide_known(q))
		return;
	snprintf(why, sizeof why, "nobody told within %d ms whether it is in the mesh: %s", KUBE_DECIDE_MS, q->why);
	answer_why(q, CNI_UNDECIDED, why);
}

static void decide(void *arg, const struct cni_request *pod, struct cni_question *asked)
{
	char identity[POD_LABEL_MAX + POD_NAME_MAX + 8], why[POD_WHY_MAX];
	struct cni_decision d = {.verdict = CNI_UNKNOWN_POD, .why = why};
	struct kube *k = arg;
	struct question *q = calloc(1, sizeof *q);
	struct pod_identity id;

	snprintf(why, sizeof why, "out of memory");
	snprintf(identity, sizeof identity, "%s/%s/x", pod->ns, pod->name);
	if (!q || pod_identity_parse(&id, identity, why) < 0) { /* names go into a path */
		free(q);
		cni_decided(asked, &d);
		return;
	}
	q->kube = k;
	q->asked = asked;
	list_init(&q->link);
	list_add_tail(&k->questions, &q->link);
	snprintf(q->ns, sizeof q->ns, "%s", pod->ns);
	snprintf(q->name, sizeof q->name, "%s", pod->name);
	snprintf(q->uid, sizeof q->uid, "%s", pod->uid);
	if (decide_known(q))
		return;
	timer_set(k->loop, &q->limit, KUBE_DECIDE_MS, too_late);
	ask(q);
}

struct cni_decider kube_decider(struct kube *k)
{
	return (struct cni_decider){decide, kube_unready, k};
}
