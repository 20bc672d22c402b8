/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's part in Kubernetes: what its configuration says of it, made into what node/kube.h wants. */
#pragma once
#include "keeper_config.h"
#include "node/kube.h"

struct keeper_kube {
	struct kube_config api;
	struct kube_rule *rule;
	struct kube *kube; /* NULL: without Kubernetes */
	bool configured;
};

/* Does nothing without Kubernetes. 0, or -errno and a line in `why`; keeper_kube_close() is owed in any case. */
int keeper_kube_open(struct keeper_kube *k, const struct keeper_config *c, struct loop *l, struct enrol *e,
		     struct zds_server *z, char why[POD_WHY_MAX]);
void keeper_kube_close(struct keeper_kube *k);
