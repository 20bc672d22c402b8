// SPDX-License-Identifier: Apache-2.0
/* Workloads of the local file. What istiod would default is defaulted here as well: trust domain, service account and
 * cluster. */
#include <stdlib.h>
#include <string.h>

#include "control/local_parts.h"

static void ips(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;
	struct workload *w = p->object;
	struct local_list l;

	local_list_init(&l, sizeof(struct addr));
	for (doc_list(d, f->name); doc_item(d);) {
		struct addr *a = local_list_add(d, &l);

		if (a)
			*a = local_addr(d, f->name);
	}
	w->ips = local_list_end(d, &l, p->arena, &w->n_ips);
}

static void policies(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;
	struct workload *w = p->object;
	struct local_mention *m = local_list_add(d, &p->state->mentions);

	if (m)
		*m = (struct local_mention){w, doc_line(d)};
	w->policies = local_texts(d, p->arena, f->name, &w->n_policies);
}

static void status(struct doc *d, const struct doc_field *f, void *part)
{
	((struct workload *)((struct local_part *)part)->object)->healthy = doc_word(d, f->name, f->words);
}

static void locality(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_field fields[] = {
		{"region", local_text, offsetof(struct workload, region)},
		{"zone", local_text, offsetof(struct workload, zone)},
		{"subzone", local_text, offsetof(struct workload, subzone)},
		{0},
	};

	doc_object(d, f->name, fields, part);
}

static void app_tunnel(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_word protocols[] = {{"NONE", APP_TUNNEL_NONE}, {"PROXY", APP_TUNNEL_PROXY}, {0}};
	static const struct doc_field fields[] = {
		{"protocol", local_word, offsetof(struct workload, app_tunnel), protocols, .required = true},
		{"port", local_port, offsetof(struct workload, app_tunnel_port)},
		{0},
	};

	doc_object(d, f->name, fields, part);
}

/* The names of a workload are often one: then it is kept once. */
static void alias(struct doc *d, const struct doc_field *f, void *part)
{
	struct workload *w = ((struct local_part *)part)->object;
	struct doc_text t = doc_text(d, f->name);
	const char *const known[] = {w->name, w->workload_name};

	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (t.len && !strcmp(known[i], t.s)) {
			memcpy((char *)w + f->at, &known[i], sizeof known[i]);
			return;
		}
	local_text(d, f, part);
}

/* --- services: {"namespace/hostname": {port: port}}, or a list of names in /config_dump ----------------- */

static struct membership *member(struct doc *d, struct local_list *l, struct arena *a)
{
	struct doc_text t = doc_text(d, "a service");
	struct membership *m = local_list_add(d, l);

	if (m && !local_split(d, a, t.s, &m->ns, &m->hostname))
		doc_fail(d, "services: \"%s\" is not NAMESPACE/HOSTNAME", t.s);
	return m;
}

static void services(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;
	struct workload *w = p->object;
	struct local_list l;

	local_list_init(&l, sizeof(struct membership));
	if (d->event.type == YAML_SEQUENCE_START_EVENT) {
		for (doc_list(d, f->name); doc_item(d);)
			member(d, &l, p->arena);
	} else {
		for (doc_map(d, f->name); doc_key(d);) {
			struct membership *m = member(d, &l, p->arena);

			if (doc_next(d))
				m->ports = local_ports(d, p->arena, &m->n_ports);
		}
	}
	w->services = local_list_end(d, &l, p->arena, &w->n_services);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

#define AT(field) offsetof(struct workload, field)

static const struct doc_word protocols[] = {{"TCP", PROTO_TCP}, {"HBONE", PROTO_HBONE}, {0}};
static const struct doc_word modes[] = {{"Standard", NETWORK_STANDARD}, {"HostNetwork", NETWORK_HOST}, {0}};
static const struct doc_word states[] = {{"Healthy", true}, {"Unhealthy", false}, {0}};

static const struct doc_field fields[] = {
	{"uid", local_own, AT(uid)},
	{"name", local_own, AT(name)},
	{"namespace", local_text, AT(ns), .required = true},
	{"trustDomain", local_text, AT(trust_domain)},
	{"serviceAccount", local_text, AT(service_account)},
	{"workloadIps", ips, .required = true},
	{"protocol", local_word, AT(protocol), protocols},
	{"node", local_text, AT(node)},
	{"network", local_text, AT(network)},
	{"status", status, 0, states},
	{"workloadName", alias, AT(workload_name)},
	{"workloadType", local_text, AT(workload_type)},
	{"canonicalName", alias, AT(canonical_name)},
	{"canonicalRevision", local_text, AT(canonical_revision)},
	{"clusterId", local_text, AT(cluster_id)},
	{"services", services},
	{"authorizationPolicies", policies},
	{"hostname", local_text, AT(hostname)},
	{"networkMode", local_word, AT(network_mode), modes},
	{"waypoint", local_gateway, AT(waypoint)},
	{"networkGateway", local_gateway, AT(network_gateway)},
	{"nativeTunnel", local_bool, AT(native_tunnel)},
	{"applicationTunnel", app_tunnel},
	{"locality", locality},
	{"capacity", local_u32, AT(capacity)},
	{0},
};

/* "CLUSTER//Pod/NAMESPACE/NAME" as istiod does, where the file names none. */
static void derive_uid(struct doc *d, struct workload *w, struct arena *a)
{
	char *uid;
	int n;

	if (!*w->name) {
		doc_fail(d, "a workload needs \"uid\" or \"name\"");
		return;
	}
	n = asprintf(&uid, "%s//Pod/%s/%s", w->cluster_id, w->ns, w->name);
	w->uid = n < 0 ? NULL : arena_copy(a, uid, (size_t)n);
	if (n >= 0)
		free(uid);
	if (!w->uid)
		doc_no_memory(d);
}

void local_workload(struct doc *d, struct local_state *s)
{
	struct workload **slot = local_list_add(d, &s->workloads);
	struct local_part p = {.state = s};
	size_t line = doc_line(d);

	if (!slot)
		return;
	*slot = p.object = workload_new(&p.arena);
	if (!p.object) {
		doc_no_memory(d);
		return;
	}
	doc_object(d, "workload", fields, &p);
	if (d->error)
		return;
	struct workload *w = p.object;
	if (!*w->trust_domain)
		w->trust_domain = "cluster.local";
	if (!*w->service_account)
		w->service_account = "default";
	if (!*w->cluster_id)
		w->cluster_id = "Kubernetes";
	if (!*w->uid)
		derive_uid(d, w, p.arena);
	if (!d->error)
		local_unique_workload(d, s, line);
}
