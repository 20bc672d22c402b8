// SPDX-License-Identifier: Apache-2.0
/* Owns the way from a connection's facts to the verdict on it. What cannot be told is refused. */
#include "state/authorize.h"

#include <stdio.h>

static void refuse(const struct authorize_request *q, struct authorize_result *out, const char *why)
{
	snprintf(out->why, sizeof out->why, "%s", why);
	WHY(q->why, "policy", "refused: %s", why);
}

static void judge(struct store *s, const struct authorize_request *q, const struct policy_facts *f,
		  struct authorize_result *out)
{
	struct policy *policies[AUTHORIZE_POLICIES_MAX];
	unsigned n = store_policies_for(s, q->local, policies, AUTHORIZE_POLICIES_MAX, &out->missing);

	if (out->missing)
		WHY(q->why, "policy", "%s/%s names %u policies that are unknown; the others are enforced", q->local->ns,
		    q->local->name, out->missing);
	if (n > AUTHORIZE_POLICIES_MAX) {
		snprintf(out->why, sizeof out->why, "more than %d policies apply", AUTHORIZE_POLICIES_MAX);
		WHY(q->why, "policy", "refused: %s", out->why);
		return;
	}
	if (!n)
		WHY(q->why, "policy", "no policy applies to %s/%s: everybody may connect", q->local->ns,
		    q->local->name);
	out->policies = policy_evaluate(policies, n, f);
	out->allowed = out->policies.verdict == POLICY_ALLOWED;
	if (!out->allowed)
		policy_reason(&out->policies, out->why, sizeof out->why);
}

void authorize(struct store *s, const struct authorize_request *q, struct authorize_result *out)
{
	struct policy_facts f = {.src = q->src, .dst = q->dst, .why = q->why};
	struct identity id;

	*out = (struct authorize_result){.allowed = false};
	if (q->peer) {
		if (identity_parse(&id, q->peer) < 0) { /* nobody of whom a DENY could speak */
			refuse(q, out, "the peer is no service account");
			return;
		}
		f.peer = &id;
		f.principal = id.trust_domain;
	}
	if (q->local)
		judge(s, q, &f, out);
	else
		refuse(q, out, "the workload is unknown");
}
