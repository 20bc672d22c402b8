/* SPDX-License-Identifier: Apache-2.0 */
/* What follows from several variables of the tunnel's configuration or from what is around it, and what is refused
 * though each is well by itself. */
#include "tunnel_config_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/values.h"

static int workers(struct tunnel_config *c, char *why)
{
	const char *t = c->worker_threads;
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned cpus = c->cpu_limit ? c->cpu_limit : c->cpus ? c->cpus : online > 0 ? (unsigned)online : 1;
	unsigned long n = 0;

	if (*t) {
		size_t len = strlen(t);
		char number[16] = "";

		if (len < sizeof number)
			memcpy(number, t, len - (t[len - 1] == '%'));
		if (value_number(number, &n) < 0 || (t[len - 1] == '%' && (!n || n > 100))) {
			snprintf(why, CONFIG_WHY_MAX, "%s: \"%s\" is not a number (0: as many as CPUs) or 1%% to 100%%",
				 tunnel_config_given(AT(worker_threads)), t);
			return -EINVAL;
		}
		n = t[len - 1] == '%' ? (cpus * n + 99) / 100 : n ? n : cpus;
	} else if (c->cpu_limit) {
		n = c->cpu_limit > c->cpu_request ? c->cpu_limit : c->cpu_request;
	} else {
		n = (cpus + 3) / 4;
		n = n > c->cpu_request ? n : c->cpu_request;
		n = n > 2 ? n : 2;
	}
	c->workers = n < 1 ? 1 : n > DATA_WORKERS_MAX ? DATA_WORKERS_MAX : (unsigned)n;
	return 0;
}

static int drain_time(struct tunnel_config *c, char *why)
{
	const char *own = getenv("CONNECTION_TERMINATION_DEADLINE"),
		   *grace = getenv("TERMINATION_GRACE_PERIOD_SECONDS");
	unsigned long n = 5;

	if (own) {
		if (value_duration(own, &n) < 0) {
			snprintf(why, CONFIG_WHY_MAX, "CONNECTION_TERMINATION_DEADLINE: \"%s\" is not a duration", own);
			return -EINVAL;
		}
		c->drain_ms = (unsigned)n;
		return 0;
	}
	if (grace) {
		if (value_number(grace, &n) < 0) {
			snprintf(why, CONFIG_WHY_MAX, "TERMINATION_GRACE_PERIOD_SECONDS: \"%s\" is not a number",
				 grace);
			return -EINVAL;
		}
		n = n > 10 ? n - 5 : n > 1 ? n - 1 : 1;
	}
	c->drain_ms = (unsigned)n * 1000;
	return 0;
}

/* Where nothing says otherwise istiod is at its usual place in a cluster, and nowhere else. */
static void istiod_addresses(struct tunnel_config *c)
{
	const char *usual = getenv("KUBERNETES_SERVICE_HOST") ? "https://istiod.istio-system.svc:15012" : "";

	if (!c->xds_address)
		c->xds_address = usual;
	if (!c->ca_address)
		c->ca_address = *c->ca_cert ? "" : usual;
}

static void zds_path(struct tunnel_config *c)
{
	static char path[PATH_MAX];
	const char *run = getenv("CULVERT_RUN_DIR");

	if (*c->zds_path)
		return;
	c->zds_path = "/var/run/ztunnel/ztunnel.sock";
	if (run && snprintf(path, sizeof path, "%s/zds.sock", run) < (int)sizeof path)
		c->zds_path = path;
}

/* What would change who is trusted or what is captured must not be passed over. */
static int check_unsupported(char *why)
{
	static const struct {
		const char *env, *harmless, *what;
	} all[] = {
		{"ISTIO_META_DNS_PROXY_ADDR", "localhost:15053", "another address for DNS is"},
		{"PROXY_CONFIG", "", "this variable is"},
	};

	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		const char *text = getenv(all[i].env);

		if (!text || !*text || !strcmp(text, all[i].harmless))
			continue;
		snprintf(why, CONFIG_WHY_MAX, "%s: %s not supported yet; unset it", all[i].env, all[i].what);
		return -EINVAL;
	}
	return 0;
}

static bool self_set(struct tunnel_self *s, const char *ns, const char *name, const char *sa)
{
	return *ns && *name && *sa && snprintf(s->ns, sizeof s->ns, "%s", ns) < (int)sizeof s->ns &&
	       snprintf(s->name, sizeof s->name, "%s", name) < (int)sizeof s->name &&
	       snprintf(s->sa, sizeof s->sa, "%s", sa) < (int)sizeof s->sa;
}

/* "NAMESPACE/NAME/SERVICEACCOUNT" */
static bool self_parse(struct tunnel_self *s, const char *text)
{
	char copy[3 * DUMP_NAME_MAX], *name, *sa;

	if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy || !(name = strchr(copy, '/')))
		return false;
	*name++ = '\0';
	if (!(sa = strchr(name, '/')))
		return false;
	*sa++ = '\0';
	return !strchr(sa, '/') && self_set(s, copy, name, sa);
}

/* Whose tunnel it is. A sidecar's rules tell our sockets by their owner: there is no mark unless one is given. */
static int mode(struct tunnel_config *c, char *why)
{
	c->dedicated = !strcmp(c->proxy_mode, "dedicated");
	if (!c->dedicated && strcmp(c->proxy_mode, "shared") != 0) {
		snprintf(why, CONFIG_WHY_MAX, "%s: \"%.64s\" is neither shared nor dedicated",
			 tunnel_config_given(AT(proxy_mode)), c->proxy_mode);
		return -EINVAL;
	}
	if (c->dedicated && !self_parse(&c->self, c->workload_info)) {
		snprintf(why, CONFIG_WHY_MAX, "%s: \"%.128s\" is not NAMESPACE/NAME/SERVICEACCOUNT",
			 tunnel_config_given(AT(workload_info)), c->workload_info);
		return -EINVAL;
	}
	if (c->dedicated && !getenv("PACKET_MARK"))
		c->mark = 0;
	if (!c->dedicated && !self_set(&c->self, c->pod_ns, c->pod_name, c->service_account))
		c->self = (struct tunnel_self){0};
	return 0;
}

static bool is_domain(const char *s)
{
	size_t n = strlen(s);

	return n && n < 128 && s[0] != '.' && s[n - 1] != '.' && !strstr(s, "..") &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

static int check(struct tunnel_config *c, char *why)
{
	const char *wrong = NULL, *by = NULL;

	c->log_json = !strcmp(c->log_format, "json");
	c->dns = !strcasecmp(c->dns_capture, "true");
	c->seccomp = !strcmp(c->seccomp_mode, "on");
	c->spoof_mode = !strcmp(c->spoof, "true")    ? SPOOF_ALWAYS
			: !strcmp(c->spoof, "false") ? SPOOF_NEVER
						     : SPOOF_AUTO;
	if (*c->spoof && strcmp(c->spoof, "true") != 0 && strcmp(c->spoof, "false") != 0)
		wrong = "ENABLE_ORIG_SRC: must be true, false or unset";
	else if (!c->seccomp && strcmp(c->seccomp_mode, "off") != 0)
		wrong = "CULVERT_SECCOMP: must be on or off";
	else if (ktls_switch_parse(&c->ktls, c->ktls_mode, "") < 0)
		by = tunnel_config_given(AT(ktls_mode)), wrong = "must be off, tx, on or auto";
	else if (ktls_switch_parse(&c->ktls, c->ktls_mode, c->ktls_disable) < 0)
		by = tunnel_config_given(AT(ktls_disable)),
		wrong = "must be a list of tx, rx, rx-no-pad and rekey, with commas";
	else if (!is_domain(c->cluster_domain))
		wrong = "CLUSTER_DOMAIN: must be a domain name such as cluster.local, of at most 127 characters";
	else if (!c->enable_proxy)
		wrong = "ENABLE_PROXY: a tunnel without the proxy has nothing to do";
	else if (c->tls12)
		wrong = "TLS12_ENABLED: HBONE is TLS 1.3 only here; unset it";
	else if (*c->local_path && *c->local_text)
		wrong = "LOCAL_XDS_PATH and LOCAL_XDS are both set; give one";
	else if (!*c->local_path && !*c->local_text && !*c->xds_address)
		wrong = "no mesh state: set XDS_ADDRESS to istiod's address, or LOCAL_XDS_PATH to a YAML file";
	else if (c->xds_on_demand && !*c->xds_address)
		wrong = "XDS_ON_DEMAND: needs XDS_ADDRESS";
	else if (!*c->ca_cert != !*c->ca_key)
		wrong = "CULVERT_CA_CERT and CULVERT_CA_KEY go together; give both or none";
	else if (*c->ca_cert && *c->ca_address && !c->fake_ca)
		wrong = "CA_ADDRESS and CULVERT_CA_CERT are both set; give one";
	else if (!strcmp(c->compliance, "pqc") && !tls_has_pqc())
		wrong = "COMPLIANCE_POLICY: pqc needs the key exchange X25519MLKEM768, which OpenSSL has since 3.5";
	else if ((!c->mark && !c->dedicated) || c->mark > 0xffff)
		wrong = "PACKET_MARK: must be between 1 and 65535";
	else if (!c->pool_streams)
		wrong = "POOL_MAX_STREAMS_PER_CONNECTION: must be at least 1";
	else if (c->admin_port > 65535 || c->stats_port > 65535 || c->ready_port > 65535)
		wrong = "ports go up to 65535";
	if (wrong) {
		snprintf(why, CONFIG_WHY_MAX, "%s%s%s", by ? by : "", by ? ": " : "", wrong);
		return -EINVAL;
	}
	return 0;
}

int tunnel_config_check(struct tunnel_config *c, char why[CONFIG_WHY_MAX])
{
	int e = workers(c, why);

	if (!e)
		e = drain_time(c, why);
	if (!e)
		istiod_addresses(c);
	if (!e)
		e = check_unsupported(why);
	if (!e)
		e = mode(c, why);
	if (!e)
		e = check(c, why);
	if (!e)
		zds_path(c);
	return e;
}
