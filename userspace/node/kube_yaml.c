/* SPDX-License-Identifier: Apache-2.0 */
/* Turns libyaml's events into JSON values, by recursion that KUBE_YAML_DEPTH bounds. */
#include "node/kube_yaml.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	unsigned depth;
	char *why; /* "" until something is wrong */
};

static json_t *node_read(struct reader *r, yaml_event_t *at);

static json_t *fail(struct reader *r, size_t line, const char *what)
{
	if (!r->why[0])
		snprintf(r->why, POD_WHY_MAX, "line %zu: %s", line + 1, what);
	return NULL;
}

static bool next(struct reader *r, yaml_event_t *out)
{
	if (yaml_parser_parse(&r->parser, out))
		return true;
	fail(r, r->parser.problem_mark.line, r->parser.problem ? r->parser.problem : "out of memory");
	return false;
}

static json_t *scalar_read(struct reader *r, const yaml_event_t *at)
{
	const char *text = (const char *)at->data.scalar.value;
	size_t len = at->data.scalar.length;
	json_t *out;

	if (at->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && (!len || !strcmp(text, "~") || !strcmp(text, "null")))
		return json_null();
	out = json_stringn(text, len);
	return out ? out : fail(r, at->start_mark.line, "a text that is not UTF-8");
}

/* The value for `key`, from the next event on. */
static bool member_read(struct reader *r, json_t *map, const yaml_event_t *key)
{
	yaml_event_t at;
	json_t *value;
	bool ok;

	if (key->type != YAML_SCALAR_EVENT || strlen((char *)key->data.scalar.value) != key->data.scalar.length)
		return fail(r, key->start_mark.line, "a key must be a text") != NULL;
	if (json_object_get(map, (char *)key->data.scalar.value))
		return fail(r, key->start_mark.line, "a key that is there twice") != NULL;
	if (!next(r, &at))
		return false;
	value = node_read(r, &at);
	ok = value && json_object_set_new(map, (char *)key->data.scalar.value, value) == 0;
	if (value && !ok)
		fail(r, at.start_mark.line, "a key that is not UTF-8");
	yaml_event_delete(&at);
	return ok;
}

static bool item_read(struct reader *r, json_t *list, yaml_event_t *at)
{
	json_t *value = node_read(r, at);

	return value && json_array_append_new(list, value) == 0;
}

static json_t *group_read(struct reader *r, bool map)
{
	json_t *out = map ? json_object() : json_array();
	bool ok = out != NULL, end = false;

	while (ok && !end) {
		yaml_event_t at;

		ok = next(r, &at);
		if (!ok)
			break;
		end = at.type == YAML_MAPPING_END_EVENT || at.type == YAML_SEQUENCE_END_EVENT;
		if (!end)
			ok = map ? member_read(r, out, &at) : item_read(r, out, &at);
		yaml_event_delete(&at);
	}
	if (ok)
		return out;
	json_decref(out);
	return NULL;
}

static json_t *node_read(struct reader *r, yaml_event_t *at)
{
	json_t *out = NULL;

	switch (at->type) {
	case YAML_SCALAR_EVENT:
		return scalar_read(r, at);
	case YAML_MAPPING_START_EVENT:
	case YAML_SEQUENCE_START_EVENT:
		if (r->depth == KUBE_YAML_DEPTH)
			return fail(r, at->start_mark.line, "nested too deep");
		r->depth++;
		out = group_read(r, at->type == YAML_MAPPING_START_EVENT);
		r->depth--;
		return out;
	case YAML_ALIAS_EVENT:
		return fail(r, at->start_mark.line, "aliases are not taken");
	default:
		return fail(r, at->start_mark.line, "a value was expected");
	}
}

json_t *kube_yaml_read(const char *text, size_t len, char why[POD_WHY_MAX])
{
	struct reader r = {.why = why};
	json_t *out = NULL;
	yaml_event_t at;
	bool more = true;

	why[0] = '\0';
	if (len > KUBE_YAML_BYTES) {
		snprintf(why, POD_WHY_MAX, "longer than %d bytes", KUBE_YAML_BYTES);
		return NULL;
	}
	if (!yaml_parser_initialize(&r.parser)) {
		snprintf(why, POD_WHY_MAX, "out of memory");
		return NULL;
	}
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	while (more && next(&r, &at)) {
		if (at.type == YAML_STREAM_END_EVENT)
			out = json_null();
		else if (at.type != YAML_STREAM_START_EVENT && at.type != YAML_DOCUMENT_START_EVENT)
			out = node_read(&r, &at);
		more = at.type == YAML_STREAM_START_EVENT || at.type == YAML_DOCUMENT_START_EVENT;
		yaml_event_delete(&at);
	}
	yaml_parser_delete(&r.parser);
	if (!out && !why[0])
		snprintf(why, POD_WHY_MAX, "out of memory");
	return out;
}
