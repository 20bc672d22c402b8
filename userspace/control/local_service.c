// SPDX-License-Identifier: Apache-2.0
/* Services of the local file. */
#include <string.h>

#include "control/local_parts.h"
#include "state/arena.h"

/* --- addresses ------------------------------------------------------------------------------------------ */

static void cidr_network(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;

	((struct vip *)p->object)->addr.network = local_str(d, p->arena, f->name);
}

static void cidr(struct doc *d, const struct doc_field *f, void *part)
{
	struct vip *v = ((struct local_part *)part)->object;
	struct doc_text t = doc_text(d, f->name);
	struct prefix x;

	if (d->error)
		return;
	if (prefix_parse(&x, t.s) < 0) {
		doc_fail(d, "%s: \"%s\" is not ADDRESS/LENGTH", f->name, t.s);
		return;
	}
	v->addr.ip = x.ip;
	v->len = x.len;
}

/* Adds to the VIPs that are there: plain ones and prefixes are two keys of the file and one list here. */
static void add_vips(struct doc *d, const char *what, struct local_part *p,
		     void (*read)(struct doc *d, struct local_part *p, struct vip *v))
{
	struct service *s = p->object;
	struct local_list l;

	local_list_init(&l, sizeof(struct vip));
	for (unsigned i = 0; i < s->n_vips; i++) {
		struct vip *v = local_list_add(d, &l);

		if (v)
			*v = s->vips[i];
	}
	for (doc_list(d, what); doc_item(d);) {
		struct vip *v = local_list_add(d, &l);

		if (v)
			read(d, p, v);
	}
	s->vips = local_list_end(d, &l, p->arena, &s->n_vips);
}

static void one_vip(struct doc *d, struct local_part *p, struct vip *v)
{
	v->addr = local_net_addr(d, p->arena, "vips");
	v->len = addr_is4(&v->addr.ip) ? 32 : 128;
}

static void one_cidr(struct doc *d, struct local_part *p, struct vip *v)
{
	static const struct doc_field fields[] = {
		{"network", cidr_network},
		{"cidr", cidr, .required = true},
		{0},
	};
	struct local_part inner = {v, p->arena, NULL};

	v->addr.network = "";
	doc_object(d, "cidrVips", fields, &inner);
}

static void vips(struct doc *d, const struct doc_field *f, void *part)
{
	add_vips(d, f->name, part, one_vip);
}

static void cidr_vips(struct doc *d, const struct doc_field *f, void *part)
{
	add_vips(d, f->name, part, one_cidr);
}

/* --- lists and nested objects --------------------------------------------------------------------------- */

static void ports(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;
	struct service *s = p->object;

	s->ports = local_ports(d, p->arena, &s->n_ports);
}

static void sans(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;
	struct service *s = p->object;

	s->sans = local_texts(d, p->arena, f->name, &s->n_sans);
}

static void weighted(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_field fields[] = {
		{"destination", local_gateway, offsetof(struct weighted_gateway, to), .required = true},
		{"weight", local_u32, offsetof(struct weighted_gateway, weight), .required = true},
		{0},
	};
	struct local_part *p = part;
	struct service *s = p->object;
	struct local_list l;

	local_list_init(&l, sizeof(struct weighted_gateway));
	for (doc_list(d, f->name); doc_item(d);) {
		struct weighted_gateway *g = local_list_add(d, &l);
		struct local_part inner = {g, p->arena, NULL};

		if (!g)
			break;
		doc_object(d, f->name, fields, &inner);
	}
	s->waypoints = local_list_end(d, &l, p->arena, &s->n_waypoints);
}

static void preferences(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_word scopes[] = {{"Region", SCOPE_REGION},
						 {"Zone", SCOPE_ZONE},
						 {"Subzone", SCOPE_SUBZONE},
						 {"Node", SCOPE_NODE},
						 {"Cluster", SCOPE_CLUSTER},
						 {"Network", SCOPE_NETWORK},
						 {0}};
	struct service *s = ((struct local_part *)part)->object;

	s->n_lb_scopes = 0;
	for (doc_list(d, f->name); doc_item(d);) {
		enum lb_scope scope = (enum lb_scope)doc_word(d, f->name, scopes);

		if (s->n_lb_scopes == LB_SCOPES_MAX)
			doc_fail(d, "%s: more than %d", f->name, LB_SCOPES_MAX);
		else
			s->lb_scopes[s->n_lb_scopes++] = scope;
	}
}

static void health(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_word words[] = {{"OnlyHealthy", false}, {"AllowAll", true}, {0}};

	((struct service *)((struct local_part *)part)->object)->lb_allow_unhealthy = doc_word(d, f->name, words);
}

static void load_balancer(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_word modes[] = {{"Standard", LB_STANDARD},
						{"Strict", LB_STRICT},
						{"Failover", LB_FAILOVER},
						{"Passthrough", LB_PASSTHROUGH},
						{0}};
	static const struct doc_field fields[] = {
		{"routingPreferences", preferences},
		{"mode", local_word, offsetof(struct service, lb_mode), modes},
		{"healthPolicy", health},
		{0},
	};

	doc_object(d, f->name, fields, part);
}

/* --- endpoints, as /config_dump has them ---------------------------------------------------------------- */

static void endpoint_ports(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;
	struct local_endpoint *e = p->object;

	e->ports = local_ports(d, p->arena, &e->n_ports);
}

/* The workload says the same of itself. */
static void ignored(struct doc *d, const struct doc_field *f, void *part)
{
	doc_skip(d);
}

static void endpoints(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_field fields[] = {
		{"workloadUid", ignored},
		{"port", endpoint_ports},
		{"status", ignored},
		{0},
	};
	struct local_part *p = part;

	for (doc_map(d, f->name); doc_key(d);) {
		struct local_endpoint *e = local_list_add(d, &p->state->endpoints);
		struct local_part inner = {e, p->arena, NULL};

		if (!e)
			break;
		e->uid = local_str(d, p->arena, f->name);
		e->service = p->object;
		if (doc_next(d))
			doc_object(d, "endpoint", fields, &inner);
	}
}

/* --- the whole ------------------------------------------------------------------------------------------ */

#define AT(field) offsetof(struct service, field)

static const struct doc_word families[] = {
	{"Dual", FAMILIES_DUAL}, {"IPv4", FAMILIES_IPV4}, {"IPv6", FAMILIES_IPV6}, {0}};
static const struct doc_word visibilities[] = {{"Public", VISIBLE_PUBLIC}, {"Namespace", VISIBLE_NAMESPACE}, {0}};

static const struct doc_field fields[] = {
	{"name", local_own, AT(name), .required = true},
	{"namespace", local_text, AT(ns), .required = true},
	{"hostname", local_text, AT(hostname), .required = true},
	{"vips", vips, .required = true},
	{"ports", ports, .required = true},
	{"cidrVips", cidr_vips},
	{"endpoints", endpoints},
	{"subjectAltNames", sans},
	{"waypoint", local_gateway, AT(waypoint)},
	{"weightedWaypoints", weighted},
	{"loadBalancer", load_balancer},
	{"ipFamilies", local_word, AT(ip_families), families},
	{"canonical", local_bool, AT(canonical)},
	{"visibility", local_word, AT(visibility), visibilities},
	{0},
};

void local_service(struct doc *d, struct local_state *s)
{
	struct service **slot = local_list_add(d, &s->services);
	struct local_part p = {.state = s};
	size_t line = doc_line(d);

	if (!slot)
		return;
	*slot = p.object = service_new(&p.arena);
	if (p.object)
		doc_object(d, "service", fields, &p);
	else
		doc_no_memory(d);
	if (!d->error)
		local_unique_service(d, s, line);
}
