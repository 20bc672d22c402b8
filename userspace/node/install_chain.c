/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what is in the runtime's configuration of ours.
 *
 *   chained   our entry is in the list that the runtime takes. Lists that were taken before keep theirs until the end
 *   owned     a copy of that list with our entry, in a file of ours before it: it outlives whoever writes the list anew
 *   alone     our entry is a configuration of its own, which others refer to by name (multus) */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "node/install_internal.h"

static const char target[] = "install", alone_name[] = "YYY-istio-cni.conf", alone_version[] = "0.3.1";

/* --- chained ---------------------------------------------------------------------------------------------- */

/* What runtimes take is another file than the one that was asked for: they were configured so, or it is a mistake. */
static void warn_preempted(const struct install *in, const struct install_names *all, const char *name, char *why)
{
	char ignored[POD_WHY_MAX];
	struct install_conf first;

	if (install_conf_first(in, all, false, &first, ignored) == 0 && strcmp(first.name, name) != 0)
		snprintf(why, POD_WHY_MAX,
			 "%.500s/%.200s comes before %.200s: a runtime that takes the first passes us by",
			 in->o.conf_dir, first.name, name);
	install_conf_free(&first);
}

/* May the list that is made of one plugin be put there? */
static int place_check(const struct install *in, const struct install_names *all, const char *place, const char *single,
		       char *why)
{
	struct install_conf there = {.name = ""};
	const char *was = NULL;
	int e = 0;

	if (install_names_have(all, place) && install_conf_read(in, place, &there, why) == 0)
		was = json_string_value(json_object_get(there.list.own, INSTALL_WRAPPED));
	if (install_names_have(all, place) && (!was || strcmp(was, single) != 0))
		e = install_failed(why, -EEXIST, "%.500s: %.200s cannot become %.200s, which is there too: remove one",
				   in->o.conf_dir, single, place);
	install_conf_free(&there);
	return e;
}

/* Says of which file it is. It is no file to pass over. */
static int in_file(const char *path, char *why)
{
	char line[POD_WHY_MAX / 2];

	snprintf(line, sizeof line, "%.400s", why);
	return install_failed(why, -ENOTSUP, "%.500s: %s", path, line);
}

/* Nobody's change is lost: not of who has it open for writing, and not of who replaced it since it was read. */
static int list_put(const struct install *in, const struct install_conf *f, const char *place, char *why)
{
	char from[PATH_MAX], to[PATH_MAX], *text = NULL;
	size_t len = 0;
	int e = install_path(from, in->o.conf_dir, f->name, why);

	if (!e)
		e = install_path(to, in->o.conf_dir, place, why);
	if (!e)
		e = install_list_with(&f->list, in->entry, f->list.single ? f->name : NULL, &text, &len, why);
	if (e == -EBADMSG)
		e = in_file(from, why);
	if (!e && len > INSTALL_LIST_MAX)
		e = install_failed(why, -EFBIG, "%.900s would have more than %d bytes", to, INSTALL_LIST_MAX);
	if (!e && !f->list.single) {
		e = install_file_rewrite(to, &f->st, text, len, why);
	} else if (!e) {
		e = install_file_changed(from, &f->st) ? install_failed(why, -EAGAIN, "%.900s is being written", from)
						       : install_file_write(to, text, len, f->st.st_mode & 07777, why);
	}
	if (!e && f->list.single) /* only now: until then the runtime took it */
		e = install_file_remove(from, why);
	if (!e)
		log_info(target, "%s: our entry is in the list%s%s", to, f->list.single ? ", which was " : "",
			 f->list.single ? f->name : "");
	free(text);
	return e;
}

static int chain_with(struct install *in, const struct install_names *all, const struct install_conf *f, bool *changed,
		      char *why)
{
	char place[NAME_MAX + 1], warning[POD_WHY_MAX];
	int e = 0;

	snprintf(warning, sizeof warning, "%s", why);
	snprintf(place, sizeof place, "%s", f->name);
	if (f->list.single && install_name_of_list(place, f->name) < 0)
		return install_failed(why, -ENAMETOOLONG, "%.300s: the name is too long", f->name);
	if (f->list.single)
		e = place_check(in, all, place, f->name, why);
	if (!e && !install_list_holds(&f->list, in->entry)) {
		e = list_put(in, f, place, why);
		*changed |= !e;
	}
	if (!e)
		e = install_path(in->status.path, in->o.conf_dir, place, why);
	if (!e)
		memcpy(why, warning, sizeof warning);
	if (!e && in->o.conf_name)
		warn_preempted(in, all, place, why);
	return e;
}

/* --- owned ------------------------------------------------------------------------------------------------- */

static int text_put(struct install *in, const char *name, const char *text, size_t len, bool *changed, char *why)
{
	char *is = NULL;
	size_t is_len = 0;
	struct stat st = {.st_mode = in->o.conf_mode};
	int e = install_path(in->status.path, in->o.conf_dir, name, why), r;

	if (e)
		return e;
	r = install_file_read(in->status.path, &is, &is_len, INSTALL_LIST_MAX, &st);
	if (r || is_len != len || memcmp(is, text, len) != 0) {
		e = install_file_write(in->status.path, text, len, st.st_mode & 07777, why);
		*changed |= !e;
		if (!e)
			log_info(target, "%s is written", in->status.path);
	}
	free(is);
	return e;
}

static int owned_put(struct install *in, const struct install_conf *primary, bool *changed, char *why)
{
	char path[PATH_MAX], warning[POD_WHY_MAX], *text = NULL;
	json_t *entry = json_copy(in->entry);
	size_t len = 0;
	int e = install_path(path, in->o.conf_dir, primary->name, why);

	snprintf(warning, sizeof warning, "%s", why);
	json_object_set_new(entry, INSTALL_COPIED, json_string(primary->name));
	if (!e && strcmp(in->o.owned, primary->name) > 0)
		e = install_failed(why, -EINVAL,
				   "%.700s: %.200s does not come before it, so that runtimes would pass us by", path,
				   in->o.owned);
	if (!e) {
		e = install_list_with(&primary->list, entry, NULL, &text, &len, why);
		e = e == -EBADMSG ? in_file(path, why) : e;
	}
	if (!e)
		e = text_put(in, in->o.owned, text, len, changed, why);
	if (!e)
		memcpy(why, warning, sizeof warning);
	json_decref(entry);
	free(text);
	return e;
}

/* --- alone -------------------------------------------------------------------------------------------------- */

static int alone_put(struct install *in, bool *changed, char *why)
{
	const char *name = in->o.conf_name ? in->o.conf_name : alone_name;
	json_t *o = json_pack("{ss}", "cniVersion", alone_version);
	char *text;
	int e;

	json_object_update(o, in->entry);
	text = json_dumps(o, JSON_INDENT(2));
	json_decref(o);
	if (!text)
		return install_failed(why, -ENOMEM, "out of memory");
	e = text_put(in, name, text, strlen(text), changed, why);
	free(text);
	return e;
}

/* --- what remains of other settings ------------------------------------------------------------------------- */

/* An earlier keeper may have been told to install in another way: what it left would be taken for the primary's. */
static void sweep(const struct install *in, const struct install_names *all)
{
	const char *alone = in->o.chained ? NULL : in->o.conf_name ? in->o.conf_name : alone_name;

	for (unsigned i = 0; i < all->n; i++) {
		char path[PATH_MAX], why[POD_WHY_MAX];
		const char *name = all->name[i];
		struct install_conf f;

		if (install_conf_read(in, name, &f, why) == 0 && f.list.ours && !install_conf_is_other(&f) &&
		    (!alone || strcmp(name, alone) != 0) && (!in->o.owned || strcmp(name, in->o.owned) != 0) &&
		    install_path(path, in->o.conf_dir, name, why) == 0 && install_file_remove(path, why) == 0)
			log_info(target, "%s is removed: it was ours, by other settings", path);
		install_conf_free(&f);
	}
}

/* --- the whole ------------------------------------------------------------------------------------------------ */

int install_chain(struct install *in, bool *changed, char why[POD_WHY_MAX])
{
	struct install_names all;
	struct install_conf f = {.name = ""};
	int e = install_names_read(&all, in->o.conf_dir, why);

	in->status.path[0] = '\0';
	if (!e)
		sweep(in, &all);
	why[0] = e ? why[0] : '\0';
	if (!e && !in->o.chained)
		e = alone_put(in, changed, why);
	else if (!e)
		e = install_conf_find(in, &all, &f, why);
	if (!e && in->o.chained)
		e = in->o.owned ? owned_put(in, &f, changed, why) : chain_with(in, &all, &f, changed, why);
	if (e)
		in->status.path[0] = '\0';
	install_conf_free(&f);
	install_names_free(&all);
	return e;
}

/* --- removal ---------------------------------------------------------------------------------------------------- */

static int file_without(const struct install *in, const struct install_conf *f, char *why)
{
	char path[PATH_MAX], back[PATH_MAX], name[NAME_MAX + 1], *text = NULL;
	size_t len = 0;
	int rest, e;

	snprintf(name, sizeof name, "%s", f->name);
	rest = install_list_without(&f->list, name, &text, &len, why);
	e = rest < 0 ? rest : install_path(path, in->o.conf_dir, f->name, why);
	if (!e)
		e = install_path(back, in->o.conf_dir, name, why);
	if (!e && (rest == INSTALL_REST_LIST || (rest == INSTALL_REST_SINGLE && access(back, F_OK) < 0)))
		e = install_file_write(back, text, len, f->st.st_mode & 07777, why);
	if (!e && (rest == INSTALL_REST_SINGLE || rest == INSTALL_REST_NONE))
		e = install_file_remove(path, why);
	if (!e && rest != INSTALL_REST_SAME)
		log_info(target, "%s: our entry is removed", path);
	free(text);
	return e;
}

void install_chain_remove(struct install *in)
{
	struct install_names all;
	char why[POD_WHY_MAX] = "";

	if (install_names_read(&all, in->o.conf_dir, why) < 0)
		log_error(target, "%s", why);
	for (unsigned i = 0; i < all.n; i++) {
		struct install_conf f;
		int e = install_conf_read(in, all.name[i], &f, why);

		if (!e)
			e = file_without(in, &f, why);
		if (e && e != -ENOENT)
			log_warn(target, "%s is left as it is: %s", all.name[i], why);
		install_conf_free(&f);
	}
	install_names_free(&all);
}
