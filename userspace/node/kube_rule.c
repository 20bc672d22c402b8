/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the enablement selectors. They are checked once and kept as lists of requirements; matchLabels are requirements
 * with one value. What they say of an object is worked out when the object is read, so its labels need not be kept. */
#include "node/kube_rule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/values.h"
#include "node/kube_yaml.h"

static const char istio_default[] =
	"[{podSelector: {matchLabels: {istio.io/dataplane-mode: ambient}}},"
	" {podSelector: {matchExpressions: [{key: istio.io/dataplane-mode, operator: NotIn, values: [none]}]},"
	"  namespaceSelector: {matchLabels: {istio.io/dataplane-mode: ambient}}}]";

enum operator{ IN, NOT_IN, EXISTS, NOT_EXISTS, OPERATORS };
static const char *const operator_names[OPERATORS] = {"In", "NotIn", "Exists", "DoesNotExist"};

struct requirement {
	enum operator op;
	const char *key;
	const json_t *values; /* texts; NULL where one value is all */
	const char *value;
};

struct selector { /* every requirement must hold; none: everything matches */
	unsigned n;
	struct requirement *requirement;
};

struct kube_rule {
	json_t *document; /* owns the texts */
	unsigned n;
	struct {
		struct selector pod, ns;
	} pair[KUBE_SELECTORS_MAX];
	char *excluded; /* namespaces, with commas */
	char *system_namespace;
};

/* --- reading -------------------------------------------------------------------------------------------- */

static int __attribute__((format(printf, 2, 3))) wrong(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, POD_WHY_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int requirement_add(struct selector *s, const struct requirement *r, char *why)
{
	struct requirement *more;

	if (s->n == KUBE_REQUIREMENTS_MAX)
		return wrong(why, "more than %d requirements in one selector", KUBE_REQUIREMENTS_MAX);
	more = reallocarray(s->requirement, s->n + 1, sizeof *more);
	if (!more)
		return wrong(why, "out of memory");
	s->requirement = more;
	more[s->n++] = *r;
	return 0;
}

static int labels_read(struct selector *s, json_t *labels, char *why)
{
	const char *key;
	json_t *value;
	int e = 0;

	if (!json_is_object(labels))
		return wrong(why, "matchLabels must be a map of texts");
	json_object_foreach(labels, key, value)
	{
		const struct requirement r = {.op = IN, .key = key, .value = json_string_value(value)};

		if (!r.value)
			return wrong(why, "matchLabels: the value of \"%.128s\" must be a text", key);
		e = requirement_add(s, &r, why);
		if (e)
			break;
	}
	return e;
}

static int expression_read(struct selector *s, json_t *o, char *why)
{
	const char *op = json_string_value(json_object_get(o, "operator"));
	struct requirement r = {.key = json_string_value(json_object_get(o, "key"))};
	json_t *values = json_object_get(o, "values");

	while (op && r.op < OPERATORS && strcmp(op, operator_names[r.op]) != 0)
		r.op++;
	if (!r.key || !r.key[0] || !op || r.op == OPERATORS)
		return wrong(why, "matchExpressions: want key, and operator In, NotIn, Exists or DoesNotExist");
	if ((r.op == IN || r.op == NOT_IN) != (json_array_size(values) > 0))
		return wrong(why, "matchExpressions: operator %s of \"%.128s\" %s values", op, r.key,
			     r.op == IN || r.op == NOT_IN ? "needs" : "takes no");
	for (size_t i = 0; i < json_array_size(values); i++)
		if (!json_is_string(json_array_get(values, i)))
			return wrong(why, "matchExpressions: values of \"%.128s\" must be texts", r.key);
	r.values = values;
	return requirement_add(s, &r, why);
}

static int selector_read(struct selector *s, json_t *o, const char *name, char *why)
{
	const char *key;
	json_t *value;
	int e = 0;

	if (o && !json_is_null(o) && !json_is_object(o))
		return wrong(why, "%s must be a map", name);
	json_object_foreach(o, key, value)
	{
		if (json_is_null(value))
			continue;
		if (!strcmp(key, "matchLabels"))
			e = labels_read(s, value, why);
		else if (strcmp(key, "matchExpressions") != 0)
			e = wrong(why, "%s: \"%.128s\" is not known", name, key);
		else if (!json_is_array(value))
			e = wrong(why, "%s: matchExpressions must be a list", name);
		else
			for (size_t i = 0; i < json_array_size(value) && !e; i++)
				e = expression_read(s, json_array_get(value, i), why);
		if (e)
			break;
	}
	return e;
}

static int selectors_read(struct kube_rule *r, const char *text, char *why)
{
	char line[POD_WHY_MAX - 64];
	int e = 0;

	r->document = kube_yaml_read(text, strlen(text), why);
	if (!r->document)
		return -EINVAL;
	if (!json_is_array(r->document) && !json_is_null(r->document))
		return wrong(why, "want a list of podSelector and namespaceSelector");
	if (json_array_size(r->document) > KUBE_SELECTORS_MAX)
		return wrong(why, "more than %d selectors", KUBE_SELECTORS_MAX);
	for (; r->n < json_array_size(r->document) && !e; r->n++) {
		json_t *o = json_array_get(r->document, r->n);
		const char *key;
		json_t *value;

		if (!json_is_object(o))
			e = wrong(why, "want podSelector and namespaceSelector");
		json_object_foreach(o, key,
				    value) if (strcmp(key, "podSelector") != 0 && strcmp(key, "namespaceSelector") != 0)
			e = wrong(why, "\"%.128s\" is not known", key);
		if (!e)
			e = selector_read(&r->pair[r->n].pod, json_object_get(o, "podSelector"), "podSelector", why);
		if (!e)
			e = selector_read(&r->pair[r->n].ns, json_object_get(o, "namespaceSelector"),
					  "namespaceSelector", why);
	}
	if (e) {
		snprintf(line, sizeof line, "%s", why);
		wrong(why, "selector %u: %s", r->n, line);
	}
	return e;
}

int kube_rule_new(struct kube_rule **out, const struct kube_rule_settings *s, char why[POD_WHY_MAX])
{
	struct kube_rule *r = calloc(1, sizeof *r);
	int e = r ? 0 : wrong(why, "out of memory");

	if (!e && (!(r->system_namespace = strdup(s->system_namespace ? s->system_namespace : "")) ||
		   !(r->excluded = strdup(s->excluded ? s->excluded : ""))))
		e = wrong(why, "out of memory");
	if (!e)
		e = selectors_read(r, s->selectors ? s->selectors : istio_default, why);
	if (!e) {
		*out = r;
		return 0;
	}
	kube_rule_free(r);
	return e;
}

void kube_rule_free(struct kube_rule *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < KUBE_SELECTORS_MAX; i++) {
		free(r->pair[i].pod.requirement);
		free(r->pair[i].ns.requirement);
	}
	json_decref(r->document);
	free(r->excluded);
	free(r->system_namespace);
	free(r);
}

/* --- asking --------------------------------------------------------------------------------------------- */

static bool listed(const struct requirement *r, const char *value)
{
	if (!r->values)
		return !strcmp(r->value, value);
	for (size_t i = 0; i < json_array_size(r->values); i++)
		if (!strcmp(json_string_value(json_array_get(r->values, i)), value))
			return true;
	return false;
}

static bool requirement_holds(const struct requirement *r, const json_t *labels)
{
	const char *value = json_string_value(json_object_get(labels, r->key));

	switch (r->op) {
	case IN:
		return value && listed(r, value);
	case NOT_IN:
		return !value || !listed(r, value);
	case EXISTS:
		return value != NULL;
	default:
		return value == NULL;
	}
}

static bool selector_holds(const struct selector *s, const json_t *labels)
{
	for (unsigned i = 0; i < s->n; i++)
		if (!requirement_holds(&s->requirement[i], labels))
			return false;
	return true;
}

uint32_t kube_rule_pod_bits(const struct kube_rule *r, const json_t *labels)
{
	uint32_t bits = 0;

	for (unsigned i = 0; i < r->n; i++)
		bits |= (uint32_t)selector_holds(&r->pair[i].pod, labels) << i;
	return bits;
}

uint32_t kube_rule_namespace_bits(const struct kube_rule *r, const json_t *labels)
{
	uint32_t bits = 0;

	for (unsigned i = 0; i < r->n; i++)
		bits |= (uint32_t)selector_holds(&r->pair[i].ns, labels) << i;
	return bits;
}

enum kube_reason kube_rule_decide(const struct kube_rule *r, const struct kube_pod_facts *pod, uint32_t namespace_bits)
{
	if (pod->host_network)
		return KUBE_HOST_NETWORK;
	if (pod->sidecar)
		return KUBE_SIDECAR;
	if (value_lists(r->excluded, pod->identity.ns))
		return KUBE_EXCLUDED;
	if (pod->app_ztunnel && !strcmp(pod->identity.ns, r->system_namespace))
		return KUBE_TUNNEL_POD;
	return pod->selected & namespace_bits ? KUBE_SELECTED : KUBE_NOT_SELECTED;
}

const char *kube_reason_text(enum kube_reason reason)
{
	static const char *const texts[] = {
		[KUBE_HOST_NETWORK] = "it uses the node's network",
		[KUBE_SIDECAR] = "it has a sidecar",
		[KUBE_EXCLUDED] = "its namespace is excluded",
		[KUBE_TUNNEL_POD] = "it is a tunnel",
		[KUBE_NOT_SELECTED] = "no selector matches it and its namespace",
		[KUBE_SELECTED] = "it is selected",
	};

	return texts[reason];
}
