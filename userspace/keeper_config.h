/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's configuration: istio-cni's variables as far as they concern it, ours
 * (CULVERT_*), and flags, in that order of increasing precedence. To add one: one row in keeper_config.c. What
 * belongs to the tunnel is not looked at: it passes through the environment. */
#pragma once
#include <limits.h>
#include <stdbool.h>

#include "steer/steer.h"

enum { KEEPER_WHY_MAX = 1024, KEEPER_DRAIN_MAX_MS = 300000 };

struct keeper_config {
	bool supervise; /* plain culvertd: a tunnel is started and watched */
	const char *run_dir, *bpf_dir, *zds_path;
	const char *steering, *enrol_existing, *kubelet_cgroup; /* texts; NULL cgroup: look for it, "": no exemption */
	const char *log_filter, *log_format;
	enum steer_mode mode; /* from `steering` */
	bool reset_existing;  /* from `enrol_existing` */
	bool log_json;	      /* from `log_format` */
	bool dns_capture, ipv6;
	unsigned drain_ms;	 /* for connections of a pod that leaves, */
	unsigned drain_limit_ms; /* of a tunnel that has a successor */
	bool upgrade_on_change;
	unsigned grace_ms;		    /* Kubernetes' deadline for the tunnel, */
	unsigned tunnel_drain_ms;	    /* and what it may take to end */
	const char *cni_path, *cni_run_dir; /* the socket, and Istio's folder for it */
	const char *cni_pods, *exclude_namespaces;
	/* The plugin's installation; see keeper_install.c for what follows from those that are NULL. */
	const char *cni_conf_dir, *cni_bin_dir, *cni_conf_name, *cni_owned_name;
	bool cni_chained, cni_owned, cni_conf_group_read, cni_remove_at_end, detection_retry;
	unsigned kubeconfig_mode;
	bool ambient; /* with Kubernetes */
	const char *node_name, *pod_namespace, *system_namespace, *enablement_selector;
	const char *kubeconfig, *kube_host, *kube_port, *kube_protocol, *kube_ca_file;
	bool skip_tls_verify;
	unsigned kube_silence_ms, monitoring_port;
	char zds_default[PATH_MAX], cni_default[PATH_MAX];
};

/* argv[1] is "node" or "supervise", as culvertd passes it. 0; 1: --help or --version was printed; -EINVAL with one line
 * in `why`. */
int keeper_config_read(struct keeper_config *c, int argc, char **argv, char why[KEEPER_WHY_MAX]);
