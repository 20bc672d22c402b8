/* SPDX-License-Identifier: Apache-2.0 */
/* Without the keeper: is the pod in the mesh? The API server knows; it is asked by a program of its own, culvert-cni-api
 * beside this one, which alone carries TLS. */
#pragma once
#include "conf.h"
#include "env.h"

enum {
	FALLBACK_MS = 5000,	   /* also by when a runtime of two minutes and a kubelet that retries have an answer */
	FALLBACK_RETRY_MS = 30000, /* with "enable_ambient_detection_retry" */
	FALLBACK_TEXT_MAX = 512,
};

enum mesh { MESH_OUT, MESH_IN, MESH_UNKNOWN };

/* MESH_UNKNOWN comes with the reason. */
enum mesh fallback_ask(const struct conf *c, const struct env *e, char why[FALLBACK_TEXT_MAX]);
