/* SPDX-License-Identifier: Apache-2.0 */
/* What is read of a pod or a namespace that the API server tells of. The objects are checked field by field: what has a
 * wrong type makes the object bad as a whole. No I/O. */
#pragma once
#include <jansson.h>

#include "node/pods.h"

enum {
	KUBE_IPS_MAX = 8,
	KUBE_VERSION_MAX = 128, /* of a resourceVersion, with the terminator */
};
#define KUBE_REDIRECTION "ambient.istio.io/redirection"

enum kube_redirection { KUBE_ABSENT, KUBE_ENABLED, KUBE_PENDING, KUBE_OTHER };

struct kube_rule;

struct kube_pod_facts {
	struct pod_identity identity;
	uint64_t version; /* a larger one is newer; 0: the server's are no numbers */
	char uid[POD_UID_MAX];
	char mirror[POD_UID_MAX]; /* "", or of a static pod the uid by which the kubelet and the runtime know it */
	uint32_t selected;	  /* kube_rule_pod_bits() */
	bool host_network, sidecar, app_ztunnel;
	bool own_users; /* spec.hostUsers is false: the kubelet gives it a user namespace */
	bool terminal;	/* Succeeded or Failed: its processes ought to be gone */
	bool deleting;	/* its end was asked for */
	enum kube_redirection redirection;
	unsigned n_ips;
	struct addr ip[KUBE_IPS_MAX];
	uint32_t sandbox; /* changes with the addresses or the first container: perhaps the namespace was made anew */
	/* What annotations ask for, and where the kubelet will probe. */
	struct pod_overlay overlay;
};

struct kube_namespace_facts {
	uint64_t version; /* as of a pod */
	char name[POD_LABEL_MAX];
	uint32_t selected; /* kube_rule_namespace_bits() */
};

/* 0, or -EBADMSG with what is wrong in `why`. `notes`: one clear line about annotations that are not followed; "". */
int kube_pod_read(struct kube_pod_facts *out, const json_t *o, const struct kube_rule *r, char notes[POD_WHY_MAX],
		  char why[POD_WHY_MAX]);
/* The addresses of the pod's node, as its status has them; how many. */
unsigned kube_node_read(struct addr out[STEER_NODE_ADDRS_MAX], const json_t *pod);
int kube_namespace_read(struct kube_namespace_facts *out, const json_t *o, const struct kube_rule *r,
			char why[POD_WHY_MAX]);

/* Sets what the annotations ask for. What cannot be followed leaves capture as it would be without it; `notes` says
 * so. */
void kube_overlay_read(struct pod_overlay *out, const json_t *annotations, char notes[POD_WHY_MAX]);
