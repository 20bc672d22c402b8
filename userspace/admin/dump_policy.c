// SPDX-License-Identifier: Apache-2.0
/* Policies in the dump. */
#include "admin/dump.h"

static void strings(struct json *j, const char *key, const struct string_match *m, unsigned n)
{
	static const char *const kinds[] = {[MATCH_EXACT] = "Exact",
					    [MATCH_PREFIX] = "Prefix",
					    [MATCH_SUFFIX] = "Suffix",
					    [MATCH_PRESENCE] = "Presence"};

	if (!n)
		return;
	json_key(j, key);
	json_open(j, '[');
	for (unsigned i = 0; i < n; i++) {
		json_open(j, '{');
		json_key(j, kinds[m[i].kind]);
		if (m[i].kind == MATCH_PRESENCE)
			json_raw(j, "[]");
		else
			json_text(j, m[i].text);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void networks(struct json *j, const char *key, const struct prefix *p, unsigned n)
{
	char buf[ADDR_STRLEN + 4];

	if (!n)
		return;
	json_key(j, key);
	json_open(j, '[');
	for (unsigned i = 0; i < n; i++)
		json_text(j, prefix_str(&p[i], buf));
	json_close(j, ']');
}

static void ports(struct json *j, const char *key, const uint16_t *p, unsigned n)
{
	if (!n)
		return;
	json_key(j, key);
	json_open(j, '[');
	for (unsigned i = 0; i < n; i++)
		json_number(j, p[i]);
	json_close(j, ']');
}

static void accounts(struct json *j, const char *key, const struct account_match *m, unsigned n)
{
	if (!n)
		return;
	json_key(j, key);
	json_open(j, '[');
	for (unsigned i = 0; i < n; i++) {
		json_open(j, '{');
		json_key_text(j, "namespace", m[i].ns);
		json_key_text(j, "serviceAccount", m[i].sa);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void match(struct json *j, const struct policy_match *m)
{
	json_open(j, '{');
#define WRITE(kind, list, key) kind(j, key, m->list, m->n_##list);
	POLICY_MATCH_LISTS(WRITE)
#undef WRITE
	json_close(j, '}');
}

static void rule(struct json *j, const struct policy_rule *r)
{
	json_open(j, '[');
	for (unsigned i = 0; i < r->n_clauses; i++) {
		const struct policy_clause *c = &r->clauses[i];

		json_open(j, '[');
		for (unsigned k = 0; k < c->n_matches; k++)
			match(j, &c->matches[k]);
		json_close(j, ']');
	}
	json_close(j, ']');
}

static int policy(void *arg, struct policy *p)
{
	static const char *const scopes[] = {
		[POLICY_GLOBAL] = "Global", [POLICY_NAMESPACE] = "Namespace", [POLICY_SELECTOR] = "WorkloadSelector"};
	struct json *j = arg;

	json_open(j, '{');
	json_key_text(j, "action", p->action == POLICY_DENY ? "Deny" : "Allow");
	json_key(j, "dryRun");
	json_bool(j, p->dry_run);
	json_key_text(j, "name", p->name);
	json_key_text(j, "namespace", p->ns);
	json_key(j, "rules");
	json_open(j, '[');
	for (unsigned i = 0; i < p->n_rules; i++)
		rule(j, &p->rules[i]);
	json_close(j, ']');
	json_key_text(j, "scope", scopes[p->scope]);
	if (p->unparseable) { /* denies everything, or allows nothing */
		json_key(j, "unparseable");
		json_bool(j, true);
	}
	json_close(j, '}');
	return j->failed;
}

void dump_policies(struct json *j, struct store *s)
{
	json_open(j, '[');
	store_each_policy(s, policy, j);
	json_close(j, ']');
}
