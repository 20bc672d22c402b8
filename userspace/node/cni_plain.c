/* SPDX-License-Identifier: Apache-2.0 */
/* Decisions on a machine without Kubernetes. */
#include "node/cni_plain.h"

#include "base/values.h"

static void decide(void *arg, const struct cni_request *pod, struct cni_question *q)
{
	const struct cni_plain *p = arg;
	struct cni_decision d = {.verdict = CNI_NOT_IN_MESH, .sa = "default"};

	if (p->all && pod->ns[0] && pod->name[0] && !value_lists(p->exclude ? p->exclude : "", pod->ns))
		d.verdict = CNI_ENROL;
	cni_decided(q, &d);
}

static const char *unready(void *arg)
{
	return NULL;
}

struct cni_decider cni_plain_decider(struct cni_plain *p)
{
	return (struct cni_decider){decide, unready, p};
}
