/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel's configuration: ztunnel's environment variables (as ztunnel documents them), ours (CULVERT_*), and flags,
 * in that order of increasing precedence. To add a variable: one row in tunnel_config.c. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "data/data.h"

enum { CONFIG_WHY_MAX = 512 };

struct tunnel_self {
	char ns[DUMP_NAME_MAX], name[DUMP_NAME_MAX], sa[DUMP_NAME_MAX]; /* all "": nobody */
};

struct tunnel_config {
	const char *zds_path;
	const char *network, *node_name, *cluster_id;
	const char *local_path, *local_text;		       /* mesh state: a file, or YAML itself; "" if not given */
	const char *xds_address, *xds_root, *alt_xds_hostname; /* address "": no istiod */
	const char *ca_address, *ca_root, *auth_token;	       /* "" : the embedded CA */
	const char *alt_ca_hostname;
	const char *crl_path;			   /* "": no revocation lists */
	const char *cluster_domain, *preferred_ns; /* of DNS names; "": none is preferred */
	const char *ca_cert, *ca_key;		   /* of the embedded CA; "" : made at start */
	const char *log_filter, *log_format, *spoof, *dns_capture, *worker_threads, *compliance, *proxy_mode,
		*istio_version;
	bool log_json, ipv6, keepalive, user_timeout, port_reuse, dns, app_tunnel_loopback, response_baggage,
		local_hbone, openssl_only, enable_proxy, tls12, fake_ca, authz_info, xds_on_demand;
	unsigned keepalive_time_s, keepalive_interval_s, keepalive_retries;
	unsigned mark, pool_streams, pool_idle_ms, secret_ttl_s;
	unsigned drain_ms, drain_limit_ms; /* at SIGTERM; when a successor serves */
	unsigned cpu_limit, cpu_request, cpus;
	unsigned admin_port, stats_port, ready_port;
	const char *admin_address; /* where 15000 listens */
	unsigned workers;	   /* computed */
	const char *workload_info, *pod_name, *pod_ns, *service_account;
	struct tunnel_self
		self;	/* computed: the workload that is served in dedicated mode, else the tunnel's own pod */
	bool dedicated; /* computed: one workload, in our own namespace, and no ZDS */
	bool socks;
	bool tap;		    /* taps may be asked for */
	enum data_spoof spoof_mode; /* computed */
	const char *seccomp_mode;
	bool seccomp; /* computed */
	const char *ktls_mode, *ktls_disable;
	struct ktls_switch ktls; /* computed */
	char *text;		 /* all of it as JSON, for /config_dump; malloc'ed */
};

/* Reads the environment and the flags. 0; 1: help or the version was printed; -EINVAL with one line in `why`. */
int tunnel_config_read(struct tunnel_config *c, int argc, char **argv, char why[CONFIG_WHY_MAX]);
void tunnel_config_free(struct tunnel_config *c);
