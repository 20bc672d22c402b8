/* SPDX-License-Identifier: Apache-2.0 */
/* What Kubernetes says of the keeper's future on this node. Pure functions. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#define INSTALL_DAEMONSET "istio-cni-node"

enum install_future {
	INSTALL_GOES,	 /* no other keeper follows */
	INSTALL_UNCLEAR, /* it cannot be told now */
	INSTALL_BY_NODE, /* one does where the node's labels are right */
};

/* By the answer about the DaemonSet: HTTP's status, 0 if none came, and the object, if it is a 200. Only an answer that
 * it is gone, or going, says so: unlike istio-cni, which takes a 401, a 403 or no answer for the end as well. */
enum install_future install_future(int status, const json_t *daemonset);
/* Do the node's labels match what the DaemonSet's pods require by nodeAffinity? What a selector or taints keep away
 * may come back: they are Istio's way to stop agents for a while. */
bool install_node_wanted(const json_t *daemonset, const json_t *node);
