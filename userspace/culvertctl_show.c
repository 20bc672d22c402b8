/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what culvertctl shows of the keeper's answers: the status, its pods, what steering dropped. */
#include <stdio.h>
#include <string.h>

#include "culvertctl.h"

static void show_generation(json_t *g)
{
	bool drains = !strcmp(text_of(g, "state"), "draining");
	char buf[32];

	printf("process %-6lld %s", number_of(g, "pid"), text_of(g, "state"));
	if (drains && json_object_get(g, "connections"))
		printf(" %lld connections", number_of(g, "connections"));
	if (json_object_get(g, "ageSeconds"))
		printf(", up %s, %s%s", duration(number_of(g, "ageSeconds"), buf), text_of(g, "program"),
		       flag_of(g, "current") ? "" : " (replaced since)");
	putchar('\n');
}

static void show_generations(json_t *list)
{
	json_t *g;
	size_t i;

	json_array_foreach(list, i, g) show_generation(g);
}

void show_upgrade(json_t *result)
{
	show_generations(json_object_get(result, "generations"));
}

static void show_tunnel(json_t *t)
{
	const char *is = flag_of(t, "connected") ? "connected" : number_of(t, "pid") ? "connecting" : "NOT connected";

	printf("tunnel         %s", is);
	if (number_of(t, "pid"))
		printf(", process %lld%s", number_of(t, "pid"), flag_of(t, "ours") ? "" : ", opens its own sockets");
	if (number_of(t, "connections") > 1)
		printf(", %lld connections", number_of(t, "connections"));
	if (flag_of(t, "supervised"))
		printf(", run by this keeper (%s%lld restarts)", flag_of(t, "adopted") ? "taken over, " : "",
		       number_of(t, "restarts"));
	putchar('\n');
	if (json_array_size(json_object_get(t, "generations")) > 1 || flag_of(t, "supervised"))
		show_generations(json_object_get(t, "generations"));
	if (*text_of(json_object_get(t, "upgrades"), "trouble"))
		printf("upgrade        the last one FAILED: %s\n", text_of(json_object_get(t, "upgrades"), "trouble"));
}

static void show_kubernetes(json_t *k)
{
	if (!json_is_object(k))
		return;
	printf("kubernetes     %s, %lld pods here, %lld in the mesh",
	       flag_of(k, "connected") ? "connected" : "NOT connected", number_of(k, "pods"), number_of(k, "inMesh"));
	if (number_of(k, "notEnrolledYet"))
		printf(", of these %lld not enrolled yet", number_of(k, "notEnrolledYet"));
	printf("%s%s\n", *text_of(k, "trouble") ? ": " : "", text_of(k, "trouble"));
}

static void show_installation(json_t *i)
{
	const char *path = text_of(i, "path"), *trouble = text_of(i, "trouble");

	if (json_is_object(i))
		printf("installation   %s%s%s%s\n", flag_of(i, "ready") ? path : "NOT valid", *trouble ? ": " : "",
		       trouble, flag_of(i, "ready") && !*trouble ? ", valid" : "");
}

/* What the kernel does of TLS; `verbose`: feature by feature. */
static void show_ktls(json_t *ktls, bool verbose)
{
	const char *between = ": ";
	json_t *f;
	size_t i;

	if (!json_is_object(ktls))
		return;
	printf("kTLS           %s", text_of(ktls, "mode"));
	json_array_foreach(json_object_get(ktls, "features"), i, f)
	{
		if (verbose || !flag_of(f, "available"))
			continue;
		printf("%s%s", between, text_of(f, "name"));
		between = ", ";
	}
	f = json_array_get(json_object_get(ktls, "features"), 0);
	if (!verbose && *between == ':' && *text_of(f, "reason"))
		printf(", not used: %s", text_of(f, "reason"));
	putchar('\n');
	if (!verbose)
		return;
	json_array_foreach(json_object_get(ktls, "features"), i, f)
		printf("kTLS %-9s %s%s\n", text_of(f, "name"),
		       flag_of(f, "available") ? "available" : "not used: ", text_of(f, "reason"));
}

static void show_istiod(json_t *x)
{
	if (!json_is_object(x))
		return;
	printf("istiod         %s since %s, %s%s\n", flag_of(x, "connected") ? "connected" : "NOT connected",
	       text_of(x, "since"), text_of(x, "address"),
	       flag_of(x, "complete") ? "" : "; the mesh is not complete yet, pods have to wait");
	if (*text_of(x, "lastError"))
		printf("istiod         last error: %s\n", text_of(x, "lastError"));
	if (*text_of(x, "refused"))
		printf("istiod         refused: %s%s\n", text_of(x, "refused"),
		       number_of(x, "closed") ? "; a policy in it denies everything, or allows nothing" : "");
}

void show_status(json_t *k, bool verbose)
{
	json_t *pods = json_object_get(k, "pods"), *state = json_object_get(k, "tunnelState");
	bool bpf = strcmp(text_of(k, "steering"), "bpf") == 0;
	char buf[32];

	show_health(k);
	printf("culvert        %s, keeper process %lld, up %s\n", text_of(k, "version"), number_of(k, "pid"),
	       duration(number_of(k, "uptimeSeconds"), buf));
	printf("run directory  %s\n", text_of(k, "runDir"));
	printf("steering       %s%s\n", text_of(k, "steering"), !bpf ? "" : flag_of(k, "tcx") ? " (tcx)" : " (clsact)");
	if (bpf) {
		printf("pins           %s\n", text_of(k, "bpfDir"));
		printf("agent's mark   %s\n", flag_of(k, "markOnly")
						      ? "counts alone: cgroups cannot be told apart here, so "
							"CAP_NET_RAW can leave the mesh"
						      : "bound to the agent's cgroups");
		printf("kubelet        %s%s%s\n", flag_of(k, "kubeletExempt") ? "its probes pass" : "not exempt",
		       *text_of(k, "kubelet") ? ": " : "", text_of(k, "kubelet"));
	}
	printf("pods           %lld enrolled", number_of(pods, "enrolled"));
	for (unsigned i = 0; i < 3; i++) {
		static const char *const states[] = {"joining", "recovering", "leaving"};

		if (number_of(pods, states[i]))
			printf(", %lld %s", number_of(pods, states[i]), states[i]);
	}
	if (number_of(pods, "mended"))
		printf("; what somebody removed of their steering was put back %lld times (culvertctl pods)",
		       number_of(pods, "mended"));
	putchar('\n');
	show_tunnel(json_object_get(k, "tunnel"));
	show_kubernetes(json_object_get(k, "kubernetes"));
	show_installation(json_object_get(k, "installation"));
	show_ktls(json_object_get(state, "ktls"), verbose);
	show_istiod(json_object_get(state, "xds"));
	show_crl(json_object_get(state, "crl"));
	if (json_is_object(state))
		printf("mesh           %lld workloads, %lld services, %lld policies, %lld certificates, %lld "
		       "connections\n",
		       number_of(state, "workloads"), number_of(state, "services"), number_of(state, "policies"),
		       number_of(state, "certificates"), number_of(state, "connections"));
	else
		printf("mesh           unknown: %s\n", text_of(k, "tunnelTrouble"));
}

void show_pods(json_t *k)
{
	static const char *const headings[] = {"NAMESPACE", "NAME",    "SERVICEACCOUNT", "STATE", "MESH",
					       "STEERING",  "DEVICES", "DIRECT",	 "UID"};
	struct table t = table_begin(9, headings);
	char buf[CELL_MAX];
	json_t *pod;
	size_t i;

	json_array_foreach(json_object_get(k, "pods"), i, pod)
	{
		table_add(&t, text_of(pod, "namespace"));
		table_add(&t, text_of(pod, "name"));
		table_add(&t, text_of(pod, "serviceAccount"));
		table_add(&t, text_of(pod, "state"));
		table_add(&t, !json_object_get(pod, "inMesh") ? "?" : flag_of(pod, "inMesh") ? "yes" : "no");
		table_add(&t, text_of(pod, "steering"));
		table_add(&t, joined(json_object_get(pod, "devices"), "name", buf));
		table_cell(&t, "%lld", number_of(pod, "existingConnections"));
		table_add(&t, text_of(pod, "uid"));
	}
	table_end(&t, "no pod is enrolled; see culvertctl enrol --help");
	json_array_foreach(json_object_get(k, "pods"), i, pod)
	{
		json_t *mended = json_object_get(pod, "mended");

		if (json_is_false(json_object_get(pod, "inMesh")))
			printf("%s/%s: the mesh has no workload of this name with service account %s; its connections "
			       "are refused\n",
			       text_of(pod, "namespace"), text_of(pod, "name"), text_of(pod, "serviceAccount"));
		if (*text_of(pod, "trouble"))
			printf("%s/%s: %s\n", text_of(pod, "namespace"), text_of(pod, "name"), text_of(pod, "trouble"));
		if (mended)
			printf("%s/%s: its steering was changed by somebody and put back %lld times; the last time "
			       "%s\n",
			       text_of(pod, "namespace"), text_of(pod, "name"), number_of(mended, "times"),
			       text_of(mended, "last"));
	}
}

void show_drops(json_t *k, bool all)
{
	static const char *const headings[] = {"POD", "REASON", "COUNT", "MEANING"};
	struct table t = table_begin(4, headings);
	json_t *pod, *c;
	size_t i, j;

	json_array_foreach(json_object_get(k, "pods"), i, pod)
		json_array_foreach(json_object_get(pod, "counters"), j, c)
	{
		if (!all && (strcmp(text_of(c, "kind"), "drop") != 0 || !number_of(c, "value")))
			continue;
		table_cell(&t, "%s/%s", text_of(pod, "namespace"), text_of(pod, "name"));
		table_add(&t, text_of(c, "name"));
		table_cell(&t, "%lld", number_of(c, "value"));
		table_add(&t, text_of(c, "help"));
	}
	table_end(&t, all ? "no pod is steered" : "nothing was dropped (--all shows every counter)");
}
