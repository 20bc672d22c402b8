/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the editing of lists. jansson says what a text means, base/span.h where its parts stand; whatever is made is read
 * again and compared with what it is to mean, so that a text that the two understand differently is refused. */
#include "node/install_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"
#include "cni_abi.h"

/* Numbers of any size pass: they are never written, only compared. As Go reads JSON, the last of two equal keys counts. */
enum { HOW_READ = JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL };

static const char list_end[] = ".conflist", plain_name[] = "k8s-pod-network", plain_version[] = "0.3.1";
static const char unclear[] = "it cannot be edited: are keys written twice, or with escapes?";
static const char *const versions[] = {CNI_VERSIONS};
enum { VERSIONS = sizeof versions / sizeof *versions };

static int __attribute__((format(printf, 2, 3))) bad(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, POD_WHY_MAX, fmt, ap);
	va_end(ap);
	for (char *p = why; *p; p++) /* the parser quotes what it met */
		*p = (unsigned char)*p < ' ' ? ' ' : *p;
	return -EBADMSG;
}

/* --- names ---------------------------------------------------------------------------------------------- */

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), len = strlen(end);

	return n >= len && !strcmp(name + n - len, end);
}

bool install_name_counts(const char *name)
{
	return ends_in(name, list_end) || ends_in(name, ".conf") || ends_in(name, ".json");
}

int install_name_of_list(char out[NAME_MAX + 1], const char *name)
{
	const char *dot = strrchr(name, '.');
	int stem = dot ? (int)(dot - name) : (int)strlen(name);
	int n = snprintf(out, NAME_MAX + 1, "%.*s%s", stem, name, list_end);

	return n > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static bool is_spoken(const char *version)
{
	for (unsigned i = 0; i < VERSIONS; i++)
		if (!strcmp(version, versions[i]))
			return true;
	return false;
}

static bool is_ours(const json_t *plugin)
{
	return !strcmp(text_of(plugin, "type"), INSTALL_TYPE);
}

static int plugins_count(struct install_list *l, char why[POD_WHY_MAX])
{
	const json_t *plugins = json_object_get(l->root, "plugins");

	l->n = (unsigned)json_array_size(plugins);
	if (!text_of(l->root, "name")[0] || !l->n)
		return bad(why, "a list of plugins needs a name and plugins");
	for (unsigned i = 0; i < l->n; i++) {
		const json_t *p = json_array_get(plugins, i);

		if (!text_of(p, "type")[0])
			return bad(why, "plugin %u of the list has no type", i + 1);
		l->ours += is_ours(p);
		l->own = is_ours(p) ? p : l->own;
	}
	return 0;
}

int install_list_read(struct install_list *out, const char *name, char *text, size_t len, char why[POD_WHY_MAX])
{
	json_error_t at;

	*out = (struct install_list){.text = text, .len = len, .single = !ends_in(name, list_end)};
	out->root = json_loadb(text, len, HOW_READ, &at);
	if (!out->root)
		return bad(why, "not JSON: line %d, column %d: %s", at.line, at.column, at.text);
	if (!json_is_object(out->root))
		return bad(why, "not a JSON object");
	if (!out->single)
		return plugins_count(out, why);
	if (!text_of(out->root, "type")[0])
		return bad(why, "one plugin is expected in a file of this name, and it has no type");
	out->n = 1;
	out->ours = is_ours(out->root);
	out->own = out->ours ? out->root : NULL;
	return 0;
}

void install_list_free(struct install_list *l)
{
	json_decref(l->root);
	free(l->text);
	memset(l, 0, sizeof *l);
}

/* An entry without what only says where its list came from. */
static json_t *bare(const json_t *entry)
{
	json_t *o = json_copy((json_t *)entry);

	json_object_del(o, INSTALL_WRAPPED);
	json_object_del(o, INSTALL_COPIED);
	return o;
}

bool install_list_holds(const struct install_list *l, const json_t *entry)
{
	const json_t *plugins = json_object_get(l->root, "plugins");
	json_t *is, *want;
	char *text;
	bool same;

	if (l->single || l->ours != 1 || l->n < 2 || is_ours(json_array_get(plugins, 0)))
		return false;
	/* Numbers of `entry` are read as those of the file. */
	text = json_dumps(entry, 0);
	want = text ? json_loads(text, HOW_READ, NULL) : NULL;
	free(text);
	is = bare(l->own);
	json_object_del(want, INSTALL_COPIED);
	same = is && want && json_equal(is, want);
	json_decref(is);
	json_decref(want);
	return same;
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
		if (is_ours(json_array_get(plugins, i)) && entry && kept && i + 1 == l->n) {
			put(f, before, e.at);
			fputs(entry, f);
			entry = NULL;
		}
		if (is_ours(json_array_get(plugins, i)))
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
	const char *name = text_of(l->root, "name"), *version = text_of(l->root, "cniVersion");
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
		if (!is_ours(json_array_get(plugins, i)))
			json_array_append(list, json_array_get(plugins, i));
	return list;
}

static json_t *list_meaning(const struct install_list *l, const char *entry)
{
	json_t *o = json_copy(l->root), *list = plugins_without(l);

	if (entry)
		json_array_append_new(list, json_loads(entry, HOW_READ, NULL));
	json_object_set_new(o, "plugins", list);
	return o;
}

static json_t *plugins_of(json_t *o)
{
	return json_incref(json_object_get(o, "plugins"));
}

static json_t *wrap_meaning(const struct install_list *l, const char *entry)
{
	return json_pack("[Oo]", l->root, json_loads(entry, HOW_READ, NULL));
}

/* Takes `text` and `want` over. */
static int compare(char *text, size_t len, json_t *want, bool plugins, char **out, size_t *out_len, char *why)
{
	json_t *is = json_loadb(text, len, HOW_READ, NULL), *part = plugins ? plugins_of(is) : json_incref(is);
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
	return bad(why, "%s", unclear);
}

static int version_check(const struct install_list *l, char *why)
{
	const char *version = text_of(l->root, "cniVersion");

	if (is_spoken(version))
		return 0;
	return bad(why, "its cniVersion is \"%.30s\", and culvert-cni speaks %s to %s: pods would not start", version,
		   versions[0], versions[VERSIONS - 1]);
}

/* --- with and without us -------------------------------------------------------------------------------- */

static char *entry_text(const struct install_list *l, const json_t *entry, const char *wrapped)
{
	const char *was = wrapped ? wrapped : l->single ? "" : text_of(l->own, INSTALL_WRAPPED);
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
		e = bad(why, "it is our own");
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
			bad(why, "%s", l->ours < l->n ? unclear : "it cannot be edited: it has no plugin but ours");
	}
	free(text);
	return e;
}

/* The file that this list was made of, when it is one that install_list_with() makes of it. */
static const char *wrapped_name(const struct install_list *l, const char *name)
{
	const char *was = text_of(l->own, INSTALL_WRAPPED);
	char list[NAME_MAX + 1];

	if (l->n - l->ours != 1 || !was[0] || strchr(was, '/') || strlen(was) > NAME_MAX || !install_name_counts(was) ||
	    ends_in(was, list_end) || install_name_of_list(list, was) < 0 || strcmp(list, name) != 0)
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

	if (is_ours(json_array_get(json_object_get(l->root, "plugins"), 0)) || !span_member(&all, "plugins", &array) ||
	    !span_next(&array, &e))
		return bad(why, "%s", unclear);
	end = array.at + array.len;
	comma = memchr(e.at + e.len, ',', (size_t)(end - e.at - e.len));
	text = comma ? strndup(array.at + 1, (size_t)(comma - array.at - 1)) : NULL;
	if (!text)
		return bad(why, "%s", unclear);
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
	if (l->ours == l->n || text_of(l->own, INSTALL_COPIED)[0])
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
		bad(why, "%s", e == -ENOMEM ? "out of memory" : unclear);
		return e;
	}
	e = compare(made, made_len, list_meaning(l, NULL), false, out, len, why);
	return e ? e : INSTALL_REST_LIST;
}
