/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh as istiod tells it: objects of a store (control/local.h reads them from a file) as messages. What the tunnel
 * makes of the messages must be those objects again. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/xds_scratch.h"
#include "proto/authorization.pb-c.h"
#include "proto/workload.pb-c.h"
#include "state/store.h"

struct encoder {
	struct xds_scratch memory;
};

/* An array of messages and their pointers. */
static inline void *encoder_take(struct encoder *e, size_t n, size_t size)
{
	void *p = e->memory.allocator.alloc(e->memory.allocator.allocator_data, n * size + 1);

	if (!p)
		abort();
	memset(p, 0, n * size);
	return p;
}

#define ENCODER_LIST(e, n, list, init)                                           \
	do {                                                                     \
		(list) = encoder_take(e, n, sizeof *(list));                     \
		for (unsigned encoder_i = 0; encoder_i < (n); encoder_i++) {     \
			(list)[encoder_i] = encoder_take(e, 1, sizeof **(list)); \
			init((list)[encoder_i]);                                 \
		}                                                                \
	} while (0)

static inline ProtobufCBinaryData encoder_bytes(struct encoder *e, const void *p, size_t len)
{
	ProtobufCBinaryData b = {len, encoder_take(e, len, 1)};

	memcpy(b.data, p, len);
	return b;
}

static inline ProtobufCBinaryData encoder_addr(struct encoder *e, const struct addr *a)
{
	return addr_is4(a) ? encoder_bytes(e, a->b + 12, 4) : encoder_bytes(e, a->b, 16);
}

static inline char *encoder_join(struct encoder *e, const char *ns, const char *name)
{
	size_t len = strlen(ns) + strlen(name) + 2;
	char *s = encoder_take(e, len, 1);

	snprintf(s, len, "%s/%s", ns, name);
	return s;
}

/* --- addresses ------------------------------------------------------------------------------------------ */

static inline Istio__Workload__NetworkAddress *encoder_net_addr(struct encoder *e, const struct net_addr *from)
{
	Istio__Workload__NetworkAddress *m = encoder_take(e, 1, sizeof *m);

	istio__workload__network_address__init(m);
	m->network = (char *)from->network;
	m->address = encoder_addr(e, &from->ip);
	return m;
}

static inline Istio__Workload__GatewayAddress *encoder_gateway(struct encoder *e, const struct gateway *g)
{
	Istio__Workload__GatewayAddress *m = encoder_take(e, 1, sizeof *m);

	if (g->kind == GATEWAY_NONE)
		return NULL;
	istio__workload__gateway_address__init(m);
	m->hbone_mtls_port = g->hbone_port;
	if (g->kind == GATEWAY_ADDR) {
		m->destination_case = ISTIO__WORKLOAD__GATEWAY_ADDRESS__DESTINATION_ADDRESS;
		m->address = encoder_net_addr(e, &g->addr);
	} else {
		m->destination_case = ISTIO__WORKLOAD__GATEWAY_ADDRESS__DESTINATION_HOSTNAME;
		m->hostname = encoder_take(e, 1, sizeof *m->hostname);
		istio__workload__namespaced_hostname__init(m->hostname);
		m->hostname->namespace_ = (char *)g->ns;
		m->hostname->hostname = (char *)g->hostname;
	}
	return m;
}

static inline Istio__Workload__Port **encoder_ports(struct encoder *e, const struct port_map *p, unsigned n)
{
	Istio__Workload__Port **all;

	ENCODER_LIST(e, n, all, istio__workload__port__init);
	for (unsigned i = 0; i < n; i++) {
		all[i]->service_port = p[i].service_port;
		all[i]->target_port = p[i].target_port;
	}
	return all;
}

/* --- workloads ------------------------------------------------------------------------------------------ */

static inline Istio__Workload__WorkloadType encoder_type(const char *name)
{
	static const char *const all[] = {"deployment", "cronjob", "pod", "job"};

	for (unsigned i = 0; i < 4; i++)
		if (!strcmp(name, all[i]))
			return (Istio__Workload__WorkloadType)i;
	return ISTIO__WORKLOAD__WORKLOAD_TYPE__DEPLOYMENT;
}

static inline void encoder_membership(struct encoder *e, const struct workload *w, Istio__Workload__Workload *m)
{
	m->n_services = w->n_services;
	ENCODER_LIST(e, w->n_services, m->services, istio__workload__membership__init);
	for (unsigned i = 0; i < w->n_services; i++) {
		Istio__Workload__PortList *l = encoder_take(e, 1, sizeof *l);

		istio__workload__port_list__init(l);
		l->n_ports = w->services[i].n_ports;
		l->ports = encoder_ports(e, w->services[i].ports, w->services[i].n_ports);
		m->services[i]->key = encoder_join(e, w->services[i].ns, w->services[i].hostname);
		m->services[i]->value = l;
	}
}

static inline void encoder_optional(struct encoder *e, const struct workload *w, Istio__Workload__Workload *m)
{
	if (*w->region || *w->zone || *w->subzone) {
		m->locality = encoder_take(e, 1, sizeof *m->locality);
		istio__workload__locality__init(m->locality);
		m->locality->region = (char *)w->region;
		m->locality->zone = (char *)w->zone;
		m->locality->subzone = (char *)w->subzone;
	}
	if (w->app_tunnel != APP_TUNNEL_ABSENT) {
		m->application_tunnel = encoder_take(e, 1, sizeof *m->application_tunnel);
		istio__workload__application_tunnel__init(m->application_tunnel);
		m->application_tunnel->protocol = w->app_tunnel == APP_TUNNEL_PROXY;
		m->application_tunnel->port = w->app_tunnel_port;
	}
	if (w->capacity != 1) {
		m->capacity = encoder_take(e, 1, sizeof *m->capacity);
		istio__workload__uint32_value__init(m->capacity);
		m->capacity->value = w->capacity;
	}
}

static inline Istio__Workload__Workload *encoder_workload(struct encoder *e, const struct workload *w)
{
	Istio__Workload__Workload *m = encoder_take(e, 1, sizeof *m);

	istio__workload__workload__init(m);
	m->name = (char *)w->name;
	m->namespace_ = (char *)w->ns;
	m->network = (char *)w->network;
	m->trust_domain = strcmp(w->trust_domain, "cluster.local") != 0 ? (char *)w->trust_domain : "";
	m->service_account = strcmp(w->service_account, "default") != 0 ? (char *)w->service_account : "";
	m->node = (char *)w->node;
	m->canonical_name = (char *)w->canonical_name;
	m->canonical_revision = (char *)w->canonical_revision;
	m->workload_type = encoder_type(w->workload_type);
	m->workload_name = (char *)w->workload_name;
	m->native_tunnel = w->native_tunnel;
	m->cluster_id = (char *)w->cluster_id;
	m->uid = (char *)w->uid;
	m->hostname = (char *)w->hostname;
	m->tunnel_protocol = w->protocol == PROTO_HBONE;
	m->status = !w->healthy;
	m->network_mode = w->network_mode == NETWORK_HOST;
	m->waypoint = encoder_gateway(e, &w->waypoint);
	m->network_gateway = encoder_gateway(e, &w->network_gateway);
	m->n_addresses = w->n_ips;
	m->addresses = encoder_take(e, w->n_ips, sizeof *m->addresses);
	for (unsigned i = 0; i < w->n_ips; i++)
		m->addresses[i] = encoder_addr(e, &w->ips[i]);
	m->n_authorization_policies = w->n_policies;
	m->authorization_policies = (char **)w->policies;
	encoder_membership(e, w, m);
	encoder_optional(e, w, m);
	return m;
}

/* --- services ------------------------------------------------------------------------------------------- */

static inline void encoder_balance(struct encoder *e, const struct service *v, Istio__Workload__Service *m)
{
	Istio__Workload__LoadBalancing *lb = encoder_take(e, 1, sizeof *lb);

	if (v->lb_mode == LB_STANDARD && !v->n_lb_scopes && !v->lb_allow_unhealthy)
		return;
	istio__workload__load_balancing__init(lb);
	lb->mode = (Istio__Workload__LoadBalancing__Mode)v->lb_mode;
	lb->health_policy = v->lb_allow_unhealthy;
	lb->n_routing_preference = v->n_lb_scopes;
	lb->routing_preference = encoder_take(e, v->n_lb_scopes, sizeof *lb->routing_preference);
	for (unsigned i = 0; i < v->n_lb_scopes; i++)
		lb->routing_preference[i] = (Istio__Workload__LoadBalancing__Scope)v->lb_scopes[i];
	m->load_balancing = lb;
}

static inline Istio__Workload__Service *encoder_service(struct encoder *e, const struct service *v)
{
	Istio__Workload__Service *m = encoder_take(e, 1, sizeof *m);

	istio__workload__service__init(m);
	m->name = (char *)v->name;
	m->namespace_ = (char *)v->ns;
	m->hostname = (char *)v->hostname;
	m->n_addresses = v->n_vips;
	m->addresses = encoder_take(e, v->n_vips, sizeof *m->addresses);
	for (unsigned i = 0; i < v->n_vips; i++) {
		m->addresses[i] = encoder_net_addr(e, &v->vips[i].addr);
		if (v->vips[i].len == (addr_is4(&v->vips[i].addr.ip) ? 32 : 128))
			continue;
		m->addresses[i]->has_length_case = ISTIO__WORKLOAD__NETWORK_ADDRESS__HAS_LENGTH_LENGTH;
		m->addresses[i]->length = v->vips[i].len;
	}
	m->n_ports = v->n_ports;
	m->ports = encoder_ports(e, v->ports, v->n_ports);
	m->n_subject_alt_names = v->n_sans;
	m->subject_alt_names = (char **)v->sans;
	m->waypoint = encoder_gateway(e, &v->waypoint);
	m->n_weighted_waypoints = v->n_waypoints;
	ENCODER_LIST(e, v->n_waypoints, m->weighted_waypoints, istio__workload__weighted_waypoint__init);
	for (unsigned i = 0; i < v->n_waypoints; i++) {
		m->weighted_waypoints[i]->destination = encoder_gateway(e, &v->waypoints[i].to);
		m->weighted_waypoints[i]->weight = v->waypoints[i].weight;
	}
	encoder_balance(e, v, m);
	m->ip_families = (Istio__Workload__IPFamilies)v->ip_families;
	m->canonical = v->canonical;
	m->visibility = (Istio__Workload__Service__Visibility)v->visibility;
	return m;
}

/* --- policies: one writer for each kind of list in POLICY_MATCH_LISTS ----------------------------------- */

static inline Istio__Security__Address *encoder_networks(struct encoder *e, const struct prefix *p)
{
	Istio__Security__Address *m = encoder_take(e, 1, sizeof *m);

	istio__security__address__init(m);
	m->address = encoder_addr(e, &p->ip);
	m->length = p->len;
	return m;
}

static inline uint32_t encoder_ports_one(struct encoder *e, const uint16_t *port)
{
	return *port;
}

static inline Istio__Security__ServiceAccountMatch *encoder_accounts(struct encoder *e, const struct account_match *a)
{
	Istio__Security__ServiceAccountMatch *m = encoder_take(e, 1, sizeof *m);

	istio__security__service_account_match__init(m);
	m->namespace_ = encoder_bytes(e, a->ns, strlen(a->ns));
	m->service_account = encoder_bytes(e, a->sa, strlen(a->sa));
	return m;
}

static inline Istio__Security__StringMatch *encoder_strings(struct encoder *e, const struct string_match *s)
{
	static const Istio__Security__StringMatch__MatchTypeCase kinds[] = {
		ISTIO__SECURITY__STRING_MATCH__MATCH_TYPE_EXACT, ISTIO__SECURITY__STRING_MATCH__MATCH_TYPE_PREFIX,
		ISTIO__SECURITY__STRING_MATCH__MATCH_TYPE_SUFFIX, ISTIO__SECURITY__STRING_MATCH__MATCH_TYPE_PRESENCE};
	Istio__Security__StringMatch *m = encoder_take(e, 1, sizeof *m);

	istio__security__string_match__init(m);
	m->match_type_case = kinds[s->kind];
	if (s->kind == MATCH_PRESENCE) {
		m->presence = encoder_take(e, 1, sizeof *m->presence);
		istio__security__empty__init(m->presence);
	} else {
		m->exact = encoder_bytes(e, s->text, strlen(s->text)); /* the union's other texts as well */
	}
	return m;
}

static inline void encoder_match(struct encoder *e, const struct policy_match *from, Istio__Security__Match *m)
{
#define encoder_ports encoder_ports_one
#define WRITE_LIST(kind, list, key)                                 \
	m->n_##list = from->n_##list;                               \
	m->list = encoder_take(e, from->n_##list, sizeof *m->list); \
	for (unsigned i = 0; i < from->n_##list; i++)               \
		m->list[i] = encoder_##kind(e, &from->list[i]);
	POLICY_MATCH_LISTS(WRITE_LIST)
#undef WRITE_LIST
#undef encoder_ports
}

static inline void encoder_rule(struct encoder *e, const struct policy_rule *from, Istio__Security__Rule *m)
{
	m->n_clauses = from->n_clauses;
	ENCODER_LIST(e, from->n_clauses, m->clauses, istio__security__clause__init);
	for (unsigned i = 0; i < from->n_clauses; i++) {
		const struct policy_clause *c = &from->clauses[i];

		m->clauses[i]->n_matches = c->n_matches;
		ENCODER_LIST(e, c->n_matches, m->clauses[i]->matches, istio__security__match__init);
		for (unsigned j = 0; j < c->n_matches; j++)
			encoder_match(e, &c->matches[j], m->clauses[i]->matches[j]);
	}
}

static inline Istio__Security__Authorization *encoder_policy(struct encoder *e, const struct policy *p)
{
	Istio__Security__Authorization *m = encoder_take(e, 1, sizeof *m);

	istio__security__authorization__init(m);
	m->name = (char *)p->name;
	m->namespace_ = (char *)p->ns;
	m->scope = (Istio__Security__Scope)p->scope;
	m->action = (Istio__Security__Action)p->action;
	m->dry_run = p->dry_run;
	m->n_rules = p->n_rules;
	ENCODER_LIST(e, p->n_rules, m->rules, istio__security__rule__init);
	for (unsigned i = 0; i < p->n_rules; i++)
		encoder_rule(e, &p->rules[i], m->rules[i]);
	return m;
}

/* --- encoded -------------------------------------------------------------------------------------------- */

static inline uint8_t *encoder_pack(const ProtobufCMessage *m, size_t *len)
{
	uint8_t *p = malloc((*len = protobuf_c_message_get_packed_size(m)) + 1);

	protobuf_c_message_pack(m, p);
	return p;
}

/* The value of an xDS resource, malloc'ed. */
static inline uint8_t *encode_workload(const struct workload *w, size_t *len)
{
	Istio__Workload__Address m = ISTIO__WORKLOAD__ADDRESS__INIT;
	struct encoder e;
	uint8_t *out;

	xds_scratch_init(&e.memory, SIZE_MAX / 2);
	m.type_case = ISTIO__WORKLOAD__ADDRESS__TYPE_WORKLOAD;
	m.workload = encoder_workload(&e, w);
	out = encoder_pack(&m.base, len);
	xds_scratch_free(&e.memory);
	return out;
}

static inline uint8_t *encode_service(const struct service *v, size_t *len)
{
	Istio__Workload__Address m = ISTIO__WORKLOAD__ADDRESS__INIT;
	struct encoder e;
	uint8_t *out;

	xds_scratch_init(&e.memory, SIZE_MAX / 2);
	m.type_case = ISTIO__WORKLOAD__ADDRESS__TYPE_SERVICE;
	m.service = encoder_service(&e, v);
	out = encoder_pack(&m.base, len);
	xds_scratch_free(&e.memory);
	return out;
}

static inline uint8_t *encode_policy(const struct policy *p, size_t *len)
{
	struct encoder e;
	uint8_t *out;

	xds_scratch_init(&e.memory, SIZE_MAX / 2);
	out = encoder_pack(&encoder_policy(&e, p)->base, len);
	xds_scratch_free(&e.memory);
	return out;
}
