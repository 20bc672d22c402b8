/* SPDX-License-Identifier: Apache-2.0 */
/* Authorization: what a rule set matches, and what a set of policies decides.
 *
 * Rules are written as text: "|" between rules, "&" between clauses, "+" between matches, blanks between the attributes of
 * a match: KEY:VALUE or !KEY:VALUE with the keys ns, principal, src, dst, port and sa; strings may be "x", "x*", "*x" and
 * "*" (present). "all" is a rule without clauses, "any" a clause without matches, "void" a match without attributes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mesh_rig.h"
#include "state/intern.h"
#include "state/policy.h"

enum { LIST_MAX = 8 };

static int nothing_left(void **state)
{
	return intern_count() ? -1 : 0;
}

/* --- rules from text ------------------------------------------------------------------------------------------------- */

#define ADD(a, m, list, value)                                                   \
	do {                                                                     \
		if (!(m)->list)                                                  \
			(m)->list = arena_alloc(a, LIST_MAX, sizeof *(m)->list); \
		(m)->list[(m)->n_##list++] = value;                              \
	} while (0)
#define ADD_EITHER(a, m, not, list, value)            \
	do {                                          \
		if (not )                             \
			ADD(a, m, not_##list, value); \
		else                                  \
			ADD(a, m, list, value);       \
	} while (0)

static struct string_match string_of(struct arena *a, const char *s)
{
	size_t n = strlen(s);

	if (strcmp(s, "*") == 0)
		return (struct string_match){MATCH_PRESENCE, ""};
	if (n && s[n - 1] == '*')
		return (struct string_match){MATCH_PREFIX, arena_str(a, s, n - 1)};
	if (s[0] == '*')
		return (struct string_match){MATCH_SUFFIX, rig_text(a, s + 1)};
	return (struct string_match){MATCH_EXACT, rig_text(a, s)};
}

static struct account_match account_of(struct arena *a, const char *s)
{
	const char *slash = strchr(s, '/');

	return (struct account_match){arena_str(a, s, (size_t)(slash - s)), rig_text(a, slash + 1)};
}

static struct prefix prefix_of(const char *s)
{
	struct prefix p;

	if (prefix_parse(&p, s))
		abort();
	return p;
}

static void attribute(struct arena *a, struct policy_match *m, char *text)
{
	bool not = text[0] == '!';
	char *key = text + not, *value = strchr(text, ':');

	*value++ = 0;
	if (strcmp(key, "ns") == 0)
		ADD_EITHER(a, m, not, namespaces, string_of(a, value));
	else if (strcmp(key, "principal") == 0)
		ADD_EITHER(a, m, not, principals, string_of(a, value));
	else if (strcmp(key, "src") == 0)
		ADD_EITHER(a, m, not, source_ips, prefix_of(value));
	else if (strcmp(key, "dst") == 0)
		ADD_EITHER(a, m, not, destination_ips, prefix_of(value));
	else if (strcmp(key, "port") == 0)
		ADD_EITHER(a, m, not, destination_ports, (uint16_t)atoi(value));
	else if (strcmp(key, "sa") == 0)
		ADD_EITHER(a, m, not, service_accounts, account_of(a, value));
	else
		abort();
}

static void rules(struct arena *a, struct policy *p, const char *text)
{
	struct policy_rule *r = NULL;
	struct policy_clause *c = NULL;
	struct policy_match *m = NULL;
	struct rig_items l;

	rig_split(&l, text);
	p->rules = l.n ? arena_alloc(a, LIST_MAX, sizeof *p->rules) : NULL;
	for (unsigned i = 0; i < l.n; i++) {
		char *t = l.item[i];

		if (strcmp(t, "|") == 0)
			r = NULL, c = NULL, m = NULL;
		else if (strcmp(t, "&") == 0)
			c = NULL, m = NULL;
		else if (strcmp(t, "+") == 0)
			m = NULL;
		if (strchr("|&+", t[0]))
			continue;
		if (!r) {
			r = &p->rules[p->n_rules++];
			r->clauses = arena_alloc(a, LIST_MAX, sizeof *r->clauses);
		}
		if (strcmp(t, "all") == 0)
			continue;
		if (!c) {
			c = &r->clauses[r->n_clauses++];
			c->matches = arena_alloc(a, LIST_MAX, sizeof *c->matches);
		}
		if (strcmp(t, "any") == 0)
			continue;
		if (!m)
			m = &c->matches[c->n_matches++];
		if (strcmp(t, "void"))
			attribute(a, m, t);
	}
}

/* --- one rule set ---------------------------------------------------------------------------------------------------- */

/* The connection of each row, unless it says otherwise: td/ns/shop/sa/web from 10.0.0.1:1000 to 10.0.0.2:80. */
struct facts {
	const char *src, *dst, *peer; /* peer "": not authenticated */
};

static void facts_of(const struct facts *in, struct policy_facts *f, struct identity *id)
{
	const char *peer = in->peer ? in->peer : "spiffe://td/ns/shop/sa/web";

	*f = (struct policy_facts){rig_endpoint(in->src ? in->src : "10.0.0.1:1000"),
				   rig_endpoint(in->dst ? in->dst : "10.0.0.2:80"), NULL, NULL};
	if (*peer && identity_parse(id, peer) == 0) {
		f->peer = id;
		f->principal = id->trust_domain;
	}
}

#define ANONYMOUS          \
	{                  \
		.peer = "" \
	}
#define SIX                                                    \
	{                                                      \
		.src = "[fd00::1]:1000", .dst = "[fd00::2]:80" \
	}
static const struct {
	const char *name, *rules;
	struct facts facts;
	bool want;
} matching[] = {
	/* nesting */
	{"no rules match nothing", "", {0}, false},
	{"a rule without clauses matches all", "all", {0}, true},
	{"a rule without clauses matches the unauthenticated", "all", ANONYMOUS, true},
	{"a clause without matches matches all", "any", {0}, true},
	{"a match without attributes never matches", "void", {0}, false},
	{"rules are alternatives", "port:81 | port:80", {0}, true},
	{"no rule matches", "port:81 | port:82", {0}, false},
	{"clauses are all needed", "port:80 & ns:shop", {0}, true},
	{"one clause fails", "port:80 & ns:x", {0}, false},
	{"the first clause fails", "ns:x & port:80", {0}, false},
	{"matches are alternatives", "port:81 + port:80", {0}, true},
	{"no match of a clause", "port:81 + port:82", {0}, false},
	{"a void match beside a good one", "void + port:80", {0}, true},
	{"an empty clause beside one that fails", "any & port:81", {0}, false},
	{"attributes are all needed", "port:80 ns:shop", {0}, true},
	{"one attribute fails", "port:80 ns:x", {0}, false},
	{"values of an attribute are alternatives", "port:81 port:80", {0}, true},
	{"positive and negative of one attribute", "port:80 !port:81", {0}, true},
	{"the negative outweighs the positive", "port:80 !port:80", {0}, false},
	/* ports */
	{"port", "port:80", {0}, true},
	{"another port", "port:81", {0}, false},
	{"the source's port is none", "port:1000", {0}, false},
	{"not a port", "!port:81", {0}, true},
	{"not this port", "!port:80", {0}, false},
	{"not any of two ports", "!port:81 !port:80", {0}, false},
	/* addresses */
	{"source", "src:10.0.0.1/32", {0}, true},
	{"source net", "src:10.0.0.0/24", {0}, true},
	{"source net, outside", "src:10.0.1.0/24", {0}, false},
	{"destination is no source", "src:10.0.0.2/32", {0}, false},
	{"not a source", "!src:10.0.1.0/24", {0}, true},
	{"not this source", "!src:10.0.0.0/24", {0}, false},
	{"source over v6", "src:fd00::1/128", SIX, true},
	{"source net over v6", "src:fd00::/64", SIX, true},
	{"all v4 holds no v6", "src:0.0.0.0/0", SIX, false},
	{"not all v4 lets v6 pass", "!src:0.0.0.0/0", SIX, true},
	{"all v6 holds no v4", "src:::/0", {0}, false},
	{"destination", "dst:10.0.0.2/32", {0}, true},
	{"source is no destination", "dst:10.0.0.1/32", {0}, false},
	{"not a destination", "!dst:10.0.1.0/24", {0}, true},
	{"not this destination", "!dst:10.0.0.2/31", {0}, false},
	{"destination over v6", "dst:fd00::/64", SIX, true},
	{"not this destination over v6", "!dst:fd00::/64", SIX, false},
	/* namespaces */
	{"namespace", "ns:shop", {0}, true},
	{"another namespace", "ns:sho", {0}, false},
	{"namespace case counts", "ns:Shop", {0}, false},
	{"namespace prefix", "ns:sh*", {0}, true},
	{"namespace prefix, no", "ns:x*", {0}, false},
	{"namespace prefix, longer", "ns:shopp*", {0}, false},
	{"namespace suffix", "ns:*op", {0}, true},
	{"namespace suffix, no", "ns:*x", {0}, false},
	{"namespace suffix, longer", "ns:*xshop", {0}, false},
	{"a suffix does not reach beyond the namespace", "ns:*ns/shop", {0}, false},
	{"a prefix does not reach beyond the namespace", "ns:shop/sa*", {0}, false},
	{"a prefix that is all", "ns:shop*", {0}, true},
	{"a suffix that is all", "ns:*shop", {0}, true},
	{"namespace present", "ns:*", {0}, true},
	{"an empty namespace is not present", "ns:*", {.peer = "spiffe://td/ns//sa/web"}, false},
	{"the unauthenticated has no namespace", "ns:*", ANONYMOUS, false},
	{"the unauthenticated has the empty namespace", "ns:", ANONYMOUS, true},
	{"not a namespace", "!ns:x", {0}, true},
	{"not this namespace", "!ns:shop", {0}, false},
	{"the unauthenticated is not in a namespace", "!ns:shop", ANONYMOUS, true},
	{"not present namespace is for the unauthenticated", "!ns:*", ANONYMOUS, true},
	/* principals */
	{"principal", "principal:td/ns/shop/sa/web", {0}, true},
	{"principal with the scheme never matches", "principal:spiffe://td/ns/shop/sa/web", {0}, false},
	{"another trust domain", "principal:other/ns/shop/sa/web", {0}, false},
	{"principal prefix", "principal:td/ns/shop/*", {0}, true},
	{"principal suffix", "principal:*/sa/web", {0}, true},
	{"principal suffix, no", "principal:*/sa/we", {0}, false},
	{"principal present", "principal:*", {0}, true},
	{"the unauthenticated is no principal", "principal:*", ANONYMOUS, false},
	{"the unauthenticated is not the empty principal", "principal:", ANONYMOUS, false},
	{"not a principal", "!principal:td/ns/x/sa/y", {0}, true},
	{"not this principal", "!principal:td/ns/shop/sa/web", {0}, false},
	{"not present principal is for the unauthenticated (STRICT)", "!principal:*", ANONYMOUS, true},
	{"not present principal is not for a peer (STRICT)", "!principal:*", {0}, false},
	{"STRICT but for a port", "!principal:* !port:80", ANONYMOUS, false},
	{"STRICT but for another port", "!principal:* !port:81", ANONYMOUS, true},
	/* service accounts */
	{"service account", "sa:shop/web", {0}, true},
	{"another service account", "sa:shop/we", {0}, false},
	{"a service account of another namespace", "sa:x/web", {0}, false},
	{"the trust domain does not count", "sa:shop/web", {.peer = "spiffe://other/ns/shop/sa/web"}, true},
	{"the unauthenticated has no service account", "sa:shop/web", ANONYMOUS, false},
	{"not a service account", "!sa:shop/x", {0}, true},
	{"not this service account", "!sa:shop/web", {0}, false},
	{"the unauthenticated is not a service account", "!sa:shop/web", ANONYMOUS, true},
};

static struct policy *policy_make(const char *text, enum policy_action action, bool dry_run, const char *name)
{
	struct arena *a;
	struct policy *p = policy_new(&a);

	p->ns = "shop";
	p->name = rig_text(a, name);
	p->action = action;
	p->dry_run = dry_run;
	p->unparseable = strchr(text, '?') != NULL;
	rules(a, p, p->unparseable ? "" : text);
	return p;
}

static void test_matching(void **state)
{
	for (size_t i = 0; i < sizeof matching / sizeof *matching; i++)
		for (unsigned action = POLICY_ALLOW; action <= POLICY_DENY; action++) {
			struct policy *p = policy_make(matching[i].rules, (enum policy_action)action, false, "p");
			struct policy_facts f;
			struct identity id;

			facts_of(&matching[i].facts, &f, &id);
			if (policy_matches(p, &f) != matching[i].want)
				fail_msg("%s: %d", matching[i].name, !matching[i].want);
			policy_unref(p);
		}
}

/* --- many policies ----------------------------------------------------------------------------------------------------- */

/* "allow RULES", "deny RULES", with "dry" in front; "?" for rules that could not be understood. */
static const struct {
	const char *name, *policies[4];
	const char *want; /* what policy_reason() says */
	const char *by;	  /* number of the deciding policy, or NULL */
	const char *dry;  /* "deny N", "allow N", "none": what is told of dry runs */
} verdicts[] = {
	{"no policies allow", {NULL}, "allowed", NULL, ""},
	{"a DENY that matches", {"deny port:80"}, "explicitly denied by: shop/0", "0", ""},
	{"a DENY that does not", {"deny port:81"}, "allowed", NULL, ""},
	{"the first DENY that matches is told",
	 {"deny port:81", "deny port:80", "deny all"},
	 "explicitly denied by: shop/1",
	 "1",
	 ""},
	{"an ALLOW that matches", {"allow port:80"}, "allowed", "0", ""},
	{"an ALLOW that does not", {"allow port:81"}, "allow policies exist, but none allowed", NULL, ""},
	{"any ALLOW will do", {"allow port:81", "allow port:80"}, "allowed", "1", ""},
	{"DENY comes before ALLOW, whatever the order",
	 {"allow all", "deny port:80"},
	 "explicitly denied by: shop/1",
	 "1",
	 ""},
	{"a DENY that does not match leaves it to the ALLOWs", {"deny port:81", "allow port:80"}, "allowed", "1", ""},
	{"a DENY that does not match is no ALLOW",
	 {"deny port:81", "allow port:82"},
	 "allow policies exist, but none allowed",
	 NULL,
	 ""},
	{"an ALLOW without rules allows nobody", {"allow"}, "allow policies exist, but none allowed", NULL, ""},
	{"a DENY without rules denies nobody", {"deny"}, "allowed", NULL, ""},
	/* entries that could not be understood fail closed */
	{"a DENY that is not understood denies", {"deny ?"}, "explicitly denied by: shop/0", "0", ""},
	{"an ALLOW that is not understood allows nobody",
	 {"allow ?"},
	 "allow policies exist, but none allowed",
	 NULL,
	 ""},
	{"another ALLOW may still allow", {"allow ?", "allow port:80"}, "allowed", "1", ""},
	{"a dry-run DENY that is not understood only tells", {"dry deny ?"}, "allowed", NULL, "deny 0"},
	{"a dry-run ALLOW that is not understood only tells", {"dry allow ?"}, "allowed", NULL, "none"},
	/* dry run */
	{"a dry-run DENY only tells", {"dry deny port:80"}, "allowed", NULL, "deny 0"},
	{"a dry-run DENY that does not match tells nothing", {"dry deny port:81"}, "allowed", NULL, ""},
	{"a dry-run DENY beside a real one",
	 {"dry deny all", "deny all"},
	 "explicitly denied by: shop/1",
	 "1",
	 "deny 0"},
	{"a dry-run ALLOW only tells", {"dry allow port:80"}, "allowed", NULL, "allow 0"},
	{"a dry-run ALLOW that does not match does not deny", {"dry allow port:81"}, "allowed", NULL, "none"},
	{"a dry-run ALLOW does not allow",
	 {"dry allow all", "allow port:81"},
	 "allow policies exist, but none allowed",
	 NULL,
	 "allow 0"},
	{"beside a real ALLOW nothing is told of none", {"dry allow port:81", "allow port:80"}, "allowed", "1", ""},
};

static const char *dry_text(const struct policy_result *r, char buf[64])
{
	if (r->dry_run_denied)
		snprintf(buf, 64, "deny %s", r->dry_run_denied->name);
	else if (r->dry_run_allowed)
		snprintf(buf, 64, "allow %s", r->dry_run_allowed->name);
	else
		snprintf(buf, 64, "%s", r->dry_run_none_allowed ? "none" : "");
	return buf;
}

static void test_verdicts(void **state)
{
	for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
		struct policy *p[4];
		struct policy_facts f;
		struct identity id;
		char name[8], reason[128], dry[64];
		unsigned n = 0;

		for (; n < 4 && verdicts[i].policies[n]; n++) {
			const char *text = verdicts[i].policies[n];
			bool is_dry = strncmp(text, "dry ", 4) == 0;
			text += is_dry ? 4 : 0;
			bool allow = strncmp(text, "allow", 5) == 0;
			snprintf(name, sizeof name, "%u", n);
			p[n] = policy_make(text + (allow ? 5 : 4), allow ? POLICY_ALLOW : POLICY_DENY, is_dry, name);
		}
		facts_of(&(struct facts){0}, &f, &id);
		struct policy_result r = policy_evaluate(p, n, &f);
		const char *by = r.by ? r.by->name : NULL;
		if (strcmp(policy_reason(&r, reason, sizeof reason), verdicts[i].want))
			fail_msg("%s: %s", verdicts[i].name, reason);
		if (!by != !verdicts[i].by || (by && strcmp(by, verdicts[i].by)))
			fail_msg("%s: by %s", verdicts[i].name, by ? by : "nobody");
		if (strcmp(dry_text(&r, dry), verdicts[i].dry))
			fail_msg("%s: tells \"%s\"", verdicts[i].name, dry);
		while (n)
			policy_unref(p[--n]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_matching, nothing_left),
		cmocka_unit_test_teardown(test_verdicts, nothing_left),
	};
	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
