/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of lists. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/install_list_internal.h"

static const char list_end[] = ".conflist";

int install_list_bad(char *why, const char *fmt, ...)
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

bool install_name_is_list(const char *name)
{
	return ends_in(name, list_end);
}

bool install_name_counts(const char *name)
{
	return install_name_is_list(name) || ends_in(name, ".conf") || ends_in(name, ".json");
}

int install_name_of_list(char out[NAME_MAX + 1], const char *name)
{
	const char *dot = strrchr(name, '.');
	int stem = dot ? (int)(dot - name) : (int)strlen(name);
	int n = snprintf(out, NAME_MAX + 1, "%.*s%s", stem, name, list_end);

	return n > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* --- reading -------------------------------------------------------------------------------------------- */

const char *install_list_text(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

bool install_list_is_ours(const json_t *plugin)
{
	return !strcmp(install_list_text(plugin, "type"), INSTALL_TYPE);
}

static int plugins_count(struct install_list *l, char why[POD_WHY_MAX])
{
	const json_t *plugins = json_object_get(l->root, "plugins");

	l->n = (unsigned)json_array_size(plugins);
	if (!install_list_text(l->root, "name")[0] || !l->n)
		return install_list_bad(why, "a list of plugins needs a name and plugins");
	for (unsigned i = 0; i < l->n; i++) {
		const json_t *p = json_array_get(plugins, i);

		if (!install_list_text(p, "type")[0])
			return install_list_bad(why, "plugin %u of the list has no type", i + 1);
		l->ours += install_list_is_ours(p);
		l->own = install_list_is_ours(p) ? p : l->own;
	}
	return 0;
}

int install_list_read(struct install_list *out, const char *name, char *text, size_t len, char why[POD_WHY_MAX])
{
	json_error_t at;

	*out = (struct install_list){.text = text, .len = len, .single = !install_name_is_list(name)};
	out->root = json_loadb(text, len, INSTALL_HOW_READ, &at);
	if (!out->root)
		return install_list_bad(why, "not JSON: line %d, column %d: %s", at.line, at.column, at.text);
	if (!json_is_object(out->root))
		return install_list_bad(why, "not a JSON object");
	if (!out->single)
		return plugins_count(out, why);
	if (!install_list_text(out->root, "type")[0])
		return install_list_bad(why, "one plugin is expected in a file of this name, and it has no type");
	out->n = 1;
	out->ours = install_list_is_ours(out->root);
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

	if (l->single || l->ours != 1 || l->n < 2 || install_list_is_ours(json_array_get(plugins, 0)))
		return false;
	/* Numbers of `entry` are read as those of the file. */
	text = json_dumps(entry, 0);
	want = text ? json_loads(text, INSTALL_HOW_READ, NULL) : NULL;
	free(text);
	is = bare(l->own);
	json_object_del(want, INSTALL_COPIED);
	same = is && want && json_equal(is, want);
	json_decref(is);
	json_decref(want);
	return same;
}
