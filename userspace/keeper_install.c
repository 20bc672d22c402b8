/* SPDX-License-Identifier: Apache-2.0 */
/* Begins the keeper's work as installer. */
#include "keeper_install.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cni_abi.h"

/* istio-cni's DaemonSet mounts the node's folders there. */
static const char istio_conf[] = "/host/etc/cni/net.d", istio_bin[] = "/host/opt/cni/bin";
static const char plain_bin[] = "/opt/cni/bin", owned_default[] = "02-istio-cni.conflist";

static const char *log_level(void)
{
	static const struct {
		enum log_level level;
		const char *text;
	} levels[] = {{LOG_DEBUG, "debug"}, {LOG_INFO, "info"}, {LOG_WARN, "warn"}, {LOG_ERROR, "error"}};

	for (unsigned i = 0; i < sizeof levels / sizeof *levels; i++)
		if (log_enabled(levels[i].level, "cni-plugin"))
			return levels[i].text;
	return "none";
}

/* In Kubernetes it is enough that the folder is mounted, as istio-cni's DaemonSet has it; else it has to be given. */
static bool is_wanted(struct keeper_install *k, const struct keeper_config *c)
{
	const char *folder = c->cni_conf_dir ? c->cni_conf_dir : istio_conf;

	if (!c->cni_conf_dir && (!c->ambient || access(istio_conf, F_OK) < 0))
		return false;
	snprintf(k->conf_dir, sizeof k->conf_dir, "%s", folder);
	snprintf(k->bin_dir, sizeof k->bin_dir, "%s",
		 c->cni_bin_dir			 ? c->cni_bin_dir
		 : !strncmp(folder, "/host/", 6) ? istio_bin
						 : plain_bin);
	return true;
}

static int places(struct keeper_install *k, const struct keeper_config *c, char *why)
{
	ssize_t n = readlink("/proc/self/exe", k->from_dir, sizeof k->from_dir - 1);
	char path[PATH_MAX];

	if (n < 0) {
		snprintf(why, POD_WHY_MAX, "cannot find culvert-cni beside this program: %s", strerror(errno));
		return -ENOENT;
	}
	k->from_dir[n] = '\0';
	dirname(k->from_dir);
	snprintf(path, sizeof path, "%s", c->cni_path);
	snprintf(k->run_dir, sizeof k->run_dir, "%s", dirname(path));
	return 0;
}

static void entry_make(struct install_entry *e, const struct keeper_install *k, const struct keeper_config *c)
{
	const char *socket = strrchr(c->cni_path, '/') + 1;

	*e = (struct install_entry){
		.run_dir = c->ambient ? k->run_dir : NULL,
		.socket = c->ambient && !strcmp(socket, CNI_SOCKET_ISTIO) ? NULL : c->cni_path,
		.selectors = c->enablement_selector,
		.excluded = c->exclude_namespaces,
		.pod_namespace = c->pod_namespace,
		.log_level = log_level(),
		.ambient = c->ambient || !strcmp(c->cni_pods, "all"),
		.retry = c->detection_retry,
	};
}

static bool can_serve(void *arg)
{
	const struct keeper_install *k = arg;
	struct kube_status s = {.ready = true};

	if (k->kube)
		kube_status(k->kube, &s);
	return s.ready;
}

int keeper_install_open(struct keeper_install *k, const struct keeper_config *c, struct loop *l,
			const struct keeper_kube *kube, char why[POD_WHY_MAX])
{
	struct install_options o = {.conf_dir = k->conf_dir,
				    .bin_dir = k->bin_dir,
				    .from_dir = k->from_dir,
				    .run_dir = k->run_dir,
				    .conf_name = c->cni_conf_name,
				    .chained = c->cni_chained,
				    .conf_mode = c->cni_conf_group_read ? 0640 : 0600,
				    .kubeconfig_mode = c->kubeconfig_mode,
				    .api = kube->kube ? &kube->api : NULL,
				    .node_name = c->node_name,
				    .pod_namespace = c->pod_namespace,
				    .remove_at_end = c->cni_remove_at_end,
				    .can_serve = can_serve,
				    .arg = k};
	int e;

	k->kube = kube->kube;
	if (!is_wanted(k, c))
		return 0;
	if (c->cni_owned && c->cni_chained && c->ambient)
		o.owned = c->cni_owned_name ? c->cni_owned_name : owned_default;
	e = places(k, c, why);
	if (e)
		return e;
	entry_make(&o.entry, k, c);
	e = install_open(&k->install, l, &o, why);
	if (!e)
		log_info("keeper", "installs culvert-cni into %s, for the configuration in %s", k->bin_dir,
			 k->conf_dir);
	return e;
}
