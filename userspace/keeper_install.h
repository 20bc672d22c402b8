/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's part as installer: what its configuration says of it, made into what node/install.h wants. */
#pragma once
#include "keeper_config.h"
#include "keeper_kube.h"
#include "node/install.h"

struct keeper_install {
	struct install *install; /* NULL: nothing is to be installed */
	const struct kube *kube;
	char conf_dir[PATH_MAX], bin_dir[PATH_MAX], from_dir[PATH_MAX], run_dir[PATH_MAX];
};

/* Does nothing where nothing is to be installed. 0, or -errno and a line in `why`. */
int keeper_install_open(struct keeper_install *k, const struct keeper_config *c, struct loop *l,
			const struct keeper_kube *kube, char why[POD_WHY_MAX]);
