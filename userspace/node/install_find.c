/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the finding of the runtime's configuration. Runtimes take the first file by name, in order of bytes; those that they
 * would not take are passed over. A file that they take and we cannot use is an error: the next one is of no use. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/install_internal.h"

int install_path(char out[PATH_MAX], const char *folder, const char *name, char why[POD_WHY_MAX])
{
	if (snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX)
		return 0;
	return install_failed(why, -ENAMETOOLONG, "the path of %.64s is too long", name);
}

/* --- the folder ------------------------------------------------------------------------------------------- */

void install_names_free(struct install_names *all)
{
	while (all->n)
		free(all->name[--all->n]);
}

static int in_order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int install_names_read(struct install_names *all, const char *folder, char why[POD_WHY_MAX])
{
	DIR *d = opendir(folder);
	int e = 0;

	all->n = 0;
	if (!d)
		return install_failed(why, -errno, "%.900s: %s", folder, strerror(errno));
	for (struct dirent *f = readdir(d); f && !e; f = readdir(d)) {
		if (f->d_type == DT_DIR || !install_name_counts(f->d_name))
			continue;
		if (all->n == INSTALL_FILES_MAX)
			e = install_failed(why, -E2BIG, "%.900s: more than %d configurations", folder,
					   INSTALL_FILES_MAX);
		else if (!(all->name[all->n] = strdup(f->d_name)))
			e = install_failed(why, -ENOMEM, "out of memory");
		else
			all->n++;
	}
	closedir(d);
	qsort(all->name, all->n, sizeof *all->name, in_order);
	return e;
}

bool install_names_have(const struct install_names *all, const char *name)
{
	for (unsigned i = 0; i < all->n; i++)
		if (!strcmp(all->name[i], name))
			return true;
	return false;
}

void install_conf_free(struct install_conf *f)
{
	install_list_free(&f->list);
}

int install_conf_read(const struct install *in, const char *name, struct install_conf *out, char why[POD_WHY_MAX])
{
	char path[PATH_MAX], line[POD_WHY_MAX / 2], *text = NULL;
	size_t len = 0;
	int e = install_path(path, in->o.conf_dir, name, why);

	memset(out, 0, sizeof *out);
	snprintf(out->name, sizeof out->name, "%s", name);
	if (e)
		return e;
	e = install_file_read(path, &text, &len, INSTALL_LIST_MAX, &out->st);
	if (e == -ENOENT && readlink(path, line, sizeof line) > 0)
		return install_failed(why, -ELOOP,
				      "%.800s is a symbolic link to what is not there, or not visible here", path);
	if (e == -EFBIG)
		return install_failed(why, e, "%.900s has more than %d bytes", path, INSTALL_LIST_MAX);
	if (e)
		return install_failed(why, e == -EINVAL ? -EBADMSG : e, "%.900s: %s", path,
				      e == -EINVAL ? "not a regular file" : strerror(-e));
	e = install_list_read(&out->list, name, text, len, why);
	if (e && install_file_busy(path))
		return install_failed(why, -EAGAIN, "%.900s is being written", path);
	if (e) {
		snprintf(line, sizeof line, "%.400s", why);
		install_failed(why, e, "%.500s: %s", path, line);
	}
	return e;
}

bool install_conf_is_other(const struct install_conf *f)
{
	return f->list.ours < f->list.n && !json_object_get(f->list.own, INSTALL_COPIED);
}

int install_conf_first(const struct install *in, const struct install_names *all, bool others, struct install_conf *out,
		       char why[POD_WHY_MAX])
{
	char passed[POD_WHY_MAX] = "";
	int e = -ENOENT;

	memset(out, 0, sizeof *out);
	for (unsigned i = 0; i < all->n; i++) {
		e = install_conf_read(in, all->name[i], out, why);
		if (e == 0 && (!others || install_conf_is_other(out)))
			break;
		if (e && e != -EBADMSG && e != -ENOENT)
			return e;
		if (e == -EBADMSG && !passed[0])
			snprintf(passed, sizeof passed, "passed over: %.1000s", why);
		install_conf_free(out);
		e = -ENOENT;
	}
	memcpy(why, passed, sizeof passed);
	return e;
}

/* The one that was asked for by name, or its twin: NAME.conf for NAME.conflist, and the other way round. */
static int file_named(const struct install *in, const struct install_names *all, struct install_conf *out, char *why)
{
	const char *want = in->o.conf_name, *dot = strrchr(want, '.');
	char twin[NAME_MAX + 1];

	memset(out, 0, sizeof *out);
	if (snprintf(twin, sizeof twin, "%.*s%s", (int)(dot - want), want,
		     strcmp(dot, ".conflist") == 0 ? ".conf" : ".conflist") >= (int)sizeof twin)
		twin[0] = '\0';
	if (install_names_have(all, want))
		return install_conf_read(in, want, out, why);
	if (install_names_have(all, twin))
		return install_conf_read(in, twin, out, why);
	return -ENOENT;
}

int install_conf_find(const struct install *in, const struct install_names *all, struct install_conf *out,
		      char why[POD_WHY_MAX])
{
	int e = in->o.conf_name ? file_named(in, all, out, why) : install_conf_first(in, all, true, out, why);
	char passed[POD_WHY_MAX];

	if (e == -ENOENT && in->o.conf_name)
		return install_failed(why, -EAGAIN, "%.700s: there is no %.200s yet", in->o.conf_dir, in->o.conf_name);
	if (e == -ENOENT) {
		snprintf(passed, sizeof passed, "%s", why);
		return install_failed(why, -EAGAIN, "%.400s: there is no CNI configuration yet%s%.500s", in->o.conf_dir,
				      passed[0] ? "; " : "", passed);
	}
	return e;
}
