/* SPDX-License-Identifier: Apache-2.0 */
/* What the mesh consists of: workloads, services, policies, as istiod's xDS and the local file describe them (field
 * meanings: istio.workload and istio.security protos). Objects are immutable once they are in the store and
 * reference-counted; a change is a new object. Strings are never NULL ("" means absent), arrays may be. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

enum tunnel_protocol { PROTO_TCP, PROTO_HBONE };
enum network_mode { NETWORK_STANDARD, NETWORK_HOST };
enum app_tunnel { APP_TUNNEL_ABSENT, APP_TUNNEL_NONE, APP_TUNNEL_PROXY };
enum ip_families { FAMILIES_ANY, FAMILIES_IPV4, FAMILIES_IPV6, FAMILIES_DUAL };
enum visibility { VISIBLE_PUBLIC, VISIBLE_NAMESPACE };
enum lb_mode { LB_STANDARD, LB_STRICT, LB_FAILOVER, LB_PASSTHROUGH };
enum lb_scope { SCOPE_REGION = 1, SCOPE_ZONE, SCOPE_SUBZONE, SCOPE_NODE, SCOPE_CLUSTER, SCOPE_NETWORK };
enum { LB_SCOPES_MAX = 6 };

struct net_addr { /* an address on a named network; "" is the default network */
	const char *network;
	struct addr ip;
};

enum gateway_kind { GATEWAY_NONE, GATEWAY_ADDR, GATEWAY_HOST };
struct gateway { /* reference to a waypoint or a network gateway */
	enum gateway_kind kind;
	struct net_addr addr;
	const char *ns, *hostname;
	uint16_t hbone_port;
};

struct port_map {
	uint16_t service_port, target_port; /* target 0: a named port, each endpoint has its own */
};

struct membership { /* a workload's part in one service */
	const char *ns, *hostname;
	struct port_map *ports;
	unsigned n_ports;
};

struct workload {
	unsigned refs;
	const char *uid, *name, *ns, *trust_domain, *service_account;
	const char *network, *node, *cluster_id, *hostname;
	const char *canonical_name, *canonical_revision, *workload_name, *workload_type; /* type in lower case */
	const char *region, *zone, *subzone;
	struct addr *ips;
	unsigned n_ips;
	enum tunnel_protocol protocol;
	enum network_mode network_mode;
	bool native_tunnel, healthy;
	struct gateway waypoint, network_gateway;
	enum app_tunnel app_tunnel;
	uint16_t app_tunnel_port; /* 0: unset */
	const char **policies;    /* names of selector policies, "ns/name" */
	unsigned n_policies;
	struct membership *services;
	unsigned n_services;
	uint32_t capacity;
};

struct vip {
	struct net_addr addr;
	uint8_t len; /* of the native family; a full length is a plain VIP */
};

struct weighted_gateway {
	struct gateway to;
	uint32_t weight;
};

struct endpoint_ref { /* one workload behind a service, with its own port map */
	struct workload *workload; /* referenced */
	const struct port_map *ports;
	unsigned n_ports;
};

struct service {
	unsigned refs;
	const char *name, *ns, *hostname;
	struct vip *vips;
	unsigned n_vips;
	struct port_map *ports;
	unsigned n_ports;
	const char **sans;
	unsigned n_sans;
	struct gateway waypoint;
	struct weighted_gateway *waypoints;
	unsigned n_waypoints;
	enum lb_mode lb_mode;
	enum lb_scope lb_scopes[LB_SCOPES_MAX];
	unsigned n_lb_scopes;
	bool lb_allow_unhealthy;
	enum ip_families ip_families;
	enum visibility visibility;
	bool canonical;
	struct endpoint_ref *endpoints; /* filled by the store */
	unsigned n_endpoints;
};

/* --- policies (spec: istio.security.Authorization) --------------------------------------------------- */

enum policy_scope { POLICY_GLOBAL, POLICY_NAMESPACE, POLICY_SELECTOR };
enum policy_action { POLICY_ALLOW, POLICY_DENY };
enum string_match_kind { MATCH_EXACT, MATCH_PREFIX, MATCH_SUFFIX, MATCH_PRESENCE };

struct string_match {
	enum string_match_kind kind;
	const char *text;
};
struct account_match {
	const char *ns, *sa;
};

#define POLICY_LIST(type, name)                                                                              \
	type *name;                                                                                          \
	unsigned n_##name

struct policy_match { /* AND over the attributes that are given */
	POLICY_LIST(struct string_match, namespaces);
	POLICY_LIST(struct string_match, not_namespaces);
	POLICY_LIST(struct string_match, principals);
	POLICY_LIST(struct string_match, not_principals);
	POLICY_LIST(struct prefix, source_ips);
	POLICY_LIST(struct prefix, not_source_ips);
	POLICY_LIST(struct prefix, destination_ips);
	POLICY_LIST(struct prefix, not_destination_ips);
	POLICY_LIST(uint16_t, destination_ports);
	POLICY_LIST(uint16_t, not_destination_ports);
	POLICY_LIST(struct account_match, service_accounts);
	POLICY_LIST(struct account_match, not_service_accounts);
};
struct policy_clause { /* OR over matches; none: matches all */
	POLICY_LIST(struct policy_match, matches);
};
struct policy_rule { /* AND over clauses; none: matches all */
	POLICY_LIST(struct policy_clause, clauses);
};

struct policy {
	unsigned refs;
	const char *name, *ns; /* key: "ns/name" */
	enum policy_scope scope;
	enum policy_action action;
	bool dry_run;
	/* An entry could not be understood. Fail closed: a DENY matches everything, an ALLOW nothing. */
	bool unparseable;
	POLICY_LIST(struct policy_rule, rules);
};

/* References are atomic and may be dropped from any thread; memory goes after a grace period. */
struct workload *workload_ref(struct workload *w);
void workload_unref(struct workload *w);
struct service *service_ref(struct service *s);
void service_unref(struct service *s);
struct policy *policy_ref(struct policy *p);
void policy_unref(struct policy *p);

/* Builders: an empty object whose strings and arrays live in one arena that dies with it. `*_str` interns or copies. */
struct arena;
struct workload *workload_new(struct arena **a);
struct service *service_new(struct arena **a);
struct policy *policy_new(struct arena **a);
const char *arena_str(struct arena *a, const char *s, size_t len); /* NULL: no memory */
void *arena_alloc(struct arena *a, size_t n, size_t size);         /* zeroed array of n; NULL: no memory */
