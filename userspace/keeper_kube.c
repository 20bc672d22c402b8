/* SPDX-License-Identifier: Apache-2.0 */
/* Begins and ends the keeper's work for Kubernetes. */
#include "keeper_kube.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const char target[] = "keeper";

/* istio-cni's DaemonSet mounts the node's there; a keeper outside a container has no need of it. */
static const char *host_proc(void)
{
	return access("/host/proc/1/ns/net", F_OK) == 0 ? "/host/proc" : "/proc";
}

static int configure(struct keeper_kube *k, const struct keeper_config *c, char why[POD_WHY_MAX])
{
	const struct kube_config_sources from = {.kubeconfig = c->kubeconfig,
						 .host = c->kube_host,
						 .port = c->kube_port,
						 .protocol = c->kube_protocol,
						 .secrets = KUBE_SECRETS,
						 .ca_file = c->kube_ca_file,
						 .skip_verify = c->skip_tls_verify};
	const struct kube_rule_settings settings = {c->enablement_selector, c->exclude_namespaces, c->system_namespace};
	char line[POD_WHY_MAX / 2];
	int e = kube_config_read(&k->api, &from, why);

	if (e)
		return e;
	k->configured = true;
	e = kube_rule_new(&k->rule, &settings, why);
	if (e) {
		snprintf(line, sizeof line, "%.500s", why);
		snprintf(why, POD_WHY_MAX, "AMBIENT_ENABLEMENT_SELECTOR, EXCLUDE_NAMESPACES: %s", line);
	}
	return e;
}

int keeper_kube_open(struct keeper_kube *k, const struct keeper_config *c, struct loop *l, struct enrol *e,
		     struct zds_server *z, char why[POD_WHY_MAX])
{
	struct kube_options o = {.api = &k->api,
				 .enrol = e,
				 .zds = z,
				 .node = c->node_name,
				 .proc = host_proc(),
				 .silence_ms = c->kube_silence_ms};
	int err;

	memset(k, 0, sizeof *k);
	if (!c->ambient)
		return 0;
	err = configure(k, c, why);
	if (err)
		return err;
	o.rule = k->rule;
	if (k->api.skip_verify)
		log_warn(target, "the API server's certificate is not checked: whoever answers in its place decides "
				 "which pods are in the mesh");
	err = kube_open(&k->kube, l, &o, why);
	if (!err)
		log_info(target, "pods of node %s by the API server %s, processes in %s", c->node_name, k->api.server,
			 o.proc);
	return err;
}

void keeper_kube_close(struct keeper_kube *k)
{
	kube_close(k->kube);
	kube_rule_free(k->rule);
	if (k->configured)
		kube_config_close(&k->api);
	memset(k, 0, sizeof *k);
}
