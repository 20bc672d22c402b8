/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what is done about each request to the CNI socket: ask whether the pod is in the mesh and enrol it; un-enrol what
 * is gone; look whether steering is whole. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "node/cni_internal.h"

/* --- finding a pod ------------------------------------------------------------------------------------------ */

struct search {
	const struct cni_request *r;
	uint64_t cookie; /* of the namespace that the request names; 0: none */
	const struct enrol_pod *found;
};

/* By attachment; a pod that came another way, by its uid and namespace. */
static void on_pod(void *arg, const struct enrol_pod *p)
{
	const struct pod_record *rec = enrol_pod_record(p);
	const struct pod_attachment *is = &rec->attachment;
	struct search *s = arg;
	const struct pod_attachment *want = &s->r->attachment;
	bool same;

	if (enrol_pod_state(p) == POD_LEAVING)
		return;
	if (is->container_id[0])
		same = !strcmp(is->container_id, want->container_id) && !strcmp(is->ifname, want->ifname);
	else
		same = s->cookie && s->cookie == rec->cookie &&
		       (!s->r->uid[0] || !strcmp(s->r->uid, rec->uid) ||
			(!strcmp(s->r->ns, rec->identity.ns) && !strcmp(s->r->name, rec->identity.name)));
	if (same)
		s->found = p;
}

/* A keeper in a container sees the node's files under /host. */
static const char *netns_path(const struct cni_request *r, char path[POD_NETNS_MAX + 8])
{
	snprintf(path, POD_NETNS_MAX + 8, "/host%s", r->netns);
	return access(path, F_OK) == 0 ? path : r->netns;
}

static uint64_t netns_cookie(const struct cni_request *r)
{
	char path[POD_NETNS_MAX + 8];
	struct netns_id id = {0};
	int fd = r->netns[0] ? netns_open(netns_path(r, path)) : -1;

	if (fd < 0)
		return 0;
	if (netns_identify(fd, &id) < 0)
		id.cookie = 0;
	close(fd);
	return id.cookie;
}

static const struct enrol_pod *pod_find(struct cni_call *c)
{
	struct search s = {.r = &c->request, .cookie = netns_cookie(&c->request)};

	enrol_each(c->cni->enrol, on_pod, &s);
	return s.found;
}

/* --- decisions ---------------------------------------------------------------------------------------------- */

static void ask(struct cni_call *c)
{
	c->refs++;
	c->question.call = c;
	c->cni->decider.decide(c->cni->decider.arg, &c->request, &c->question);
}

static void enrol_soon(struct cni *cni);

static void add_ended(void *arg, int err, const char *why)
{
	struct cni_call *c = arg;
	bool in_vain = err == -EEXIST || err == -EINVAL || err == -EPERM;

	if (err)
		cni_answer(c, in_vain ? 409 : 503, "%s", why[0] ? why : strerror(-err));
	else
		cni_answer(c, 200, "%s", "");
	c->cni->n_enrolling--;
	enrol_soon(c->cni);
	cni_call_put(c);
}

static void enrol(struct cni_call *c)
{
	uint64_t used = loop_now(c->cni->loop) - c->started_ms;
	char identity[3 * POD_NAME_MAX], path[POD_NETNS_MAX + 8];
	const char *uid = c->uid[0] ? c->uid : c->request.uid;
	const struct enrol_request q = {
		.netns = netns_path(&c->request, path),
		.identity = identity,
		.uid = uid[0] ? uid : NULL,
		.attachment = &c->request.attachment,
		.overlay = &c->decision.overlay,
		.deadline_ms = used < CNI_ENROL_MS ? CNI_ENROL_MS - (unsigned)used : 1,
	};

	timer_set(c->cni->loop, &c->limit, used < CNI_ANSWER_MS ? CNI_ANSWER_MS - used : 0, cni_call_expired);
	snprintf(identity, sizeof identity, "%s/%s/%s", c->request.ns, c->request.name, c->sa);
	c->cni->n_enrolling++;
	enrol_add(c->cni->enrol, &q, add_ended, c);
}

/* Steering keeps the loop busy, so that few are under way: the tunnel's answers are taken between. Who has been answered
 * meanwhile has given up. */
static void enrol_one(struct loop *l, struct msg *m)
{
	struct cni *cni = container_of(m, struct cni, next);
	struct cni_call *c;

	cni->next_posted = false;
	if (list_empty(&cni->waiting) || cni->n_enrolling >= CNI_ENROLS_MAX)
		return;
	c = list_entry(cni->waiting.next, struct cni_call, turn);
	list_del(&c->turn);
	if (c->ticket)
		enrol(c);
	else
		cni_call_put(c);
	enrol_soon(cni);
}

static void enrol_soon(struct cni *cni)
{
	if (cni->next_posted || cni->closing || list_empty(&cni->waiting))
		return;
	cni->next_posted = true;
	loop_post(cni->loop, &cni->next, enrol_one);
}

static void enrol_later(struct cni_call *c, const struct cni_decision *d)
{
	uint64_t used = loop_now(c->cni->loop) - c->started_ms;

	snprintf(c->sa, sizeof c->sa, "%s", d->sa);
	snprintf(c->uid, sizeof c->uid, "%s", d->uid ? d->uid : "");
	c->decision = *d;
	c->refs++;
	list_add_tail(&c->cni->waiting, &c->turn);
	timer_set(c->cni->loop, &c->limit, used < CNI_BEGIN_MS ? CNI_BEGIN_MS - used : 0, cni_call_expired);
	enrol_soon(c->cni);
}

static void add_decided(struct cni_call *c, const struct cni_decision *d)
{
	if (d->verdict == CNI_ENROL)
		enrol_later(c, d);
	else if (c->request.decide)
		cni_answer(c, 200, "%s", "");
	else
		cni_answer(c, 403, "pod %s/%s is outside the mesh", c->request.ns, c->request.name);
}

static void check_decided(struct cni_call *c, const struct cni_decision *d)
{
	if (d->verdict == CNI_ENROL)
		cni_answer(c, 409, "pod %s/%s is in the mesh, but not enrolled", c->request.ns, c->request.name);
	else
		cni_answer(c, 200, "%s", "");
}

static void serve_add(struct cni_call *c)
{
	if (!c->request.ns[0] || !c->request.name[0] || !c->request.netns[0])
		cni_answer(c, 400, "PodNamespace, PodName and Netns are needed");
	else
		ask(c);
}

void cni_decided(struct cni_question *q, const struct cni_decision *d)
{
	struct cni_call *c = q->call;

	if (c->ticket && (d->verdict == CNI_UNKNOWN_POD || d->verdict == CNI_UNDECIDED))
		cni_answer(c, 503, "pod %s/%s: %s", c->request.ns, c->request.name, d->why);
	else if (c->ticket && c->route->serve == serve_add)
		add_decided(c, d);
	else if (c->ticket)
		check_decided(c, d);
	cni_call_put(c);
}

static void serve_check(struct cni_call *c)
{
	const struct enrol_pod *p = pod_find(c);
	char why[POD_WHY_MAX] = "";
	int e = p ? enrol_check(c->cni->enrol, p, why) : 0;

	if (e)
		cni_answer(c, e == -EAGAIN ? 503 : 409, "pod %s/%s: %s", c->request.ns, c->request.name, why);
	else if (p || !c->request.ns[0] || !c->request.name[0])
		cni_answer(c, 200, "%s", "");
	else
		ask(c);
}

/* --- removal ------------------------------------------------------------------------------------------------ */

static void del_ended(void *arg, int err, const char *why)
{
	struct cni_call *c = arg;

	c->failed += err != 0;
	if (err)
		log_warn("cni", "a pod whose sandbox is gone could not be un-enrolled: %s", why);
	if (--c->left == 0)
		cni_answer(c, 200, "%s", "");
	cni_call_put(c);
}

/* The call counts itself meanwhile, so that it is not answered before all were begun. */
static void pod_end(struct cni_call *c, const struct enrol_pod *p)
{
	c->refs++;
	c->left++;
	enrol_end(c->cni->enrol, p, del_ended, c);
}

static void all_begun(struct cni_call *c)
{
	if (--c->left == 0)
		cni_answer(c, 200, "%s", "");
}

static void serve_del(struct cni_call *c)
{
	const struct enrol_pod *p;

	c->left++;
	/* One that joins behind another of its uid is a pod of its own. */
	for (unsigned i = 0; i < 2 && (p = pod_find(c)); i++)
		pod_end(c, p);
	all_begun(c);
}

struct garbage {
	struct cni_call *call;
	const struct enrol_pod *found;
	unsigned skip; /* those that could not be removed are met again */
};

static void on_garbage(void *arg, const struct enrol_pod *p)
{
	const struct pod_attachment *a = &enrol_pod_record(p)->attachment;
	struct garbage *g = arg;

	if (g->found || enrol_pod_state(p) == POD_LEAVING || enrol_pod_state(p) == POD_JOINING || !a->container_id[0] ||
	    strcmp(a->network, g->call->request.attachment.network) != 0 || cni_request_lists(&g->call->request, a))
		return;
	if (g->skip)
		g->skip--;
	else
		g->found = p;
}

/* Ending one may end others, so that the list is walked anew each time. */
static void serve_gc(struct cni_call *c)
{
	c->left++;
	for (unsigned i = 0; i < PODS_MAX; i++) {
		struct garbage g = {.call = c, .skip = c->failed};

		enrol_each(c->cni->enrol, on_garbage, &g);
		if (!g.found)
			break;
		log_info("cni", "pod %s/%s is un-enrolled: its attachment is not valid any more",
			 enrol_pod_record(g.found)->identity.ns, enrol_pod_record(g.found)->identity.name);
		pod_end(c, g.found);
	}
	all_begun(c);
}

/* --- status ------------------------------------------------------------------------------------------------- */

static void serve_status(struct cni_call *c)
{
	const char *why = c->cni->decider.unready(c->cni->decider.arg);
	struct zds_client *tunnel = zds_server_newest(c->cni->zds);

	if (!tunnel || !zds_client_live(tunnel))
		cni_answer(c, 409, "no tunnel is connected to the keeper");
	else if (why)
		cni_answer(c, 503, "%s", why);
	else
		cni_answer(c, 200, "%s", "");
}

const struct cni_route cni_routes[] = {
	{CNI_ADD, CNI_POD, serve_add, false},		{CNI_DEL, CNI_POD, serve_del, true},
	{CNI_CHECK, CNI_POD, serve_check, false},	{CNI_GC, CNI_LIST, serve_gc, true},
	{CNI_STATUS, CNI_NOTHING, serve_status, false},
};
const unsigned cni_n_routes = sizeof cni_routes / sizeof *cni_routes;
