/* SPDX-License-Identifier: Apache-2.0 */
/* From istiod's messages to objects of the mesh: what a file says is the same by xDS, and what a message has wrong is named,
 * with nothing taken from it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/xds_parts.h"
#include "state/policy.h"
#include "xds_rig.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* --- the same by file and by xDS ------------------------------------------------------------------------ */

#define W "workloads: [{uid: u, name: n, namespace: ns, workloadIps: [10.0.0.1], workloadType: deployment"
#define S "services: [{name: s, namespace: ns, hostname: s.ns, ports: {80: 8080, 81: 0}"
#define P "policies: [{name: p, namespace: ns, scope: Namespace, action: Deny, rules: "

static const struct {
	const char *name, *text;
} meshes[] = {
	{"nothing", "{}"},
	{"a workload", W "}]"},
	{"uid as istiod makes it", "workloads: [{name: pod-1, namespace: ns, workloadIps: [], workloadType: pod}]"},
	{"IPv6", "workloads: [{uid: u, namespace: ns, workloadIps: ['fd00::1', 10.0.0.1], workloadType: job}]"},
	{"names", W ", workloadName: n, canonicalName: c, canonicalRevision: v1, hostname: h.x}]"},
	{"identity", W ", trustDomain: td, serviceAccount: sa, clusterId: c2, network: net, node: node-1}]"},
	{"kinds",
	 W ", protocol: HBONE, status: Unhealthy, networkMode: HostNetwork, nativeTunnel: true, capacity: 0}]"},
	{"a cronjob", "workloads: [{uid: u, name: n, namespace: ns, workloadIps: [], workloadType: cronjob}]"},
	{"locality", W ", locality: {region: r, zone: z, subzone: s}}]"},
	{"an application tunnel", W ", applicationTunnel: {protocol: PROXY, port: 15088}}]"},
	{"an application tunnel without a port", W ", applicationTunnel: {protocol: NONE}}]"},
	{"a waypoint by address", W ", waypoint: {destination: 'net/10.0.0.9', hboneMtlsPort: 15008}}]"},
	{"gateways by name", W ", waypoint: {destination: ns/w.ns, hboneMtlsPort: 15008},"
			       "networkGateway: {destination: ns/gw.ns, hboneMtlsPort: 15009}}]"},
	{"membership", W ", services: {ns/s.ns: {80: 8080, 81: 0}, ns/t.ns: {}}}]\n" S ", vips: []}]"},
	{"policies of a workload", W ", authorizationPolicies: [ns/p]}]\n" P "[]}]"},
	{"a service", S ", vips: [/10.1.0.1, 'net/fd01::1']}]"},
	{"a service of a block",
	 S ", vips: [], cidrVips: [{network: '', cidr: 10.2.0.0/16}, {network: n, cidr: 'fd00::/8'}]}]"},
	{"names that may answer", S ", vips: [], subjectAltNames: ['spiffe://td/ns/a/sa/b', other]}]"},
	{"weighted waypoints",
	 S ", vips: [], waypoint: {destination: 'n/10.0.0.9', hboneMtlsPort: 1}, weightedWaypoints: ["
	   "{destination: {destination: ns/w.ns, hboneMtlsPort: 2}, weight: 7}]}]"},
	{"balancing",
	 S ", vips: [], loadBalancer: {mode: Failover, healthPolicy: AllowAll, routingPreferences: [Network, Region, "
	   "Zone, Subzone, Node, Cluster]}}]"},
	{"strict", S ", vips: [], loadBalancer: {mode: Strict, routingPreferences: [Node]}}]"},
	{"passthrough", S ", vips: [], loadBalancer: {mode: Passthrough}, canonical: true, visibility: Namespace}]"},
	{"one family", S ", vips: [], ipFamilies: IPv4}]"},
	{"both families", S ", vips: [], ipFamilies: Dual}]"},
	{"a policy for all",
	 "policies: [{name: p, namespace: root, scope: Global, action: Allow, dryRun: true, rules: []}]"},
	{"a policy for some",
	 "policies: [{name: p, namespace: ns, scope: WorkloadSelector, action: Allow, rules: [[], [[], [{}]]]}]"},
	{"principals",
	 P "[[[{principals: [!Exact a, !Prefix b, !Suffix c, !Presence []], notPrincipals: [!Exact d]}]]]}]"},
	{"namespaces", P "[[[{namespaces: [!Exact a], notNamespaces: [!Exact b]}], [{notNamespaces: [!Prefix c]}]]]}]"},
	{"accounts", P "[[[{serviceAccounts: [{namespace: n, serviceAccount: s}],"
		       "notServiceAccounts: [{namespace: m, serviceAccount: t}]}]]]}]"},
	{"networks",
	 P "[[[{sourceIps: [10.0.0.0/8, 'fd00::/8'], notSourceIps: [10.1.0.0/16], destinationIps: [0.0.0.0/0],"
	   "notDestinationIps: ['::/0']}]]]}]"},
	{"ports", P "[[[{destinationPorts: [80, 65535]}, {notDestinationPorts: [0]}]]]}]"},
};

static void test_same_as_file(void **state)
{
	for (size_t i = 0; i < COUNT(meshes); i++) {
		struct store *file = rig_load(meshes[i].text), *xds = store_new("");
		struct xds_result r;
		char *want, *got;

		assert_int_equal(rig_apply(xds, rig_addresses(file), 0, &r), 0);
		if (r.why[0])
			fail_msg("%s: %s", meshes[i].name, r.why);
		assert_int_equal(rig_apply(xds, rig_policies(file), 0, &r), 0);
		if (r.why[0])
			fail_msg("%s: %s", meshes[i].name, r.why);
		want = rig_dump(file);
		got = rig_dump(xds);
		if (strcmp(want, got) != 0)
			fail_msg("%s: the file:\n%s\nxDS:\n%s", meshes[i].name, want, got);
		free(want);
		free(got);
		store_free(file);
		store_free(xds);
	}
}

/* --- workloads ------------------------------------------------------------------------------------------ */

#define SPOIL(name, type, ...)             \
	static void name(Istio__##type *m) \
	{                                  \
		__VA_ARGS__;               \
	}
#define BYTES(n) ((ProtobufCBinaryData){n, (uint8_t *)"0123456789abcdefg"})

static Istio__Workload__GatewayAddress no_gateway = ISTIO__WORKLOAD__GATEWAY_ADDRESS__INIT,
				       far_gateway = ISTIO__WORKLOAD__GATEWAY_ADDRESS__INIT;
static Istio__Workload__NetworkAddress short_address = ISTIO__WORKLOAD__NETWORK_ADDRESS__INIT;
static Istio__Workload__ApplicationTunnel odd_tunnel = ISTIO__WORKLOAD__APPLICATION_TUNNEL__INIT,
					  high_tunnel = ISTIO__WORKLOAD__APPLICATION_TUNNEL__INIT;
static Istio__Workload__Membership member = ISTIO__WORKLOAD__MEMBERSHIP__INIT;
static Istio__Workload__PortList high_ports = ISTIO__WORKLOAD__PORT_LIST__INIT;
static Istio__Workload__Port high_port = ISTIO__WORKLOAD__PORT__INIT, *high_port_list[] = {&high_port};
static ProtobufCBinaryData addresses[XDS_ADDRESSES_MAX + 1];

static Istio__Workload__Membership *members[XDS_SERVICES_MAX + 1];

static void prepare(void)
{
	for (size_t i = 0; i < COUNT(addresses); i++)
		addresses[i] = (ProtobufCBinaryData){4, (uint8_t *)"\12\0\0\1"};
	for (size_t i = 0; i < COUNT(members); i++)
		members[i] = &member;
	far_gateway.destination_case = ISTIO__WORKLOAD__GATEWAY_ADDRESS__DESTINATION_ADDRESS;
	far_gateway.address = &short_address;
	short_address.address = BYTES(3);
	odd_tunnel.protocol = 2;
	high_tunnel.port = 65536;
	high_port.target_port = 70000;
	high_ports.n_ports = 1;
	high_ports.ports = high_port_list;
	member = (Istio__Workload__Membership)ISTIO__WORKLOAD__MEMBERSHIP__INIT;
}

SPOIL(w_good, Workload__Workload, (void)m)
SPOIL(w_no_uid, Workload__Workload, m->uid = "")
SPOIL(w_protocol, Workload__Workload, m->tunnel_protocol = 3)
SPOIL(w_negative, Workload__Workload, m->tunnel_protocol = -1)
SPOIL(w_legacy, Workload__Workload, m->tunnel_protocol = 2)
SPOIL(w_status, Workload__Workload, m->status = 2)
SPOIL(w_mode, Workload__Workload, m->network_mode = 2)
SPOIL(w_type, Workload__Workload, m->workload_type = 4)
SPOIL(w_bytes0, Workload__Workload, (addresses[1] = BYTES(0), m->n_addresses = 2))
SPOIL(w_bytes5, Workload__Workload, (addresses[1] = BYTES(5), m->n_addresses = 2))
SPOIL(w_bytes17, Workload__Workload, (addresses[1] = BYTES(17), m->n_addresses = 2))
SPOIL(w_twice, Workload__Workload, m->n_addresses = 2)
SPOIL(w_most, Workload__Workload, m->n_addresses = XDS_ADDRESSES_MAX)
SPOIL(w_more, Workload__Workload, m->n_addresses = XDS_ADDRESSES_MAX + 1)
SPOIL(w_waypoint, Workload__Workload, m->waypoint = &no_gateway)
SPOIL(w_gateway, Workload__Workload, m->network_gateway = &far_gateway)
SPOIL(w_tunnel, Workload__Workload, m->application_tunnel = &odd_tunnel)
SPOIL(w_tunnel_port, Workload__Workload, m->application_tunnel = &high_tunnel)
SPOIL(w_service, Workload__Workload, (member.key = "no-slash", m->services = members, m->n_services = 1))
SPOIL(w_slashes, Workload__Workload, (member.key = "a/b/c", m->services = members, m->n_services = 1))
SPOIL(w_no_host, Workload__Workload, (member.key = "a/", m->services = members, m->n_services = 1))
SPOIL(w_port, Workload__Workload,
      (member.key = "a/b", member.value = &high_ports, m->services = members, m->n_services = 1))
SPOIL(w_no_ports, Workload__Workload, (member.key = "a/b", m->services = members, m->n_services = 1))
SPOIL(w_all_services, Workload__Workload, (member.key = "a/b", m->services = members, m->n_services = XDS_SERVICES_MAX))
SPOIL(w_more_services, Workload__Workload,
      (member.key = "a/b", m->services = members, m->n_services = XDS_SERVICES_MAX + 1))

static const struct {
	const char *name;
	void (*spoil)(Istio__Workload__Workload *m);
	const char *why; /* NULL: it is taken */
} workloads[] = {
	{"as it should be", w_good, NULL},
	{"no uid", w_no_uid, "no uid"},
	{"a tunnel protocol of the future", w_protocol, "unknown tunnel protocol 3"},
	{"a negative enum", w_negative, "unknown tunnel protocol -1"},
	{"a sidecar takes plaintext", w_legacy, NULL},
	{"a status of the future", w_status, "unknown status 2"},
	{"a network mode of the future", w_mode, "unknown network mode 2"},
	{"a workload type is a label", w_type, NULL},
	{"an address of no bytes", w_bytes0, "addresses: an address of 0 bytes, 4 or 16 are due"},
	{"an address of 5 bytes", w_bytes5, "addresses: an address of 5 bytes, 4 or 16 are due"},
	{"an address of 17 bytes", w_bytes17, "addresses: an address of 17 bytes, 4 or 16 are due"},
	{"the same address twice", w_twice, NULL},
	{"as many addresses as may be", w_most, NULL},
	{"one address more", w_more, "1025 addresses, 1024 at most"},
	{"a waypoint that is nowhere", w_waypoint, "waypoint: neither an address nor a host name"},
	{"a gateway's address", w_gateway, "network gateway: an address of 3 bytes, 4 or 16 are due"},
	{"an application tunnel of the future", w_tunnel, "unknown application tunnel 2"},
	{"an application tunnel's port", w_tunnel_port, "application tunnel: 65536 is not a port"},
	{"a service without a namespace", w_service, "\"no-slash\" is not NAMESPACE/HOSTNAME"},
	{"a service with two slashes", w_slashes, "\"a/b/c\" is not NAMESPACE/HOSTNAME"},
	{"a service without a host", w_no_host, "\"a/\" is not NAMESPACE/HOSTNAME"},
	{"a port", w_port, "target port: 70000 is not a port"},
	{"a service without ports", w_no_ports, NULL},
	{"as many services as may be", w_all_services, NULL},
	{"one service more", w_more_services, "1025 services, 1024 at most"},
};

static void test_workloads(void **state)
{
	for (size_t i = 0; i < COUNT(workloads); i++) {
		Istio__Workload__Workload m = ISTIO__WORKLOAD__WORKLOAD__INIT;
		struct workload *w = NULL;
		char why[XDS_REASON_MAX] = "";
		int e;

		prepare();
		m.uid = "c//Pod/ns/pod";
		m.name = "pod";
		m.addresses = addresses;
		m.n_addresses = 1;
		workloads[i].spoil(&m);
		e = xds_workload(&m, &w, why);
		if (e != (workloads[i].why ? -EINVAL : 0) || strcmp(why, workloads[i].why ? workloads[i].why : "") != 0)
			fail_msg("%s: %d, %s", workloads[i].name, e, why);
		if (e)
			continue;
		assert_string_equal(w->name, "pod");
		assert_string_equal(w->trust_domain, "cluster.local");
		assert_string_equal(w->service_account, "default");
		assert_string_equal(w->cluster_id, "Kubernetes");
		assert_string_equal(w->workload_type, "deployment");
		assert_int_equal(w->protocol, PROTO_TCP);
		assert_int_equal(w->n_ips, 1);
		assert_int_equal(w->capacity, 1);
		workload_unref(w);
	}
}

/* --- services ------------------------------------------------------------------------------------------- */

static Istio__Workload__NetworkAddress vip = ISTIO__WORKLOAD__NETWORK_ADDRESS__INIT, *vips[XDS_ADDRESSES_MAX + 1];
static Istio__Workload__WeightedWaypoint nowhere = ISTIO__WORKLOAD__WEIGHTED_WAYPOINT__INIT, *nowheres[] = {&nowhere};
static Istio__Workload__LoadBalancing lb;
static Istio__Workload__LoadBalancing__Scope scopes[LB_SCOPES_MAX + 1];

static void length(unsigned n)
{
	vip.has_length_case = ISTIO__WORKLOAD__NETWORK_ADDRESS__HAS_LENGTH_LENGTH;
	vip.length = n;
}

SPOIL(s_good, Workload__Service, (void)m)
SPOIL(s_no_host, Workload__Service, m->hostname = "")
SPOIL(s_bytes, Workload__Service, vip.address = BYTES(6))
SPOIL(s_most, Workload__Service, m->n_addresses = XDS_ADDRESSES_MAX)
SPOIL(s_more, Workload__Service, m->n_addresses = XDS_ADDRESSES_MAX + 1)
SPOIL(s_full, Workload__Service, length(32))
SPOIL(s_prefix, Workload__Service, length(33))
SPOIL(s_prefix6, Workload__Service, (vip.address = BYTES(16), length(129)))
SPOIL(s_port, Workload__Service, (m->ports = high_port_list, m->n_ports = 1))
SPOIL(s_nowhere, Workload__Service, (m->weighted_waypoints = nowheres, m->n_weighted_waypoints = 1))
SPOIL(s_waypoint, Workload__Service, m->waypoint = &no_gateway)
SPOIL(s_mode, Workload__Service, lb.mode = 4)
SPOIL(s_health, Workload__Service, lb.health_policy = 2)
SPOIL(s_scope, Workload__Service, (lb.n_routing_preference = 1, scopes[0] = 0))
SPOIL(s_scope7, Workload__Service, (lb.n_routing_preference = 1, scopes[0] = 7))
SPOIL(s_scopes, Workload__Service, lb.n_routing_preference = LB_SCOPES_MAX + 1)
SPOIL(s_families, Workload__Service, m->ip_families = 4)
SPOIL(s_visibility, Workload__Service, m->visibility = 2)

static const struct {
	const char *name;
	void (*spoil)(Istio__Workload__Service *m);
	const char *why;
} services[] = {
	{"as it should be", s_good, NULL},
	{"no hostname", s_no_host, "no hostname"},
	{"a VIP of 6 bytes", s_bytes, "addresses: an address of 6 bytes, 4 or 16 are due"},
	{"as many VIPs as may be", s_most, NULL},
	{"one VIP more", s_more, "1025 addresses, 1024 at most"},
	{"a VIP with its whole length", s_full, NULL},
	{"a prefix that is too long", s_prefix, "addresses: a prefix of 33 bits, 32 at most"},
	{"a prefix that is too long, IPv6", s_prefix6, "addresses: a prefix of 129 bits, 128 at most"},
	{"a port", s_port, "target port: 70000 is not a port"},
	{"a weighted waypoint without destination", s_nowhere, "weighted waypoint: no destination"},
	{"a waypoint that is nowhere", s_waypoint, "waypoint: neither an address nor a host name"},
	{"a mode of the future", s_mode, "unknown load balancing mode 4"},
	{"a health policy of the future", s_health, "unknown health policy 2"},
	{"a preference that is none", s_scope, "unknown routing preference 0"},
	{"a preference of the future", s_scope7, "unknown routing preference 7"},
	{"too many preferences", s_scopes, "7 routing preferences, 6 at most"},
	{"families of the future", s_families, "unknown IP families 4"},
	{"a visibility of the future is public", s_visibility, NULL},
};

static void test_services(void **state)
{
	for (size_t i = 0; i < COUNT(services); i++) {
		Istio__Workload__Service m = ISTIO__WORKLOAD__SERVICE__INIT;
		struct service *s = NULL;
		char why[XDS_REASON_MAX] = "";
		int e;

		prepare();
		vip = (Istio__Workload__NetworkAddress)ISTIO__WORKLOAD__NETWORK_ADDRESS__INIT;
		vip.address = BYTES(4);
		for (size_t k = 0; k < COUNT(vips); k++)
			vips[k] = &vip;
		lb = (Istio__Workload__LoadBalancing)ISTIO__WORKLOAD__LOAD_BALANCING__INIT;
		lb.routing_preference = scopes;
		m.hostname = "s.ns";
		m.addresses = vips;
		m.n_addresses = 1;
		m.load_balancing = &lb;
		services[i].spoil(&m);
		e = xds_service(&m, &s, why);
		if (e != (services[i].why ? -EINVAL : 0) || strcmp(why, services[i].why ? services[i].why : "") != 0)
			fail_msg("%s: %d, %s", services[i].name, e, why);
		if (e)
			continue;
		assert_int_equal(s->vips[0].len, 32);
		assert_int_equal(s->visibility, VISIBLE_PUBLIC);
		service_unref(s);
	}
}

/* --- policies ------------------------------------------------------------------------------------------- */

/* One match in one clause of one rule, which rows change. */
static Istio__Security__Match match, *match_list[] = {&match};
static Istio__Security__Clause clause, *clauses[] = {&clause};
static Istio__Security__Rule rule, *rules[] = {&rule};
static Istio__Security__StringMatch text, *texts[] = {&text};
static Istio__Security__Address net, *nets[] = {&net};
static Istio__Security__ServiceAccountMatch account, *accounts[] = {&account};
static ProtobufCMessageUnknownField unknown = {.tag = 99};
static uint32_t port_list[] = {65536};

static void unknown_in(ProtobufCMessage *m)
{
	m->n_unknown_fields = 1;
	m->unknown_fields = &unknown;
}

static void text_is(Istio__Security__StringMatch__MatchTypeCase kind, const char *s, size_t len)
{
	text.match_type_case = kind;
	text.exact = (ProtobufCBinaryData){len, (uint8_t *)s};
	match.principals = texts;
	match.n_principals = 1;
}
#define KIND(k) ISTIO__SECURITY__STRING_MATCH__MATCH_TYPE_##k

SPOIL(p_good, Security__Authorization, (void)m)
SPOIL(p_scope, Security__Authorization, m->scope = 3)
SPOIL(p_action, Security__Authorization, m->action = 2)
SPOIL(p_ignored, Security__Authorization, unknown_in(&m->base))
SPOIL(p_rule, Security__Authorization, unknown_in(&rule.base))
SPOIL(p_clause, Security__Authorization, unknown_in(&clause.base))
SPOIL(p_match, Security__Authorization, unknown_in(&match.base))
SPOIL(p_string, Security__Authorization, (text_is(KIND(EXACT), "a", 1), unknown_in(&text.base)))
SPOIL(p_kindless, Security__Authorization, text_is(KIND(_NOT_SET), "", 0))
SPOIL(p_nul, Security__Authorization, text_is(KIND(PREFIX), "a\0b", 3))
SPOIL(p_bytes, Security__Authorization, (net.address = BYTES(5), match.source_ips = nets, match.n_source_ips = 1))
SPOIL(p_length, Security__Authorization,
      (net.address = BYTES(4), net.length = 33, match.not_source_ips = nets, match.n_not_source_ips = 1))
SPOIL(p_length6, Security__Authorization,
      (net.address = BYTES(16), net.length = 129, match.destination_ips = nets, match.n_destination_ips = 1))
SPOIL(p_length256, Security__Authorization,
      (net.address = BYTES(4), net.length = 264, match.destination_ips = nets, match.n_destination_ips = 1))
SPOIL(p_port, Security__Authorization, (match.destination_ports = port_list, match.n_destination_ports = 1))
SPOIL(p_account, Security__Authorization,
      (account.service_account = (ProtobufCBinaryData){2, (uint8_t *)"a\0"}, match.service_accounts = accounts,
       match.n_service_accounts = 1))

static const struct {
	const char *name;
	void (*spoil)(Istio__Security__Authorization *m);
	const char *why;
} policies[] = {
	{"as it should be", p_good, NULL},
	{"a scope of the future", p_scope, "unknown scope 3"},
	{"an action of the future", p_action, "unknown action 2"},
	{"something more about the policy", p_ignored, NULL},
	{"a rule's unknown field", p_rule, "rule: unknown field 99"},
	{"a clause's unknown field", p_clause, "clause: unknown field 99"},
	{"a match's unknown field", p_match, "match: unknown field 99"},
	{"a text matcher's unknown field", p_string, "principals: unknown field 99"},
	{"a text matcher of no kind", p_kindless, "principals: a text matcher without a kind"},
	{"a text with a NUL", p_nul, "principals: a text with a NUL"},
	{"an address of 5 bytes", p_bytes, "sourceIps: an address of 5 bytes, 4 or 16 are due"},
	{"a prefix that is too long", p_length, "notSourceIps: a prefix of 33 bits, 32 at most"},
	{"a prefix that is too long, IPv6", p_length6, "destinationIps: a prefix of 129 bits, 128 at most"},
	{"a prefix that is right in eight bits", p_length256, "destinationIps: a prefix of 264 bits, 32 at most"},
	{"a port", p_port, "destinationPorts: 65536 is not a port"},
	{"an account with a NUL", p_account, "serviceAccounts: a text with a NUL"},
};

static struct policy *make_policy(size_t i, int action, char why[XDS_REASON_MAX])
{
	Istio__Security__Authorization m = ISTIO__SECURITY__AUTHORIZATION__INIT;
	struct policy *p = NULL;
	int e;

	match = (Istio__Security__Match)ISTIO__SECURITY__MATCH__INIT;
	clause = (Istio__Security__Clause)ISTIO__SECURITY__CLAUSE__INIT;
	rule = (Istio__Security__Rule)ISTIO__SECURITY__RULE__INIT;
	istio__security__string_match__init(&text);
	net = (Istio__Security__Address)ISTIO__SECURITY__ADDRESS__INIT;
	account = (Istio__Security__ServiceAccountMatch)ISTIO__SECURITY__SERVICE_ACCOUNT_MATCH__INIT;
	clause.matches = match_list;
	rule.clauses = clauses;
	clause.n_matches = rule.n_clauses = 1;
	m.rules = rules;
	m.n_rules = 1;
	m.name = "p";
	m.namespace_ = "ns";
	m.scope = ISTIO__SECURITY__SCOPE__WORKLOAD_SELECTOR;
	m.action = action;
	policies[i].spoil(&m);
	why[0] = '\0';
	e = xds_policy(&m, &p, why);
	if (e != (policies[i].why ? -EINVAL : 0) || !p)
		fail_msg("%s: %d", policies[i].name, e);
	return p;
}

/* Whatever was wrong with it, nobody gets through for it. */
static void test_policies(void **state)
{
	static const struct policy_facts anybody = {.principal = NULL};

	for (size_t i = 0; i < COUNT(policies); i++)
		for (int action = 0; action <= 1; action++) {
			char why[XDS_REASON_MAX];
			struct policy *p = make_policy(i, action, why);

			if (strcmp(why, policies[i].why ? policies[i].why : "") != 0)
				fail_msg("%s: %s", policies[i].name, why);
			if (p->unparseable != !!policies[i].why || (p->unparseable && p->n_rules))
				fail_msg("%s: not closed", policies[i].name);
			if (p->unparseable && policy_evaluate(&p, 1, &anybody).verdict == POLICY_ALLOWED)
				fail_msg("%s: somebody gets through", policies[i].name);
			policy_unref(p);
		}
}

static void test_closed(void **state)
{
	static const struct {
		const char *name;
		int err;
	} names[] = {{"ns/p", 0}, {"/p", 0}, {"", -EINVAL}, {"p", -EINVAL}, {"ns/", -EINVAL}, {"a/b/c", -EINVAL}};
	static const struct policy_facts anybody = {.principal = NULL};

	for (size_t i = 0; i < COUNT(names); i++) {
		struct policy *p = NULL;

		if (xds_policy_closed(names[i].name, POLICY_NAMESPACE, &p) != names[i].err)
			fail_msg("\"%s\"", names[i].name);
		if (p)
			assert_int_equal(policy_evaluate(&p, 1, &anybody).verdict, POLICY_DENIED_EXPLICITLY);
		policy_unref(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_file), cmocka_unit_test(test_workloads), cmocka_unit_test(test_services),
		cmocka_unit_test(test_policies),     cmocka_unit_test(test_closed),
	};
	int e;

	store_thread_register();
	e = cmocka_run_group_tests_name("xds objects", tests, NULL, NULL);
	store_thread_unregister();
	return e;
}
