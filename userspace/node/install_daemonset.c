/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of DaemonSets: is it being deleted, and its required nodeAffinity. What cannot be understood does not
 * match nothing: the installation stays. */
#include "node/install_daemonset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum install_future install_future(int status, const json_t *daemonset)
{
	const json_t *deleted = json_object_get(json_object_get(daemonset, "metadata"), "deletionTimestamp");

	switch (status) {
	case 200:
		if (!json_is_object(json_object_get(daemonset, "metadata")))
			return INSTALL_UNCLEAR;
		return deleted && !json_is_null(deleted) ? INSTALL_GOES : INSTALL_BY_NODE;
	case 404:
		return INSTALL_GOES;
	default: /* an account or role that is refused may have gone with the rest, or be in trouble only */
		return INSTALL_UNCLEAR;
	}
}

static bool listed(const json_t *values, const char *value)
{
	for (size_t i = 0; i < json_array_size(values); i++) {
		const char *text = json_string_value(json_array_get(values, i));

		if (text && !strcmp(text, value))
			return true;
	}
	return false;
}

static int number(const char *text, long long *out)
{
	char *end;

	errno = 0;
	*out = text ? strtoll(text, &end, 10) : 0;
	return text && *text && !*end && !errno ? 0 : -EINVAL;
}

static bool is_beyond(const char *value, const json_t *values, bool greater)
{
	long long is, than;

	if (number(value, &is) < 0 || number(json_string_value(json_array_get(values, 0)), &than) < 0)
		return false;
	return greater ? is > than : is < than;
}

static bool requirement_holds(const json_t *r, const char *value)
{
	const char *op = json_string_value(json_object_get(r, "operator"));
	const json_t *values = json_object_get(r, "values");

	if (!op)
		return true;
	if (!strcmp(op, "In"))
		return value && listed(values, value);
	if (!strcmp(op, "NotIn"))
		return !value || !listed(values, value);
	if (!strcmp(op, "Exists"))
		return value != NULL;
	if (!strcmp(op, "DoesNotExist"))
		return !value;
	if (!strcmp(op, "Gt") || !strcmp(op, "Lt"))
		return value && is_beyond(value, values, op[0] == 'G');
	return true;
}

static const char *value_of(const json_t *from, const json_t *r)
{
	const char *key = json_string_value(json_object_get(r, "key"));

	return key ? json_string_value(json_object_get(from, key)) : NULL;
}

/* All of its requirements must hold; a term without any matches no node. */
static bool term_holds(const json_t *term, const json_t *labels, const json_t *name)
{
	const json_t *by_label = json_object_get(term, "matchExpressions");
	const json_t *by_field = json_object_get(term, "matchFields");

	for (size_t i = 0; i < json_array_size(by_label); i++)
		if (!requirement_holds(json_array_get(by_label, i), value_of(labels, json_array_get(by_label, i))))
			return false;
	for (size_t i = 0; i < json_array_size(by_field); i++)
		if (!requirement_holds(json_array_get(by_field, i), json_string_value(name)))
			return false; /* metadata.name is the only field that there is */
	return json_array_size(by_label) || json_array_size(by_field);
}

bool install_node_wanted(const json_t *daemonset, const json_t *node)
{
	static const char *const path[] = {"spec",
					   "template",
					   "spec",
					   "affinity",
					   "nodeAffinity",
					   "requiredDuringSchedulingIgnoredDuringExecution",
					   "nodeSelectorTerms"};
	const json_t *meta = json_object_get(node, "metadata"), *terms = daemonset;

	for (unsigned i = 0; i < sizeof path / sizeof *path; i++)
		terms = json_object_get(terms, path[i]);
	if (!json_is_array(terms) || !json_array_size(terms))
		return true;
	for (size_t i = 0; i < json_array_size(terms); i++)
		if (term_holds(json_array_get(terms, i), json_object_get(meta, "labels"),
			       json_object_get(meta, "name")))
			return true;
	return false;
}
