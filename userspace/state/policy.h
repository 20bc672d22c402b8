/* SPDX-License-Identifier: Apache-2.0 */
/* L4 authorization: a pure function from policies and a connection's facts to a verdict. To add a
 * kind of match: its two lists in mesh.h's POLICY_MATCH_LISTS, its fact in policy.c's ATTRIBUTES; a new type of list
 * needs readers in control/local_policy.c and control/xds_policy.c and a writer in admin/dump_policy.c as well. */
#pragma once
#include "state/identity.h"
#include "state/mesh.h"
#include "state/why.h"

struct policy_facts {
	struct endpoint src, dst;    /* TCP peer; final destination */
	const struct identity *peer; /* NULL: not authenticated */
	const char *principal;	     /* the peer's identity without "spiffe://"; NULL with `peer` NULL */
	struct why *why;	     /* or NULL */
};

enum policy_verdict {
	POLICY_ALLOWED,
	POLICY_DENIED_EXPLICITLY, /* `by` says by which */
	POLICY_NONE_ALLOWED,	  /* ALLOW policies exist, none matched */
};

struct policy_result {
	enum policy_verdict verdict;
	const struct policy *by;	      /* the deciding DENY or ALLOW policy, or NULL */
	const struct policy *dry_run_denied;  /* first dry-run DENY that matched, for the log */
	const struct policy *dry_run_allowed; /* first dry-run ALLOW that matched */
	bool dry_run_none_allowed;	      /* only dry-run ALLOWs exist and none matched */
};

struct policy_result policy_evaluate(struct policy *const *policies, unsigned n, const struct policy_facts *f);
/* Does one policy's rule set match? Ignores action and dry-run; `unparseable` is handled as mesh.h says. */
bool policy_matches(const struct policy *p, const struct policy_facts *f);
/* "explicitly denied by: ns/name" or "allow policies exist, but none allowed". */
const char *policy_reason(const struct policy_result *r, char *buf, size_t len);
