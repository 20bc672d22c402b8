/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the questions of the CNI socket. What the cache has is answered at once. Else the pod, and then its namespace if
 * that is not known either, is asked for by name, and again after short pauses until the time is over: a pod about
 * which nobody can tell must not start. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/kube_internal.h"

enum { PAUSE_MIN_MS = 50, PAUSE_MAX_MS = 400 };

struct question {
	struct list link; /* of kube.questions */
	struct kube *kube;
	struct cni_question *asked;
	char ns[POD_LABEL_MAX], name[POD_NAME_MAX], uid[POD_UID_MAX];
	struct kube_call *call;
	struct timer limit, pause;
	unsigned failed;
	char why[POD_WHY_MAX];
};

static void question_free(struct question *q)
{
	timer_cancel(&q->limit);
	timer_cancel(&q->pause);
	kube_call_cancel(q->call);
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

/* The runtime and the kubelet know a static pod by another uid. */
static bool is_it(const struct kube_pod_facts *f, const char *uid)
{
	return !uid[0] || !strcmp(f->uid, uid) || !strcmp(f->mirror, uid);
}

/* From the cache. False: something is not known. */
static bool decide_known(struct question *q)
{
	struct kube_pod *p = kube_pod_named(q->kube, q->ns, q->name);
	struct cni_decision d = {.verdict = CNI_NOT_IN_MESH};
	enum kube_reason reason;

	if (!p || !is_it(&p->facts, q->uid) || kube_pod_decide(q->kube, &p->facts, &reason) < 0)
		return false;
	log_debug("kube", "pod %s/%s: %s", q->ns, q->name, kube_reason_text(reason));
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
	struct kube *k = q->kube;
	char why[POD_WHY_MAX] = "the API server's answer cannot be read";
	struct kube_pod *p = NULL;
	json_t *o;

	q->call = NULL;
	if (!r->err && r->status == 404) {
		answer_why(q, CNI_UNKNOWN_POD, "the API server knows no such pod");
		return;
	}
	if (r->err || r->status != 200) {
		later(q, r->why);
		return;
	}
	o = json_loadb(r->body, r->len, 0, NULL);
	p = kube_pod_take(k, o, NULL, why);
	json_decref(o);
	if (!p)
		later(q, why);
	else if (!is_it(&p->facts, q->uid))
		answer_why(q, CNI_UNKNOWN_POD, "the pod of this name is another, by its uid");
	else if (!decide_known(q))
		ask(q);
}

static void namespace_came(void *arg, const struct kube_reply *r)
{
	struct question *q = arg;
	struct kube_namespace_facts facts;
	char why[POD_WHY_MAX];
	json_t *o;
	bool ok;

	q->call = NULL;
	if (r->err || r->status != 200) {
		later(q, r->why);
		return;
	}
	o = json_loadb(r->body, r->len, 0, NULL);
	ok = kube_namespace_read(&facts, o, q->kube->o.rule, why) == 0;
	json_decref(o);
	if (!ok || !kube_namespace_put(q->kube, &facts)) {
		later(q, ok ? "too many namespaces" : why);
		return;
	}
	if (!decide_known(q))
		ask(q);
}

/* For whatever is not known. */
static void ask(struct question *q)
{
	struct kube_pod *p = kube_pod_named(q->kube, q->ns, q->name);
	bool pod = !p || !is_it(&p->facts, q->uid);
	char path[KUBE_PATH_MAX], why[POD_WHY_MAX];
	const struct kube_request rq = {.method = "GET",
					.path = path,
					.body_max = KUBE_LINE_MAX,
					.deadline_ms = KUBE_GET_MS,
					.done = pod ? pod_came : namespace_came,
					.arg = q};

	snprintf(path, sizeof path, "/api/v1/namespaces/%s%s%s", q->ns, pod ? "/pods/" : "", pod ? q->name : "");
	if (kube_call_new(&q->call, q->kube->api, &rq, why) < 0) {
		q->call = NULL;
		later(q, why);
	}
}

static void too_late(struct timer *t)
{
	struct question *q = container_of(t, struct question, limit);
	char why[POD_WHY_MAX + 64];

	snprintf(why, sizeof why, "nobody told within %d ms whether it is in the mesh: %s", KUBE_DECIDE_MS,
		 q->why[0] ? q->why : "the API server has not answered yet");
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
