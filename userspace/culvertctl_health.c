/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what culvertctl makes of a status: is this node well, and if not, what is wrong and what to do. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "culvertctl.h"

enum { REGAIN_S = 30 }; /* from the keeper's start until all pods should be regained */

static void __attribute__((format(printf, 3, 4))) problem(json_t *list, const char *todo, const char *fmt, ...)
{
	char what[CALL_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	json_array_append_new(list, json_pack("{ss ss}", "what", what, "do", todo));
}

static void tunnel_health(json_t *list, json_t *status)
{
	json_t *t = json_object_get(status, "tunnel");
	const char *trouble = text_of(status, "tunnelTrouble");
	bool supervised = flag_of(t, "supervised");

	if (!flag_of(t, "connected"))
		problem(list,
			supervised ? "its log says why (journalctl -u culvertd)"
				   : "look at whoever runs it (in Kubernetes: the DaemonSet ztunnel)",
			"no tunnel serves, connections of pods wait");
	else if (*trouble && flag_of(t, "ours"))
		problem(list,
			supervised ? "`culvertctl upgrade` replaces it"
				   : "whoever runs it replaces it (in Kubernetes: kubectl delete pod)",
			"%s", trouble);
	trouble = text_of(json_object_get(t, "upgrades"), "trouble");
	if (*trouble)
		problem(list, "`culvertctl upgrade` tries again", "the last upgrade failed: %s", trouble);
}

static void pods_health(json_t *list, json_t *status)
{
	json_t *pods = json_object_get(status, "pods"), *strangers = json_object_get(status, "podsNotInMesh");

	if (number_of(pods, "broken"))
		problem(list, "`culvertctl pods` says what is missing",
			"the steering of %lld pods is not whole, their traffic may be in plaintext",
			number_of(pods, "broken"));
	if (number_of(pods, "recovering") && number_of(status, "uptimeSeconds") > REGAIN_S)
		problem(list, "`culvertctl pods` says why", "%lld pods are not regained, their connections wait",
			number_of(pods, "recovering"));
	if (json_array_size(strangers))
		problem(list,
			"compare `culvertctl pods` with `culvertctl workloads`: namespace, name and service account "
			"must be the same",
			"the mesh does not know %zu pods, the first is %s; their connections are refused",
			json_array_size(strangers), json_string_value(json_array_get(strangers, 0)));
}

static void mesh_health(json_t *list, json_t *status)
{
	json_t *state = json_object_get(status, "tunnelState"), *xds = json_object_get(state, "xds");
	const char *file = text_of(json_object_get(state, "staticConfig"), "trouble");

	if (*file)
		problem(list, "mend the file, it is read again by itself", "%s", file);
	if (xds && !flag_of(xds, "connected"))
		problem(list, "see XDS_ADDRESS, XDS_ROOT_CA and the token; the mesh stays as it was", "istiod: %s",
			*text_of(xds, "lastError") ? text_of(xds, "lastError") : "not connected");
}

/* Of Kubernetes and of the installation alike. */
static void half_health(json_t *list, json_t *half, const char *name, const char *todo)
{
	if (json_is_object(half) && !flag_of(half, "ready"))
		problem(list, todo, "%s: %s", name, *text_of(half, "trouble") ? text_of(half, "trouble") : "not ready");
}

bool health_add(json_t *status)
{
	json_t *list = json_array();

	tunnel_health(list, status);
	pods_health(list, status);
	mesh_health(list, status);
	half_health(list, json_object_get(status, "kubernetes"), "kubernetes",
		    "see the API server and the keeper's role; pods stay as they are");
	half_health(list, json_object_get(status, "installation"), "the CNI plugin's installation",
		    "the keeper tries again by itself; pods of the mesh do not start meanwhile");
	json_object_set_new(status, "healthy", json_boolean(!json_array_size(list)));
	json_object_set_new(status, "problems", list);
	return !json_array_size(list);
}

void show_health(json_t *status)
{
	json_t *p;
	size_t i;

	if (flag_of(status, "healthy"))
		printf("healthy\n");
	json_array_foreach(json_object_get(status, "problems"), i, p)
		printf("NOT healthy: %s; %s\n", text_of(p, "what"), text_of(p, "do"));
}

/* --- pods and the mesh ---------------------------------------------------------------------------------- */

json_t *strangers_of(json_t *pods, json_t *dump)
{
	json_t *list = json_array(), *states = json_object_get(dump, "workloadState"), *pod;
	char name[1024];
	size_t i;

	json_array_foreach(json_object_get(pods, "pods"), i, pod)
	{
		json_t *known = json_object_get(json_object_get(states, text_of(pod, "uid")), "inMesh");

		if (!known)
			continue;
		json_object_set(pod, "inMesh", known);
		if (json_is_true(known) || strcmp(text_of(pod, "state"), "enrolled") != 0)
			continue;
		snprintf(name, sizeof name, "%s/%s/%s", text_of(pod, "namespace"), text_of(pod, "name"),
			 text_of(pod, "serviceAccount"));
		json_array_append_new(list, json_string(name));
	}
	return list;
}
