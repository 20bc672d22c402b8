// SPDX-License-Identifier: Apache-2.0
/* Policies from istiod. One that is not understood to the last field fails closed: it is kept, without rules, as one that
 * denies everything (DENY) or allows nothing (ALLOW), and istiod is told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/xds_parts.h"

#define ENUM(name) ISTIO__SECURITY__##name

/* A field that we do not know may be what makes a match narrow. */
static bool understood(struct xds_part *p, const ProtobufCMessage *m, const char *what)
{
	if (m->n_unknown_fields)
		xds_fail(p, "%s: unknown field %u", what, m->unknown_fields[0].tag);
	return !p->error;
}

static const char *whole_text(struct xds_part *p, const char *what, const ProtobufCBinaryData *b)
{
	const char *s;

	if (b->len && memchr(b->data, 0, b->len))
		xds_fail(p, "%s: a text with a NUL", what);
	s = p->error ? "" : arena_str(p->arena, (const char *)b->data, b->len);
	if (!s)
		xds_no_memory(p);
	return s ? s : "";
}

/* --- matches: one reader for each kind of list in POLICY_MATCH_LISTS ------------------------------------ */

static void networks(struct xds_part *p, const char *what, const Istio__Security__Address *m, struct prefix *out)
{
	unsigned full = m->address.len == 4 ? 32 : 128;

	understood(p, &m->base, what);
	out->ip = xds_addr(p, what, &m->address);
	if (m->length > full)
		xds_fail(p, "%s: a prefix of %u bits, %u at most", what, m->length, full);
	out->len = (uint8_t)m->length;
}

static void ports(struct xds_part *p, const char *what, uint32_t port, uint16_t *out)
{
	*out = xds_port(p, what, port);
}

static void accounts(struct xds_part *p, const char *what, const Istio__Security__ServiceAccountMatch *m,
		     struct account_match *out)
{
	understood(p, &m->base, what);
	out->ns = whole_text(p, what, &m->namespace_);
	out->sa = whole_text(p, what, &m->service_account);
}

static void strings(struct xds_part *p, const char *what, const Istio__Security__StringMatch *m,
		    struct string_match *out)
{
	out->text = "";
	if (!understood(p, &m->base, what))
		return;
	switch (m->match_type_case) {
	case ENUM(STRING_MATCH__MATCH_TYPE_EXACT):
		out->kind = MATCH_EXACT;
		out->text = whole_text(p, what, &m->exact);
		break;
	case ENUM(STRING_MATCH__MATCH_TYPE_PREFIX):
		out->kind = MATCH_PREFIX;
		out->text = whole_text(p, what, &m->prefix);
		break;
	case ENUM(STRING_MATCH__MATCH_TYPE_SUFFIX):
		out->kind = MATCH_SUFFIX;
		out->text = whole_text(p, what, &m->suffix);
		break;
	case ENUM(STRING_MATCH__MATCH_TYPE_PRESENCE):
		out->kind = MATCH_PRESENCE;
		break;
	default:
		xds_fail(p, "%s: a text matcher without a kind", what);
	}
}

/* The lists have the same names in the protocol. */
static void match(struct xds_part *p, const Istio__Security__Match *m, struct policy_match *out)
{
	understood(p, &m->base, "match");
#define READ_LIST(kind, list, key)                                                \
	out->list = xds_array(p, m->n_##list, sizeof *out->list, &out->n_##list); \
	for (unsigned i = 0; i < out->n_##list; i++)                              \
		kind(p, key, m->list[i], &out->list[i]);
	POLICY_MATCH_LISTS(READ_LIST)
#undef READ_LIST
}

/* --- rules ---------------------------------------------------------------------------------------------- */

static void clause(struct xds_part *p, const Istio__Security__Clause *m, struct policy_clause *out)
{
	understood(p, &m->base, "clause");
	out->matches = xds_array(p, m->n_matches, sizeof *out->matches, &out->n_matches);
	for (unsigned i = 0; i < out->n_matches; i++)
		match(p, m->matches[i], &out->matches[i]);
}

static void rule(struct xds_part *p, const Istio__Security__Rule *m, struct policy_rule *out)
{
	understood(p, &m->base, "rule");
	out->clauses = xds_array(p, m->n_clauses, sizeof *out->clauses, &out->n_clauses);
	for (unsigned i = 0; i < out->n_clauses; i++)
		clause(p, m->clauses[i], &out->clauses[i]);
}

static void rules(struct xds_part *p, const Istio__Security__Authorization *m, struct policy *out)
{
	out->rules = xds_array(p, m->n_rules, sizeof *out->rules, &out->n_rules);
	for (unsigned i = 0; i < out->n_rules; i++)
		rule(p, m->rules[i], &out->rules[i]);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static void kinds(struct xds_part *p, const Istio__Security__Authorization *m, struct policy *out)
{
	static const enum policy_scope scopes[] = {POLICY_GLOBAL, POLICY_NAMESPACE, POLICY_SELECTOR};

	out->scope = POLICY_NAMESPACE;
	if ((unsigned)m->scope < sizeof scopes / sizeof *scopes)
		out->scope = scopes[m->scope];
	else
		xds_fail(p, "unknown scope %d", m->scope);
	out->action = m->action == ENUM(ACTION__ALLOW) ? POLICY_ALLOW : POLICY_DENY;
	if (m->action != ENUM(ACTION__ALLOW) && m->action != ENUM(ACTION__DENY))
		xds_fail(p, "unknown action %d", m->action);
	out->dry_run = m->dry_run;
}

static void close_policy(struct policy *p)
{
	p->unparseable = true;
	p->rules = NULL;
	p->n_rules = 0;
}

int xds_policy(const Istio__Security__Authorization *m, struct policy **out, char why[XDS_REASON_MAX])
{
	struct xds_part p = {.error = 0};
	struct policy *made = policy_new(&p.arena);

	if (made) {
		made->name = xds_text(&p, m->name);
		made->ns = xds_text(&p, m->namespace_);
		kinds(&p, m, made);
		rules(&p, m, made);
	} else {
		xds_no_memory(&p);
	}
	if (p.error)
		snprintf(why, XDS_REASON_MAX, "%s", p.why);
	if (p.error == -ENOMEM) {
		policy_unref(made);
		return p.error;
	}
	if (p.error)
		close_policy(made);
	*out = made;
	return p.error;
}

int xds_policy_closed(const char *name, enum policy_scope scope, struct policy **out)
{
	struct xds_part p = {.error = 0};
	struct policy *made = policy_new(&p.arena);

	if (!made)
		return -ENOMEM;
	xds_split(&p, name, &made->ns, &made->name);
	made->scope = scope;
	made->action = POLICY_DENY;
	close_policy(made);
	if (!p.error)
		*out = made;
	else
		policy_unref(made);
	return p.error;
}
