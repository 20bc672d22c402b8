/* SPDX-License-Identifier: Apache-2.0 */
/* Which pods are in the mesh on a machine without Kubernetes, where no labels say so: all that a container runtime adds
 * by CNI, or none. Their service account is "default". */
#pragma once
#include "node/cni.h"

struct cni_plain {
	bool all;
	const char *exclude; /* namespaces that are never in the mesh, with commas */
};
/* `p` outlives the decider. */
struct cni_decider cni_plain_decider(struct cni_plain *p);
