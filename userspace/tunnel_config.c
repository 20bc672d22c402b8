/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the tunnel's configuration. One table names every variable with its type and default. Variables of ztunnel that
 * only tune it are passed over; those that would change who is trusted or what is captured are refused
 * (tunnel_config_check.c). */
#include "tunnel_config_internal.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/values.h"
#include "base/version.h"
#include "control/ca.h"

enum kind { TEXT, YESNO, TRUE_ONLY, NUMBER, SECONDS, MILLIS, LIFETIME, CPUS };

struct variable {
	const char *env, *alias; /* `alias` wins where both are set */
	enum kind kind;
	size_t at;
	const char *initial;   /* NULL: follows from others */
	const char *flag_help; /* NULL: no flag of that name */
};

static const struct variable variables[] = {
	{"INPOD_UDS", NULL, TEXT, AT(zds_path), "", NULL},
	{"NETWORK", NULL, TEXT, AT(network), "", "network id of this node"},
	{"NODE_NAME", "CULVERT_NODE_NAME", TEXT, AT(node_name), "", "this node's name in the mesh"},
	{"CLUSTER_ID", "ISTIO_META_CLUSTER_ID", TEXT, AT(cluster_id), "Kubernetes", NULL},
	{"LOCAL_XDS_PATH", "CULVERT_LOCAL_XDS_PATH", TEXT, AT(local_path), "", "mesh state from this YAML file"},
	{"LOCAL_XDS", NULL, TEXT, AT(local_text), "", NULL},
	{"XDS_ADDRESS", NULL, TEXT, AT(xds_address), NULL, "istiod; empty: all of the mesh is in the file"},
	{"XDS_ROOT_CA", NULL, TEXT, AT(xds_root), "./var/run/secrets/istio/root-cert.pem", NULL},
	{"ALT_XDS_HOSTNAME", NULL, TEXT, AT(alt_xds_hostname), "", NULL},
	{"CA_ADDRESS", NULL, TEXT, AT(ca_address), NULL, "istiod or another Istio CA; empty: the embedded CA"},
	{"CA_ROOT_CA", NULL, TEXT, AT(ca_root), "./var/run/secrets/istio/root-cert.pem", NULL},
	{"ALT_CA_HOSTNAME", NULL, TEXT, AT(alt_ca_hostname), "", NULL},
	{"AUTH_TOKEN", NULL, TEXT, AT(auth_token), "./var/run/secrets/tokens/istio-token", NULL},
	{"CRL_PATH", NULL, TEXT, AT(crl_path), "", NULL},
	{"CULVERT_CA_CERT", NULL, TEXT, AT(ca_cert), "", "root certificate of the embedded CA (not for production)"},
	{"CULVERT_CA_KEY", NULL, TEXT, AT(ca_key), "", "its private key"},
	{"RUST_LOG", "CULVERT_LOG", TEXT, AT(log_filter), "info", "log filter: LEVEL or TARGET=LEVEL, with commas"},
	{"LOG_FORMAT", NULL, TEXT, AT(log_format), "plain", NULL},
	{"ISTIO_META_ISTIO_VERSION", NULL, TEXT, AT(istio_version), "unknown", NULL},
	{"CLUSTER_DOMAIN", NULL, TEXT, AT(cluster_domain), "cluster.local", NULL},
	{"PREFERED_SERVICE_NAMESPACE", NULL, TEXT, AT(preferred_ns), "", NULL},
	{"ISTIO_META_DNS_CAPTURE", NULL, TEXT, AT(dns_capture), "true", NULL},
	{"ENABLE_ORIG_SRC", NULL, TEXT, AT(spoof), "", NULL},
	{"ZTUNNEL_WORKER_THREADS", "CULVERT_WORKERS", TEXT, AT(worker_threads), "",
	 "threads: a number (0: one for each CPU), or NN%"},
	{"COMPLIANCE_POLICY", NULL, TEXT, AT(compliance), "", NULL},
	{"PROXY_MODE", NULL, TEXT, AT(proxy_mode), "shared",
	 "shared: a node's pods; dedicated: one workload, in this namespace"},
	{"PROXY_WORKLOAD_INFO", NULL, TEXT, AT(workload_info), "", "that one: NAMESPACE/NAME/SERVICEACCOUNT"},
	{"POD_NAME", NULL, TEXT, AT(pod_name), "", NULL},
	{"POD_NAMESPACE", NULL, TEXT, AT(pod_ns), "", NULL},
	{"SERVICE_ACCOUNT", NULL, TEXT, AT(service_account), "", NULL},
	{"CULVERT_ADMIN", NULL, TEXT, AT(admin_address), "localhost", "address of the admin port"},
	{"ENABLE_PROXY", NULL, YESNO, AT(enable_proxy), "true", NULL},
	{"IPV6_ENABLED", NULL, YESNO, AT(ipv6), "true", NULL},
	{"KEEPALIVE_ENABLED", NULL, YESNO, AT(keepalive), "true", NULL},
	{"USER_TIMEOUT_ENABLED", NULL, YESNO, AT(user_timeout), "false", NULL},
	{"UNSTABLE_ENABLE_SOCKS5", NULL, YESNO, AT(socks), "false", NULL},
	{"INPOD_PORT_REUSE", NULL, YESNO, AT(port_reuse), "true", NULL},
	{"LOCALHOST_APP_TUNNEL", NULL, YESNO, AT(app_tunnel_loopback), "true", NULL},
	{"ENABLE_RESPONSE_BAGGAGE", NULL, YESNO, AT(response_baggage), "true", NULL},
	{"CULVERT_LOCAL_HBONE", NULL, YESNO, AT(local_hbone), "false", "tunnel between pods of this node as well"},
	{"CULVERT_OPENSSL_ONLY", NULL, YESNO, AT(openssl_only), "false", "no other library encrypts (intel-ipsec-mb)"},
	{"CULVERT_SECCOMP", NULL, TEXT, AT(seccomp_mode), "on",
	 "on or off: only known system calls; off is for debugging"},
	{"CULVERT_KTLS", NULL, TEXT, AT(ktls_mode), "auto", "TLS records in the kernel: off, tx, on or auto"},
	{"CULVERT_KTLS_DISABLE", NULL, TEXT, AT(ktls_disable), "", "parts of it not to use: tx, rx, rx-no-pad, rekey"},
	{"CULVERT_TAP", NULL, YESNO, AT(tap), "false", "let root read connections in plaintext: culvertctl tap"},
	{"FAKE_CA", NULL, YESNO, AT(fake_ca), "false", NULL},
	{"XDS_ON_DEMAND", NULL, YESNO, AT(xds_on_demand), "false", NULL},
	{"AUTHZ_POLICY_INFO_LOGGING", NULL, TRUE_ONLY, AT(authz_info), "", NULL},
	{"TLS12_ENABLED", NULL, TRUE_ONLY, AT(tls12), "", NULL},
	{"KEEPALIVE_TIME", NULL, SECONDS, AT(keepalive_time_s), "180s", NULL},
	{"KEEPALIVE_INTERVAL", NULL, SECONDS, AT(keepalive_interval_s), "180s", NULL},
	{"KEEPALIVE_RETRIES", NULL, NUMBER, AT(keepalive_retries), "9", NULL},
	{"PACKET_MARK", NULL, NUMBER, AT(mark), "1337", NULL},
	{"POOL_MAX_STREAMS_PER_CONNECTION", NULL, NUMBER, AT(pool_streams), "100", NULL},
	{"POOL_UNUSED_RELEASE_TIMEOUT", NULL, MILLIS, AT(pool_idle_ms), "5m", NULL},
	{"CULVERT_DRAIN_LIMIT", NULL, MILLIS, AT(drain_limit_ms), "12h",
	 "for connections that exist when a successor has taken over"},
	{"SECRET_TTL", NULL, LIFETIME, AT(secret_ttl_s), "24h", NULL},
	{"ZTUNNEL_RESOURCE_CPU_LIMIT", NULL, CPUS, AT(cpu_limit), "0", NULL},
	{"ZTUNNEL_RESOURCE_CPU_REQUEST", NULL, CPUS, AT(cpu_request), "0", NULL},
	{"ZTUNNEL_CPU_LIMIT", NULL, NUMBER, AT(cpus), "0", NULL},
	{"CULVERT_ADMIN_PORT", NULL, NUMBER, AT(admin_port), "15000", "port of the admin interface"},
	{"CULVERT_STATS_PORT", NULL, NUMBER, AT(stats_port), "15020", "port of the metrics"},
	{"CULVERT_READY_PORT", NULL, NUMBER, AT(ready_port), "15021", "port of the readiness probe"},
};
enum { VARIABLES = sizeof variables / sizeof *variables };

/* --- values --------------------------------------------------------------------------------------------- */

/* What it was set by, for what is found wrong later. */
static const char *given[VARIABLES];

const char *tunnel_config_given(size_t at)
{
	for (unsigned i = 0; i < VARIABLES; i++)
		if (variables[i].at == at)
			return given[i];
	return "";
}

static int set(struct tunnel_config *c, const struct variable *v, const char *name, const char *text, char *why)
{
	char *field = (char *)c + v->at;
	unsigned long n = 0;
	double seconds = 0;
	const char *want;
	int e = 0;

	given[v - variables] = name;
	switch (v->kind) {
	case TEXT:
		*(const char **)field = text;
		return 0;
	case YESNO:
		want = "true or false";
		e = strcmp(text, "true") != 0 && strcmp(text, "false") != 0;
		*(bool *)field = !strcmp(text, "true");
		break;
	case TRUE_ONLY:
		*(bool *)field = !strcmp(text, "true");
		return 0;
	case NUMBER:
		want = "a number";
		e = value_number(text, &n);
		break;
	case SECONDS:
	case MILLIS:
		want = "a duration such as 30s, 5m or 1h30m";
		e = value_duration(text, &n);
		n /= v->kind == SECONDS ? 1000 : 1;
		break;
	case LIFETIME: /* one that cannot be told becomes a day */
		want = "a duration such as 30s, 5m or 1h30m";
		e = value_seconds(text, &seconds);
		n = !e && seconds <= INT_MAX ? (unsigned long)seconds : CA_TTL_DEFAULT_S;
		break;
	default:
		want = "a number of CPUs such as 2, 1.5 or 500m";
		e = value_cpus(text, &n);
	}
	if (e) {
		snprintf(why, CONFIG_WHY_MAX, "%s: \"%s\" is not %s", name, text, want);
		return -EINVAL;
	}
	if (v->kind != YESNO)
		*(unsigned *)field = (unsigned)n;
	return 0;
}

/* --- environment and flags ------------------------------------------------------------------------------ */

/* A flag's variable. */
static const char *own_name(const struct variable *v, char buf[64])
{
	const char *env = v->alias && !strncmp(v->alias, "CULVERT_", 8) ? v->alias : v->env;

	snprintf(buf, 64, "%s%s", strncmp(env, "CULVERT_", 8) ? "CULVERT_" : "", env);
	return buf;
}

/* --node-name from NODE_NAME or CULVERT_NODE_NAME. */
static void flag_name(const struct variable *v, char buf[64])
{
	char name[64];

	snprintf(buf, 64, "--%s", own_name(v, name) + 8);
	for (char *p = buf; *p; p++)
		*p = *p == '_' ? '-' : *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
}

static void usage(void)
{
	printf("culvertd tunnel - carries the node's pods' connections in HBONE (takes ztunnel's place)\n\n"
	       "  culvertd tunnel [--flag value ...]\n\n"
	       "Reads ztunnel's environment variables. Each flag below is also a variable, CULVERT_<FLAG>:\n\n");
	for (unsigned i = 0; i < VARIABLES; i++) {
		const char *initial = variables[i].initial ? variables[i].initial : "";
		char name[64];

		if (!variables[i].flag_help)
			continue;
		flag_name(&variables[i], name);
		printf("  %-18s %s%s%s%s\n", name, variables[i].flag_help, *initial ? " [" : "", initial,
		       *initial ? "]" : "");
	}
	printf("\nSockets: ZDS at INPOD_UDS, else CULVERT_RUN_DIR/zds.sock, else /var/run/ztunnel/ztunnel.sock.\n"
	       "Admin 15000, metrics 15020, readiness 15021.\n");
}

static const struct variable *flag_find(const char *arg, size_t len)
{
	for (unsigned i = 0; i < VARIABLES; i++) {
		char name[64];

		flag_name(&variables[i], name);
		if (variables[i].flag_help && strlen(name) == len && !strncmp(arg, name, len))
			return &variables[i];
	}
	return NULL;
}

/* Where the flags begin: Istio's chart calls its proxy as "proxy ztunnel". */
static int words_end(int argc, char **argv)
{
	int i = 1;

	if (argc > 1 && !strcmp(argv[1], "proxy"))
		while (i < argc && argv[i][0] != '-')
			i++;
	return i;
}

static int read_flags(struct tunnel_config *c, int argc, char **argv, char *why)
{
	static char flag[VARIABLES][64];

	for (int i = words_end(argc, argv); i < argc; i++) {
		const char *eq = strchr(argv[i], '='), *value;
		size_t len = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);
		const struct variable *v = flag_find(argv[i], len);

		if (!v) {
			snprintf(why, CONFIG_WHY_MAX, "unknown argument \"%s\"; see culvertd tunnel --help", argv[i]);
			return -EINVAL;
		}
		value = eq ? eq + 1 : v->kind == YESNO ? "true" : i + 1 < argc ? argv[++i] : NULL;
		if (!value) {
			snprintf(why, CONFIG_WHY_MAX, "%s needs a value", argv[i]);
			return -EINVAL;
		}
		flag_name(v, flag[v - variables]);
		if (set(c, v, flag[v - variables], value, why) < 0)
			return -EINVAL;
	}
	return 0;
}

static int read_environment(struct tunnel_config *c, char *why)
{
	static char own[VARIABLES][64];

	for (unsigned i = 0; i < VARIABLES; i++) {
		const struct variable *v = &variables[i];
		const char *name = v->alias && getenv(v->alias) ? v->alias : v->env, *text;

		if (v->flag_help && getenv(own_name(v, own[i])))
			name = own[i];
		text = getenv(name);
		if (set(c, v, name, text ? text : v->initial, why) < 0)
			return -EINVAL;
	}
	return 0;
}

/* --- all of it ------------------------------------------------------------------------------------------ */

static char *as_json(const struct tunnel_config *c)
{
	json_t *o = json_object();
	char *text;

	for (unsigned i = 0; i < VARIABLES; i++) {
		const struct variable *v = &variables[i];
		const char *field = (const char *)c + v->at;
		char name[64];
		json_t *value = v->kind == TEXT				   ? json_string(*(const char *const *)field)
				: v->kind == YESNO || v->kind == TRUE_ONLY ? json_boolean(*(const bool *)field)
									   : json_integer(*(const unsigned *)field);
		size_t n = 0;

		/* camelCase, as the dump's other keys. A literal token is a secret. */
		if (v->at == AT(auth_token)) {
			json_decref(value);
			continue;
		}
		for (const char *p = v->env; *p && n < sizeof name - 1; p++) {
			bool starts_word = n && p[-1] == '_';

			if (*p != '_')
				name[n++] = (char)(starts_word ? *p : tolower((unsigned char)*p));
		}
		name[n] = '\0';
		json_object_set_new(o, name, value);
	}
	json_object_set_new(o, "workerThreads", json_integer(c->workers));
	json_object_set_new(o, "connectionTerminationDeadlineMs", json_integer(c->drain_ms));
	text = json_dumps(o, JSON_SORT_KEYS | JSON_INDENT(2));
	json_decref(o);
	return text;
}

int tunnel_config_read(struct tunnel_config *c, int argc, char **argv, char why[CONFIG_WHY_MAX])
{
	int e;

	memset(c, 0, sizeof *c);
	if (only_asked(argc, argv, words_end(argc, argv), usage))
		return 1;
	e = read_environment(c, why);
	if (!e)
		e = read_flags(c, argc, argv, why);
	if (!e)
		e = tunnel_config_check(c, why);
	if (e)
		return e;
	c->text = as_json(c);
	return c->text ? 0 : -ENOMEM;
}

void tunnel_config_free(struct tunnel_config *c)
{
	free(c->text);
	c->text = NULL;
}
