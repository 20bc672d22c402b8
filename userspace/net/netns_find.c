// SPDX-License-Identifier: Apache-2.0
/* Namespaces without a name that we know: whoever lives in one, or has bound it, leads to it. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/netns.h"

enum { SEEN_MAX = 65536, PATH_BYTES = 512 };

struct search {
	struct netns_sought *sought;
	unsigned n, left;
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

/* Is it asked for, and not found yet? */
static bool is_open(const struct netns_sought *w)
{
	return w->fd < 0 && (w->inode || w->cookie);
}

static bool is_candidate(const struct search *s, ino_t inode)
{
	for (unsigned i = 0; i < s->n; i++)
		if (is_open(&s->sought[i]) && (!s->sought[i].inode || s->sought[i].inode == inode))
			return true;
	return false;
}

static void compare(struct search *s, int fd, const struct netns_id *id)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct netns_sought *w = &s->sought[i];

		if (!is_open(w) || (w->inode && w->inode != id->inode))
			continue;
		if (w->cookie && !id->cookie)
			s->error = -EIO;
		if (w->cookie && w->cookie != id->cookie)
			continue;
		w->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (w->fd < 0)
			s->error = -errno;
		s->left -= w->fd >= 0;
	}
}

static void look_at(struct search *s, const char *path)
{
	struct netns_id id;
	struct stat st;
	int fd, e;

	if (stat(path, &st) < 0 || !is_candidate(s, st.st_ino) || seen_before(s, st.st_ino))
		return;
	fd = netns_open(path);
	if (fd < 0) {
		if (fd != -ENOENT && fd != -ESRCH && fd != -EINVAL)
			s->error = fd;
		return;
	}
	e = netns_identify(fd, &id);
	if (e)
		s->error = e;
	else
		compare(s, fd, &id);
	close(fd);
}

static void search_folder(struct search *s, const char *folder, bool processes)
{
	DIR *d = opendir(folder);
	struct dirent *entry;

	if (!d && processes)
		s->error = -errno;
	while (d && s->left && (entry = readdir(d))) {
		char path[PATH_BYTES];

		if (entry->d_name[0] == '.' || (processes && !isdigit((unsigned char)entry->d_name[0])))
			continue;
		snprintf(path, sizeof path, "%s/%s%s", folder, entry->d_name, processes ? "/ns/net" : "");
		look_at(s, path);
	}
	if (d)
		closedir(d);
}

void netns_seek(struct netns_sought *sought, unsigned n)
{
	struct search s = {.sought = sought, .n = n};

	for (unsigned i = 0; i < n; i++) {
		sought[i].fd = -ENOENT;
		s.left += is_open(&sought[i]);
	}
	if (!s.left)
		return;
	search_folder(&s, "/proc", true);
	search_folder(&s, "/run/netns", false);
	free(s.seen);
	for (unsigned i = 0; i < n && s.error; i++)
		if (is_open(&sought[i]))
			sought[i].fd = s.error;
}

int netns_find(uint64_t inode, uint64_t cookie)
{
	struct netns_sought one = {inode, cookie, -ENOENT};

	netns_seek(&one, 1);
	return one.fd;
}
