/* SPDX-License-Identifier: Apache-2.0 */
/* Reads pods and namespaces, as JSON, into what is kept of them. */
#include "node/kube_object.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/kube_rule.h"
#include "state/hash.h"

/* Of an object that is read: the first thing that is wrong with it. */
struct check {
	char *why;
	bool bad;
};

static void *bad(struct check *c, const char *what)
{
	if (!c->bad)
		snprintf(c->why, POD_WHY_MAX, "%s", what);
	c->bad = true;
	return NULL;
}

/* --- fields: NULL when absent or null, and when of another type, which is noted ------------------------- */

static const json_t *field(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	return json_is_null(v) ? NULL : v;
}

static const json_t *map_get(struct check *c, const json_t *o, const char *name, const char *what)
{
	const json_t *v = field(o, name);

	return !v || json_is_object(v) ? v : bad(c, what);
}

static const json_t *list_get(struct check *c, const json_t *o, const char *name, const char *what)
{
	const json_t *v = field(o, name);

	return !v || json_is_array(v) ? v : bad(c, what);
}

static const char *text_get(struct check *c, const json_t *o, const char *name, const char *what)
{
	const json_t *v = field(o, name);

	return !v || json_is_string(v) ? json_string_value(v) : bad(c, what);
}

static bool flag_get(struct check *c, const json_t *o, const char *name, const char *what)
{
	const json_t *v = field(o, name);

	if (v && !json_is_boolean(v))
		bad(c, what);
	return json_is_true(v);
}

/* A map whose values are texts. */
static const json_t *texts_get(struct check *c, const json_t *o, const char *name, const char *what)
{
	const json_t *map = map_get(c, o, name, what);
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)map, key, value) if (!json_is_string(value)) return bad(c, what);
	return map;
}

static uint64_t version_get(const json_t *meta)
{
	const char *text = json_string_value(field(meta, "resourceVersion"));
	char *end = NULL;
	uint64_t v = text ? strtoull(text, &end, 10) : 0;

	return end && !*end ? v : 0;
}

/* --- a pod's parts -------------------------------------------------------------------------------------- */

static enum kube_redirection redirection(const json_t *annotations)
{
	const char *v = json_string_value(json_object_get(annotations, KUBE_REDIRECTION));

	if (!v)
		return KUBE_ABSENT;
	return !strcmp(v, "enabled") ? KUBE_ENABLED : !strcmp(v, "pending") ? KUBE_PENDING : KUBE_OTHER;
}

static void metadata_read(struct check *c, struct kube_pod_facts *out, const json_t *meta, const char *sa)
{
	const char *ns = text_get(c, meta, "namespace", "metadata.namespace is no text");
	const char *name = text_get(c, meta, "name", "metadata.name is no text");
	const char *uid = text_get(c, meta, "uid", "metadata.uid is no text");
	char text[2 * POD_NAME_MAX + POD_LABEL_MAX + 3], ignored[POD_WHY_MAX];

	if (!uid || !pod_uid_valid(uid))
		bad(c, "metadata.uid is no uid");
	else
		snprintf(out->uid, sizeof out->uid, "%s", uid);
	if (snprintf(text, sizeof text, "%s/%s/%s", ns ? ns : "", name ? name : "", sa && *sa ? sa : "default") >=
		    (int)sizeof text ||
	    pod_identity_parse(&out->identity, text, ignored) < 0)
		bad(c, "namespace, name or service account is no Kubernetes name");
	out->version = version_get(meta);
	out->deleting = text_get(c, meta, "deletionTimestamp", "metadata.deletionTimestamp is no text") != NULL;
}

static void address_add(struct kube_pod_facts *out, const char *text)
{
	struct addr a;

	if (!text || addr_parse(&a, text) < 0 || out->n_ips == KUBE_IPS_MAX)
		return;
	for (unsigned i = 0; i < out->n_ips; i++)
		if (addr_eq(&out->ip[i], &a))
			return;
	out->ip[out->n_ips++] = a;
}

static void status_read(struct check *c, struct kube_pod_facts *out, const json_t *status)
{
	const char *phase = text_get(c, status, "phase", "status.phase is no text");
	const json_t *ips = list_get(c, status, "podIPs", "status.podIPs is no list");
	const json_t *containers = list_get(c, status, "containerStatuses", "status.containerStatuses is no list");
	const char *first;

	out->terminal = phase && (!strcmp(phase, "Succeeded") || !strcmp(phase, "Failed"));
	for (size_t i = 0; i < json_array_size(ips); i++)
		address_add(out, text_get(c, json_array_get(ips, i), "ip", "status.podIPs: ip is no text"));
	if (!json_array_size(ips))
		address_add(out, text_get(c, status, "podIP", "status.podIP is no text"));
	/* A new sandbox restarts all containers, so one is enough to look at. */
	first = text_get(c, json_array_get(containers, 0), "containerID", "containerID is no text");
	out->sandbox = hash_bytes(0, (const char *)out->ip, out->n_ips * sizeof *out->ip);
	out->sandbox = hash_text(out->sandbox, first ? first : "");
}

/* --- probes: their ports matter where the kubelet cannot be told apart ---------------------------------- */

static uint16_t port_number(const json_t *port, const json_t *container)
{
	const json_t *ports = json_object_get(container, "ports");
	json_int_t n = json_integer_value(port);

	for (size_t i = 0; json_is_string(port) && i < json_array_size(ports); i++) {
		const json_t *p = json_array_get(ports, i);
		const char *name = json_string_value(json_object_get(p, "name"));

		if (name && !strcmp(name, json_string_value(port)))
			n = json_integer_value(json_object_get(p, "containerPort"));
	}
	return n > 0 && n <= 65535 ? (uint16_t)n : 0;
}

static void probe_read(struct kube_pod_facts *out, const json_t *probe, const json_t *container)
{
	static const char *const kinds[] = {"httpGet", "tcpSocket", "grpc"};

	for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		uint16_t port = port_number(json_object_get(json_object_get(probe, kinds[k]), "port"), container);
		unsigned i = 0;

		while (i < STEER_PORTS_MAX && out->overlay.probe_ports[i] && out->overlay.probe_ports[i] != port)
			i++;
		if (port && i < STEER_PORTS_MAX)
			out->overlay.probe_ports[i] = port;
	}
}

static void probes_read(struct kube_pod_facts *out, const json_t *containers)
{
	static const char *const probes[] = {"startupProbe", "readinessProbe", "livenessProbe"};

	for (size_t i = 0; i < json_array_size(containers); i++)
		for (unsigned k = 0; k < sizeof probes / sizeof *probes; k++) {
			const json_t *container = json_array_get(containers, i);

			probe_read(out, json_object_get(container, probes[k]), container);
		}
}

/* --- objects -------------------------------------------------------------------------------------------- */

int kube_pod_read(struct kube_pod_facts *out, const json_t *o, const struct kube_rule *r, char notes[POD_WHY_MAX],
		  char why[POD_WHY_MAX])
{
	struct check c = {.why = why};
	const json_t *meta = map_get(&c, o, "metadata", "metadata is no object");
	const json_t *spec = map_get(&c, o, "spec", "spec is no object");
	const json_t *status = map_get(&c, o, "status", "status is no object");
	const json_t *labels = texts_get(&c, meta, "labels", "metadata.labels is no map of texts");
	const json_t *annotations = texts_get(&c, meta, "annotations", "metadata.annotations is no map of texts");
	const char *mirror = json_string_value(json_object_get(annotations, "kubernetes.io/config.mirror"));
	const char *app = json_string_value(json_object_get(labels, "app"));

	memset(out, 0, sizeof *out);
	notes[0] = '\0';
	metadata_read(&c, out, meta, text_get(&c, spec, "serviceAccountName", "serviceAccountName is no text"));
	out->host_network = flag_get(&c, spec, "hostNetwork", "spec.hostNetwork is neither true nor false");
	out->own_users = field(spec, "hostUsers") &&
			 !flag_get(&c, spec, "hostUsers", "spec.hostUsers is neither true nor false");
	status_read(&c, out, status);
	if (c.bad)
		return -EBADMSG;
	kube_overlay_read(&out->overlay, annotations, notes);
	probes_read(out, json_object_get(spec, "initContainers"));
	probes_read(out, json_object_get(spec, "containers"));
	out->sidecar = json_object_get(annotations, "sidecar.istio.io/status") != NULL;
	out->app_ztunnel = app && !strcmp(app, "ztunnel");
	out->redirection = redirection(annotations);
	if (mirror && pod_uid_valid(mirror))
		snprintf(out->mirror, sizeof out->mirror, "%s", mirror);
	out->selected = kube_rule_pod_bits(r, labels);
	return 0;
}

unsigned kube_node_read(struct addr out[STEER_NODE_ADDRS_MAX], const json_t *pod)
{
	const json_t *status = json_object_get(pod, "status"), *all = json_object_get(status, "hostIPs");
	const char *one = json_string_value(json_object_get(status, "hostIP"));
	unsigned n = 0;

	for (size_t i = 0; i < json_array_size(all) && n < STEER_NODE_ADDRS_MAX; i++) {
		const char *ip = json_string_value(json_object_get(json_array_get(all, i), "ip"));

		n += ip && addr_parse(&out[n], ip) == 0;
	}
	return n ? n : one && addr_parse(&out[0], one) == 0;
}

int kube_namespace_read(struct kube_namespace_facts *out, const json_t *o, const struct kube_rule *r,
			char why[POD_WHY_MAX])
{
	struct check c = {.why = why};
	const json_t *meta = map_get(&c, o, "metadata", "metadata is no object");
	const char *name = text_get(&c, meta, "name", "metadata.name is no text");
	const json_t *labels = texts_get(&c, meta, "labels", "metadata.labels is no map of texts");

	memset(out, 0, sizeof *out);
	if (!name || !*name || snprintf(out->name, sizeof out->name, "%s", name) >= (int)sizeof out->name)
		bad(&c, "metadata.name is no name");
	out->version = version_get(meta);
	if (c.bad)
		return -EBADMSG;
	out->selected = kube_rule_namespace_bits(r, labels);
	return 0;
}
