/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the keeper's configuration: variables, flags, precedence, and the one line about what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "keeper_config.c"

enum { VARS = 4, ARGS = 6 };

static const char *const known[] = {
	"CULVERT_RUN_DIR",
	"CULVERT_BPF_DIR",
	"CULVERT_ZDS",
	"ZTUNNEL_UDS_ADDRESS",
	"CULVERT_STEERING",
	"CULVERT_ENROL_EXISTING",
	"CULVERT_DNS_CAPTURE",
	"AMBIENT_DNS_CAPTURE",
	"AMBIENT_IPV6",
	"CULVERT_KUBELET_CGROUP",
	"CULVERT_DRAIN",
	"CULVERT_DRAIN_LIMIT",
	"CULVERT_UPGRADE_ON_CHANGE",
	"CULVERT_LOG",
	"RUST_LOG",
	"CULVERT_LOG_FORMAT",
	"LOG_FORMAT",
	"INPOD_UDS",
	"CULVERT_CNI",
	"CNI_AGENT_RUN_DIR",
	"CULVERT_CNI_PODS",
	"CULVERT_EXCLUDE_NAMESPACES",
	"AMBIENT_ENABLED",
	"NODE_NAME",
	"SYSTEM_NAMESPACE",
	"AMBIENT_ENABLEMENT_SELECTOR",
	"KUBECONFIG",
	"KUBERNETES_SERVICE_HOST",
	"KUBERNETES_SERVICE_PORT",
	"KUBERNETES_SERVICE_PROTOCOL",
	"KUBE_CA_FILE",
	"SKIP_TLS_VERIFY",
	"MONITORING_PORT",
	"CULVERT_KUBE_SILENCE",
	"EXCLUDE_NAMESPACES",
	"MOUNTED_CNI_NET_DIR",
	"CULVERT_CNI_CONF_DIR",
	"CULVERT_CNI_BIN_DIR",
	"CNI_CONF_NAME",
	"CHAINED_CNI_PLUGIN",
	"ISTIO_OWNED_CNI_CONFIG",
	"ISTIO_OWNED_CNI_CONF_FILENAME",
	"ISTIO_OWNED_CNI_CONFIG_FILENAME",
	"CNI_CONF_GROUP_READ",
	"AMBIENT_DISABLE_SAFE_UPGRADE",
	"KUBECONFIG_MODE",
	"ENABLE_AMBIENT_DETECTION_RETRY",
	"POD_NAMESPACE",
	"CONNECTION_TERMINATION_DEADLINE",
	"TERMINATION_GRACE_PERIOD_SECONDS",
};

/* What a row looks at, as text. */
static void look(const struct keeper_config *c, const char *what, char out[256])
{
	const char *s = NULL;

	if (!strcmp(what, "run"))
		s = c->run_dir;
	else if (!strcmp(what, "bpf"))
		s = c->bpf_dir;
	else if (!strcmp(what, "zds"))
		s = c->zds_path;
	else if (!strcmp(what, "cni"))
		s = c->cni_path;
	else if (!strcmp(what, "cni pods"))
		s = c->cni_pods;
	else if (!strcmp(what, "cni conf"))
		s = c->cni_conf_dir ? c->cni_conf_dir : "(none given)";
	else if (!strcmp(what, "cni programs"))
		s = c->cni_bin_dir;
	else if (!strcmp(what, "cni name"))
		s = c->cni_conf_name;
	else if (!strcmp(what, "chained"))
		s = c->cni_chained ? "yes" : "no";
	else if (!strcmp(what, "owned name"))
		s = c->cni_owned ? c->cni_owned_name : "(not owned)";
	else if (!strcmp(what, "group"))
		s = c->cni_conf_group_read ? "yes" : "no";
	else if (!strcmp(what, "removed"))
		s = c->cni_remove_at_end ? "yes" : "no";
	else if (!strcmp(what, "retry"))
		s = c->detection_retry ? "yes" : "no";
	else if (!strcmp(what, "our namespace"))
		s = c->pod_namespace;
	else if (!strcmp(what, "excluded"))
		s = c->exclude_namespaces;
	else if (!strcmp(what, "kubernetes"))
		s = c->ambient ? "yes" : "no";
	else if (!strcmp(what, "node"))
		s = c->node_name;
	else if (!strcmp(what, "selector"))
		s = c->enablement_selector ? c->enablement_selector : "(Istio's)";
	else if (!strcmp(what, "system"))
		s = c->system_namespace;
	else if (!strcmp(what, "cgroup"))
		s = c->kubelet_cgroup ? c->kubelet_cgroup : "(none given)";
	else if (!strcmp(what, "log"))
		s = c->log_filter;
	else if (!strcmp(what, "mode"))
		s = c->mode == STEER_BPF ? "bpf" : "iptables";
	else if (!strcmp(what, "existing"))
		s = c->reset_existing ? "reset" : "keep";
	else if (!strcmp(what, "dns"))
		s = c->dns_capture ? "yes" : "no";
	else if (!strcmp(what, "ipv6"))
		s = c->ipv6 ? "yes" : "no";
	else if (!strcmp(what, "json"))
		s = c->log_json ? "yes" : "no";
	else if (!strcmp(what, "supervise"))
		s = c->supervise ? "yes" : "no";
	snprintf(out, 256, "%s", s ? s : "?");
	if (!strcmp(what, "kubeconfig mode"))
		snprintf(out, 256, "%o", c->kubeconfig_mode);
	if (!strcmp(what, "monitoring"))
		snprintf(out, 256, "%u", c->monitoring_port);
	if (!strcmp(what, "silence"))
		snprintf(out, 256, "%u", c->kube_silence_ms);
	if (!strcmp(what, "drain"))
		snprintf(out, 256, "%u", c->drain_ms);
	if (!strcmp(what, "drain limit"))
		snprintf(out, 256, "%u", c->drain_limit_ms);
	if (!strcmp(what, "upgrade"))
		snprintf(out, 256, "%s", c->upgrade_on_change ? "yes" : "no");
	if (!strcmp(what, "tunnel drain"))
		snprintf(out, 256, "%u", c->tunnel_drain_ms);
}

static const struct {
	const char *name, *var[VARS], *arg[ARGS]; /* "NAME=value"; arg[0] is node or supervise */
	const char *what, *want;
	const char *wrong; /* part of the line, for what must be refused */
} rows[] = {
	{"plain culvertd supervises", {NULL}, {"supervise"}, "supervise", "yes", NULL},
	{"node does not", {NULL}, {"node"}, "supervise", "no", NULL},
	{"default run directory", {NULL}, {"supervise"}, "run", "/run/culvert", NULL},
	{"default pins", {NULL}, {"node"}, "bpf", "/sys/fs/bpf/culvert", NULL},
	{"default steering", {NULL}, {"node"}, "mode", "bpf", NULL},
	{"default for existing connections", {NULL}, {"node"}, "existing", "keep", NULL},
	{"default DNS capture", {NULL}, {"node"}, "dns", "yes", NULL},
	{"default drain", {NULL}, {"node"}, "drain", "5000", NULL},
	{"default drain limit: 12 h", {NULL}, {"supervise"}, "drain limit", "43200000", NULL},
	{"a changed file is an upgrade", {NULL}, {"supervise"}, "upgrade", "yes", NULL},
	{"or not", {NULL}, {"supervise", "--upgrade-on-change=false"}, "upgrade", "no", NULL},
	{"drain limit", {"CULVERT_DRAIN_LIMIT=30m"}, {"supervise"}, "drain limit", "1800000", NULL},
	{"default log", {NULL}, {"node"}, "log", "info", NULL},
	{"no kubelet cgroup given", {NULL}, {"node"}, "cgroup", "(none given)", NULL},

	{"variable", {"CULVERT_RUN_DIR=/a"}, {"node"}, "run", "/a", NULL},
	{"flag wins over the variable", {"CULVERT_RUN_DIR=/a"}, {"node", "--run-dir", "/b"}, "run", "/b", NULL},
	{"flag with =", {NULL}, {"node", "--run-dir=/b"}, "run", "/b", NULL},
	{"the last flag wins", {NULL}, {"node", "--run-dir=/b", "--run-dir=/c"}, "run", "/c", NULL},
	{"ours wins over Istio's",
	 {"AMBIENT_DNS_CAPTURE=true", "CULVERT_DNS_CAPTURE=false"},
	 {"node"},
	 "dns",
	 "no",
	 NULL},
	{"Istio's DNS capture", {"AMBIENT_DNS_CAPTURE=false"}, {"node"}, "dns", "no", NULL},
	{"Istio's IPv6", {"AMBIENT_IPV6=false"}, {"node"}, "ipv6", "no", NULL},
	{"empty is as good as none",
	 {"CULVERT_RUN_DIR=", "AMBIENT_DNS_CAPTURE="},
	 {"node"},
	 "run",
	 "/run/culvert",
	 NULL},
	{"iptables by variable", {"CULVERT_STEERING=iptables"}, {"node"}, "mode", "iptables", NULL},
	{"iptables by flag", {NULL}, {"supervise", "--steering=iptables"}, "mode", "iptables", NULL},
	{"reset", {"CULVERT_ENROL_EXISTING=reset"}, {"node"}, "existing", "reset", NULL},
	{"cgroup", {"CULVERT_KUBELET_CGROUP=/kubelet"}, {"node"}, "cgroup", "/kubelet", NULL},
	{"an empty cgroup is a value", {"CULVERT_KUBELET_CGROUP="}, {"node"}, "cgroup", "", NULL},
	{"log by RUST_LOG", {"RUST_LOG=debug"}, {"node"}, "log", "debug", NULL},
	{"log by CULVERT_LOG", {"RUST_LOG=debug", "CULVERT_LOG=warn"}, {"node"}, "log", "warn", NULL},
	{"log format", {"LOG_FORMAT=json"}, {"node"}, "json", "yes", NULL},
	{"drain of 1m30s", {NULL}, {"node", "--drain", "1m30s"}, "drain", "90000", NULL},
	{"drain of 250ms", {NULL}, {"node", "--drain", "250ms"}, "drain", "250", NULL},
	{"drain of 7", {NULL}, {"node", "--drain", "7"}, "drain", "7000", NULL},
	{"drain of 1.5s", {NULL}, {"node", "--drain", "1.5s"}, "drain", "1500", NULL},
	{"no drain", {NULL}, {"node", "--drain", "0"}, "drain", "0", NULL},
	{"the tunnel's deadline", {"CONNECTION_TERMINATION_DEADLINE=8s"}, {"supervise"}, "tunnel drain", "8000", NULL},

	{"Kubernetes' deadline", {"TERMINATION_GRACE_PERIOD_SECONDS=30"}, {"supervise"}, "tunnel drain", "30000", NULL},
	{"the tunnel's deadline wins",
	 {"TERMINATION_GRACE_PERIOD_SECONDS=30", "CONNECTION_TERMINATION_DEADLINE=8s"},
	 {"supervise"},
	 "tunnel drain",
	 "8000",
	 NULL},
	{"no deadline given", {NULL}, {"supervise"}, "tunnel drain", "5000", NULL},

	{"cni of plain culvertd", {NULL}, {"supervise"}, "cni", "/run/culvert/cni.sock", NULL},
	{"cni of node is Istio's", {NULL}, {"node"}, "cni", "/var/run/istio-cni/pluginevent.sock", NULL},
	{"cni beside the run directory", {"CULVERT_RUN_DIR=/a"}, {"node"}, "cni", "/a/cni.sock", NULL},
	{"Istio's cni wins over the run directory",
	 {"CULVERT_RUN_DIR=/a", "CNI_AGENT_RUN_DIR=/i"},
	 {"node"},
	 "cni",
	 "/i/pluginevent.sock",
	 NULL},
	{"cni by flag", {"CNI_AGENT_RUN_DIR=/i"}, {"node", "--cni=/c"}, "cni", "/c", NULL},
	{"a relative cni", {NULL}, {"node", "--cni=c"}, NULL, NULL, "absolute path"},
	{"no pods by CNI without being told", {NULL}, {"node"}, "cni pods", "none", NULL},
	{"all pods by CNI", {"CULVERT_CNI_PODS=all"}, {"node"}, "cni pods", "all", NULL},
	{"some pods by CNI", {NULL}, {"node", "--cni-pods=some"}, NULL, NULL, "one of all|none"},
	{"nothing is installed without being told", {NULL}, {"node"}, "cni conf", "(none given)", NULL},
	{"Istio's folder of configurations", {"MOUNTED_CNI_NET_DIR=/n"}, {"node"}, "cni conf", "/n", NULL},
	{"ours wins over Istio's folder",
	 {"MOUNTED_CNI_NET_DIR=/n", "CULVERT_CNI_CONF_DIR=/m"},
	 {"node"},
	 "cni conf",
	 "/m",
	 NULL},
	{"folder of programs", {"CULVERT_CNI_BIN_DIR=/b"}, {"node"}, "cni programs", "/b", NULL},
	{"a relative folder of programs", {NULL}, {"node", "--cni-bin-dir=b"}, NULL, NULL, "absolute path"},
	{"name of the configuration", {"CNI_CONF_NAME=x.conf"}, {"node"}, "cni name", "x.conf", NULL},
	{"chained without being told", {NULL}, {"node"}, "chained", "yes", NULL},
	{"not chained", {"CHAINED_CNI_PLUGIN=false"}, {"node"}, "chained", "no", NULL},
	{"not owned without being told",
	 {"ISTIO_OWNED_CNI_CONFIG_FILENAME=o"},
	 {"node"},
	 "owned name",
	 "(not owned)",
	 NULL},
	{"owned, as the agent calls it",
	 {"ISTIO_OWNED_CNI_CONFIG=true", "ISTIO_OWNED_CNI_CONFIG_FILENAME=o"},
	 {"node"},
	 "owned name",
	 "o",
	 NULL},
	{"owned, as Istio's chart calls it",
	 {"ISTIO_OWNED_CNI_CONFIG=true", "ISTIO_OWNED_CNI_CONF_FILENAME=c"},
	 {"node"},
	 "owned name",
	 "c",
	 NULL},
	{"owned, called both",
	 {"ISTIO_OWNED_CNI_CONFIG=true", "ISTIO_OWNED_CNI_CONF_FILENAME=c", "ISTIO_OWNED_CNI_CONFIG_FILENAME=o"},
	 {"node"},
	 "owned name",
	 "o",
	 NULL},
	{"configurations for a group", {"CNI_CONF_GROUP_READ=true"}, {"node"}, "group", "yes", NULL},
	{"it stays without being told", {NULL}, {"node"}, "removed", "no", NULL},
	{"Istio's unsafe upgrade", {"AMBIENT_DISABLE_SAFE_UPGRADE=true"}, {"node"}, "removed", "yes", NULL},
	{"kubeconfig's mode without being told", {NULL}, {"node"}, "kubeconfig mode", "600", NULL},
	{"kubeconfig's mode", {"KUBECONFIG_MODE=0640"}, {"node"}, "kubeconfig mode", "640", NULL},
	{"a mode that is a number of another kind",
	 {"KUBECONFIG_MODE=0680"},
	 {"node"},
	 NULL,
	 NULL,
	 "\"0680\" is not the mode"},
	{"a mode with more than permissions", {"KUBECONFIG_MODE=4600"}, {"node"}, NULL, NULL, "is not the mode"},
	{"a negative mode", {"KUBECONFIG_MODE=-1"}, {"node"}, NULL, NULL, "is not the mode"},
	{"detection with retries", {"ENABLE_AMBIENT_DETECTION_RETRY=true"}, {"node"}, "retry", "yes", NULL},
	{"the keeper's namespace", {"POD_NAMESPACE=istio-system"}, {"node"}, "our namespace", "istio-system", NULL},
	{"excluded namespaces", {"EXCLUDE_NAMESPACES=a,b"}, {"node"}, "excluded", "a,b", NULL},

	{"no Kubernetes without being told", {"KUBERNETES_SERVICE_HOST=10.0.0.1"}, {"node"}, "kubernetes", "no", NULL},
	{"Kubernetes", {"AMBIENT_ENABLED=true", "NODE_NAME=n1"}, {"node"}, "kubernetes", "yes", NULL},
	{"the node's name", {"AMBIENT_ENABLED=true", "NODE_NAME=n1"}, {"node"}, "node", "n1", NULL},
	{"Kubernetes without the node's name", {"AMBIENT_ENABLED=true"}, {"node"}, NULL, NULL, "needs NODE_NAME"},
	{"selectors", {"AMBIENT_ENABLEMENT_SELECTOR=[]"}, {"node"}, "selector", "[]", NULL},
	{"no selectors given", {"AMBIENT_ENABLEMENT_SELECTOR="}, {"node"}, "selector", "(Istio's)", NULL},
	{"the system's namespace", {NULL}, {"node"}, "system", "istio-system", NULL},
	{"another system namespace", {"SYSTEM_NAMESPACE=mesh"}, {"node"}, "system", "mesh", NULL},
	{"port for scrapers", {NULL}, {"node"}, "monitoring", "15014", NULL},
	{"another port for scrapers", {"MONITORING_PORT=9090"}, {"node"}, "monitoring", "9090", NULL},
	{"a flag of the tunnel",
	 {NULL},
	 {"supervise", "--local-xds-path=x"},
	 NULL,
	 NULL,
	 "a flag of culvertd tunnel is a variable here: CULVERT_LOCAL_XDS_PATH"},
	{"an unknown flag of node",
	 {NULL},
	 {"node", "--nothing"},
	 NULL,
	 NULL,
	 "unknown argument \"--nothing\"; see culvertd --help"},
	{"a flag's error names the flag",
	 {NULL},
	 {"node", "--steering=x"},
	 NULL,
	 NULL,
	 "--steering: \"x\" is not one of"},
	{"not a port", {"MONITORING_PORT=0"}, {"node"}, NULL, NULL, "MONITORING_PORT: \"0\" is not a port"},
	{"too large a port", {"MONITORING_PORT=65536"}, {"node"}, NULL, NULL, "is not a port"},
	{"silence", {NULL}, {"node", "--kube-silence=5s"}, "silence", "5000", NULL},

	{"zds of plain culvertd", {NULL}, {"supervise"}, "zds", "/run/culvert/zds.sock", NULL},
	{"zds of node is Istio's", {NULL}, {"node"}, "zds", "/var/run/ztunnel/ztunnel.sock", NULL},
	{"zds beside the run directory", {"CULVERT_RUN_DIR=/a"}, {"node"}, "zds", "/a/zds.sock", NULL},
	{"zds beside a run directory that is the default",
	 {"CULVERT_RUN_DIR=/run/culvert"},
	 {"node"},
	 "zds",
	 "/run/culvert/zds.sock",
	 NULL},
	{"Istio's zds wins over the run directory",
	 {"CULVERT_RUN_DIR=/a", "ZTUNNEL_UDS_ADDRESS=/z"},
	 {"node"},
	 "zds",
	 "/z",
	 NULL},
	{"what the tunnel will dial", {"CULVERT_RUN_DIR=/a", "INPOD_UDS=/i"}, {"supervise"}, "zds", "/i", NULL},
	{"INPOD_UDS is not node's", {"CULVERT_RUN_DIR=/a", "INPOD_UDS=/i"}, {"node"}, "zds", "/a/zds.sock", NULL},

	{"unknown flag", {NULL}, {"node", "--no-such-flag"}, NULL, NULL, "--no-such-flag"},
	{"a word", {NULL}, {"node", "word"}, NULL, NULL, "\"word\""},
	{"beginning of a flag", {NULL}, {"node", "--run"}, NULL, NULL, "--run"},
	{"flag without value", {NULL}, {"node", "--drain"}, NULL, NULL, "--drain needs a value"},
	{"unknown steering", {"CULVERT_STEERING=wishful"}, {"node"}, NULL, NULL, "CULVERT_STEERING: \"wishful\""},
	{"half a choice", {"CULVERT_STEERING=bp"}, {"node"}, NULL, NULL, "bpf|iptables"},
	{"both choices", {"CULVERT_STEERING=bpf|iptables"}, {"node"}, NULL, NULL, "CULVERT_STEERING"},
	{"not a truth value", {"AMBIENT_DNS_CAPTURE=yes"}, {"node"}, NULL, NULL, "AMBIENT_DNS_CAPTURE: \"yes\""},
	{"relative path", {NULL}, {"node", "--run-dir=run"}, NULL, NULL, "absolute path"},
	{"not a duration", {NULL}, {"node", "--drain", "soon"}, NULL, NULL, "\"soon\""},
	{"unit alone", {NULL}, {"node", "--drain", "s"}, NULL, NULL, "\"s\""},
	{"unknown unit", {NULL}, {"node", "--drain", "5sm"}, NULL, NULL, "\"5sm\""},
	{"negative", {NULL}, {"node", "--drain", "-5"}, NULL, NULL, "\"-5\""},
	{"two points", {NULL}, {"node", "--drain", "1.2.3s"}, NULL, NULL, "\"1.2.3s\""},
	{"infinite", {NULL}, {"node", "--drain", "99999999999999h"}, NULL, NULL, "99999999999999h"},
	{"too long a drain", {NULL}, {"node", "--drain", "6m"}, NULL, NULL, "at most 300 s"},
	{"bad deadline of the tunnel",
	 {"CONNECTION_TERMINATION_DEADLINE=soon"},
	 {"supervise"},
	 NULL,
	 NULL,
	 "CONNECTION_TERMINATION_DEADLINE"},
	{"log filter", {"RUST_LOG=loud"}, {"node"}, NULL, NULL, "log filter: \"loud\""},
	{"log format", {"LOG_FORMAT=xml"}, {"node"}, NULL, NULL, "LOG_FORMAT: \"xml\""},
};

static void environment(const char *const var[VARS])
{
	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		unsetenv(known[i]);
	for (unsigned i = 0; i < VARS && var[i]; i++) {
		char name[64];

		snprintf(name, sizeof name, "%.*s", (int)strcspn(var[i], "="), var[i]);
		setenv(name, strchr(var[i], '=') + 1, 1);
	}
}

static void test_rows(void **state)
{
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		char *argv[ARGS + 1] = {(char *)"culvert-keeper"}, why[KEEPER_WHY_MAX] = "", got[256];
		struct keeper_config c;
		int argc = 1;

		while (argc <= ARGS && rows[i].arg[argc - 1]) {
			argv[argc] = (char *)rows[i].arg[argc - 1];
			argc++;
		}
		environment(rows[i].var);
		print_message("row: %s\n", rows[i].name);
		assert_int_equal(keeper_config_read(&c, argc, argv, why), rows[i].wrong ? -EINVAL : 0);
		if (rows[i].wrong) {
			assert_non_null(strstr(why, rows[i].wrong));
			assert_null(strchr(why, '\n'));
			continue;
		}
		look(&c, rows[i].what, got);
		assert_string_equal(got, rows[i].want);
	}
}

/* Every flag is in the help and has a variable of its own that works. */
static void test_table(void **state)
{
	for (unsigned i = 0; i < VALUES; i++) {
		char name[64];

		assert_true(values[i].flag || values[i].istio);
		if (!values[i].flag)
			continue;
		assert_non_null(values[i].help);
		variable_name(&values[i], name);
		assert_int_equal(strncmp(name, "CULVERT_", 8), 0);
		assert_null(strpbrk(name, "-abcdefghijklmnopqrstuvwxyz"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_table)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
