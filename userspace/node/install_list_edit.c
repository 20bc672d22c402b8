/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the editing of lists. jansson says what a text means, base/span.h where its parts stand; whatever is made is read
 * again and compared with what it is to mean, so that a text that the two understand differently is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"
#include "cni_abi.h"
#include "node/install_list_internal.h"

static const char plain_name[] = "k8s-pod-network", plain_version[] = "0.3.1";
static const char unclear[] = "it cannot be edited: are keys written twice, or with escapes?";
static const char *const versions[] = {CNI_VERSIONS};
enum { VERSIONS = sizeof versions / sizeof *versions };

static bool is_spoken(const char *version)
{
	for (unsigned i = 0; i < VERSIONS; i++)
		if (!strcmp(version, versions[i]))
			return true;
	return false;
}

/* --- the text ------------------------------------------------------------------------------------------- */

static void put(FILE *f, const char *from, const char *to)
{
	fwrite(from, 1, (size_t)(to - from), f);
}

/* Writes the list without ours, and with `entry` behind the rest when it is not NULL: in the place of one of ours that is
 * there, or set apart as the last one is. What separates a plugin from the one before goes with it. */
static int list_write(FILE *f, const struct install_list *l, const char *entry)
{
	const struct span all = span_trim(l->text, l->len);
	const json_t *plugins = json_object_get(l->root, "plugins");
	const char *before, *lead = NULL, *lead_end = NULL;
	struct span array, e = {NULL, 0};
	unsigned kept = 0;

	if (!span_member(&all, "plugins", &array) || !array.len)
		return -EBADMSG;
	put(f, l->text, array.at + 1);
	before = array.at + 1;
	for (size_t i = 0; span_next(&array, &e); i++, before = e.at + e.len) {
		const char *comma = i ? memchr(before, ',', (size_t)(e.at - before)) : NULL;

		if (!i)
			put(f, before, e.at);
		if (install_list_is_ours(json_array_get(plugins, i)) && entry && kept && i + 1 == l->n) {
			put(f, before, e.at);
			fputs(entry, f);
			entry = NULL;
		}
		if (install_list_is_ours(json_array_get(plugins, i)))
			continue;
		put(f, kept++ && i ? before : e.at, e.at + e.len);
		lead = comma ? comma + 1 : before;
		lead_end = e.at;
	}
	if (!kept)
		return -EBADMSG;
	if (entry) {
		fputc(',', f);
		put(f, lead, lead_end);
		fputs(entry, f);
	}
	put(f, before, l->text + l->len);
	return 0;
}

/* The file as it was, in a list of its name; runtimes put the list's name and version in the place of its own. */
static int wrap_write(FILE *f, const struct install_list *l, const char *entry)
{
	const char *name = install_list_text(l->root, "name"), *version = install_list_text(l->root, "cniVersion");
	json_t *quoted = json_string(name[0] ? name : plain_name);
	char *text = quoted ? json_dumps(quoted, JSON_ENCODE_ANY) : NULL;

	json_decref(quoted);
	if (!text)
		return -ENOMEM;
	fprintf(f, "{\n  \"cniVersion\": \"%s\",\n  \"name\": %s,\n  \"plugins\": [",
		is_spoken(version) ? version : plain_version, text);
	free(text);
	put(f, l->text, l->text + l->len);
	fprintf(f, ", %s]\n}\n", entry);
	return 0;
}

/* --- what it is to mean --------------------------------------------------------------------------------- */

static json_t *plugins_without(const struct install_list *l)
{
	const json_t *plugins = json_object_get(l->root, "plugins");
	json_t *list = json_array();

	for (size_t i = 0; i < json_array_size(plugins); i++)
		if (!install_list_is_ours(json_array_get(plugins, i)))
			json_array_append(list, json_array_get(plugins, i));
	return list;
}

static json_t *list_meaning(const struct install_list *l, const char *entry)
{
	json_t *o = json_copy(l->root), *list = plugins_without(l);

	if (entry)
		json_array_append_new(list, json_loads(entry, INSTALL_HOW_READ, NULL));
	json_object_set_new(o, "plugins", list);
	return o;
}

static json_t *plugins_of(json_t *o)
{
	return json_incref(json_object_get(o, "plugins"));
}

static json_t *wrap_meaning(const struct install_list *l, const char *entry)
{
	return json_pack("[Oo]", l->root, json_loads(entry, INSTALL_HOW_READ, NULL));
}

/* Takes `text` and `want` over. */
static int compare(char *text, size_t len, json_t *want, bool plugins, char **out, size_t *out_len, char *why)
{
	json_t *is = json_loadb(text, len, INSTALL_HOW_READ, NULL), *part = plugins ? plugins_of(is) : json_incref(is);
	bool same = part && want && json_equal(part, want);

	json_decref(part);
	json_decref(is);
	json_decref(want);
	if (same) {
		*out = text;
		*out_len = len;
		return 0;
	}
	free(text);
	return install_list_bad(why, "%s", unclear);
}

static int version_check(const struct install_list *l, char *why)
{
	const char *version = install_list_text(l->root, "cniVersion");

	if (is_spoken(version))
		return 0;
	return install_list_bad(why,
				"its cniVersion is \"%.30s\", and culvert-cni speaks %s to %s: pods would not start",
				version, versions[0], versions[VERSIONS - 1]);
}

/* --- with and without us -------------------------------------------------------------------------------- */

static char *entry_text(const struct install_list *l, const json_t *entry, const char *wrapped)
{
	const char *was = wrapped ? wrapped : l->single ? "" : install_list_text(l->own, INSTALL_WRAPPED);
	json_t *o = json_copy((json_t *)entry);
	char *text;

	if (was[0])
		json_object_set_new(o, INSTALL_WRAPPED, json_string(was));
	text = json_dumps(o, 0);
	json_decref(o);
	return text;
}

int install_list_with(const struct install_list *l, const json_t *entry, const char *wrapped, char **out, size_t *len,
		      char why[POD_WHY_MAX])
{
	char *text = entry_text(l, entry, wrapped), *made = NULL;
	size_t made_len = 0;
	FILE *f = text ? open_memstream(&made, &made_len) : NULL;
	int e = f ? 0 : -ENOMEM;

	if (!e && !l->single)
		e = version_check(l, why);
	else if (!e && l->ours)
		e = install_list_bad(why, "it is our own");
	if (!e) {
		why[0] = '\0';
		e = l->single ? wrap_write(f, l, text) : list_write(f, l, text);
	}
	if (f && fclose(f) != 0 && !e)
		e = -ENOMEM;
	if (!e)
		e = compare(made, made_len, l->single ? wrap_meaning(l, text) : list_meaning(l, text), l->single, out,
			    len, why);
	else {
		free(made);
		if (e == -ENOMEM)
			snprintf(why, POD_WHY_MAX, "out of memory");
		else if (!why[0])
			install_list_bad(why, "%s",
					 l->ours < l->n ? unclear : "it cannot be edited: it has no plugin but ours");
	}
	free(text);
	return e;
}

/* The file that this list was made of, when it is one that install_list_with() makes of it. */
static const char *wrapped_name(const struct install_list *l, const char *name)
{
	const char *was = install_list_text(l->own, INSTALL_WRAPPED);
	char list[NAME_MAX + 1];

	if (l->n - l->ours != 1 || !was[0] || strchr(was, '/') || strlen(was) > NAME_MAX || !install_name_counts(was) ||
	    install_name_is_list(was) || install_name_of_list(list, was) < 0 || strcmp(list, name) != 0)
		return NULL;
	return was;
}

/* The bytes between the bracket and the comma before ours: the file that was wrapped. */
static int unwrap(const struct install_list *l, char **out, size_t *len, char *why)
{
	const struct span all = span_trim(l->text, l->len);
	struct span array, e = {NULL, 0};
	const char *end, *comma;
	char *text;

	if (install_list_is_ours(json_array_get(json_object_get(l->root, "plugins"), 0)) ||
	    !span_member(&all, "plugins", &array) || !span_next(&array, &e))
		return install_list_bad(why, "%s", unclear);
	end = array.at + array.len;
	comma = memchr(e.at + e.len, ',', (size_t)(end - e.at - e.len));
	text = comma ? strndup(array.at + 1, (size_t)(comma - array.at - 1)) : NULL;
	if (!text)
		return install_list_bad(why, "%s", unclear);
	return compare(text, strlen(text), json_incref(json_array_get(json_object_get(l->root, "plugins"), 0)), false,
		       out, len, why);
}

int install_list_without(const struct install_list *l, char name[NAME_MAX + 1], char **out, size_t *len,
			 char why[POD_WHY_MAX])
{
	const char *was;
	char *made = NULL;
	size_t made_len = 0;
	FILE *f;
	int e;

	if (!l->ours)
		return INSTALL_REST_SAME;
	if (l->ours == l->n || install_list_text(l->own, INSTALL_COPIED)[0])
		return INSTALL_REST_NONE;
	was = wrapped_name(l, name);
	if (was && unwrap(l, out, len, why) == 0) {
		snprintf(name, NAME_MAX + 1, "%s", was);
		return INSTALL_REST_SINGLE;
	}
	f = open_memstream(&made, &made_len);
	e = f ? list_write(f, l, NULL) : -ENOMEM;
	if (f && fclose(f) != 0 && !e)
		e = -ENOMEM;
	if (e) {
		free(made);
		install_list_bad(why, "%s", e == -ENOMEM ? "out of memory" : unclear);
		return e;
	}
	e = compare(made, made_len, list_meaning(l, NULL), false, out, len, why);
	return e ? e : INSTALL_REST_LIST;
}
