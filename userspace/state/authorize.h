/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a workload takes a connection: its policies, gathered from the store, and their verdict. Inside a read section. */
#pragma once
#include "state/policy.h"
#include "state/store.h"

enum {
	AUTHORIZE_POLICIES_MAX = 512, /* that apply to one workload; beyond it all is denied */
	AUTHORIZE_WHY_MAX = 256,
};

struct authorize_request {
	const struct workload *local; /* the destination; NULL: nobody is let in */
	struct endpoint src, dst;     /* the TCP peer; the application */
	const char *peer;	      /* SPIFFE ID, or NULL: not authenticated */
	struct why *why;	      /* or NULL */
};

struct authorize_result {
	bool allowed;
	struct policy_result policies; /* good inside the read section */
	unsigned missing;	       /* policies that the workload names and nobody knows */
	char why[AUTHORIZE_WHY_MAX];   /* where it is not allowed */
};

void authorize(struct store *s, const struct authorize_request *q, struct authorize_result *out);
