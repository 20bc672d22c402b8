/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the meaning of authorization policies: rules OR, clauses AND, matches OR, attributes of a match AND. Everything
 * unknown falls on the closed side. */
#include "state/policy.h"

#include <stdio.h>
#include <string.h>

struct text {
	const char *s;
	size_t len;
};

static bool string_hit(const struct string_match *m, struct text t)
{
	size_t n = strlen(m->text);

	switch (m->kind) {
	case MATCH_EXACT:
		return n == t.len && memcmp(m->text, t.s, n) == 0;
	case MATCH_PREFIX:
		return n <= t.len && memcmp(m->text, t.s, n) == 0;
	case MATCH_SUFFIX:
		return n <= t.len && memcmp(m->text, t.s + t.len - n, n) == 0;
	case MATCH_PRESENCE:
		return t.len > 0;
	}
	return false;
}

static bool strings_hit(const struct string_match *m, unsigned n, struct text t)
{
	for (unsigned i = 0; i < n; i++)
		if (string_hit(&m[i], t))
			return true;
	return false;
}

static bool prefixes_hit(const struct prefix *p, unsigned n, const struct addr *a)
{
	for (unsigned i = 0; i < n; i++)
		if (prefix_contains(&p[i], a))
			return true;
	return false;
}

static bool ports_hit(const uint16_t *p, unsigned n, uint16_t port)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i] == port)
			return true;
	return false;
}

static bool same(struct text a, const char *b)
{
	return a.len == strlen(b) && memcmp(a.s, b, a.len) == 0;
}

static bool accounts_hit(const struct account_match *a, unsigned n, const struct identity *peer)
{
	if (!peer)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (same((struct text){peer->ns, peer->ns_len}, a[i].ns) &&
		    same((struct text){peer->sa, peer->sa_len}, a[i].sa))
			return true;
	return false;
}

static bool principals_hit(const struct string_match *m, unsigned n, const char *principal)
{
	return principal && strings_hit(m, n, (struct text){principal, strlen(principal)});
}

static bool match_is_empty(const struct policy_match *m)
{
#define EMPTY(kind, list, key) &&!m->n_##list
	return true POLICY_MATCH_LISTS(EMPTY);
#undef EMPTY
}

/* Each attribute with the fact that its two lists are held against. */
#define ATTRIBUTES(X)                                \
	X(prefixes_hit, destination_ips, &f->dst.ip) \
	X(prefixes_hit, source_ips, &f->src.ip)      \
	X(ports_hit, destination_ports, f->dst.port) \
	X(accounts_hit, service_accounts, f->peer)   \
	X(principals_hit, principals, f->principal)  \
	X(strings_hit, namespaces, ns)

#define ONE(...) +1
_Static_assert(2 * (0 ATTRIBUTES(ONE)) == 0 POLICY_MATCH_LISTS(ONE), "a list of matches that nobody looks at");
#undef ONE

/* What keeps these facts from matching; NULL: they match. An attribute passes when its positive list is empty or hit and
 * its negative list is not hit. */
static const char *match_miss(const struct policy_match *m, const struct policy_facts *f)
{
	struct text ns = f->peer ? (struct text){f->peer->ns, f->peer->ns_len} : (struct text){"", 0};

	if (match_is_empty(m))
		return "an empty match";
#define MISS(hit, list, fact)                                \
	if (m->n_##list && !hit(m->list, m->n_##list, fact)) \
		return #list;                                \
	if (hit(m->not_##list, m->n_not_##list, fact))       \
		return "not_" #list;
	ATTRIBUTES(MISS)
#undef MISS
	return NULL;
}

static const char *clause_miss(const struct policy_clause *c, const struct policy_facts *f)
{
	const char *miss = NULL;

	for (unsigned i = 0; i < c->n_matches; i++) {
		miss = match_miss(&c->matches[i], f);
		if (!miss)
			return NULL;
	}
	return miss;
}

static const char *rule_miss(const struct policy_rule *r, const struct policy_facts *f)
{
	for (unsigned i = 0; i < r->n_clauses; i++) {
		const char *miss = clause_miss(&r->clauses[i], f);

		if (miss)
			return miss;
	}
	return NULL;
}

/* The number of the first rule that matches, from 1; 0: none, and `miss` says of the last one why. */
static unsigned rule_find(const struct policy *p, const struct policy_facts *f, const char **miss)
{
	*miss = "no rule";
	for (unsigned i = 0; i < p->n_rules; i++) {
		*miss = rule_miss(&p->rules[i], f);
		if (!*miss)
			return i + 1;
	}
	return 0;
}

bool policy_matches(const struct policy *p, const struct policy_facts *f)
{
	const char *miss;

	if (p->unparseable)
		return p->action == POLICY_DENY;
	return rule_find(p, f, &miss) != 0;
}

/* One by one, also those that a verdict does not need. */
static void explain(struct policy *const *policies, unsigned n, const struct policy_facts *f)
{
	for (unsigned i = 0; i < n; i++) {
		const struct policy *p = policies[i];
		const char *what = p->action == POLICY_DENY ? "DENY" : "ALLOW", *miss;
		const char *dry = p->dry_run ? " (dry run)" : "";
		unsigned rule = rule_find(p, f, &miss);

		if (p->unparseable)
			why_note(f->why, "policy", "%s %s/%s%s: an entry could not be understood, so it %s", what,
				 p->ns, p->name, dry,
				 p->action == POLICY_DENY ? "matches everything" : "allows nothing");
		else if (rule)
			why_note(f->why, "policy", "%s %s/%s%s: rule %u of %u matches", what, p->ns, p->name, dry, rule,
				 p->n_rules);
		else
			why_note(f->why, "policy", "%s %s/%s%s: none of %u rules matches; the last one fails at %s",
				 what, p->ns, p->name, dry, p->n_rules, miss);
	}
}

static const struct policy *first_match(struct policy *const *policies, unsigned n, const struct policy_facts *f,
					enum policy_action action, bool dry_run)
{
	for (unsigned i = 0; i < n; i++)
		if (policies[i]->action == action && policies[i]->dry_run == dry_run && policy_matches(policies[i], f))
			return policies[i];
	return NULL;
}

static bool any_allow(struct policy *const *policies, unsigned n, bool dry_run)
{
	for (unsigned i = 0; i < n; i++)
		if (policies[i]->action == POLICY_ALLOW && policies[i]->dry_run == dry_run)
			return true;
	return false;
}

struct policy_result policy_evaluate(struct policy *const *policies, unsigned n, const struct policy_facts *f)
{
	struct policy_result r = {.verdict = POLICY_ALLOWED};
	bool enforced = any_allow(policies, n, false);

	if (f->why)
		explain(policies, n, f);
	r.dry_run_denied = first_match(policies, n, f, POLICY_DENY, true);
	r.by = first_match(policies, n, f, POLICY_DENY, false);
	if (r.by) {
		r.verdict = POLICY_DENIED_EXPLICITLY;
		return r;
	}
	r.dry_run_allowed = first_match(policies, n, f, POLICY_ALLOW, true);
	r.dry_run_none_allowed = !enforced && !r.dry_run_allowed && any_allow(policies, n, true);
	if (!enforced)
		return r;
	r.by = first_match(policies, n, f, POLICY_ALLOW, false);
	if (!r.by)
		r.verdict = POLICY_NONE_ALLOWED;
	return r;
}

const char *policy_reason(const struct policy_result *r, char *buf, size_t len)
{
	switch (r->verdict) {
	case POLICY_DENIED_EXPLICITLY:
		snprintf(buf, len, "explicitly denied by: %s/%s", r->by->ns, r->by->name);
		break;
	case POLICY_NONE_ALLOWED:
		snprintf(buf, len, "allow policies exist, but none allowed");
		break;
	case POLICY_ALLOWED:
		snprintf(buf, len, "allowed");
		break;
	}
	return buf;
}
