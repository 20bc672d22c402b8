// SPDX-License-Identifier: Apache-2.0
/* Namespaces without a name that we know: whoever lives in one, or has bound it, leads to it. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/netns.h"

enum { SEEN_MAX = 65536, PATH_BYTES = 512 };

struct search {
	uint64_t inode, cookie;
	ino_t *seen; /* most processes share a namespace */
	size_t n_seen;
	int error; /* something could not be looked at */
};

static bool seen_before(struct search *s, ino_t inode)
{
	ino_t *more;

	for (size_t i = 0; i < s->n_seen; i++)
		if (s->seen[i] == inode)
			return true;
	/* A full or failing table only means that a namespace is looked at twice. */
	if (s->n_seen == SEEN_MAX)
		return false;
	more = s->n_seen & (s->n_seen - 1) ? s->seen : realloc(s->seen, 2 * (s->n_seen + 1) * sizeof *more);
	if (more) {
		s->seen = more;
		s->seen[s->n_seen++] = inode;
	}
	return false;
}

static int open_match(struct search *s, const char *path)
{
	struct netns_id id;
	struct stat st;
	int fd, e;

	if (stat(path, &st) < 0 || (s->inode && st.st_ino != s->inode) || seen_before(s, st.st_ino))
		return -ENOENT;
	fd = netns_open(path);
	if (fd < 0) {
		if (fd != -ENOENT && fd != -ESRCH && fd != -EINVAL)
			s->error = fd;
		return -ENOENT;
	}
	e = netns_identify(fd, &id);
	if (!e && (!s->inode || id.inode == s->inode) && (!s->cookie || id.cookie == s->cookie))
		return fd;
	if (e || (s->cookie && !id.cookie))
		s->error = e ? e : -EIO;
	close(fd);
	return -ENOENT;
}

static int search_folder(struct search *s, const char *folder, bool processes)
{
	DIR *d = opendir(folder);
	struct dirent *entry;
	int fd = -ENOENT;

	if (!d && processes)
		s->error = -errno;
	while (d && fd < 0 && (entry = readdir(d))) {
		char path[PATH_BYTES];

		if (entry->d_name[0] == '.' || (processes && !isdigit((unsigned char)entry->d_name[0])))
			continue;
		snprintf(path, sizeof path, "%s/%s%s", folder, entry->d_name, processes ? "/ns/net" : "");
		fd = open_match(s, path);
	}
	if (d)
		closedir(d);
	return fd;
}

int netns_find(uint64_t inode, uint64_t cookie)
{
	struct search s = {.inode = inode, .cookie = cookie};
	int fd = inode || cookie ? search_folder(&s, "/proc", true) : -ENOENT;

	if (fd < 0 && (inode || cookie))
		fd = search_folder(&s, "/run/netns", false);
	free(s.seen);
	return fd < 0 && s.error ? s.error : fd;
}
