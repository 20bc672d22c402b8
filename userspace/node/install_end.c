/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the end: whether the installation stays for the next keeper, and its removal. What cannot be told stays: pods
 * that wait for a keeper are safe, pods that start without the mesh are not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/install_daemonset.h"
#include "node/install_internal.h"

static const char target[] = "install";

static void ended(struct install *in)
{
	in->done(in->arg);
}

static void stays(struct install *in, const char *why)
{
	log_info(target, "the installation stays: %s", why);
	ended(in);
}

/* First the entry: a runtime that finds it without its program starts no pod at all. */
static void goes(struct install *in, const char *why)
{
	if (!install_programs_ours(in)) {
		stays(in, "the programs are another's by now");
		return;
	}
	log_info(target, "the installation is removed: %s", why);
	install_chain_remove(in);
	install_kubeconfig_remove(in);
	install_programs_remove(in);
	ended(in);
}

/* --- questions ------------------------------------------------------------------------------------------------ */

static void ask_daemonset(struct timer *t);

static void unclear(struct install *in, const char *why)
{
	if (++in->asks < INSTALL_ASKS_MAX)
		timer_set(in->loop, &in->next, INSTALL_ASK_GAP_MS, ask_daemonset);
	else
		stays(in, why);
}

static int ask(struct install *in, const char *path, void (*answered)(void *arg, const struct kube_reply *r), char *why)
{
	const struct kube_request rq = {.method = "GET",
					.path = path,
					.body_max = INSTALL_ANSWER_MAX,
					.deadline_ms = INSTALL_ASK_MS,
					.done = answered,
					.arg = in};

	return kube_call_new(&in->call, in->api, &rq, why);
}

static void node_answered(void *arg, const struct kube_reply *r)
{
	struct install *in = arg;
	json_t *node = !r->err && r->status == 200 ? json_loadb(r->body, r->len, JSON_DECODE_INT_AS_REAL, NULL) : NULL;

	in->call = NULL;
	if (!json_is_object(node))
		unclear(in, r->why[0] ? r->why : "the node's object cannot be read");
	else if (install_node_wanted(in->daemonset, node))
		stays(in, "another keeper will follow, the DaemonSet is there");
	else
		goes(in, "the DaemonSet's nodeAffinity keeps it from this node");
	json_decref(node);
}

static void ask_node(struct install *in)
{
	char path[KUBE_PATH_MAX], name[3 * POD_NAME_MAX], why[POD_WHY_MAX];

	if (kube_escape(name, sizeof name, in->o.node_name) < 0 ||
	    snprintf(path, sizeof path, "/api/v1/nodes/%s", name) >= (int)sizeof path ||
	    ask(in, path, node_answered, why) < 0)
		unclear(in, "the API server cannot be asked for the node");
}

static void daemonset_answered(void *arg, const struct kube_reply *r)
{
	struct install *in = arg;

	in->call = NULL;
	json_decref(in->daemonset);
	in->daemonset = !r->err && r->status == 200 ? json_loadb(r->body, r->len, JSON_DECODE_INT_AS_REAL, NULL) : NULL;
	switch (install_future(r->err ? 0 : r->status, in->daemonset)) {
	case INSTALL_GOES:
		goes(in, r->status == 200 ? "the DaemonSet is being deleted" : r->why);
		break;
	case INSTALL_BY_NODE:
		ask_node(in);
		break;
	case INSTALL_UNCLEAR:
		unclear(in, r->why[0] ? r->why : "the DaemonSet cannot be read");
	}
}

static void ask_daemonset(struct timer *t)
{
	struct install *in = container_of(t, struct install, next);
	char path[KUBE_PATH_MAX], ns[3 * POD_LABEL_MAX], why[POD_WHY_MAX] = "its namespace is no name";

	if (kube_escape(ns, sizeof ns, in->o.pod_namespace) < 0 ||
	    snprintf(path, sizeof path, "/apis/apps/v1/namespaces/%s/daemonsets/" INSTALL_DAEMONSET, ns) >=
		    (int)sizeof path ||
	    ask(in, path, daemonset_answered, why) < 0)
		unclear(in, why);
}

void install_end(struct install *in, void (*done)(void *arg), void *arg)
{
	char why[POD_WHY_MAX];

	if (!in) {
		done(arg);
		return;
	}
	in->done = done;
	in->arg = arg;
	in->ending = true;
	in->status.ready = false;
	snprintf(in->status.trouble, sizeof in->status.trouble, "the keeper ends");
	timer_cancel(&in->next);
	if (install_lock(in, why) < 0)
		stays(in, why);
	else if (in->o.remove_at_end)
		goes(in, "so it was configured");
	else if (!in->o.api)
		stays(in, "pods of the mesh wait for the next keeper (--cni-remove-at-end=true removes it)");
	else if (!in->o.pod_namespace || !in->o.node_name)
		stays(in, "POD_NAMESPACE and NODE_NAME are not set, so the DaemonSet cannot be asked for");
	else if (kube_api_open(&in->api, in->loop, in->o.api, why) < 0)
		stays(in, why);
	else
		ask_daemonset(&in->next);
}
