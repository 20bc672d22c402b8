/* SPDX-License-Identifier: Apache-2.0 */
/* Load balancing: ranks, modes, weights, ports and addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mesh_rig.h"
#include "state/balance.h"
#include "state/intern.h"

enum { DRAWS = 20000, ENDPOINTS_MAX = 6 };

static int nothing_left(void **state)
{
	return intern_count() ? -1 : 0;
}

/* --- ranks --------------------------------------------------------------------------------------------------------- */

#define NRZ                                             \
	{                                               \
		SCOPE_NETWORK, SCOPE_REGION, SCOPE_ZONE \
	}
static const struct rig_workload here = {"client",	.ns = "n",   .network = "net", .node = "node",	 .cluster = "c",
					 .region = "r", .zone = "z", .subzone = "s",   .ips = "10.0.0.1"};

static const struct {
	const char *name;
	enum lb_scope scopes[LB_SCOPES_MAX];
	struct rig_workload w;
	unsigned rank, matched;
} ranks[] = {
	{"no preference", {0}, {"w"}, 0, 0},
	{"region", {SCOPE_REGION}, {"w", .region = "r"}, 1, 1},
	{"another region", {SCOPE_REGION}, {"w", .region = "x"}, 0, 0},
	{"no region is another region", {SCOPE_REGION}, {"w"}, 0, 0},
	{"zone", {SCOPE_ZONE}, {"w", .zone = "z"}, 1, 1},
	{"subzone", {SCOPE_SUBZONE}, {"w", .subzone = "s"}, 1, 1},
	{"node", {SCOPE_NODE}, {"w", .node = "node"}, 1, 1},
	{"another node", {SCOPE_NODE}, {"w", .node = "x"}, 0, 0},
	{"cluster", {SCOPE_CLUSTER}, {"w", .cluster = "c"}, 1, 1},
	{"another cluster", {SCOPE_CLUSTER}, {"w", .cluster = "x"}, 0, 0},
	{"all in order",
	 {SCOPE_REGION, SCOPE_ZONE, SCOPE_SUBZONE},
	 {"w", .region = "r", .zone = "z", .subzone = "s"},
	 3,
	 3},
	{"the first mismatch ends it",
	 {SCOPE_REGION, SCOPE_ZONE, SCOPE_SUBZONE},
	 {"w", .region = "r", .zone = "x", .subzone = "s"},
	 1,
	 1},
	{"nothing behind a first mismatch", {SCOPE_REGION, SCOPE_ZONE}, {"w", .region = "x", .zone = "z"}, 0, 0},
	{"network first: all", NRZ, {"w", .network = "net", .region = "r", .zone = "z"}, 5, 3},
	{"network first: network and region", NRZ, {"w", .network = "net", .region = "r", .zone = "x"}, 4, 2},
	{"network first: network", NRZ, {"w", .network = "net", .region = "x", .zone = "z"}, 3, 1},
	{"network first: region and zone of another network",
	 NRZ,
	 {"w", .network = "x", .region = "r", .zone = "z"},
	 2,
	 2},
	{"network first: region of another network", NRZ, {"w", .network = "x", .region = "r"}, 1, 1},
	{"network first: nothing", NRZ, {"w", .network = "x", .region = "x", .zone = "z"}, 0, 0},
	{"network later stops like any other",
	 {SCOPE_REGION, SCOPE_NETWORK, SCOPE_ZONE},
	 {"w", .network = "x", .region = "r", .zone = "z"},
	 1,
	 1},
};

static void test_ranks(void **state)
{
	struct workload *source = rig_workload_new(&here);

	for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
		struct rig_service r = {"h", "n"};
		struct workload *w = rig_workload_new(&ranks[i].w);
		unsigned rank, matched = 99;

		memcpy(r.scopes, ranks[i].scopes, sizeof r.scopes);
		struct service *v = rig_service_new(&r);
		rank = balance_rank(v, source, w, &matched);
		if (rank != ranks[i].rank || matched != ranks[i].matched)
			fail_msg("%s: rank %u, matched %u", ranks[i].name, rank, matched);
		service_unref(v);
		workload_unref(w);
	}
	workload_unref(source);
}

/* --- picking ------------------------------------------------------------------------------------------------------- */

#define SVC .services = "n/h 80:8080"
static const struct {
	const char *name;
	struct rig_service v;
	struct rig_workload w[ENDPOINTS_MAX];
	unsigned share[ENDPOINTS_MAX]; /* per cent; of nobody all are 0 */
	uint16_t port;
	bool waypoint;
} picks[] = {
	{"evenly",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1"}, {"b", SVC, .ips = "10.0.0.2"}},
	 {50, 50},
	 80},
	{"one", {"h", "n", .ports = "80:8080"}, {{"a", SVC, .ips = "10.0.0.1"}}, {100}, 80},
	{"nobody there", {"h", "n", .ports = "80:8080"}, {{0}}, {0}, 80},
	{"by capacity",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1", .capacity = 1 + 1}, {"b", SVC, .ips = "10.0.0.2", .capacity = 1 + 3}},
	 {25, 75},
	 80},
	{"no capacity is never picked",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1", .capacity = 1 + 0}, {"b", SVC, .ips = "10.0.0.2"}},
	 {0, 100},
	 80},
	{"no capacity anywhere",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1", .capacity = 1 + 0}},
	 {0},
	 80},
	{"a large capacity does not overflow",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1", .capacity = UINT32_MAX}, {"b", SVC, .ips = "10.0.0.2", .capacity = UINT32_MAX}},
	 {50, 50},
	 80},
	{"an unknown port", {"h", "n", .ports = "80:8080"}, {{"a", SVC, .ips = "10.0.0.1"}}, {0}, 81},
	{"a named port picks who has it",
	 {"h", "n", .ports = "80:0"},
	 {{"a", .services = "n/h 81:1", .ips = "10.0.0.1"},
	  {"b", SVC, .ips = "10.0.0.2"},
	  {"c", SVC, .ips = "10.0.0.3"}},
	 {0, 50, 50},
	 80},
	{"few of many are found all the same",
	 {"h", "n", .ports = "80:0"},
	 {{"a", .services = "n/h", .ips = "10.0.0.1"},
	  {"b", .services = "n/h", .ips = "10.0.0.2"},
	  {"c", .services = "n/h", .ips = "10.0.0.3"},
	  {"d", .services = "n/h", .ips = "10.0.0.4"},
	  {"e", .services = "n/h", .ips = "10.0.0.5"},
	  {"f", SVC, .ips = "10.0.0.6"}},
	 {0, 0, 0, 0, 0, 100},
	 80},
	{"without an address on our network", {"h", "n", .ports = "80:8080"}, {{"a", SVC, .network = "net"}}, {0}, 80},
	{"without an address on our network, with a gateway",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .network = "net", .gateway = "/10.9.9.9@15008"}},
	 {0},
	 80},
	{"without an address on another network",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .network = "far"}},
	 {0},
	 80},
	{"without an address on another network, with a gateway",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .network = "far", .gateway = "/10.9.9.9@15008"}},
	 {100},
	 80},
	{"known by name only", {"h", "n", .ports = "80:8080"}, {{"a", SVC, .hostname = "x.example"}}, {100}, 80},
	{"known by name only beside one with an address",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .hostname = "x.example"}, {"b", SVC, .ips = "10.0.0.2"}},
	 {50, 50},
	 80},
	/* modes */
	{"preferences without a mode do not count",
	 {"h", "n", .ports = "80:8080", .scopes = {SCOPE_ZONE}},
	 {{"a", SVC, .ips = "10.0.0.1", .zone = "z"}, {"b", SVC, .ips = "10.0.0.2"}},
	 {50, 50},
	 80},
	{"failover prefers the best",
	 {"h", "n", .ports = "80:8080", .lb = LB_FAILOVER, .scopes = {SCOPE_REGION, SCOPE_ZONE}},
	 {{"a", SVC, .ips = "10.0.0.1", .region = "r"},
	  {"b", SVC, .ips = "10.0.0.2", .region = "r", .zone = "z"},
	  {"c", SVC, .ips = "10.0.0.3"},
	  {"d", SVC, .ips = "10.0.0.4", .region = "r", .zone = "z"}},
	 {0, 50, 0, 50},
	 80},
	{"failover takes the second best",
	 {"h", "n", .ports = "80:8080", .lb = LB_FAILOVER, .scopes = {SCOPE_REGION, SCOPE_ZONE}},
	 {{"a", SVC, .ips = "10.0.0.1", .region = "r"}, {"c", SVC, .ips = "10.0.0.3"}},
	 {100, 0},
	 80},
	{"failover takes anybody in the end",
	 {"h", "n", .ports = "80:8080", .lb = LB_FAILOVER, .scopes = {SCOPE_REGION}},
	 {{"a", SVC, .ips = "10.0.0.1", .region = "x"}, {"b", SVC, .ips = "10.0.0.2"}},
	 {50, 50},
	 80},
	{"failover by capacity among the best",
	 {"h", "n", .ports = "80:8080", .lb = LB_FAILOVER, .scopes = {SCOPE_ZONE}},
	 {{"a", SVC, .ips = "10.0.0.1", .zone = "z", .capacity = 1 + 1},
	  {"b", SVC, .ips = "10.0.0.2", .zone = "z", .capacity = 1 + 3},
	  {"c", SVC, .ips = "10.0.0.3", .capacity = 1 + 9}},
	 {25, 75, 0},
	 80},
	{"failover skips the best that lacks the port",
	 {"h", "n", .ports = "80:0", .lb = LB_FAILOVER, .scopes = {SCOPE_ZONE}},
	 {{"a", .services = "n/h", .ips = "10.0.0.1", .zone = "z"}, {"b", SVC, .ips = "10.0.0.2"}},
	 {0, 100},
	 80},
	{"failover skips the best that has no capacity",
	 {"h", "n", .ports = "80:8080", .lb = LB_FAILOVER, .scopes = {SCOPE_ZONE}},
	 {{"a", SVC, .ips = "10.0.0.1", .zone = "z", .capacity = 1 + 0}, {"b", SVC, .ips = "10.0.0.2"}},
	 {0, 100},
	 80},
	{"strict takes full matches only",
	 {"h", "n", .ports = "80:8080", .lb = LB_STRICT, .scopes = {SCOPE_REGION, SCOPE_ZONE}},
	 {{"a", SVC, .ips = "10.0.0.1", .region = "r"}, {"b", SVC, .ips = "10.0.0.2", .region = "r", .zone = "z"}},
	 {0, 100},
	 80},
	{"strict refuses when nobody matches",
	 {"h", "n", .ports = "80:8080", .lb = LB_STRICT, .scopes = {SCOPE_NODE}},
	 {{"a", SVC, .ips = "10.0.0.1", .node = "x"}, {"b", SVC, .ips = "10.0.0.2"}},
	 {0},
	 80},
	{"strict counts matches, not the network's bonus",
	 {"h", "n", .ports = "80:8080", .lb = LB_STRICT, .scopes = NRZ},
	 {{"a", SVC, .ips = "10.0.0.1", .network = "net", .region = "r"}},
	 {0},
	 80},
	{"strict without preferences takes all",
	 {"h", "n", .ports = "80:8080", .lb = LB_STRICT},
	 {{"a", SVC, .ips = "10.0.0.1"}, {"b", SVC, .ips = "10.0.0.2"}},
	 {50, 50},
	 80},
	{"the network outweighs region and zone",
	 {"h", "n", .ports = "80:8080", .lb = LB_FAILOVER, .scopes = NRZ},
	 {{"a", SVC, .ips = "10.0.0.1", .network = "far", .region = "r", .zone = "z"},
	  {"b", SVC, .ips = "10.0.0.2", .network = "net"}},
	 {0, 100},
	 80},
	/* waypoints */
	{"a waypoint's unknown port without a tunnel",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1"}},
	 {0},
	 81,
	 true},
	{"a waypoint's unknown port with a tunnel",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1", .tunnel = APP_TUNNEL_PROXY, .tunnel_port = 1}, {"b", SVC, .ips = "10.0.0.2"}},
	 {100, 0},
	 81,
	 true},
	{"a service's unknown port with a tunnel",
	 {"h", "n", .ports = "80:8080"},
	 {{"a", SVC, .ips = "10.0.0.1", .tunnel = APP_TUNNEL_PROXY, .tunnel_port = 1}},
	 {0},
	 81},
};

static unsigned per_cent(unsigned count)
{
	return (count * 100 + DRAWS / 2) / DRAWS;
}

static void test_picks(void **state)
{
	struct workload *source = rig_workload_new(&here);

	for (size_t i = 0; i < sizeof picks / sizeof *picks; i++) {
		struct rig_workload w[ENDPOINTS_MAX + 1] = {0};
		unsigned count[ENDPOINTS_MAX] = {0}, none = 0, expected = 0;

		memcpy(w, picks[i].w, sizeof picks[i].w);
		for (unsigned k = 0; k < ENDPOINTS_MAX; k++)
			expected += picks[i].share[k];
		struct store *s = rig_store(w, (struct rig_service[]){picks[i].v, {0}});
		struct service *v = store_service_exact(s, "n", "h");
		for (unsigned draw = 0; draw < DRAWS; draw++) {
			struct balance_request q = {source, picks[i].port, picks[i].waypoint,
						    draw * 0x9e3779b97f4a7c15ull};
			struct balance_choice c = balance_pick(v, &q);
			for (unsigned k = 0; c.workload && k < ENDPOINTS_MAX && w[k].name; k++)
				count[k] += strcmp(c.workload->name, w[k].name) == 0;
			none += !c.workload;
			if (c.workload && !c.port)
				fail_msg("%s: no port", picks[i].name);
		}
		if (none != (expected ? 0 : DRAWS))
			fail_msg("%s: nobody %u times of %u", picks[i].name, none, DRAWS);
		for (unsigned k = 0; k < ENDPOINTS_MAX; k++) {
			unsigned want = picks[i].share[k], got = per_cent(count[k]);
			if (got + 2 < want || got > want + 2 || (!want && count[k]))
				fail_msg("%s: %s got %u times of %u", picks[i].name, w[k].name, count[k], DRAWS);
		}
		store_free(s);
	}
	workload_unref(source);
}

/* --- ports --------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *service, *part; /* port maps */
	enum app_tunnel tunnel;
	uint16_t tunnel_port, port;
	bool waypoint;
	unsigned want; /* 0: refused */
} ports[] = {
	{"the endpoint's own", "80:8080", "n/h 80:9090", 0, 0, 80, false, 9090},
	{"the service's", "80:8080", "n/h", 0, 0, 80, false, 8080},
	{"the service's where the endpoint says 0", "80:8080", "n/h 80:0", 0, 0, 80, false, 8080},
	{"a named port", "80:0", "n/h 80:9090", 0, 0, 80, false, 9090},
	{"a named port that the endpoint lacks", "80:0", "n/h 81:9090", 0, 0, 80, false, 0},
	{"one of several", "79:1 80:2 81:3", "n/h 79:4 81:5", 0, 0, 81, false, 5},
	{"the endpoint's alone is not enough", "81:1", "n/h 80:9090", 0, 0, 80, false, 0},
	{"unknown", "80:8080", "n/h", 0, 0, 81, false, 0},
	{"unknown with a tunnel", "80:8080", "n/h", APP_TUNNEL_PROXY, 15088, 81, false, 0},
	{"waypoint: the endpoint's own", "80:8080", "n/h 80:9090", 0, 0, 80, true, 9090},
	{"waypoint: the service's", "80:8080", "n/h", 0, 0, 80, true, 8080},
	{"waypoint: unknown", "80:8080", "n/h", 0, 0, 81, true, 0},
	{"waypoint: unknown with a tunnel stays as it is", "80:8080", "n/h", APP_TUNNEL_PROXY, 15088, 81, true, 81},
	{"waypoint: unknown with a plain tunnel stays as it is", "80:8080", "n/h", APP_TUNNEL_NONE, 15088, 81, true,
	 81},
	{"waypoint: unknown with a tunnel without a port", "80:8080", "n/h", APP_TUNNEL_PROXY, 0, 81, true, 0},
	{"waypoint: no ports at all with a tunnel", "", "n/h", APP_TUNNEL_PROXY, 15088, 80, true, 80},
	{"waypoint: an endpoint's own with a tunnel", "", "n/h 80:9090", APP_TUNNEL_PROXY, 15088, 80, true, 9090},
};

static void test_ports(void **state)
{
	for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
		struct workload *w = rig_workload_new(&(struct rig_workload){"w", .services = ports[i].part,
									     .tunnel = ports[i].tunnel,
									     .tunnel_port = ports[i].tunnel_port});
		struct service *v = rig_service_new(&(struct rig_service){"h", "n", .ports = ports[i].service});
		uint16_t got = 7;
		bool ok = balance_port(v, w, &w->services[0], ports[i].port, ports[i].waypoint, &got);

		if (ok != (ports[i].want != 0) || (ok ? got != ports[i].want : got != 7))
			fail_msg("%s: %d, %u", ports[i].name, ok, got);
		service_unref(v);
		workload_unref(w);
	}
}

/* --- addresses ----------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *ips, *asked;
	enum ip_families families;
	const char *want; /* NULL: none */
	bool no_service;
} choices[] = {
	{"none", "", "10.1.0.1", FAMILIES_ANY, NULL},
	{"the only one", "10.0.0.1", "10.1.0.1", FAMILIES_ANY, "10.0.0.1"},
	{"of the asked family", "fd00::1 10.0.0.1", "10.1.0.1", FAMILIES_ANY, "10.0.0.1"},
	{"of the asked family, v6", "10.0.0.1 fd00::1", "fd01::1", FAMILIES_ANY, "fd00::1"},
	{"the first of the asked family", "fd00::1 10.0.0.1 10.0.0.2", "10.1.0.1", FAMILIES_ANY, "10.0.0.1"},
	{"the other family if need be", "fd00::1", "10.1.0.1", FAMILIES_ANY, "fd00::1"},
	{"exactly what was asked for", "10.0.0.1 10.0.0.2", "10.0.0.2", FAMILIES_ANY, "10.0.0.2"},
	{"what was asked for, whatever the families", "10.0.0.1 fd00::1", "10.0.0.1", FAMILIES_IPV6, "10.0.0.1"},
	{"IPv4 only", "fd00::1 10.0.0.1", "fd01::1", FAMILIES_IPV4, "10.0.0.1"},
	{"IPv6 only", "10.0.0.1 fd00::1", "10.1.0.1", FAMILIES_IPV6, "fd00::1"},
	{"IPv4 only without one", "fd00::1", "10.1.0.1", FAMILIES_IPV4, NULL},
	{"IPv6 only without one", "10.0.0.1", "10.1.0.1", FAMILIES_IPV6, NULL},
	{"both families", "10.0.0.1 fd00::1", "fd01::1", FAMILIES_DUAL, "fd00::1"},
	{"without a service", "10.0.0.1 fd00::1", "fd01::1", FAMILIES_IPV4, "fd00::1", true},
};

static void test_addresses(void **state)
{
	for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
		struct workload *w = rig_workload_new(&(struct rig_workload){"w", .ips = choices[i].ips});
		struct service *v = rig_service_new(&(struct rig_service){"h", "n", .families = choices[i].families});
		struct addr asked = rig_addr(choices[i].asked);
		const struct addr *got = balance_addr(choices[i].no_service ? NULL : v, w, &asked);
		char text[ADDR_STRLEN];

		if (!got != !choices[i].want || (got && strcmp(addr_str(got, text), choices[i].want)))
			fail_msg("%s: %s", choices[i].name, got ? text : "none");
		service_unref(v);
		workload_unref(w);
	}
}

/* --- weights ------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	unsigned n;
	uint32_t weight[4];
	unsigned share[4]; /* per cent */
	bool none;
} weights[] = {
	{"nothing to choose from", 0, {0}, {0}, true},
	{"all zero", 3, {0, 0, 0}, {0}, true},
	{"one", 1, {1}, {100}},
	{"evenly", 2, {1, 1}, {50, 50}},
	{"by weight", 3, {1, 2, 7}, {10, 20, 70}},
	{"zero is never chosen", 3, {0, 5, 0}, {0, 100, 0}},
	{"the last may be zero", 2, {5, 0}, {100, 0}},
	{"large ones do not overflow", 4, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}, {25, 25, 25, 25}},
};

static void test_weights(void **state)
{
	for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
		struct weighted_gateway g[4] = {{.weight = 0}};
		unsigned count[4] = {0}, none = 0;

		for (unsigned k = 0; k < 4; k++)
			g[k].weight = weights[i].weight[k];
		for (unsigned draw = 0; draw < DRAWS; draw++) {
			int at = balance_weighted(g, weights[i].n, balance_mix(draw, 1));
			if (at < 0)
				none++;
			else
				count[at]++;
		}
		if (none != (weights[i].none ? DRAWS : 0))
			fail_msg("%s: none %u times", weights[i].name, none);
		for (unsigned k = 0; k < 4; k++) {
			unsigned got = per_cent(count[k]), want = weights[i].share[k];
			if (got + 2 < want || got > want + 2 || (!want && count[k]))
				fail_msg("%s: %u got %u times of %u", weights[i].name, k, count[k], DRAWS);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_ranks, nothing_left),
		cmocka_unit_test_teardown(test_picks, nothing_left),
		cmocka_unit_test_teardown(test_ports, nothing_left),
		cmocka_unit_test_teardown(test_addresses, nothing_left),
		cmocka_unit_test(test_weights),
	};
	return cmocka_run_group_tests_name("balance", tests, NULL, NULL);
}
