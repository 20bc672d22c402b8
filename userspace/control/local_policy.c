// SPDX-License-Identifier: Apache-2.0
/* Policies of the local file. An entry that cannot be understood is an error: the file as a whole is refused, so no
 * policy is ever wider than its text. */
#include <string.h>

#include "control/local_parts.h"

/* --- kinds of matches ----------------------------------------------------------------------------------- */

static const struct doc_word kinds[] = {
	{"Exact", MATCH_EXACT}, {"Prefix", MATCH_PREFIX}, {"Suffix", MATCH_SUFFIX}, {"Presence", MATCH_PRESENCE}, {0}};

/* The text of a matcher; that of Presence is an empty list, or nothing. */
static void matcher_text(struct doc *d, struct arena *a, struct string_match *m)
{
	struct doc_text t;

	if (d->error)
		return;
	if (m->kind == MATCH_PRESENCE) {
		m->text = "";
		if (d->event.type == YAML_SEQUENCE_START_EVENT && doc_item(d))
			doc_fail(d, "Presence takes no text");
		else if (doc_is_scalar(d) && d->event.data.scalar.length)
			doc_fail(d, "Presence takes no text");
		else if (!d->error && d->event.type == YAML_MAPPING_START_EVENT)
			doc_fail(d, "Presence takes no map");
		return;
	}
	t = doc_scalar(d, "a string matcher");
	m->text = arena_str(a, t.s, t.len);
	if (!m->text)
		doc_no_memory(d);
}

/* `!Exact text`, or {"Exact": "text"}. */
static void matcher(struct doc *d, const char *what, struct arena *a, void *out)
{
	struct string_match *m = out;
	const char *tag = doc_tag(d);

	if (tag) {
		const struct doc_word *k = kinds;

		while (k->name && strcmp(k->name, tag + (*tag == '!')) != 0)
			k++;
		if (!k->name) {
			doc_fail(d, "%s: %s is none of !Exact, !Prefix, !Suffix, !Presence", what, tag);
			return;
		}
		m->kind = (enum string_match_kind)k->value;
		matcher_text(d, a, m);
	} else if (d->event.type == YAML_MAPPING_START_EVENT) {
		if (!doc_key(d)) {
			doc_fail(d, "%s: an empty matcher", what);
			return;
		}
		m->kind = (enum string_match_kind)doc_word(d, what, kinds);
		if (doc_next(d))
			matcher_text(d, a, m);
		if (doc_key(d))
			doc_fail(d, "%s: one matcher has one kind", what);
	} else {
		doc_fail(d, "%s: a matcher is written !Exact TEXT, !Prefix TEXT, !Suffix TEXT or !Presence []", what);
	}
}

static void network(struct doc *d, const char *what, struct arena *a, void *out)
{
	struct doc_text t = doc_text(d, what);

	if (!d->error && prefix_parse(out, t.s) < 0)
		doc_fail(d, "%s: \"%s\" is not ADDRESS/LENGTH", what, t.s);
}

static void port(struct doc *d, const char *what, struct arena *a, void *out)
{
	*(uint16_t *)out = (uint16_t)doc_number(d, what, UINT16_MAX);
}

static void account(struct doc *d, const char *what, struct arena *a, void *out)
{
	static const struct doc_field fields[] = {
		{"namespace", local_text, offsetof(struct account_match, ns), .required = true},
		{"serviceAccount", local_text, offsetof(struct account_match, sa), .required = true},
		{0},
	};
	struct local_part p = {out, a, NULL};

	((struct account_match *)out)->ns = ((struct account_match *)out)->sa = "";
	doc_object(d, what, fields, &p);
}

/* --- lists of them: each is an array and its length, one behind the other ------------------------------- */

struct list_kind {
	size_t size;
	void (*one)(struct doc *d, const char *what, struct arena *a, void *out);
};
#define LIST_IS_ARRAY_AND_LENGTH(type, list)                                                            \
	_Static_assert(offsetof(struct type, n_##list) == offsetof(struct type, list) + sizeof(void *), \
		       "read_list() knows this layout")
LIST_IS_ARRAY_AND_LENGTH(policy_match, destination_ports);
LIST_IS_ARRAY_AND_LENGTH(policy, rules);

static void read_list(struct doc *d, const struct doc_field *f, struct local_part *p, const struct list_kind *k)
{
	char *place = (char *)p->object + f->at;
	struct local_list l;
	unsigned n;
	void *all;

	local_list_init(&l, k->size);
	for (doc_list(d, f->name); doc_item(d);) {
		void *one = local_list_add(d, &l);

		if (one)
			k->one(d, f->name, p->arena, one);
	}
	all = local_list_end(d, &l, p->arena, &n);
	memcpy(place, &all, sizeof all);
	memcpy(place + sizeof all, &n, sizeof n);
}

static void strings(struct doc *d, const struct doc_field *f, void *part)
{
	read_list(d, f, part, &(struct list_kind){sizeof(struct string_match), matcher});
}

static void networks(struct doc *d, const struct doc_field *f, void *part)
{
	read_list(d, f, part, &(struct list_kind){sizeof(struct prefix), network});
}

static void ports(struct doc *d, const struct doc_field *f, void *part)
{
	read_list(d, f, part, &(struct list_kind){sizeof(uint16_t), port});
}

static void accounts(struct doc *d, const struct doc_field *f, void *part)
{
	read_list(d, f, part, &(struct list_kind){sizeof(struct account_match), account});
}

/* --- rules: a list of rules, each a list of clauses, each a list of matches ----------------------------- */

#define AT(field) offsetof(struct policy_match, field)

static void match(struct doc *d, const char *what, struct arena *a, void *out)
{
#define FIELD(kind, list, key) {key, kind, AT(list)},
	static const struct doc_field fields[] = {POLICY_MATCH_LISTS(FIELD){0}};
#undef FIELD
	struct local_part p = {out, a, NULL};

	doc_object(d, "match", fields, &p);
}

#undef AT

static void clause(struct doc *d, const char *what, struct arena *a, void *out)
{
	static const struct doc_field matches = {.name = "matches", .at = offsetof(struct policy_clause, matches)};
	struct local_part p = {out, a, NULL};

	read_list(d, &matches, &p, &(struct list_kind){sizeof(struct policy_match), match});
}

static void rule(struct doc *d, const char *what, struct arena *a, void *out)
{
	static const struct doc_field clauses = {.name = "clauses", .at = offsetof(struct policy_rule, clauses)};
	struct local_part p = {out, a, NULL};

	read_list(d, &clauses, &p, &(struct list_kind){sizeof(struct policy_clause), clause});
}

static void rules(struct doc *d, const struct doc_field *f, void *part)
{
	read_list(d, f, part, &(struct list_kind){sizeof(struct policy_rule), rule});
}

/* --- the whole ------------------------------------------------------------------------------------------ */

#define AT(field) offsetof(struct policy, field)

static const struct doc_word scopes[] = {
	{"Global", POLICY_GLOBAL}, {"Namespace", POLICY_NAMESPACE}, {"WorkloadSelector", POLICY_SELECTOR}, {0}};
static const struct doc_word actions[] = {{"Allow", POLICY_ALLOW}, {"Deny", POLICY_DENY}, {0}};

static const struct doc_field fields[] = {
	{"name", local_text, AT(name), .required = true},
	{"namespace", local_text, AT(ns), .required = true},
	{"scope", local_word, AT(scope), scopes, .required = true},
	{"action", local_word, AT(action), actions, .required = true},
	{"rules", rules, AT(rules), .required = true},
	{"dryRun", local_bool, AT(dry_run)},
	{0},
};

void local_policy(struct doc *d, struct local_state *s)
{
	struct policy **slot = local_list_add(d, &s->policies);
	struct local_part p = {.state = s};
	size_t line = doc_line(d);

	if (!slot)
		return;
	*slot = p.object = policy_new(&p.arena);
	if (p.object)
		doc_object(d, "policy", fields, &p);
	else
		doc_no_memory(d);
	if (!d->error)
		local_unique_policy(d, s, line);
}
