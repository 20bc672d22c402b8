/* SPDX-License-Identifier: Apache-2.0 */
/* The local file: what is understood, what is refused with which line, and what a change of the file does. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "admin/dump.h"
#include "base/log.h"
#include "control/file_watch.h"
#include "control/local.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* The mesh as /config_dump writes it, malloc'ed. */
static char *dump(struct store *s)
{
	struct json j = {0};

	json_open(&j, '{');
	json_key(&j, "workloads");
	dump_workloads(&j, s);
	json_key(&j, "services");
	dump_services(&j, s);
	json_key(&j, "stagedServices");
	dump_staged(&j, s);
	json_key(&j, "policies");
	dump_policies(&j, s);
	json_close(&j, '}');
	json_raw(&j, "\n");
	assert_false(j.failed);
	j.p[j.len - 1] = '\0';
	return j.p;
}

static int setup(void **state)
{
	store_thread_register();
	return log_set_filter("off");
}

static int teardown(void **state)
{
	store_thread_unregister();
	return 0;
}

/* --- what is understood ----------------------------------------------------------------------------------------------- */

/* Shorthands for tests of one object. */
#define WORKLOAD(more) "workloads: [{uid: u, name: w, namespace: n, workloadIps: [10.0.0.1], services: {}" more "}]"
#define SERVICE(more)  "services: [{name: s, namespace: n, hostname: h, vips: [/10.9.0.1], ports: {80: 8080}" more "}]"
#define POLICY(rules) \
	"policies: [{name: p, namespace: n, scope: Namespace, action: Deny, dryRun: false, rules: " rules "}]"
#define MATCH(match) POLICY("[[[{" match "}]]]")
#define NAMED(ns, name) \
	"- {name: " name ", namespace: " ns ", scope: WorkloadSelector, action: Deny, dryRun: false, rules: []}\n"

static const struct {
	const char *name, *text, *want[7]; /* texts in the dump, spaces left out */
} good[] = {
	{"nothing", "{}", {"\"workloads\":[],\"services\":[],\"stagedServices\":{},\"policies\":[]"}},
	{"a null section is as an absent one", "workloads:\nservices: ~\npolicies: null\n", {"\"workloads\":[]"}},
	{"block style",
	 "workloads:\n- uid: u\n  name: w\n  namespace: n\n  workloadIps:\n  - 10.0.0.1\n  - fd00::1\n"
	 "  services:\n    n/h:\n      80: 8080\n",
	 {"\"uid\":\"u\"", "\"workloadIps\":[\"10.0.0.1\",\"fd00::1\"]", "\"services\":[\"n/h\"]",
	  "\"n/h\":{\"u\":{\"port\":{\"80\":8080},\"status\":\"Healthy\",\"workloadUid\":\"u\"}}"}},
	{"JSON",
	 "{\"workloads\":[{\"uid\":\"u\",\"name\":\"w\",\"namespace\":\"n\",\"workloadIps\":[\"10.0.0.1\"],"
	 "\"services\":{\"n/h\":{\"80\":8080}}}]}",
	 {"\"uid\":\"u\"", "\"80\":8080"}},
	{"istiod's defaults",
	 WORKLOAD(""),
	 {"\"trustDomain\":\"cluster.local\"", "\"serviceAccount\":\"default\"", "\"clusterId\":\"Kubernetes\"",
	  "\"protocol\":\"TCP\"", "\"capacity\":1", "\"networkMode\":\"Standard\""}},
	{"a uid is made where there is none",
	 "workloads: [{name: w, namespace: n, workloadIps: [], clusterId: c}]",
	 {"\"uid\":\"c//Pod/n/w\""}},
	{"all plain texts of a workload",
	 WORKLOAD(", trustDomain: td, serviceAccount: sa, node: no, network: ne, workloadName: wn, workloadType: job, "
		  "canonicalName: cn, canonicalRevision: cr, clusterId: c, hostname: ho"),
	 {"\"trustDomain\":\"td\",\"uid\":\"u\"", "\"serviceAccount\":\"sa\"", "\"network\":\"ne\"",
	  "\"workloadName\":\"wn\",\"workloadType\":\"job\"",
	  "\"canonicalName\":\"cn\",\"canonicalRevision\":\"cr\",\"capacity\":1,\"clusterId\":\"c\",\"hostname\":"
	  "\"ho\"",
	  "\"node\":\"no\""}},
	{"all enums and numbers of a workload",
	 WORKLOAD(", protocol: HBONE, networkMode: HostNetwork, status: Unhealthy, nativeTunnel: true, capacity: 0"),
	 {"\"protocol\":\"HBONE\"", "\"networkMode\":\"HostNetwork\"", "\"status\":\"Unhealthy\"",
	  "\"nativeTunnel\":true", "\"capacity\":0"}},
	{"application tunnel with a port",
	 WORKLOAD(", applicationTunnel: {protocol: PROXY, port: 15088}"),
	 {"\"applicationTunnel\":{\"port\":15088,\"protocol\":\"PROXY\"}"}},
	{"application tunnel without",
	 WORKLOAD(", applicationTunnel: {protocol: NONE}"),
	 {"\"applicationTunnel\":{\"protocol\":\"NONE\"}"}},
	{"locality",
	 WORKLOAD(", locality: {region: r, zone: z, subzone: s}"),
	 {"\"locality\":{\"region\":\"r\",\"subzone\":\"s\",\"zone\":\"z\"}"}},
	{"a waypoint by address",
	 WORKLOAD(", waypoint: {destination: net/fd00::9, hboneMtlsPort: 15008}"),
	 {"\"waypoint\":{\"destination\":\"net/fd00::9\",\"hboneMtlsPort\":15008}"}},
	{"a network gateway by host name",
	 WORKLOAD(", networkGateway: {destination: ns/gw.example, hboneMtlsPort: 15009}"),
	 {"\"networkGateway\":{\"destination\":\"ns/gw.example\",\"hboneMtlsPort\":15009}"}},
	{"names of policies",
	 WORKLOAD(", authorizationPolicies: [n/p, m/p]") "\npolicies:\n" NAMED("n", "p") NAMED("m", "p")
		 NAMED("n", "q"),
	 {"\"authorizationPolicies\":[\"n/p\",\"m/p\"]"}},
	{"a named target port is 0",
	 "workloads: [{uid: u, namespace: n, workloadIps: [], services: {n/h: {80: 0, 443: 8443}}}]",
	 {"\"port\":{\"80\":0,\"443\":8443}"}},
	{"many services of a workload, beyond the list on the stack",
	 "workloads: [{uid: u, namespace: n, workloadIps: [], services: {n/a: {1: 1}, n/b: {1: 1}, n/c: {1: 1}, n/d: "
	 "{1: 1}, "
	 "n/e: {1: 1}, n/f: {1: 1}, n/g: {1: 1}, n/h: {1: 1}, n/i: {1: 1}, n/j: {1: 1}, n/k: {1: 1}, n/l: {1: 1}}}]",
	 {"\"services\":[\"n/a\",\"n/b\",\"n/c\",\"n/d\",\"n/e\",\"n/f\",\"n/g\",\"n/h\",\"n/i\",\"n/j\",\"n/k\",\"n/"
	  "l\"]"}},
	{"texts with quotes, escapes and other scripts",
	 WORKLOAD(", hostname: \"a\\\"b\\\\c\\u00e9\\u0001\""),
	 {"\"hostname\":\"a\\\"b\\\\c\xc3\xa9\\u0001\""}},
	{"a service's endpoints follow its workloads",
	 SERVICE("") "\nworkloads: [{uid: u, namespace: n, workloadIps: [10.0.0.1], services: {n/h: {80: 81}}}]",
	 {"\"endpoints\":{\"u\":{\"port\":{\"80\":81}", "\"ports\":{\"80\":8080}", "\"vips\":[\"/10.9.0.1\"]",
	  "\"stagedServices\":{}"}},
	{"a service's defaults",
	 SERVICE(""),
	 {"\"canonical\":false,\"endpoints\":{},\"hostname\":\"h\",\"name\":\"s\",\"namespace\":\"n\",\"ports\":{"
	  "\"80\":8080},"
	  "\"subjectAltNames\":[],\"vips\":[\"/10.9.0.1\"],\"visibility\":\"Public\""}},
	{"VIPs of both families and of networks",
	 "services: [{name: s, namespace: n, hostname: h, vips: [/10.9.0.1, net/fd00::1], ports: {}}]",
	 {"\"vips\":[\"/10.9.0.1\",\"net/fd00::1\"]"}},
	{"prefixes before plain VIPs, host bits cleared",
	 "services: [{name: s, namespace: n, hostname: h, cidrVips: [{network: net, cidr: 10.9.0.7/16}, "
	 "{network: '', cidr: 'fd00::/8'}], vips: [/10.9.0.1], ports: {}}]",
	 {"\"cidrVips\":[{\"cidr\":\"10.9.0.0/16\",\"network\":\"net\"},{\"cidr\":\"fd00::/8\",\"network\":\"\"}]",
	  "\"vips\":[\"/10.9.0.1\"]"}},
	{"load balancing",
	 SERVICE(", loadBalancer: {routingPreferences: [Network, Region, Zone, Subzone, Node, Cluster], mode: "
		 "Failover, "
		 "healthPolicy: AllowAll}"),
	 {"\"loadBalancer\":{\"healthPolicy\":\"AllowAll\",\"mode\":\"Failover\",\"routingPreferences\":[\"Network\","
	  "\"Region\",\"Zone\",\"Subzone\",\"Node\",\"Cluster\"]}"}},
	{"other keys of a service",
	 SERVICE(", ipFamilies: IPv6, visibility: Namespace, canonical: true, subjectAltNames: "
		 "[\"spiffe://td/ns/n/sa/s\"]"),
	 {"\"ipFamilies\":\"IPv6\"", "\"visibility\":\"Namespace\"", "\"canonical\":true",
	  "\"subjectAltNames\":[\"spiffe://td/ns/n/sa/s\"]"}},
	{"waypoints with weights",
	 SERVICE(", waypoint: {destination: n/wp, hboneMtlsPort: 1}, weightedWaypoints: [{destination: {destination: "
		 "/10.9.0.9, "
		 "hboneMtlsPort: 15008}, weight: 3}]"),
	 {"\"waypoint\":{\"destination\":\"n/wp\",\"hboneMtlsPort\":1}",
	  "\"weightedWaypoints\":[{\"destination\":{\"destination\":\"/"
	  "10.9.0.9\",\"hboneMtlsPort\":15008},\"weight\":3}]"}},
	{"a policy's own keys",
	 "policies: [{name: p, namespace: '', scope: Global, action: Allow, rules: [], dryRun: true}]",
	 {"{\"action\":\"Allow\",\"dryRun\":true,\"name\":\"p\",\"namespace\":\"\",\"rules\":[],\"scope\":"
	  "\"Global\"}"}},
	{"scope of named workloads",
	 "policies: [{name: p, namespace: n, scope: WorkloadSelector, action: Deny, rules: [[]]}]",
	 {"\"dryRun\":false", "\"rules\":[[]],\"scope\":\"WorkloadSelector\""}},
	{"rules, clauses and matches nest",
	 POLICY("[[[{destinationPorts: [1]}, {destinationPorts: [2, 3]}], []], []]"),
	 {"\"rules\":[[[{\"destinationPorts\":[1]},{\"destinationPorts\":[2,3]}],[]],[]]"}},
	{"matchers as tags",
	 MATCH("namespaces: [!Exact a, !Prefix b, !Suffix c, !Presence []]"),
	 {"\"namespaces\":[{\"Exact\":\"a\"},{\"Prefix\":\"b\"},{\"Suffix\":\"c\"},{\"Presence\":[]}]"}},
	{"matchers as maps",
	 MATCH("notNamespaces: [{Exact: a}, {Prefix: b}, {Suffix: c}, {Presence: []}]"),
	 {"\"notNamespaces\":[{\"Exact\":\"a\"},{\"Prefix\":\"b\"},{\"Suffix\":\"c\"},{\"Presence\":[]}]"}},
	{"Presence without anything", MATCH("principals: [!Presence ]"), {"\"principals\":[{\"Presence\":[]}]"}},
	{"principals",
	 MATCH("notPrincipals: [!Exact td/ns/n/sa/s]"),
	 {"\"notPrincipals\":[{\"Exact\":\"td/ns/n/sa/s\"}]"}},
	{"service accounts",
	 MATCH("serviceAccounts: [{namespace: n, serviceAccount: s}], notServiceAccounts: [{namespace: m, "
	       "serviceAccount: t}]"),
	 {"\"notServiceAccounts\":[{\"namespace\":\"m\",\"serviceAccount\":\"t\"}],\"serviceAccounts\":[{\"namespace\":"
	  "\"n\","
	  "\"serviceAccount\":\"s\"}]"}},
	{"addresses",
	 MATCH("sourceIps: [10.0.0.0/8], notSourceIps: ['fd00::/8'], destinationIps: [10.1.2.3/32], "
	       "notDestinationIps: ['::1/128', 0.0.0.0/0]"),
	 {"\"destinationIps\":[\"10.1.2.3/32\"],\"notDestinationIps\":[\"::1/128\",\"0.0.0.0/0\"],"
	  "\"notSourceIps\":[\"fd00::/8\"],\"sourceIps\":[\"10.0.0.0/8\"]"}},
	{"ports", MATCH("notDestinationPorts: [0, 65535]"), {"\"notDestinationPorts\":[0,65535]"}},
	{"a match without attributes", MATCH(""), {"\"rules\":[[[{}]]]"}},
	{"endpoints of a dump give a workload its ports",
	 "{\"services\":[{\"endpoints\":{\"u\":{\"port\":{\"80\":81},\"status\":\"Healthy\",\"workloadUid\":\"u\"}},"
	 "\"name\":\"s\",\"namespace\":\"n\",\"hostname\":\"h\",\"vips\":[],\"ports\":{}}],"
	 "\"workloads\":[{\"uid\":\"u\",\"namespace\":\"n\",\"workloadIps\":[],\"services\":[\"n/h\",\"n/other\"]}]}",
	 {"\"endpoints\":{\"u\":{\"port\":{\"80\":81}", "\"n/other\":{\"u\":{\"port\":{}"}},
	{"endpoints of a dump make a workload a member",
	 "{\"services\":[{\"endpoints\":{\"u\":{\"port\":{\"80\":81}}},\"name\":\"s\",\"namespace\":\"n\",\"hostname\":"
	 "\"h\","
	 "\"vips\":[],\"ports\":{}}],\"workloads\":[{\"uid\":\"u\",\"namespace\":\"n\",\"workloadIps\":[]}]}",
	 {"\"services\":[\"n/h\"]", "\"port\":{\"80\":81}"}},
	{"the other keys of a dump are passed over",
	 "{certificates: [{identity: x}], config: {a: {b: [1]}}, stagedServices: {}, staticConfig: {}, version: {v: "
	 "1}, "
	 "workloadState: {u: {}}, workloads: []}",
	 {"\"workloads\":[]"}},
	{"anchors without aliases", WORKLOAD(", node: &a here"), {"\"node\":\"here\""}},
	{"a byte order mark", "\xef\xbb\xbfworkloads: []", {"\"workloads\":[]"}},
};

static void without_spaces(char *s)
{
	char *to = s;

	for (; *s; s++)
		if (*s != ' ' && *s != '\n')
			*to++ = *s;
	*to = '\0';
}

static void test_good(void **state)
{
	for (size_t i = 0; i < COUNT(good); i++) {
		struct store *s = store_new("");
		char why[LOCAL_REASON_MAX] = "", *text;

		if (local_load_text(s, "t", good[i].text, strlen(good[i].text), why))
			fail_msg("%s: %s", good[i].name, why);
		text = dump(s);
		without_spaces(text);
		for (const char *const *want = good[i].want; *want; want++)
			if (!strstr(text, *want))
				fail_msg("%s: no %s in %s", good[i].name, *want, text);
		free(text);
		store_free(s);
	}
}

/* Pods of the host's network, and WorkloadEntries of one machine; and so many that the tables grow. */
static void test_shared(void **state)
{
	static const char shared[] =
		"workloads:\n- {uid: a, name: a, namespace: n, networkMode: HostNetwork, workloadIps: [10.0.0.1]}\n"
		"- {uid: b, name: b, namespace: n, networkMode: HostNetwork, workloadIps: [10.0.0.1]}\n"
		"- {uid: c/networking.istio.io/WorkloadEntry/n/c, name: c, namespace: n, workloadIps: [10.0.0.2]}\n"
		"- {uid: c/networking.istio.io/WorkloadEntry/n/d, name: d, namespace: n, workloadIps: [10.0.0.2]}\n"
		"- {uid: e, name: e, namespace: n, network: one, workloadIps: [10.0.0.3]}\n"
		"- {uid: f, name: f, namespace: n, network: two, workloadIps: [10.0.0.3]}\n";
	struct store *s = store_new("");
	char why[LOCAL_REASON_MAX] = "", text[128 * 1024] = "workloads:\n";
	size_t len = strlen(text);

	if (local_load_text(s, "t", shared, sizeof shared - 1, why))
		fail_msg("%s", why);
	for (unsigned i = 0; i < 1000; i++)
		len += (size_t)sprintf(text + len, "- {uid: u%u, name: n%u, namespace: n, workloadIps: [10.1.%u.%u]}\n",
				       i, i, i / 250, i % 250);
	if (local_load_text(s, "t", text, len, why))
		fail_msg("%s", why);
	len += (size_t)sprintf(text + len, "- {uid: other, name: n, namespace: n, workloadIps: [10.1.2.3]}\n");
	assert_int_equal(local_load_text(s, "t", text, len, why), -EINVAL);
	assert_string_equal(why, "t:1002: the address 10.1.2.3 is that of workload n/n503 as well");
	store_free(s);
}

/* What was dumped can be loaded, and gives the same dump. */
static void test_round_trip(void **state)
{
	for (size_t i = 0; i < COUNT(good); i++) {
		struct store *s = store_new(""), *again = store_new("");
		char why[LOCAL_REASON_MAX] = "", *first, *second;

		assert_int_equal(local_load_text(s, "t", good[i].text, strlen(good[i].text), why), 0);
		first = dump(s);
		if (local_load_text(again, "dump", first, strlen(first), why))
			fail_msg("%s: %s in %s", good[i].name, why, first);
		second = dump(again);
		without_spaces(first);
		without_spaces(second);
		/* The ports of an endpoint are told by its service, so that of an unknown one is lost. */
		if (strstr(first, "\"stagedServices\":{}") && strcmp(first, second) != 0)
			fail_msg("%s: %s\nbecame %s", good[i].name, first, second);
		free(first);
		free(second);
		store_free(s);
		store_free(again);
	}
}

/* --- what is refused -------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *text, *want; /* the whole line after the file's name, or its beginning up to "..." */
} bad[] = {
	{"empty", "", "1: the document is empty; a mesh without anything is \"{}\""},
	{"only a comment", "# nothing\n", "2: the document is empty..."},
	{"a list", "[]", "1: file must be a map"},
	{"a text", "hello", "1: file must be a map"},
	{"unfinished", "workloads: [\n  {uid: 1\n", "3: not YAML..."},
	{"a tab as indentation", "workloads:\n\t- uid: u\n", "2: not YAML..."},
	{"not UTF-8", "workloads: [\xff]\n", "1: not YAML..."},
	{"two documents", "workloads: []\n---\nworkloads: []\n", "2: a second document; there must be one"},
	{"an alias", "workloads: &a []\nservices: *a\n", "2: *a: aliases are not supported; write the value out"},
	{"unknown key", "wrkloads: []\n",
	 "1: unknown key \"wrkloads\" in a file; allowed: workloads, services, policies..."},
	{"unknown key of a workload", WORKLOAD(", protocl: HBONE"),
	 "1: unknown key \"protocl\" in a workload; allowed: uid..."},
	{"unknown key of a service", SERVICE(", port: {}"), "1: unknown key \"port\" in a service; allowed: name..."},
	{"unknown key of a match", MATCH("principal: []"),
	 "1: unknown key \"principal\" in a match; allowed: destinationIps..."},
	{"the same key twice", "workloads: []\nservices: []\nworkloads: []\n",
	 "3: file: the key \"workloads\" is there twice"},
	{"the same uid twice",
	 "workloads:\n- {uid: u, name: a, namespace: n, workloadIps: [10.0.0.1]}\n- uid: u\n  name: b\n  namespace: n\n"
	 "  workloadIps: [10.0.0.2]\n",
	 "3: the uid \"u\" is that of workload n/a as well"},
	{"the same address twice",
	 "workloads:\n- {uid: u, name: a, namespace: n, workloadIps: [10.0.0.1, 'fd00::1']}\n- uid: v\n  name: b\n"
	 "  namespace: n\n  workloadIps: [10.0.0.2, 'fd00::1']\n",
	 "3: the address fd00::1 is that of workload n/a as well"},
	{"a section that is no list", "workloads: {}", "1: workloads must be a list"},
	{"an entry that is no map", "workloads:\n- a\n- b\n", "2: workload must be a map"},
	{"missing key", "workloads:\n- uid: u\n  namespace: n\n", "2: a workload needs \"workloadIps\""},
	{"missing key, since it is null", "workloads:\n- {uid: u, namespace: ~, workloadIps: []}\n",
	 "2: a workload needs \"namespace\""},
	{"a policy that is not there",
	 "workloads:\n- uid: u\n  name: w\n  namespace: n\n  authorizationPolicies: [n/p, n/q]\n  workloadIps: []\n"
	 "policies:\n" NAMED("n", "p") NAMED("m", "q") NAMED("na", "q"),
	 "5: workload n/w names the policy \"n/q\", which is not in the file"},
	{"a policy without a namespace", WORKLOAD(", authorizationPolicies: [p]") "\npolicies:\n" NAMED("n", "p"),
	 "1: workload n/w names the policy \"p\", which is not in the file"},
	{"two policies of one name", "policies:\n" NAMED("n", "p") NAMED("m", "p") NAMED("n", "p"),
	 "4: there is a policy n/p already"},
	{"two services of one host name",
	 "services:\n- {name: a, namespace: n, hostname: h, vips: [], ports: {}}\n"
	 "- {name: a, namespace: m, hostname: h, vips: [], ports: {}}\n"
	 "- {name: b,\n namespace: n, hostname: h, vips: [], ports: {}}\n",
	 "4: there is a service n/h already"},
	{"neither uid nor name", "workloads: [{namespace: n, workloadIps: []}]",
	 "1: a workload needs \"uid\" or \"name\""},
	{"address", WORKLOAD("") "\n---", "2: a second document; there must be one"},
	{"address out of range", "workloads: [{uid: u, namespace: n,\n workloadIps: [10.0.0.999]}]",
	 "2: workloadIps: \"10.0.0.999\" is not an IP address"},
	{"address that is a list", "workloads: [{uid: u, namespace: n, workloadIps: [[]]}]",
	 "1: workloadIps must be plain text"},
	{"addresses that are no list", "workloads: [{uid: u, namespace: n, workloadIps: 10.0.0.1}]",
	 "1: workloadIps must be a list"},
	{"protocol", WORKLOAD(", protocol: hbone"), "1: protocol: \"hbone\" is none of TCP, HBONE"},
	{"status", WORKLOAD(", status: ok"), "1: status: \"ok\" is none of Healthy, Unhealthy"},
	{"boolean", WORKLOAD(", nativeTunnel: yes"), "1: nativeTunnel: \"yes\" is none of false, true"},
	{"capacity", WORKLOAD(", capacity: -1"), "1: capacity: \"-1\" is not a number between 0 and 4294967295"},
	{"capacity too large", WORKLOAD(", capacity: 4294967296"), "1: capacity: \"4294967296\" is not a number..."},
	{"application tunnel without a protocol", WORKLOAD(", applicationTunnel: {port: 1}"),
	 "1: a applicationTunnel needs \"protocol\""},
	{"waypoint without a port", WORKLOAD(", waypoint: {destination: n/h}"),
	 "1: a waypoint needs \"hboneMtlsPort\""},
	{"waypoint without a slash", WORKLOAD(", waypoint: {destination: h, hboneMtlsPort: 1}"),
	 "1: destination: \"h\" is neither NETWORK/ADDRESS nor NAMESPACE/HOSTNAME"},
	{"service of a workload without a namespace",
	 "workloads: [{uid: u, namespace: n, workloadIps: [], services: {h: {}}}]",
	 "1: services: \"h\" is not NAMESPACE/HOSTNAME"},
	{"service port 0", "services: [{name: s, namespace: n, hostname: h, vips: [], ports: {0: 1}}]",
	 "1: a service port cannot be 0"},
	{"port too large", "services: [{name: s, namespace: n, hostname: h, vips: [], ports: {80: 70000}}]",
	 "1: a target port: \"70000\" is not a number between 0 and 65535"},
	{"port in hexadecimal", "services: [{name: s, namespace: n, hostname: h, vips: [], ports: {0x50: 80}}]",
	 "1: a service port: \"0x50\" is not a number between 0 and 65535"},
	{"VIP without a network", "services: [{name: s, namespace: n, hostname: h, vips: [10.0.0.1], ports: {}}]",
	 "1: vips: \"10.0.0.1\" is not NETWORK/ADDRESS"},
	{"VIP with a prefix", "services: [{name: s, namespace: n, hostname: h, vips: [/10.0.0.0/8], ports: {}}]",
	 "1: vips: \"/10.0.0.0/8\" is not NETWORK/ADDRESS"},
	{"prefix without a length", SERVICE(", cidrVips: [{network: n, cidr: 10.0.0.0}]"),
	 "1: cidr: \"10.0.0.0\" is not ADDRESS/LENGTH"},
	{"routing preference", SERVICE(", loadBalancer: {routingPreferences: [Rack]}"),
	 "1: routingPreferences: \"Rack\" is none of Region, Zone, Subzone, Node, Cluster, Network"},
	{"too many routing preferences",
	 SERVICE(", loadBalancer: {routingPreferences: [Zone, Zone, Zone, Zone, Zone, Zone, Zone]}"),
	 "1: routingPreferences: more than 6"},
	{"weight missing", SERVICE(", weightedWaypoints: [{destination: {destination: n/h, hboneMtlsPort: 1}}]"),
	 "1: a weightedWaypoints needs \"weight\""},
	{"scope", "policies: [{name: p, namespace: n, scope: Cluster, action: Deny, rules: []}]",
	 "1: scope: \"Cluster\" is none of Global, Namespace, WorkloadSelector"},
	{"action", "policies: [{name: p, namespace: n, scope: Global, action: Audit, rules: []}]",
	 "1: action: \"Audit\" is none of Allow, Deny"},
	{"policy without rules", "policies: [{name: p, namespace: n, scope: Global, action: Deny}]",
	 "1: a policy needs \"rules\""},
	{"rules of too few levels", POLICY("[[{destinationPorts: [1]}]]"), "1: matches must be a list"},
	{"a matcher without a kind", MATCH("namespaces: [a]"),
	 "1: namespaces: a matcher is written !Exact TEXT, !Prefix TEXT, !Suffix TEXT or !Presence []"},
	{"a matcher of an unknown kind", MATCH("namespaces: [!Regex a]"),
	 "1: namespaces: !Regex is none of !Exact, !Prefix, !Suffix, !Presence"},
	{"a map matcher of an unknown kind", MATCH("namespaces: [{Regex: a}]"),
	 "1: namespaces: \"Regex\" is none of Exact, Prefix, Suffix, Presence"},
	{"a matcher of two kinds", MATCH("namespaces: [{Exact: a, Prefix: b}]"),
	 "1: namespaces: one matcher has one kind"},
	{"a matcher of no kind", MATCH("namespaces: [{}]"), "1: namespaces: an empty matcher"},
	{"Presence with a text", MATCH("namespaces: [!Presence a]"), "1: Presence takes no text"},
	{"Presence with a list", MATCH("namespaces: [!Presence [a]]"), "1: Presence takes no text"},
	{"Presence with a map", MATCH("namespaces: [{Presence: {}}]"), "1: Presence takes no map"},
	{"Exact with a list", MATCH("namespaces: [!Exact [a]]"), "1: a string matcher must be plain text"},
	{"a tag elsewhere", WORKLOAD(", node: !Exact a"), "1: node: the tag !Exact means nothing here"},
	{"network of a match", MATCH("sourceIps: [10.0.0.0/33]"),
	 "1: sourceIps: \"10.0.0.0/33\" is not ADDRESS/LENGTH"},
	{"address of a match without a length", MATCH("notDestinationIps: [10.0.0.1]"),
	 "1: notDestinationIps: \"10.0.0.1\" is not ADDRESS/LENGTH"},
	{"port of a match", MATCH("destinationPorts: [65536]"),
	 "1: destinationPorts: \"65536\" is not a number between 0 and 65535"},
	{"service account as a text", MATCH("serviceAccounts: [n/s]"), "1: serviceAccounts must be a map"},
	{"service account without its namespace", MATCH("serviceAccounts: [{serviceAccount: s}]"),
	 "1: a serviceAccounts needs \"namespace\""},
	{"a NUL", "workloads: [{\"uid\": \"a\\0b\"}]", "1: uid: a NUL in the text"},
	{"the message stays on one line", WORKLOAD(", protocol: \"a\\nb\\tc\""),
	 "1: protocol: \"a b c\" is none of TCP, HBONE"},
	{"33 levels", "config: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
	 "1: more than 32 levels deep"},
};

static void refuse(const char *name, struct store *s, const char *text, const char *want)
{
	char why[LOCAL_REASON_MAX] = "", line[LOCAL_REASON_MAX + 8];
	int e = local_load_text(s, "t.yaml", text, strlen(text), why);
	size_t n = strlen(want);
	bool begins = n > 3 && !strcmp(want + n - 3, "...");

	snprintf(line, sizeof line, "t.yaml:%s", want);
	if (e != -EINVAL || strncmp(why, line, begins ? strlen(line) - 3 : sizeof line) != 0)
		fail_msg("%s: %d, %s", name, e, why);
	if (strchr(why, '\n'))
		fail_msg("%s: more than a line: %s", name, why);
}

static void test_bad(void **state)
{
	static const char before[] = WORKLOAD("") "\n" SERVICE("") "\n" POLICY("[]");
	struct store *s = store_new("");
	char why[LOCAL_REASON_MAX], *first;
	uint64_t version;

	assert_int_equal(local_load_text(s, "t", before, strlen(before), why), 0);
	first = dump(s);
	version = store_version(s);
	for (size_t i = 0; i < COUNT(bad); i++) {
		char *now;

		refuse(bad[i].name, s, bad[i].text, bad[i].want);
		now = dump(s);
		if (strcmp(first, now) != 0 || store_version(s) != version)
			fail_msg("%s: the mesh has changed", bad[i].name);
		free(now);
	}
	free(first);
	store_free(s);
}

static void test_text_limit(void **state)
{
	struct store *s = store_new("");
	char *text = malloc(LOCAL_TEXT_MAX + 256), *end, why[LOCAL_REASON_MAX] = "";

	end = stpcpy(text, "workloads: [{namespace: n, workloadIps: [], uid: ");
	memset(end, 'x', LOCAL_TEXT_MAX);
	strcpy(end + LOCAL_TEXT_MAX, "}]");
	assert_int_equal(local_load_text(s, "t", text, strlen(text), why), 0);
	strcpy(end + LOCAL_TEXT_MAX, "x}]");
	refuse("a text of one byte more", s, text, "1: uid: a text of more than 4096 bytes");
	free(text);
	store_free(s);
}

/* --- files -------------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/local-test-XXXXXX";
static char *path;
static char *beside, *other; /* a folder that is not watched, and a file in it */

static int make_folder(void **state)
{
	setup(state);
	if (!mkdtemp(folder) || asprintf(&path, "%s/mesh.yaml", folder) < 0 ||
	    asprintf(&beside, "%s/beside", folder) < 0 || asprintf(&other, "%s/other", beside) < 0)
		return -1;
	return mkdir(beside, 0700);
}

static int remove_folder(void **state)
{
	unlink(path);
	unlink(other);
	rmdir(beside);
	rmdir(folder);
	free(path);
	free(beside);
	free(other);
	memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
	return teardown(state);
}

static void write_file(const char *to, const char *text)
{
	FILE *f = fopen(to, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void test_file(void **state)
{
	struct store *s = store_new("");
	char why[LOCAL_REASON_MAX], want[LOCAL_REASON_MAX];

	assert_int_equal(local_load_file(s, path, why), -ENOENT);
	snprintf(want, sizeof want, "%s: cannot be read: No such file or directory", path);
	assert_string_equal(why, want);
	assert_int_equal(local_load_file(s, folder, why), -EISDIR);
	snprintf(want, sizeof want, "%s: cannot be read: Is a directory", folder);
	assert_string_equal(why, want);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(local_load_file(s, path, why), -EINVAL);
	snprintf(want, sizeof want, "%s: cannot be read: not a regular file", path);
	assert_string_equal(why, want);
	unlink(path);
	write_file(path, "workloads: [\n");
	assert_int_equal(local_load_file(s, path, why), -EINVAL);
	snprintf(want, sizeof want, "%s:2: not YAML", path);
	assert_memory_equal(why, want, strlen(want));
	assert_int_equal(truncate(path, (off_t)LOCAL_FILE_MAX + 1), 0);
	assert_int_equal(local_load_file(s, path, why), -EFBIG);
	write_file(path, WORKLOAD(""));
	assert_int_equal(local_load_file(s, path, why), 0);
	store_read_lock();
	assert_non_null(store_workload_by_uid(s, "u"));
	store_read_unlock();
	store_free(s);
}

/* --- following a file ------------------------------------------------------------------------------------------------------ */

struct follow {
	struct loop *loop;
	struct store *store;
	struct timer limit;
	bool late;
};

static void limit_fired(struct timer *t)
{
	struct follow *f = container_of(t, struct follow, limit);

	f->late = true;
	loop_stop(f->loop);
}

static void store_changed(void *arg)
{
	loop_stop(((struct follow *)arg)->loop);
}

/* Runs until the mesh has changed; false: it has not in `ms`. */
static bool changes(struct follow *f, unsigned ms)
{
	f->late = false;
	timer_set(f->loop, &f->limit, ms, limit_fired);
	loop_run(f->loop);
	timer_cancel(&f->limit);
	return !f->late;
}

static bool has(struct follow *f, const char *uid)
{
	bool yes;

	store_read_lock();
	yes = store_workload_by_uid(f->store, uid);
	store_read_unlock();
	return yes;
}

#define ONE(uid) "workloads: [{uid: " uid ", namespace: n, workloadIps: []}]\n"
enum { SOON_MS = 4000, NOT_MS = 300 };

static void by_rename(const char *text)
{
	write_file(other, text);
	assert_int_equal(rename(other, path), 0);
}

static void in_place(const char *text)
{
	write_file(path, text);
}

/* As Kubernetes does: the path is a link through a link, and the second one is swapped. */
static void by_link(const char *text)
{
	static unsigned n;
	char real[sizeof folder + 32], link[sizeof folder + 32];

	snprintf(real, sizeof real, "%s/real-%u", beside, n++);
	snprintf(link, sizeof link, "%s/link", folder);
	write_file(real, text);
	assert_int_equal(symlink(real, other), 0);
	assert_int_equal(rename(other, link), 0);
	if (n == 1) {
		unlink(path);
		assert_int_equal(symlink(link, path), 0);
	}
}

static void remove_links(void)
{
	char name[sizeof folder + 32];

	for (unsigned n = 0; n < 3; n++) {
		snprintf(name, sizeof name, "%s/real-%u", beside, n);
		unlink(name);
	}
	snprintf(name, sizeof name, "%s/link", folder);
	unlink(name);
}

static void test_follow(void **state)
{
	static const struct {
		const char *name;
		void (*change)(const char *text);
	} ways[] = {{"by rename", by_rename}, {"in place", in_place}, {"by a swapped link", by_link}};

	for (size_t i = 0; i < COUNT(ways); i++) {
		struct follow f = {loop_new(), store_new(""), {{0}}, false};
		struct local_watch *w;
		char why[LOCAL_REASON_MAX];

		ways[i].change(ONE("a"));
		w = local_watch_new(f.loop, f.store, path);
		assert_int_equal(local_load_file(f.store, path, why), 0);
		assert_int_equal(store_watch(f.store, store_changed, &f), 0);
		ways[i].change(ONE("b"));
		if (!changes(&f, SOON_MS) || has(&f, "a") || !has(&f, "b"))
			fail_msg("%s: not followed", ways[i].name);
		ways[i].change("workloads: [\n");
		if (changes(&f, NOT_MS) || !has(&f, "b"))
			fail_msg("%s: a wrong file changed the mesh", ways[i].name);
		local_watch_free(w);
		loop_free(f.loop);
		store_free(f.store);
		remove_links();
		unlink(path);
	}
}

static void test_follow_removed(void **state)
{
	struct follow f = {loop_new(), store_new(""), {{0}}, false};
	struct local_watch *w;
	char why[LOCAL_REASON_MAX];

	write_file(path, ONE("a"));
	w = local_watch_new(f.loop, f.store, path);
	assert_int_equal(local_load_file(f.store, path, why), 0);
	assert_int_equal(store_watch(f.store, store_changed, &f), 0);
	unlink(path);
	assert_false(changes(&f, NOT_MS));
	assert_true(has(&f, "a"));
	write_file(path, ONE("b"));
	assert_true(changes(&f, SOON_MS));
	assert_true(has(&f, "b"));
	local_watch_free(w);
	loop_free(f.loop);
	store_free(f.store);
}

/* Half a file may parse. What somebody still writes is not read, whatever else happens in the folder. */
static void test_half_written_is_not_read(void **state)
{
	struct follow f = {loop_new(), store_new(""), {{0}}, false};
	struct local_watch *w;
	char why[LOCAL_REASON_MAX], neighbour[256];
	FILE *writer;

	write_file(path, ONE("a"));
	w = local_watch_new(f.loop, f.store, path);
	assert_int_equal(local_load_file(f.store, path, why), 0);
	assert_int_equal(store_watch(f.store, store_changed, &f), 0);
	writer = fopen(path, "w");
	assert_non_null(writer);
	fputs("workloads: []\n", writer);
	fflush(writer);
	snprintf(neighbour, sizeof neighbour, "%s.other", path);
	write_file(neighbour, "");
	assert_false(changes(&f, NOT_MS));
	assert_true(has(&f, "a"));
	fclose(writer);
	assert_true(changes(&f, SOON_MS));
	assert_false(has(&f, "a"));
	unlink(neighbour);
	local_watch_free(w);
	loop_free(f.loop);
	store_free(f.store);
}

/* Where inotify cannot be had the poll finds it. */
static void test_follow_by_poll(void **state)
{
	struct follow f = {loop_new(), store_new(""), {{0}}, false};
	struct local_watch *w;

	w = local_watch_new(f.loop, f.store, path);
	assert_int_equal(store_watch(f.store, store_changed, &f), 0);
	unlink(path);
	assert_int_equal(rmdir(beside), 0);
	assert_int_equal(rmdir(folder), 0);
	assert_false(changes(&f, NOT_MS));
	assert_int_equal(mkdir(folder, 0700), 0);
	write_file(path, ONE("a"));
	assert_true(changes(&f, FILE_WATCH_POLL_MS + SOON_MS));
	assert_true(has(&f, "a"));
	local_watch_free(w);
	loop_free(f.loop);
	store_free(f.store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
		cmocka_unit_test_setup_teardown(test_text_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_follow, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_follow_removed, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_half_written_is_not_read, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_follow_by_poll, make_folder, remove_folder),
	};

	return cmocka_run_group_tests_name("local", tests, NULL, NULL);
}
