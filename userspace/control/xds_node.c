// SPDX-License-Identifier: Apache-2.0
/* Encodes the Node with its metadata. */
#include "control/xds_node.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "control/xds_scratch.h"
#include "proto/xds.pb-c.h"

#define VALUE(kind) ENVOY__SERVICE__DISCOVERY__V3__VALUE__KIND_##kind

typedef Envoy__Service__Discovery__V3__Node node;
typedef Envoy__Service__Discovery__V3__Struct object;
typedef Envoy__Service__Discovery__V3__Entry entry;
typedef Envoy__Service__Discovery__V3__Value value;
typedef Envoy__Service__Discovery__V3__ListValue list;

enum { MEMORY_MAX = 16 << 20 };

static void *take(struct xds_scratch *s, size_t size)
{
	return s->allocator.alloc(s->allocator.allocator_data, size ? size : 1);
}

/* An object with room for `n` entries that are initialised; NULL: no memory. */
static object *object_new(struct xds_scratch *s, size_t n)
{
	object *o = take(s, sizeof *o);
	entry *all = take(s, n * sizeof *all);
	value *values = take(s, n * sizeof *values);

	if (!o || !all || !values)
		return NULL;
	envoy__service__discovery__v3__struct__init(o);
	o->fields = take(s, n * sizeof *o->fields);
	for (size_t i = 0; o->fields && i < n; i++) {
		envoy__service__discovery__v3__entry__init(&all[i]);
		envoy__service__discovery__v3__value__init(&values[i]);
		all[i].value = &values[i];
		o->fields[i] = &all[i];
	}
	o->n_fields = n;
	return o->fields ? o : NULL;
}

/* --- JSON ----------------------------------------------------------------------------------------------- */

static int from_json(struct xds_scratch *s, json_t *j, unsigned depth, value *out);

static int from_object(struct xds_scratch *s, json_t *j, unsigned depth, value *out)
{
	object *o = object_new(s, json_object_size(j));
	const char *key;
	json_t *v;
	size_t i = 0;
	int e = o ? 0 : -ENOMEM;

	json_object_foreach(j, key, v)
	{
		if (e)
			break;
		o->fields[i]->key = (char *)key;
		e = from_json(s, v, depth + 1, o->fields[i++]->value);
	}
	out->kind_case = VALUE(STRUCT_VALUE);
	out->struct_value = o;
	return e;
}

static int from_array(struct xds_scratch *s, json_t *j, unsigned depth, value *out)
{
	size_t n = json_array_size(j);
	list *l = take(s, sizeof *l);
	value *all = take(s, n * sizeof *all), **at = take(s, n * sizeof *at);
	int e = l && all && at ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && !e; i++) {
		envoy__service__discovery__v3__value__init(&all[i]);
		at[i] = &all[i];
		e = from_json(s, json_array_get(j, i), depth + 1, at[i]);
	}
	if (e)
		return e;
	envoy__service__discovery__v3__list_value__init(l);
	l->n_values = n;
	l->values = at;
	out->kind_case = VALUE(LIST_VALUE);
	out->list_value = l;
	return 0;
}

static int from_json(struct xds_scratch *s, json_t *j, unsigned depth, value *out)
{
	if (depth > XDS_JSON_DEPTH_MAX)
		return -EINVAL;
	switch (json_typeof(j)) {
	case JSON_OBJECT:
		return from_object(s, j, depth, out);
	case JSON_ARRAY:
		return from_array(s, j, depth, out);
	case JSON_STRING:
		out->kind_case = VALUE(STRING_VALUE);
		out->string_value = (char *)json_string_value(j);
		return 0;
	case JSON_INTEGER:
	case JSON_REAL:
		out->kind_case = VALUE(NUMBER_VALUE);
		out->number_value = json_number_value(j);
		return 0;
	case JSON_TRUE:
	case JSON_FALSE:
		out->kind_case = VALUE(BOOL_VALUE);
		out->bool_value = json_is_true(j);
		return 0;
	default:
		out->kind_case = VALUE(NULL_VALUE);
		return 0;
	}
}

/* --- the whole ------------------------------------------------------------------------------------------ */

/* Texts stay those of the JSON values, which the caller releases. */
static int fill(struct xds_scratch *s, const struct xds_metadata *m, entry *to, json_t **parsed)
{
	to->key = (char *)m->key;
	if (!m->json) {
		to->value->kind_case = VALUE(STRING_VALUE);
		to->value->string_value = (char *)m->text;
		return 0;
	}
	*parsed = json_loads(m->text, JSON_DECODE_ANY, NULL);
	return *parsed ? from_json(s, *parsed, 0, to->value) : -EINVAL;
}

static int pack(const node *n, uint8_t **out, size_t *len)
{
	size_t size = envoy__service__discovery__v3__node__get_packed_size(n);
	uint8_t *p = malloc(size ? size : 1);

	if (!p)
		return -ENOMEM;
	*len = envoy__service__discovery__v3__node__pack(n, p);
	*out = p;
	return 0;
}

int xds_node_encode(const char *id, const struct xds_metadata *m, unsigned n, uint8_t **out, size_t *len, unsigned *bad)
{
	json_t **parsed = calloc(n ? n : 1, sizeof *parsed);
	struct xds_scratch s;
	node whole;
	int e = -ENOMEM;

	xds_scratch_init(&s, MEMORY_MAX);
	envoy__service__discovery__v3__node__init(&whole);
	whole.id = (char *)id;
	whole.metadata = parsed ? object_new(&s, n) : NULL;
	if (whole.metadata)
		e = 0;
	for (unsigned i = 0; i < n && !e; i++) {
		e = fill(&s, &m[i], whole.metadata->fields[i], &parsed[i]);
		*bad = i;
	}
	if (!e)
		e = pack(&whole, out, len);
	for (unsigned i = 0; parsed && i < n; i++)
		json_decref(parsed[i]);
	free(parsed);
	xds_scratch_free(&s);
	return e;
}
