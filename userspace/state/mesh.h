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
struct gateway { /* reference to a waypoint or a network gateway; `kind` says which of the two forms it has */
	union {
		struct net_addr addr;
		struct {
			const char *ns, *hostname;
		};
	};
	enum gateway_kind kind;
	uint16_t hbone_port;
};

struct port_map {
	uint16_t service_port, target_port; /* target 0: a named port, each endpoint has its own */
};

struct membership { /* a workload's part in one service */
	const char *ns, *hostname;
	struct port_map *ports;
	unsigned n_ports;
	unsigned at; /* the store's */
};

struct workload {
	unsigned refs;
	uint32_t capacity;
	const char *uid, *name, *ns, *trust_domain, *service_account;
	const char *network, *node, *cluster_id, *hostname;
	const char *canonical_name, *canonical_revision, *workload_name, *workload_type; /* type in lower case */
	const char *region, *zone, *subzone;
	struct addr *ips;
	const char **policies; /* names of selector policies, "ns/name" */
	struct membership *services;
	unsigned n_ips, n_policies, n_services;
	enum tunnel_protocol protocol;
	enum network_mode network_mode;
	enum app_tunnel app_tunnel;
	uint16_t app_tunnel_port; /* 0: unset */
	bool native_tunnel, healthy;
	struct gateway waypoint, network_gateway;
};

struct vip {
	struct net_addr addr;
	uint8_t len; /* of the native family; a full length is a plain VIP */
};

/* Of one address, not of a range. A length that the family does not have counts as full. */
static inline bool vip_is_host(const struct vip *v)
{
	return v->len >= (addr_is4(&v->addr.ip) ? 32 : 128);
}

struct weighted_gateway {
	struct gateway to;
	uint32_t weight;
};

struct endpoint_ref {		       /* one workload behind a service */
	struct workload *workload;     /* referenced */
	const struct membership *part; /* the workload's in this service */
};

struct service {
	unsigned refs;
	bool canonical, lb_allow_unhealthy;
	const char *name, *ns, *hostname;
	struct vip *vips;
	struct port_map *ports;
	const char **sans;
	struct weighted_gateway *waypoints;
	unsigned n_vips, n_ports, n_sans, n_waypoints;
	struct gateway waypoint;
	enum lb_mode lb_mode;
	enum lb_scope lb_scopes[LB_SCOPES_MAX];
	unsigned n_lb_scopes;
	enum ip_families ip_families;
	enum visibility visibility;
	unsigned n_endpoints;
	struct endpoint_ref *endpoints; /* filled by the store */
};

/* --- policies (spec: istio.security.Authorization) ------------------------------------------------------ */

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

#define POLICY_LIST(type, name) \
	type *name;             \
	unsigned n_##name

/* What a match may ask of a connection, by the keys of the local file, as dumps sort them: X(kind, list, key). All that
 * deals with matches is made from this table, but for the facts themselves: state/policy.c does not compile without
 * them. */
#define POLICY_MATCH_LISTS(X)                                   \
	X(networks, destination_ips, "destinationIps")          \
	X(ports, destination_ports, "destinationPorts")         \
	X(strings, namespaces, "namespaces")                    \
	X(networks, not_destination_ips, "notDestinationIps")   \
	X(ports, not_destination_ports, "notDestinationPorts")  \
	X(strings, not_namespaces, "notNamespaces")             \
	X(strings, not_principals, "notPrincipals")             \
	X(accounts, not_service_accounts, "notServiceAccounts") \
	X(networks, not_source_ips, "notSourceIps")             \
	X(strings, principals, "principals")                    \
	X(accounts, service_accounts, "serviceAccounts")        \
	X(networks, source_ips, "sourceIps")
typedef struct prefix policy_networks;
typedef uint16_t policy_ports;
typedef struct string_match policy_strings;
typedef struct account_match policy_accounts;

#define POLICY_MATCH_MEMBER(kind, list, key) POLICY_LIST(policy_##kind, list);
struct policy_match { /* AND over the attributes that are given */
	POLICY_MATCH_LISTS(POLICY_MATCH_MEMBER)
};
#undef POLICY_MATCH_MEMBER

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
void policy_unref(struct policy *p);

/* Builders: an empty object whose strings and arrays live in one arena that dies with it. `*_str` interns or copies. */
struct arena;
struct workload *workload_new(struct arena **a);
struct service *service_new(struct arena **a);
struct policy *policy_new(struct arena **a);
const char *arena_str(struct arena *a, const char *s, size_t len); /* NULL: no memory */
/* The same for a text that no other object has (uid, pod name): never shared, which costs less. */
const char *arena_copy(struct arena *a, const char *s, size_t len);
void *arena_alloc(struct arena *a, size_t n, size_t size); /* zeroed array of n; NULL: no memory */
