/* SPDX-License-Identifier: Apache-2.0 */
/* What the keeper's own answers say is wrong: itself, its tunnel, Kubernetes, pods, packets that were dropped. */
#include <stdio.h>
#include <string.h>

#include "culvertctl.h"
#include "doctor.h"

enum { YOUNG_S = 600, SETTLED_S = 60 /* what a keeper or tunnel that has just started may still be busy with */ };

/* --- the keeper ----------------------------------------------------------------------------------------- */

static void check_installation(struct doctor *d)
{
	json_t *i = json_object_get(d->status, "installation");
	const char *trouble = text_of(i, "trouble");

	if (!json_is_object(i) || (flag_of(i, "ready") && !*trouble))
		return;
	finding(d, flag_of(i, "ready") ? FINDING_WARNING : FINDING_PROBLEM,
		"mend what the line names: the keeper tries again by itself, and is not ready until it succeeds",
		"the CNI plugin's installation%s: %s", flag_of(i, "ready") ? "" : " is not valid",
		*trouble ? trouble : "it has not been done yet");
}

void check_keeper(struct doctor *d)
{
	bool kube = json_is_object(json_object_get(d->status, "kubernetes"));

	if (!d->status && d->installed)
		finding(d, FINDING_PROBLEM,
			"start culvertd (or look why its pod istio-cni-node does not run); meanwhile enrolled pods "
			"stay "
			"steered, and no pod joins",
			"%s", d->keeper_why);
	else if (!d->status)
		finding(d, FINDING_NOTE,
			"start culvertd, or give the --run-dir of one that runs; see README.md and deploy/README.md",
			"Culvert does not run here: only the node was looked at (%s)", d->keeper_why);
	if (flag_of(d->status, "markOnly"))
		finding(d, FINDING_WARNING,
			"mount cgroup2, and start keeper and tunnel in cgroups of their own, not in the root cgroup",
			"agents cannot be told apart by cgroup: any process of a pod with CAP_NET_RAW can mark packets "
			"to leave in plaintext");
	if (kube && !flag_of(d->status, "kubeletExempt"))
		finding(d, FINDING_WARNING,
			"give the keeper hostPID and /sys/fs/cgroup, or name the cgroup: culvertd --kubelet-cgroup",
			"the kubelet is not known by its cgroup (%s): its probes are let in by the node's address, and "
			"so is whatever else comes from there to these ports",
			text_of(d->status, "kubelet"));
	if (!strcmp(text_of(d->status, "steering"), "iptables") && !d->kernel.tried &&
	    !d->kernel.features.err[STEER_FEATURE_LOOKUP])
		finding(d, FINDING_NOTE, "leave out --steering=iptables, unless it is meant",
			"pods are steered by iptables, though the kernel can do it by BPF");
	check_installation(d);
}

/* --- the tunnel ----------------------------------------------------------------------------------------- */

static void check_restarts(struct doctor *d, json_t *t)
{
	json_t *list = json_object_get(t, "generations"), *g = json_array_get(list, json_array_size(list) - 1);
	long long restarts = number_of(t, "restarts"), age = number_of(g, "ageSeconds");

	if (!restarts)
		return;
	finding(d, age < YOUNG_S ? FINDING_WARNING : FINDING_NOTE,
		"its last lines in the log say why it ended; a core file or \"out of memory\" in dmesg may, too",
		"the tunnel ended and was started again, %lld times since the keeper began; this one is %lld s old",
		restarts, age);
}

static void check_generations(struct doctor *d, json_t *t)
{
	const char *failed = text_of(json_object_get(t, "upgrades"), "trouble");
	unsigned draining = 0;
	long long carried = 0;
	json_t *g;
	size_t i;

	json_array_foreach(json_object_get(t, "generations"), i, g)
	{
		bool drains = !strcmp(text_of(g, "state"), "draining");

		draining += drains;
		carried += drains ? number_of(g, "connections") : 0;
		if (!strcmp(text_of(g, "state"), "serving") && json_is_false(json_object_get(g, "current")))
			finding(d, FINDING_NOTE, "culvertctl upgrade",
				"process %lld serves, but its file %s was replaced since", number_of(g, "pid"),
				text_of(g, "program"));
	}
	if (draining)
		finding(d, draining > 1 ? FINDING_WARNING : FINDING_NOTE,
			"culvertctl connections shows which; they end when their applications close them, at the "
			"latest "
			"after culvertd --drain-limit",
			"%u earlier tunnel%s still drain%s, with %lld connections", draining, draining > 1 ? "s" : "",
			draining > 1 ? "" : "s", carried);
	if (*failed)
		finding(d, FINDING_WARNING, "mend what the line names, then culvertctl upgrade",
			"the last upgrade of the tunnel failed, and the earlier one goes on: %s", failed);
}

void check_tunnel(struct doctor *d)
{
	json_t *t = json_object_get(d->status, "tunnel");
	bool supervised = flag_of(t, "supervised");

	if (!number_of(t, "pid"))
		finding(d, FINDING_PROBLEM,
			supervised ? "the keeper's log says why it ends: it starts it again by itself"
				   : "start it: culvertd tunnel, or the DaemonSet ztunnel; it must find the keeper's "
				     "zds.sock",
			"no tunnel is there: connections of pods wait, none leaves in plaintext");
	else if (!flag_of(t, "connected"))
		finding(d, number_of(d->status, "uptimeSeconds") < SETTLED_S ? FINDING_WARNING : FINDING_PROBLEM,
			"the tunnel's log says which pods it waits for, or what it refuses",
			"process %lld, the tunnel, has not taken all pods", number_of(t, "pid"));
	else if (!flag_of(t, "ours"))
		finding(d, FINDING_NOTE, "nothing, if it is meant: with Istio's ztunnel pods are steered by iptables",
			"process %lld, the tunnel, opens its own sockets", number_of(t, "pid"));
	if (flag_of(t, "connected") && !d->dump && flag_of(t, "ours"))
		finding(d, FINDING_WARNING,
			"both need the same run directory, on a volume that both see (/run/culvert); certificates, "
			"mesh "
			"and istiod were not looked at",
			"%s", d->tunnel_why);
	check_restarts(d, t);
	check_generations(d, t);
}

/* --- Kubernetes ----------------------------------------------------------------------------------------- */

void check_kubernetes(struct doctor *d)
{
	json_t *k = json_object_get(d->status, "kubernetes");
	const char *trouble = text_of(k, "trouble");

	if (!json_is_object(k))
		return;
	if (!flag_of(k, "connected"))
		finding(d, FINDING_PROBLEM,
			"is the API server reachable from here, and may the keeper's service account list and watch "
			"pods "
			"and namespaces?",
			"no watch of the API server is open, changes of labels go unnoticed: %s", trouble);
	else if (!flag_of(k, "ready"))
		finding(d, FINDING_WARNING, "wait a moment, then ask again",
			"not all pods have been looked at since the keeper began: %s", trouble);
	if (number_of(k, "notEnrolledYet"))
		finding(d, FINDING_PROBLEM,
			"the keeper tries again by itself; its log names the pods and the reason; a pod that stays so "
			"is "
			"restarted with kubectl delete pod",
			"%lld pod%s of this node are labelled to be in the mesh and are not steered: %s",
			number_of(k, "notEnrolledYet"), number_of(k, "notEnrolledYet") == 1 ? "" : "s",
			*trouble ? trouble : "no reason is known");
	else if (flag_of(k, "connected") && flag_of(k, "ready") && *trouble)
		finding(d, FINDING_WARNING, "mend what the line names", "%s", trouble);
	if (number_of(k, "unreadableObjects"))
		finding(d, FINDING_WARNING, "the keeper's log says which, and what is wrong with them",
			"%lld pods or namespaces of Kubernetes could not be read, and were passed over",
			number_of(k, "unreadableObjects"));
}

/* --- pods ----------------------------------------------------------------------------------------------- */

static bool has_socket(json_t *pod, const char *name)
{
	json_t *s;
	size_t i;

	json_array_foreach(json_object_get(pod, "sockets"), i, s) if (!strcmp(json_string_value(s), name)) return true;
	return false;
}

static void check_sockets(struct doctor *d, json_t *pod)
{
	static const char *const needed[] = {"TCP15001", "TCP15006", "TCP15008"};

	for (unsigned i = 0; i < 3; i++)
		if (!has_socket(pod, needed[i]))
			finding(d, FINDING_PROBLEM,
				"restart the keeper, which opens what is missing when it takes its pods over, and they "
				"stay steered; or restart the pod",
				"%s/%s has no listening socket %s: what was to go there is dropped",
				text_of(pod, "namespace"), text_of(pod, "name"), needed[i]);
}

static void check_devices(struct doctor *d, json_t *pod)
{
	json_t *device;
	size_t i;

	json_array_foreach(json_object_get(pod, "devices"), i, device) if (!flag_of(device, "attached"))
		finding(d, FINDING_PROBLEM, "the keeper's log says why; restart the pod if it stays so",
			"%s/%s: device %s is not steered, its traffic is plaintext", text_of(pod, "namespace"),
			text_of(pod, "name"), text_of(device, "name"));
}

static void check_pod(struct doctor *d, json_t *pod)
{
	const char *ns = text_of(pod, "namespace"), *name = text_of(pod, "name"), *trouble = text_of(pod, "trouble");
	bool enrolled = !strcmp(text_of(pod, "state"), "enrolled"), bpf = !strcmp(text_of(pod, "steering"), "bpf");

	if (*trouble)
		finding(d, FINDING_PROBLEM, "mend what the line names: the keeper tries again by itself", "%s/%s: %s",
			ns, name, trouble);
	else if (!enrolled && number_of(d->status, "uptimeSeconds") > SETTLED_S)
		finding(d, FINDING_WARNING,
			"ask again in a moment; if it stays so, the keeper's log says what it waits for", "%s/%s is %s",
			ns, name, text_of(pod, "state"));
	if (enrolled && bpf && !flag_of(pod, "foreignTunnel"))
		check_sockets(d, pod);
	if (enrolled && bpf)
		check_devices(d, pod);
	if (!bpf && !strcmp(text_of(d->status, "steering"), "bpf") && !flag_of(pod, "foreignTunnel"))
		finding(d, FINDING_NOTE, "restart the pod: then it is steered by BPF",
			"%s/%s is steered by iptables, unlike the others", ns, name);
}

void check_pods(struct doctor *d)
{
	long long direct = 0;
	unsigned with = 0;
	json_t *pod;
	size_t i;

	json_array_foreach(json_object_get(d->pods, "pods"), i, pod)
	{
		check_pod(d, pod);
		direct += number_of(pod, "existingConnections");
		with += number_of(pod, "existingConnections") > 0;
	}
	if (direct)
		finding(d, FINDING_NOTE,
			"nothing, if that may be: they end with their applications; restart the pods, or enrol with "
			"culvertd --enrol-existing=reset",
			"%lld connections of %u pods are older than their enrolment, and in plaintext", direct, with);
}

/* --- drops ---------------------------------------------------------------------------------------------- */

static long long counter_of(json_t *drops, const char *uid, const char *counter)
{
	json_t *pod, *c;
	size_t i, j;

	json_array_foreach(json_object_get(drops, "pods"), i, pod) if (!strcmp(text_of(pod, "uid"), uid))
		json_array_foreach(json_object_get(pod, "counters"), j,
				   c) if (!strcmp(text_of(c, "name"), counter)) return number_of(c, "value");
	return 0;
}

/* One kind of drop, summed over the pods. */
static void check_drop(struct doctor *d, const char *counter, const char *help)
{
	json_t *pod;
	long long all = 0, grown = 0;
	const char *first = "";
	size_t i;
	unsigned pods = 0;

	json_array_foreach(json_object_get(d->drops_later, "pods"), i, pod)
	{
		long long now = counter_of(d->drops_later, text_of(pod, "uid"), counter);
		long long before = counter_of(d->drops, text_of(pod, "uid"), counter);

		all += now;
		grown += now > before ? now - before : 0;
		first = now && !*first ? text_of(pod, "name") : first;
		pods += now > 0;
	}
	if (!all)
		return;
	finding(d, grown ? FINDING_WARNING : FINDING_NOTE,
		grown ? "culvertctl drops names the pods; see what they, or those who call them, send"
		      : "nothing, if it was a moment without a tunnel: it does not grow now",
		"%s: %lld packets dropped in %u pods (%s%s)%s; %s", counter, all, pods, first, pods > 1 ? ", ..." : "",
		grown ? ", and it grows" : "", help);
}

void check_drops(struct doctor *d)
{
	json_t *any = json_array_get(json_object_get(d->drops_later, "pods"), 0), *c;
	size_t i;

	json_array_foreach(json_object_get(any, "counters"), i, c) if (!strcmp(text_of(c, "kind"), "drop"))
		check_drop(d, text_of(c, "name"), text_of(c, "help"));
}
