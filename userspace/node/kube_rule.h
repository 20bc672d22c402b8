/* SPDX-License-Identifier: Apache-2.0 */
/* Who is in the mesh, by labels, annotations and the node's settings; the same rule as istio-cni's. Pure functions. */
#pragma once
#include <jansson.h>

#include "node/kube_object.h"

enum {
	KUBE_SELECTORS_MAX = 32,    /* a pod's and a namespace's matches are bits */
	KUBE_REQUIREMENTS_MAX = 64, /* of one selector */
};

struct kube_rule;

struct kube_rule_settings {
	const char *selectors;	      /* AMBIENT_ENABLEMENT_SELECTOR, YAML or JSON; NULL: Istio's default */
	const char *excluded;	      /* EXCLUDE_NAMESPACES, with commas; NULL: none */
	const char *system_namespace; /* where ztunnel's own pods are, which are never enrolled */
};
/* -EINVAL and a line in `why`. */
int kube_rule_new(struct kube_rule **out, const struct kube_rule_settings *s, char why[POD_WHY_MAX]);
void kube_rule_free(struct kube_rule *r); /* takes NULL */

/* Which selector pairs hold for these labels, as bits: a pod is selected when one holds for it and for its namespace.
 * `labels`: an object of texts, or NULL for none. */
uint32_t kube_rule_pod_bits(const struct kube_rule *r, const json_t *labels);
uint32_t kube_rule_namespace_bits(const struct kube_rule *r, const json_t *labels);

enum kube_reason { /* the first that holds, in this order */
		   KUBE_HOST_NETWORK,
		   KUBE_SIDECAR,
		   KUBE_EXCLUDED,
		   KUBE_TUNNEL_POD,
		   KUBE_NOT_SELECTED,
		   KUBE_SELECTED, /* this one is in the mesh */
};
enum kube_reason kube_rule_decide(const struct kube_rule *r, const struct kube_pod_facts *pod, uint32_t namespace_bits);
const char *kube_reason_text(enum kube_reason reason);
