/* SPDX-License-Identifier: Apache-2.0 */
/* What a CNI plugin asks of the keeper (headers/cni_abi.h), taken apart and checked. Keys are matched as Go does, without
 * regard to case; unknown ones are ignored. */
#pragma once
#include <jansson.h>

#include "node/pods.h"

enum { CNI_IPS_MAX = 16, CNI_ATTACHMENTS_MAX = 4 * PODS_MAX };

enum cni_kind {
	CNI_POD,
	CNI_LIST,
	CNI_NOTHING
}; /* what the body must hold: one attachment, all that are valid, or {} */

struct cni_request {
	bool decide; /* the plugin has not looked whether the pod is in the mesh */
	char netns[POD_NETNS_MAX], ns[POD_LABEL_MAX], name[POD_NAME_MAX], uid[POD_UID_MAX];
	struct pod_attachment attachment;
	unsigned n_ips;
	struct addr ip[CNI_IPS_MAX];
	json_t *valid; /* CNI_LIST: an object whose keys are "CONTAINER/INTERFACE" */
};

/* -EINVAL and one line in `why`; `out` needs cni_request_free() in any case. */
int cni_request_parse(struct cni_request *out, enum cni_kind kind, const char *body, size_t len, char why[POD_WHY_MAX]);
void cni_request_free(struct cni_request *r);
/* Is the attachment in the list? */
bool cni_request_lists(const struct cni_request *r, const struct pod_attachment *a);
