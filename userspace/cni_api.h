/* SPDX-License-Identifier: Apache-2.0 */
/* One question to the Kubernetes API server, over TLS or, for tests, without. No thread, no loop: it waits. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "node/kube_config.h"

enum { API_BODY_MAX = 4 << 20, API_ANSWER_MS = 2500 };

/* GETs `path`. 0: the server answered, with `status`; `body` is malloc'ed and terminated. -errno and one line in `why`;
 * -EACCES: it is not whom we trust. */
int api_get(const struct kube_config *c, const char *path, uint64_t deadline, int *status, char **body, size_t *len,
	    char why[POD_WHY_MAX]);
