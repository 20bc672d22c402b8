/* SPDX-License-Identifier: Apache-2.0 */
/* Small YAML documents as JSON values: the enablement selectors and kubeconfig files, which people write. JSON is YAML,
 * so both are read. */
#pragma once
#include <jansson.h>

#include "node/pods.h"

enum {
	KUBE_YAML_BYTES = 262144,
	KUBE_YAML_DEPTH = 16,
};

/* The first document; null for none. Maps, lists and texts: every scalar is a text, but an empty plain one, null and ~,
 * which are null. Aliases are refused. A new reference, or NULL with a line in `why`. */
json_t *kube_yaml_read(const char *text, size_t len, char why[POD_WHY_MAX]);
