/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel's configuration: which variable does what, who wins, what is refused with which line. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "tunnel_config.c"
#include "tunnel_config_check.c"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* A start that works, then NAME=value... of a row; and its flags. */
static int read_with(struct tunnel_config *c, const char *const *env, const char *const *flags, char *why)
{
	static char program[] = "tunnel";
	char *argv[16] = {program};
	int argc = 1, e;

	clearenv();
	setenv("LOCAL_XDS", "{}", 1);
	for (; env && *env; env++) {
		char *name = strdup(*env), *eq = strchr(name, '=');

		*eq = '\0';
		if (strcmp(eq + 1, "UNSET") != 0)
			setenv(name, eq + 1, 1);
		else
			unsetenv(name);
		free(name);
	}
	for (; flags && *flags; flags++)
		argv[argc++] = (char *)*flags;
	why[0] = '\0';
	e = tunnel_config_read(c, argc, argv, why);
	return e;
}

/* --- numbers and switches ------------------------------------------------------------------------------------------------- */

#define BAD_DOMAIN "CLUSTER_DOMAIN: must be a domain name such as cluster.local, of at most 127 characters"
#define FIELD(f)   offsetof(struct tunnel_config, f), sizeof(((struct tunnel_config *)0)->f)

static const struct {
	const char *name, *env[4], *flags[4];
	size_t at, size;
	unsigned want;
} values[] = {
	{"mark", {0}, {0}, FIELD(mark), 1337},
	{"mark given", {"PACKET_MARK=7"}, {0}, FIELD(mark), 7},
	{"no mark in dedicated mode", {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p/s"}, {0}, FIELD(mark), 0},
	{"a mark in dedicated mode",
	 {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p/s", "PACKET_MARK=7"},
	 {0},
	 FIELD(mark),
	 7},
	{"mark 0 in dedicated mode",
	 {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p/s", "PACKET_MARK=0"},
	 {0},
	 FIELD(mark),
	 0},
	{"dedicated", {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p/s"}, {0}, FIELD(dedicated), true},
	{"dedicated by flags",
	 {0},
	 {"--proxy-mode=dedicated", "--proxy-workload-info", "n/p/s"},
	 FIELD(dedicated),
	 true},
	{"shared", {"PROXY_MODE=shared"}, {0}, FIELD(dedicated), false},
	{"SOCKS5", {"UNSTABLE_ENABLE_SOCKS5=true"}, {0}, FIELD(socks), true},
	{"no SOCKS5", {0}, {0}, FIELD(socks), false},
	{"numbers are decimal", {"PACKET_MARK=0010"}, {0}, FIELD(mark), 10},
	{"seconds by default", {"KEEPALIVE_TIME=90"}, {0}, FIELD(keepalive_time_s), 90},
	{"minutes", {"KEEPALIVE_TIME=3m"}, {0}, FIELD(keepalive_time_s), 180},
	{"sum of durations", {"KEEPALIVE_INTERVAL=1h30m"}, {0}, FIELD(keepalive_interval_s), 5400},
	{"sum with a plus", {"KEEPALIVE_INTERVAL=3m+31"}, {0}, FIELD(keepalive_interval_s), 211},
	{"fraction", {"POOL_UNUSED_RELEASE_TIMEOUT=0.5s"}, {0}, FIELD(pool_idle_ms), 500},
	{"milliseconds", {"POOL_UNUSED_RELEASE_TIMEOUT=250ms"}, {0}, FIELD(pool_idle_ms), 250},
	{"30 days", {"SECRET_TTL=720h"}, {0}, FIELD(secret_ttl_s), 30 * 86400},
	{"longer than can be told", {"SECRET_TTL=99999999999999w"}, {0}, FIELD(secret_ttl_s), 86400},
	{"a day", {"SECRET_TTL=1d"}, {0}, FIELD(secret_ttl_s), 86400},
	{"true", {"CULVERT_LOCAL_HBONE=true"}, {0}, FIELD(local_hbone), true},
	{"false", {"KEEPALIVE_ENABLED=false"}, {0}, FIELD(keepalive), false},
	{"switch as a flag", {0}, {"--local-hbone"}, FIELD(local_hbone), true},
	{"switch as a flag with a value",
	 {"CULVERT_LOCAL_HBONE=true"},
	 {"--local-hbone=false"},
	 FIELD(local_hbone),
	 false},
	{"port by flag", {0}, {"--stats-port", "1"}, FIELD(stats_port), 1},
	{"port by flag and equals sign", {0}, {"--stats-port=2"}, FIELD(stats_port), 2},
	{"as Istio's chart calls it", {0}, {"proxy", "ztunnel", "--stats-port=3"}, FIELD(stats_port), 3},
	{"a flag wins over its variable", {"CULVERT_STATS_PORT=1"}, {"--stats-port", "2"}, FIELD(stats_port), 2},
	{"the last flag wins", {0}, {"--stats-port=1", "--stats-port=2"}, FIELD(stats_port), 2},
	{"log as JSON", {"LOG_FORMAT=json"}, {0}, FIELD(log_json), true},
	{"log in another format", {"LOG_FORMAT=xml"}, {0}, FIELD(log_json), false},
	{"DNS unless it is said", {0}, {0}, FIELD(dns), true},
	{"DNS, any case", {"ISTIO_META_DNS_CAPTURE=TRUE"}, {0}, FIELD(dns), true},
	{"no DNS", {"ISTIO_META_DNS_CAPTURE=1"}, {0}, FIELD(dns), false},
	{"source address: as it can be", {0}, {0}, FIELD(spoof_mode), SPOOF_AUTO},
	{"source address: always", {"ENABLE_ORIG_SRC=true"}, {0}, FIELD(spoof_mode), SPOOF_ALWAYS},
	{"source address: never", {"ENABLE_ORIG_SRC=false"}, {0}, FIELD(spoof_mode), SPOOF_NEVER},
	{"drain", {0}, {0}, FIELD(drain_ms), 5000},
	{"drain limit", {0}, {0}, FIELD(drain_limit_ms), 43200000},
	{"drain limit given", {"CULVERT_DRAIN_LIMIT=90s"}, {0}, FIELD(drain_limit_ms), 90000},
	{"drain limit in ms, as a keeper says it", {"CULVERT_DRAIN_LIMIT=1500ms"}, {0}, FIELD(drain_limit_ms), 1500},
	{"drain time given", {"CONNECTION_TERMINATION_DEADLINE=1m"}, {0}, FIELD(drain_ms), 60000},
	{"grace period", {"TERMINATION_GRACE_PERIOD_SECONDS=30"}, {0}, FIELD(drain_ms), 25000},
	{"short grace period", {"TERMINATION_GRACE_PERIOD_SECONDS=10"}, {0}, FIELD(drain_ms), 9000},
	{"grace period of 1", {"TERMINATION_GRACE_PERIOD_SECONDS=1"}, {0}, FIELD(drain_ms), 1000},
	{"grace period of 0 is no endless drain", {"TERMINATION_GRACE_PERIOD_SECONDS=0"}, {0}, FIELD(drain_ms), 1000},
	{"drain time wins over grace period",
	 {"CONNECTION_TERMINATION_DEADLINE=2s", "TERMINATION_GRACE_PERIOD_SECONDS=30"},
	 {0},
	 FIELD(drain_ms),
	 2000},
	{"workers given", {"ZTUNNEL_WORKER_THREADS=3"}, {0}, FIELD(workers), 3},
	{"workers in percent", {"ZTUNNEL_WORKER_THREADS=50%", "ZTUNNEL_CPU_LIMIT=5"}, {0}, FIELD(workers), 3},
	{"one percent is one worker", {"ZTUNNEL_WORKER_THREADS=1%", "ZTUNNEL_CPU_LIMIT=2"}, {0}, FIELD(workers), 1},
	{"workers 0: all CPUs", {"ZTUNNEL_WORKER_THREADS=0", "ZTUNNEL_CPU_LIMIT=6"}, {0}, FIELD(workers), 6},
	{"workers beyond the most", {"ZTUNNEL_WORKER_THREADS=1000"}, {0}, FIELD(workers), DATA_WORKERS_MAX},
	{"our variable wins", {"ZTUNNEL_WORKER_THREADS=3", "CULVERT_WORKERS=4"}, {0}, FIELD(workers), 4},
	{"a quarter of the CPUs", {"ZTUNNEL_CPU_LIMIT=17"}, {0}, FIELD(workers), 5},
	{"but two", {"ZTUNNEL_CPU_LIMIT=1"}, {0}, FIELD(workers), 2},
	{"the CPU request", {"ZTUNNEL_CPU_LIMIT=1", "ZTUNNEL_RESOURCE_CPU_REQUEST=2500m"}, {0}, FIELD(workers), 3},
	{"the CPU limit", {"ZTUNNEL_RESOURCE_CPU_LIMIT=1.5"}, {0}, FIELD(workers), 2},
	{"taps are off", {0}, {0}, FIELD(tap), false},
	{"taps by variable", {"CULVERT_TAP=true"}, {0}, FIELD(tap), true},
	{"taps by flag", {0}, {"--tap"}, FIELD(tap), true},
	{"kTLS as it pays", {0}, {0}, FIELD(ktls.mode), KTLS_AUTO},
	{"system calls are filtered", {0}, {0}, FIELD(seccomp), true},
	{"system calls are not", {"CULVERT_SECCOMP=off"}, {0}, FIELD(seccomp), false},
	{"the same by flag", {0}, {"--seccomp=off"}, FIELD(seccomp), false},
	{"kTLS for sending", {"CULVERT_KTLS=tx"}, {0}, FIELD(ktls.mode), KTLS_TX},
	{"kTLS by flag", {"CULVERT_KTLS=tx"}, {"--ktls=on"}, FIELD(ktls.mode), KTLS_ON},
	{"a part of kTLS", {"CULVERT_KTLS_DISABLE=tx,rekey"}, {0}, FIELD(ktls.disabled[KTLS_FEATURE_REKEY]), true},
	{"a part of kTLS by flag", {0}, {"--ktls-disable", "rx"}, FIELD(ktls.disabled[KTLS_FEATURE_RX]), true},
	{"on demand", {"XDS_ON_DEMAND=true", "XDS_ADDRESS=x"}, {0}, FIELD(xds_on_demand), true},
	{"limit and request",
	 {"ZTUNNEL_RESOURCE_CPU_LIMIT=1", "ZTUNNEL_RESOURCE_CPU_REQUEST=4"},
	 {0},
	 FIELD(workers),
	 4},
};

static void test_values(void **state)
{
	for (size_t i = 0; i < COUNT(values); i++) {
		struct tunnel_config c;
		char why[CONFIG_WHY_MAX];
		unsigned got = 0;

		if (read_with(&c, values[i].env, values[i].flags, why))
			fail_msg("%s: %s", values[i].name, why);
		memcpy(&got, (char *)&c + values[i].at, values[i].size);
		if (got != values[i].want)
			fail_msg("%s: %u", values[i].name, got);
		tunnel_config_free(&c);
	}
}

/* --- texts -------------------------------------------------------------------------------------------------------------------- */

#define IN_CLUSTER "KUBERNETES_SERVICE_HOST=10.0.0.1"

static const struct {
	const char *name, *env[4], *flags[4];
	size_t at;
	const char *want;
} strings[] = {
	{"ZDS socket", {0}, {0}, AT(zds_path), "/var/run/ztunnel/ztunnel.sock"},
	{"ZDS socket in the run directory", {"CULVERT_RUN_DIR=/r"}, {0}, AT(zds_path), "/r/zds.sock"},
	{"ZDS socket by Istio's variable", {"CULVERT_RUN_DIR=/r", "INPOD_UDS=/i"}, {0}, AT(zds_path), "/i"},
	{"node", {"NODE_NAME=a"}, {0}, AT(node_name), "a"},
	{"node by our variable", {"NODE_NAME=a", "CULVERT_NODE_NAME=b"}, {0}, AT(node_name), "b"},
	{"node by flag", {"CULVERT_NODE_NAME=b"}, {"--node-name", "c"}, AT(node_name), "c"},
	{"istiod by the flag's variable", {"CULVERT_XDS_ADDRESS=istiod:2"}, {0}, AT(xds_address), "istiod:2"},
	{"CA by the flag's variable",
	 {"CULVERT_CA_ADDRESS=istiod:3", "CA_ADDRESS=no"},
	 {0},
	 AT(ca_address),
	 "istiod:3"},
	{"network by the flag's variable", {"CULVERT_NETWORK=n"}, {0}, AT(network), "n"},
	{"log filter by the flag's variable", {"CULVERT_LOG=warn"}, {0}, AT(log_filter), "warn"},
	{"cluster", {0}, {0}, AT(cluster_id), "Kubernetes"},
	{"cluster by the longer name", {"CLUSTER_ID=a", "ISTIO_META_CLUSTER_ID=b"}, {0}, AT(cluster_id), "b"},
	{"DNS domain", {0}, {0}, AT(cluster_domain), "cluster.local"},
	{"DNS domain given", {"CLUSTER_DOMAIN=mesh.test"}, {0}, AT(cluster_domain), "mesh.test"},
	{"log filter", {"RUST_LOG=debug"}, {0}, AT(log_filter), "debug"},
	{"log filter by flag", {"RUST_LOG=debug"}, {"--log=warn"}, AT(log_filter), "warn"},
	{"Istio's version", {0}, {0}, AT(istio_version), "unknown"},
	{"the mesh by flag", {"LOCAL_XDS=UNSET"}, {"--local-xds-path", "/m"}, AT(local_path), "/m"},
	{"no istiod outside a cluster", {0}, {0}, AT(xds_address), ""},
	{"istiod of the cluster", {IN_CLUSTER}, {0}, AT(xds_address), "https://istiod.istio-system.svc:15012"},
	{"istiod given", {IN_CLUSTER, "XDS_ADDRESS=istiod:1"}, {0}, AT(xds_address), "istiod:1"},
	{"istiod by flag", {0}, {"--xds-address=istiod:1"}, AT(xds_address), "istiod:1"},
	{"no istiod", {IN_CLUSTER, "XDS_ADDRESS="}, {0}, AT(xds_address), ""},
	{"istiod and no file", {"LOCAL_XDS=UNSET", "XDS_ADDRESS=istiod:1"}, {0}, AT(local_path), ""},
	{"istiod's root", {0}, {0}, AT(xds_root), "./var/run/secrets/istio/root-cert.pem"},
	{"embedded CA outside a cluster", {0}, {0}, AT(ca_address), ""},
	{"CA of the cluster", {IN_CLUSTER}, {0}, AT(ca_address), "https://istiod.istio-system.svc:15012"},
	{"a CA of our own", {IN_CLUSTER, "CULVERT_CA_CERT=/c", "CULVERT_CA_KEY=/k"}, {0}, AT(ca_address), ""},
};

static void test_strings(void **state)
{
	for (size_t i = 0; i < COUNT(strings); i++) {
		struct tunnel_config c;
		char why[CONFIG_WHY_MAX];
		const char *got;

		if (read_with(&c, strings[i].env, strings[i].flags, why))
			fail_msg("%s: %s", strings[i].name, why);
		memcpy(&got, (char *)&c + strings[i].at, sizeof got);
		if (strcmp(got, strings[i].want) != 0)
			fail_msg("%s: %s", strings[i].name, got);
		tunnel_config_free(&c);
	}
}

/* --- whose tunnel it is -------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *env[5], *want;
} selves[] = {
	{"nobody's", {0}, "//"},
	{"its own pod's", {"POD_NAME=p", "POD_NAMESPACE=n", "SERVICE_ACCOUNT=s"}, "n/p/s"},
	{"without a service account", {"POD_NAME=p", "POD_NAMESPACE=n"}, "//"},
	{"with an empty name", {"POD_NAME=", "POD_NAMESPACE=n", "SERVICE_ACCOUNT=s"}, "//"},
	{"a workload's", {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=a/b/c"}, "a/b/c"},
	{"a workload's, in a pod",
	 {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=a/b/c", "POD_NAME=p", "POD_NAMESPACE=n"},
	 "a/b/c"},
	{"in shared mode nobody asks for a workload", {"PROXY_WORKLOAD_INFO=a/b/c"}, "//"},
};

static void test_selves(void **state)
{
	for (size_t i = 0; i < COUNT(selves); i++) {
		struct tunnel_config c;
		char why[CONFIG_WHY_MAX], got[3 * DUMP_NAME_MAX];

		if (read_with(&c, selves[i].env, NULL, why))
			fail_msg("%s: %s", selves[i].name, why);
		snprintf(got, sizeof got, "%s/%s/%s", c.self.ns, c.self.name, c.self.sa);
		if (strcmp(got, selves[i].want) != 0)
			fail_msg("%s: %s", selves[i].name, got);
		tunnel_config_free(&c);
	}
}

/* --- what is refused ----------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *env[4], *flags[4], *want;
} wrong[] = {
	{"boolean", {"ENABLE_PROXY=yes"}, {0}, "ENABLE_PROXY: \"yes\" is not true or false"},
	{"empty boolean", {"IPV6_ENABLED="}, {0}, "IPV6_ENABLED: \"\" is not true or false"},
	{"optional boolean", {"ENABLE_ORIG_SRC=1"}, {0}, "ENABLE_ORIG_SRC: must be true, false or unset"},
	{"number",
	 {"POOL_MAX_STREAMS_PER_CONNECTION=many"},
	 {0},
	 "POOL_MAX_STREAMS_PER_CONNECTION: \"many\" is not a number"},
	{"empty number", {"PACKET_MARK="}, {0}, "PACKET_MARK: \"\" is not a number"},
	{"hexadecimal", {"PACKET_MARK=0x539"}, {0}, "PACKET_MARK: \"0x539\" is not a number"},
	{"signed number", {"PACKET_MARK=+1"}, {0}, "PACKET_MARK: \"+1\" is not a number"},
	{"large number", {"KEEPALIVE_RETRIES=4294967296"}, {0}, "KEEPALIVE_RETRIES: \"4294967296\" is not a number"},
	{"mark 0", {"PACKET_MARK=0"}, {0}, "PACKET_MARK: must be between 1 and 65535"},
	{"no streams",
	 {"POOL_MAX_STREAMS_PER_CONNECTION=0"},
	 {0},
	 "POOL_MAX_STREAMS_PER_CONNECTION: must be at least 1"},
	{"system calls", {"CULVERT_SECCOMP=true"}, {0}, "CULVERT_SECCOMP: must be on or off"},
	{"kTLS by flag", {0}, {"--ktls=yes"}, "--ktls: must be off, tx, on or auto"},
	{"a flag names itself",
	 {"CULVERT_WORKERS=2"},
	 {"--workers=two"},
	 "--workers: \"two\" is not a number (0: as many as CPUs) or 1% to 100%"},
	{"our variable names itself",
	 {"CULVERT_WORKERS=two"},
	 {0},
	 "CULVERT_WORKERS: \"two\" is not a number (0: as many as CPUs) or 1% to 100%"},
	{"kTLS", {"CULVERT_KTLS=yes"}, {0}, "CULVERT_KTLS: must be off, tx, on or auto"},
	{"part of kTLS",
	 {"CULVERT_KTLS_DISABLE=splice"},
	 {0},
	 "CULVERT_KTLS_DISABLE: must be a list of tx, rx, rx-no-pad and rekey, with commas"},
	{"port", {"CULVERT_STATS_PORT=65536"}, {0}, "ports go up to 65535"},
	{"duration", {"SECRET_TTL=soon"}, {0}, "SECRET_TTL: \"soon\" is not a duration such as 30s, 5m or 1h30m"},
	{"unit", {"SECRET_TTL=5y"}, {0}, "SECRET_TTL: \"5y\" is not a duration such as 30s, 5m or 1h30m"},
	{"negative duration",
	 {"SECRET_TTL=-1s"},
	 {0},
	 "SECRET_TTL: \"-1s\" is not a duration such as 30s, 5m or 1h30m"},
	{"endless duration", {"SECRET_TTL=inf"}, {0}, "SECRET_TTL: \"inf\" is not a duration such as 30s, 5m or 1h30m"},
	{"no number", {"SECRET_TTL=nan"}, {0}, "SECRET_TTL: \"nan\" is not a duration such as 30s, 5m or 1h30m"},
	{"empty drain time",
	 {"CONNECTION_TERMINATION_DEADLINE="},
	 {0},
	 "CONNECTION_TERMINATION_DEADLINE: \"\" is not a duration"},
	{"grace period",
	 {"TERMINATION_GRACE_PERIOD_SECONDS=30s"},
	 {0},
	 "TERMINATION_GRACE_PERIOD_SECONDS: \"30s\" is not a number"},
	{"workers",
	 {"ZTUNNEL_WORKER_THREADS=two"},
	 {0},
	 "ZTUNNEL_WORKER_THREADS: \"two\" is not a number (0: as many as CPUs) or 1% to 100%"},
	{"percent",
	 {"ZTUNNEL_WORKER_THREADS=101%"},
	 {0},
	 "ZTUNNEL_WORKER_THREADS: \"101%\" is not a number (0: as many as CPUs) or 1% to 100%"},
	{"0 percent",
	 {"ZTUNNEL_WORKER_THREADS=0%"},
	 {0},
	 "ZTUNNEL_WORKER_THREADS: \"0%\" is not a number (0: as many as CPUs) or 1% to 100%"},
	{"only a percent sign",
	 {"ZTUNNEL_WORKER_THREADS=%"},
	 {0},
	 "ZTUNNEL_WORKER_THREADS: \"%\" is not a number (0: as many as CPUs) or 1% to 100%"},
	{"CPUs",
	 {"ZTUNNEL_RESOURCE_CPU_LIMIT=2Gi"},
	 {0},
	 "ZTUNNEL_RESOURCE_CPU_LIMIT: \"2Gi\" is not a number of CPUs such as 2, 1.5 or 500m"},
	{"no CPU's number",
	 {"ZTUNNEL_RESOURCE_CPU_LIMIT=nan"},
	 {0},
	 "ZTUNNEL_RESOURCE_CPU_LIMIT: \"nan\" is not a number of CPUs such as 2, 1.5 or 500m"},
	{"mode", {"PROXY_MODE=sideways"}, {0}, "PROXY_MODE: \"sideways\" is neither shared nor dedicated"},
	{"dedicated to nobody",
	 {"PROXY_MODE=dedicated"},
	 {0},
	 "PROXY_WORKLOAD_INFO: \"\" is not NAMESPACE/NAME/SERVICEACCOUNT"},
	{"dedicated to half a workload",
	 {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p"},
	 {0},
	 "PROXY_WORKLOAD_INFO: \"n/p\" is not NAMESPACE/NAME/SERVICEACCOUNT"},
	{"dedicated to an empty account",
	 {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p/"},
	 {0},
	 "PROXY_WORKLOAD_INFO: \"n/p/\" is not NAMESPACE/NAME/SERVICEACCOUNT"},
	{"dedicated to more than a workload",
	 {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p/s/x"},
	 {0},
	 "PROXY_WORKLOAD_INFO: \"n/p/s/x\" is not NAMESPACE/NAME/SERVICEACCOUNT"},
	{"large mark in dedicated mode",
	 {"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO=n/p/s", "PACKET_MARK=65536"},
	 {0},
	 "PACKET_MARK: must be between 1 and 65535"},
	{"no proxy", {"ENABLE_PROXY=false"}, {0}, "ENABLE_PROXY: a tunnel without the proxy has nothing to do"},
	{"TLS 1.2", {"TLS12_ENABLED=true"}, {0}, "TLS12_ENABLED: HBONE is TLS 1.3 only here; unset it"},
	{"no mesh",
	 {"LOCAL_XDS=UNSET"},
	 {0},
	 "no mesh state: set XDS_ADDRESS to istiod's address, or LOCAL_XDS_PATH to a YAML file"},
	{"two meshes", {"LOCAL_XDS_PATH=/m"}, {0}, "LOCAL_XDS_PATH and LOCAL_XDS are both set; give one"},
	{"half a CA", {"CULVERT_CA_CERT=/c"}, {0}, "CULVERT_CA_CERT and CULVERT_CA_KEY go together; give both or none"},
	{"two CAs",
	 {"CULVERT_CA_CERT=/c", "CULVERT_CA_KEY=/k", "CA_ADDRESS=istiod:15012"},
	 {0},
	 "CA_ADDRESS and CULVERT_CA_CERT are both set; give one"},
	{"on-demand", {"XDS_ON_DEMAND=true"}, {0}, "XDS_ON_DEMAND: needs XDS_ADDRESS"},
	{"SOCKS5", {"UNSTABLE_ENABLE_SOCKS5=1"}, {0}, "UNSTABLE_ENABLE_SOCKS5: \"1\" is not true or false"},
	{"DNS elsewhere",
	 {"ISTIO_META_DNS_PROXY_ADDR=127.0.0.1:53"},
	 {0},
	 "ISTIO_META_DNS_PROXY_ADDR: another address for DNS is not supported yet; unset it"},
	{"no cluster domain", {"CLUSTER_DOMAIN="}, {0}, BAD_DOMAIN},
	{"a cluster domain with an empty part", {"CLUSTER_DOMAIN=a..b"}, {0}, BAD_DOMAIN},
	{"a cluster domain with a dot at its end", {"CLUSTER_DOMAIN=a.b."}, {0}, BAD_DOMAIN},
	{"a cluster domain of other characters", {"CLUSTER_DOMAIN=a b"}, {0}, BAD_DOMAIN},
	{"unknown flag", {0}, {"--no-such-flag"}, "unknown argument \"--no-such-flag\"; see culvertd tunnel --help"},
	{"a word", {0}, {"ztunnel"}, "unknown argument \"ztunnel\"; see culvertd tunnel --help"},
	{"a word behind a flag",
	 {0},
	 {"--local-hbone", "proxy"},
	 "unknown argument \"proxy\"; see culvertd tunnel --help"},
	{"a variable that is no flag",
	 {0},
	 {"--packet-mark=1"},
	 "unknown argument \"--packet-mark=1\"; see culvertd tunnel --help"},
	{"the beginning of a flag", {0}, {"--node"}, "unknown argument \"--node\"; see culvertd tunnel --help"},
	{"a flag without its value", {0}, {"--node-name"}, "--node-name needs a value"},
	{"a flag's value", {0}, {"--stats-port=x"}, "--stats-port: \"x\" is not a number"},
};

static void test_wrong(void **state)
{
	for (size_t i = 0; i < COUNT(wrong); i++) {
		struct tunnel_config c;
		char why[CONFIG_WHY_MAX];

		if (read_with(&c, wrong[i].env, wrong[i].flags, why) != -EINVAL)
			fail_msg("%s: taken", wrong[i].name);
		if (strcmp(why, wrong[i].want) != 0)
			fail_msg("%s: %s", wrong[i].name, why);
		tunnel_config_free(&c);
	}
}

/* What ztunnel's defaults are written out is no reason to refuse. */
static void test_harmless(void **state)
{
	static const char *const env[] = {"CRL_PATH=",
					  "COMPLIANCE_POLICY=fips-140-3",
					  "XDS_ON_DEMAND=false",
					  "ISTIO_META_DNS_PROXY_ADDR=localhost:15053",
					  "UNSTABLE_ENABLE_SOCKS5=false",
					  "FAKE_CA=true",
					  "CA_ADDRESS=x",
					  "CULVERT_CA_CERT=/c",
					  "CULVERT_CA_KEY=/k",
					  NULL};
	struct tunnel_config c;
	char why[CONFIG_WHY_MAX];

	assert_int_equal(read_with(&c, env, NULL, why), 0);
	assert_true(c.fake_ca);
	tunnel_config_free(&c);
}

/* A key exchange that is not there is refused at the start, not at the first certificate. */
static void test_pqc(void **state)
{
	static const char *const env[] = {"COMPLIANCE_POLICY=pqc", NULL};
	struct tunnel_config c;
	char why[CONFIG_WHY_MAX];
	int e = read_with(&c, env, NULL, why);

	if (tls_has_pqc()) {
		assert_int_equal(e, 0);
		tunnel_config_free(&c);
		return;
	}
	assert_int_equal(e, -EINVAL);
	assert_string_equal(
		why, "COMPLIANCE_POLICY: pqc needs the key exchange X25519MLKEM768, which OpenSSL has since 3.5");
}

/* --- /config_dump ----------------------------------------------------------------------------------------------------------------- */

static void test_dump(void **state)
{
	static const char *const env[] = {"AUTH_TOKEN=secret-token", "NODE_NAME=n", "KEEPALIVE_ENABLED=false", NULL};
	struct tunnel_config c;
	char why[CONFIG_WHY_MAX];
	json_t *o;

	assert_int_equal(read_with(&c, env, NULL, why), 0);
	assert_null(strstr(c.text, "secret-token"));
	o = json_loads(c.text, 0, NULL);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "nodeName")), "n");
	assert_true(json_is_false(json_object_get(o, "keepaliveEnabled")));
	assert_int_equal(json_integer_value(json_object_get(o, "packetMark")), 1337);
	json_decref(o);
	tunnel_config_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values), cmocka_unit_test(test_strings),	cmocka_unit_test(test_selves),
		cmocka_unit_test(test_wrong),  cmocka_unit_test(test_harmless), cmocka_unit_test(test_pqc),
		cmocka_unit_test(test_dump),
	};

	return cmocka_run_group_tests_name("tunnel_config", tests, NULL, NULL);
}
