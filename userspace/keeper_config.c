/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the keeper's configuration. One table names every value with its variables, type and default. */
#include "keeper_config.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/values.h"
#include "base/version.h"
#include "cni_abi.h"
#include "ctl_abi.h"

enum kind { TEXT, PATH, CHOICE, YESNO, DURATION, PORT, MODE };

struct value {
	const char *flag;  /* without "--"; CULVERT_<FLAG> is its variable; NULL: only `istio` */
	const char *istio; /* Istio's variable; ours wins */
	enum kind kind;
	size_t at;
	const char *initial; /* NULL: not set */
	const char *help;
	const char *choices; /* CHOICE: joined by "|" */
};

#define AT(field) offsetof(struct keeper_config, field)
static const struct value values[] = {
	/* first: whether it was given decides about others */
	{"run-dir", NULL, PATH, AT(run_dir), CTL_RUN_DIR, "folder of sockets and of what is known of pods", NULL},
	{"bpf-dir", NULL, PATH, AT(bpf_dir), "/sys/fs/bpf/culvert", "folder of pinned BPF objects, on a bpffs", NULL},
	{"zds", "ZTUNNEL_UDS_ADDRESS", PATH, AT(zds_path), NULL, "socket for the tunnel", NULL},
	{"cni", NULL, PATH, AT(cni_path), NULL, "socket for the CNI plugin", NULL},
	{NULL, "CNI_AGENT_RUN_DIR", PATH, AT(cni_run_dir), NULL, NULL, NULL},
	{"cni-pods", NULL, CHOICE, AT(cni_pods), "none",
	 "without Kubernetes, of the pods that a runtime adds by CNI these are in the mesh: all or none", "all|none"},
	{"exclude-namespaces", "EXCLUDE_NAMESPACES", TEXT, AT(exclude_namespaces), NULL,
	 "but not those in these namespaces, with commas", NULL},
	{"cni-conf-dir", "MOUNTED_CNI_NET_DIR", PATH, AT(cni_conf_dir), NULL,
	 "the runtime's CNI configuration: culvert-cni is installed there, and kept there", NULL},
	{"cni-bin-dir", NULL, PATH, AT(cni_bin_dir), NULL, "and its programs", NULL},
	{"cni-conf-name", "CNI_CONF_NAME", TEXT, AT(cni_conf_name), NULL,
	 "the configuration that gets our entry, not the first one", NULL},
	{"cni-chained", "CHAINED_CNI_PLUGIN", YESNO, AT(cni_chained), "true",
	 "false: our entry is a configuration of its own, as multus wants it", NULL},
	{"cni-owned", "ISTIO_OWNED_CNI_CONFIG", YESNO, AT(cni_owned), "false",
	 "with Kubernetes, our entry is in a copy of the configuration", NULL},
	{NULL, "ISTIO_OWNED_CNI_CONF_FILENAME", TEXT, AT(cni_owned_name), NULL, NULL, NULL}, /* as the chart calls it */
	{"cni-owned-name", "ISTIO_OWNED_CNI_CONFIG_FILENAME", TEXT, AT(cni_owned_name), NULL,
	 "the name of that file: 02-istio-cni.conflist", NULL},
	{NULL, "CNI_CONF_GROUP_READ", YESNO, AT(cni_conf_group_read), "false", NULL, NULL},
	{"cni-remove-at-end", "AMBIENT_DISABLE_SAFE_UPGRADE", YESNO, AT(cni_remove_at_end), "false",
	 "when the keeper ends it removes what it installed, even if another one follows", NULL},
	{NULL, "KUBECONFIG_MODE", MODE, AT(kubeconfig_mode), "0600", NULL, NULL},
	{NULL, "ENABLE_AMBIENT_DETECTION_RETRY", YESNO, AT(detection_retry), "false", NULL, NULL},
	{NULL, "POD_NAMESPACE", TEXT, AT(pod_namespace), NULL, NULL, NULL},
	{NULL, "AMBIENT_ENABLED", YESNO, AT(ambient), "false", NULL, NULL},
	{NULL, "NODE_NAME", TEXT, AT(node_name), NULL, NULL, NULL},
	{NULL, "SYSTEM_NAMESPACE", TEXT, AT(system_namespace), "istio-system", NULL, NULL},
	{NULL, "AMBIENT_ENABLEMENT_SELECTOR", TEXT, AT(enablement_selector), NULL, NULL, NULL},
	{NULL, "KUBECONFIG", TEXT, AT(kubeconfig), NULL, NULL, NULL},
	{NULL, "KUBERNETES_SERVICE_HOST", TEXT, AT(kube_host), NULL, NULL, NULL},
	{NULL, "KUBERNETES_SERVICE_PORT", TEXT, AT(kube_port), NULL, NULL, NULL},
	{NULL, "KUBERNETES_SERVICE_PROTOCOL", CHOICE, AT(kube_protocol), "https", NULL, "https|http"},
	{NULL, "KUBE_CA_FILE", PATH, AT(kube_ca_file), NULL, NULL, NULL},
	{NULL, "SKIP_TLS_VERIFY", YESNO, AT(skip_tls_verify), "false", NULL, NULL},
	{NULL, "MONITORING_PORT", PORT, AT(monitoring_port), "15014", NULL, NULL},
	{"kube-silence", NULL, DURATION, AT(kube_silence_ms), "90s",
	 "a watch of the API server on which nothing comes for so long is opened anew", NULL},
	{"steering", NULL, CHOICE, AT(steering), "bpf", "how pods are steered: bpf or iptables", "bpf|iptables"},
	{"enrol-existing", NULL, CHOICE, AT(enrol_existing), "keep",
	 "connections that exist at enrolment: keep or reset", "keep|reset"},
	{"dns-capture", "AMBIENT_DNS_CAPTURE", YESNO, AT(dns_capture), "true", "capture the pods' DNS queries", NULL},
	{NULL, "AMBIENT_IPV6", YESNO, AT(ipv6), "true", NULL, NULL},
	{"kubelet-cgroup", NULL, TEXT, AT(kubelet_cgroup), NULL,
	 "the kubelet's cgroup, whose probes pass; empty: none; not given: looked for", NULL},
	{"drain", NULL, DURATION, AT(drain_ms), "5s", "time for captured connections of a pod that leaves", NULL},
	{"drain-limit", NULL, DURATION, AT(drain_limit_ms), "12h", "and for those of a tunnel that was replaced", NULL},
	{"upgrade-on-change", NULL, YESNO, AT(upgrade_on_change), "true",
	 "replace the tunnel, without losing a connection, when its file changes", NULL},
	{"log", "RUST_LOG", TEXT, AT(log_filter), "info", "log filter: LEVEL or TARGET=LEVEL, with commas", NULL},
	{"log-format", "LOG_FORMAT", CHOICE, AT(log_format), "plain", "plain or json", "plain|json"},
	{NULL, "CONNECTION_TERMINATION_DEADLINE", DURATION, AT(tunnel_drain_ms), NULL, NULL, NULL},
	{NULL, "TERMINATION_GRACE_PERIOD_SECONDS", DURATION, AT(grace_ms), "5s", NULL, NULL},
};
enum { VALUES = sizeof values / sizeof *values };

/* --- values --------------------------------------------------------------------------------------------- */

static int parse_port(const char *s, unsigned long *port)
{
	uint16_t v;

	if (port_parse(&v, s) < 0 || !v)
		return -EINVAL;
	*port = v;
	return 0;
}

static bool is_choice(const char *choices, const char *text)
{
	size_t len = strlen(text);

	for (const char *p = choices; *p;) {
		size_t n = strcspn(p, "|");

		if (n == len && !strncmp(p, text, n))
			return true;
		p += n + (p[n] == '|');
	}
	return false;
}

static int set(struct keeper_config *c, const struct value *v, const char *name, const char *text, char *why)
{
	char *field = (char *)c + v->at, want[96] = "";
	unsigned long n = 0;

	if (v->kind == TEXT || v->kind == PATH || v->kind == CHOICE)
		*(const char **)field = text;
	if (v->kind == PATH && (text[0] != '/' || strlen(text) >= PATH_MAX))
		snprintf(want, sizeof want, "an absolute path");
	else if (v->kind == CHOICE && !is_choice(v->choices, text))
		snprintf(want, sizeof want, "one of %s", v->choices);
	else if (v->kind == YESNO && !is_choice("true|false", text))
		snprintf(want, sizeof want, "true or false");
	else if (v->kind == DURATION && value_duration(text, &n) < 0)
		snprintf(want, sizeof want, "a duration such as 30s, 5m or 1h30m");
	else if (v->kind == PORT && parse_port(text, &n) < 0)
		snprintf(want, sizeof want, "a port");
	else if (v->kind == MODE && value_mode(text, &n) < 0)
		snprintf(want, sizeof want, "the mode of a file, such as 0600");
	if (want[0]) {
		snprintf(why, KEEPER_WHY_MAX, "%.*s: \"%.256s\" is not %s", (int)strcspn(name, "="), name, text, want);
		return -EINVAL;
	}
	if (v->kind == YESNO)
		*(bool *)field = !strcmp(text, "true");
	else if (v->kind == DURATION || v->kind == PORT || v->kind == MODE)
		*(unsigned *)field = (unsigned)n;
	return 0;
}

/* --- environment and flags ------------------------------------------------------------------------------ */

static const char *variable_name(const struct value *v, char buf[64])
{
	snprintf(buf, 64, "CULVERT_%.48s", v->flag);
	for (char *p = buf; *p; p++)
		*p = *p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
	return buf;
}

/* Empty variables are as good as none, but where empty is a value. */
static const char *variable_read(const char *name, bool empty_counts)
{
	const char *text = name ? getenv(name) : NULL;

	return text && (*text || empty_counts) ? text : NULL;
}

static int read_environment(struct keeper_config *c, char *why)
{
	for (unsigned i = 0; i < VALUES; i++) {
		const struct value *v = &values[i];
		char ours[64];
		const char *name = v->flag ? variable_name(v, ours) : v->istio;
		const char *text = variable_read(name, v->at == AT(kubelet_cgroup));

		if (!text) {
			name = v->istio ? v->istio : name;
			text = variable_read(v->istio, false);
		}
		text = text ? text : v->initial;
		if (text && set(c, v, name, text, why) < 0)
			return -EINVAL;
	}
	return 0;
}

static void usage(void)
{
	printf("culvertd [node] - enrols pods and steers their traffic (takes the place of istio-cni's node agent)\n\n"
	       "  culvertd [--flag value ...]       and runs the tunnel, which has variables of its own: culvertd "
	       "tunnel "
	       "--help\n"
	       "  culvertd node [--flag value ...]  and waits for a tunnel at --zds\n\n"
	       "Reads istio-cni's environment variables. Each flag is also a variable, CULVERT_<FLAG>:\n\n");
	for (unsigned i = 0; i < VALUES; i++)
		if (values[i].help)
			printf("  --%-16s %s%s%s%s\n", values[i].flag, values[i].help, values[i].initial ? " [" : "",
			       values[i].initial ? values[i].initial : "", values[i].initial ? "]" : "");
	printf("\nWithout --zds the socket is zds.sock in the run directory; for culvertd node without --run-dir it "
	       "is\n"
	       "Istio's, /var/run/ztunnel/ztunnel.sock. Likewise --cni: cni.sock, or Istio's,\n"
	       "/var/run/istio-cni/pluginevent.sock (CNI_AGENT_RUN_DIR moves it). Pods are enrolled with culvertctl "
	       "enrol,\n"
	       "by the CNI plugin culvert-cni, or with AMBIENT_ENABLED=true as Kubernetes' labels say: NODE_NAME is "
	       "needed\n"
	       "then, and the API server is where KUBERNETES_SERVICE_HOST or KUBECONFIG says. Then --cni-conf-dir is "
	       "Istio's,\n"
	       "/host/etc/cni/net.d, if that is there. Programs go to /opt/cni/bin, or for a configuration in /host "
	       "to\n"
	       "/host/opt/cni/bin.\n");
}

static const struct value *flag_find(const char *arg, size_t len)
{
	for (unsigned i = 0; i < VALUES; i++)
		if (values[i].flag && len == strlen(values[i].flag) + 2 && !strncmp(arg, "--", 2) &&
		    !strncmp(arg + 2, values[i].flag, len - 2))
			return &values[i];
	return NULL;
}

/* Perhaps one of culvertd tunnel, which reads variables only when it is started from here. */
static int unknown_flag(const struct keeper_config *c, const char *arg, char *why)
{
	char name[64];
	const struct value v = {.flag = name};
	char variable[64];

	snprintf(name, sizeof name, "%.*s", (int)strcspn(arg, "="), arg);
	if (!c->supervise || strncmp(name, "--", 2) != 0) {
		snprintf(why, KEEPER_WHY_MAX, "unknown argument \"%.256s\"; see culvertd --help", arg);
		return -EINVAL;
	}
	memmove(name, name + 2, strlen(name + 2) + 1);
	snprintf(why, KEEPER_WHY_MAX,
		 "unknown argument \"%.256s\"; see culvertd --help; a flag of culvertd tunnel is a variable here: %s",
		 arg, variable_name(&v, variable));
	return -EINVAL;
}

static int read_flags(struct keeper_config *c, int argc, char **argv, char *why)
{
	for (int i = 2; i < argc; i++) {
		const char *arg = argv[i], *eq = strchr(arg, '='), *text = eq ? eq + 1 : NULL;
		const struct value *v = flag_find(arg, eq ? (size_t)(eq - arg) : strlen(arg));

		if (!v)
			return unknown_flag(c, arg, why);
		if (!text)
			text = i + 1 < argc ? argv[++i] : NULL;
		if (!text) {
			snprintf(why, KEEPER_WHY_MAX, "--%s needs a value", v->flag);
			return -EINVAL;
		}
		if (set(c, v, arg, text, why) < 0)
			return -EINVAL;
	}
	return 0;
}

/* --- what follows from several -------------------------------------------------------------------------- */

static int path_put(char out[PATH_MAX], const char *folder, const char *file, char *why)
{
	if (snprintf(out, PATH_MAX, "%s%s%s", folder, *file ? "/" : "", file) < PATH_MAX)
		return 0;
	snprintf(why, KEEPER_WHY_MAX, "the path of the run directory is too long");
	return -EINVAL;
}

/* Istio's variable, the run directory, Istio's default, in this order; plain culvertd has its own default. */
static int zds_path(struct keeper_config *c, bool ours, char *why)
{
	const char *inpod = c->supervise ? variable_read("INPOD_UDS", false) : NULL;
	const char *file = inpod || !ours ? "" : "zds.sock";
	int e = 0;

	if (!c->zds_path)
		e = path_put(c->zds_default,
			     inpod  ? inpod
			     : ours ? c->run_dir
				    : "/var/run/ztunnel/ztunnel.sock",
			     file, why);
	c->zds_path = c->zds_path ? c->zds_path : c->zds_default;
	return e;
}

static int cni_path(struct keeper_config *c, bool ours, char *why)
{
	const char *istio = c->cni_run_dir ? c->cni_run_dir : CNI_RUN_DIR_ISTIO;
	int e = 0;

	if (!c->cni_path)
		e = path_put(c->cni_default, ours && !c->cni_run_dir ? c->run_dir : istio,
			     ours && !c->cni_run_dir ? CNI_SOCKET : CNI_SOCKET_ISTIO, why);
	c->cni_path = c->cni_path ? c->cni_path : c->cni_default;
	return e;
}

int keeper_config_read(struct keeper_config *c, int argc, char **argv, char why[KEEPER_WHY_MAX])
{
	bool ours;
	int e;

	memset(c, 0, sizeof *c);
	c->supervise = argc < 2 || strcmp(argv[1], "node") != 0;
	if (only_asked(argc, argv, 2, usage))
		return 1;
	e = read_environment(c, why);
	if (!e)
		e = read_flags(c, argc, argv, why);
	ours = c->supervise || c->run_dir != values[0].initial;
	if (!e)
		e = zds_path(c, ours, why);
	if (!e)
		e = cni_path(c, ours, why);
	if (e)
		return e;
	if (c->ambient && !c->node_name) {
		snprintf(why, KEEPER_WHY_MAX,
			 "AMBIENT_ENABLED needs NODE_NAME, the name by which Kubernetes knows this "
			 "node");
		return -EINVAL;
	}
	if (c->supervise && getenv("PROXY_MODE") && !strcmp(getenv("PROXY_MODE"), "dedicated")) {
		snprintf(why, KEEPER_WHY_MAX, "PROXY_MODE: dedicated is for culvertd tunnel alone, without a keeper");
		return -EINVAL;
	}
	if (log_set_filter(c->log_filter) < 0) {
		snprintf(why, KEEPER_WHY_MAX, "log filter: \"%.256s\" is not LEVEL or TARGET=LEVEL, with commas",
			 c->log_filter);
		return -EINVAL;
	}
	if (c->drain_ms > KEEPER_DRAIN_MAX_MS) {
		snprintf(why, KEEPER_WHY_MAX, "--drain: at most %d s", KEEPER_DRAIN_MAX_MS / 1000);
		return -EINVAL;
	}
	c->tunnel_drain_ms = c->tunnel_drain_ms ? c->tunnel_drain_ms : c->grace_ms;
	c->mode = strcmp(c->steering, "bpf") == 0 ? STEER_BPF : STEER_IPTABLES;
	c->reset_existing = strcmp(c->enrol_existing, "reset") == 0;
	c->log_json = strcmp(c->log_format, "json") == 0;
	return 0;
}
