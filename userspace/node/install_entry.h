/* SPDX-License-Identifier: Apache-2.0 */
/* Our entry in a runtime's list of plugins: what culvert-cni is to know (cni-plugin/conf.h). Istio's plugin understands it
 * too. */
#pragma once
#include <jansson.h>

#include "node/pods.h"

struct install_entry {
	const char *run_dir;		  /* of the socket; NULL: `socket` says all */
	const char *socket;		  /* NULL: Istio's in run_dir */
	const char *selectors, *excluded; /* as kube_rule_settings has them */
	const char *pod_namespace;	  /* of the keeper; NULL */
	const char *log_level;
	bool ambient, retry;
};

/* A new reference; NULL with a line in `why`. */
json_t *install_entry_json(const struct install_entry *e, char why[POD_WHY_MAX]);
