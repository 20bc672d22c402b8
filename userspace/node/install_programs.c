/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the plugin's programs on the node. They are compared byte by byte, but not again while neither file has changed.
 * What was copied is compared in the next pass, which the copy itself brings about: whoever changed it meanwhile would
 * else be taken for us. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/install_internal.h"

enum { PROGRAM_MAX = 256 * 1024 * 1024 };

/* The one that the other starts comes first. */
static const struct program {
	const char *from, *to;
} programs[INSTALL_PROGRAMS] = {{"culvert-cni-api", "culvert-cni-api"}, {"culvert-cni", INSTALL_TYPE}};

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_ino && a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mode == b->st_mode && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void look(const char *path, struct stat *out)
{
	if (lstat(path, out) < 0)
		memset(out, 0, sizeof *out);
}

static int paths(const struct install *in, const struct program *p, char from[PATH_MAX], char to[PATH_MAX], char *why)
{
	int e = install_path(from, in->o.from_dir, p->from, why);

	return e ? e : install_path(to, in->o.bin_dir, p->to, why);
}

/* 1: it is there, as ours is, and can be run. */
static int is_whole(const char *from, const char *to, const struct stat *is, char *why)
{
	int equal = install_file_equal(from, to);

	if (equal < 0)
		snprintf(why, POD_WHY_MAX, "%.900s: %s", from, strerror(-equal));
	return equal > 0 ? (is->st_mode & 07777) == 0755 : equal;
}

static int program_install(struct install *in, unsigned i, bool *changed, char *why)
{
	struct program_seen now, *seen = &in->program[i];
	char from[PATH_MAX], to[PATH_MAX];
	int e = paths(in, &programs[i], from, to, why), whole;

	if (e)
		return e;
	look(from, &now.from);
	look(to, &now.to);
	if (same(&now.from, &seen->from) && same(&now.to, &seen->to))
		return 0;
	whole = is_whole(from, to, &now.to, why);
	if (whole < 0)
		return whole;
	if (whole) {
		*seen = now;
		return 0;
	}
	e = install_file_copy(from, to, 0755, why);
	if (!e) {
		log_info("install", "%s is installed", to);
		*changed = true;
	}
	return e;
}

int install_programs(struct install *in, bool *changed, char why[POD_WHY_MAX])
{
	int e = 0;

	for (unsigned i = 0; i < INSTALL_PROGRAMS && !e; i++)
		e = program_install(in, i, changed, why);
	return e;
}

bool install_programs_ours(const struct install *in)
{
	static const char mark[] = "culvert-cni"; /* it names itself */
	char path[PATH_MAX], why[POD_WHY_MAX], *text;
	size_t len;
	bool ours;
	int e = install_path(path, in->o.bin_dir, INSTALL_TYPE, why);

	if (!e)
		e = install_file_read(path, &text, &len, PROGRAM_MAX, NULL);
	if (e)
		return e == -ENOENT;
	ours = memmem(text, len, mark, sizeof mark - 1) != NULL;
	free(text);
	return ours;
}

void install_programs_remove(struct install *in)
{
	char from[PATH_MAX], to[PATH_MAX], why[POD_WHY_MAX];

	for (unsigned i = 0; i < INSTALL_PROGRAMS; i++)
		if (paths(in, &programs[i], from, to, why) < 0 || install_file_remove(to, why) < 0)
			log_error("install", "%s", why);
}
