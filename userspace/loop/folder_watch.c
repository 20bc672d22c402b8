/* SPDX-License-Identifier: Apache-2.0 */
/* Owns an inotify descriptor. */
#include "loop/folder_watch.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum {
	READS_MAX = 64, /* of one turn */
	TRIES_MAX = 8,	/* at a folder that comes and goes meanwhile */
};

struct folder_watch {
	struct loop *loop;
	struct io io;
	struct folder_watch_handler h;
	uint32_t events;
	int wd[FOLDER_WATCH_MAX];
	unsigned n;
};

static bool concerns(const struct folder_watch *w, const struct inotify_event *ev)
{
	if (ev->mask & IN_IGNORED)
		return false; /* we ended that one, or its folder went, which was told */
	return !w->h.concerns || w->h.concerns(w->h.arg, ev->len ? ev->name : "");
}

static void events_came(struct io *io, uint32_t events)
{
	struct folder_watch *w = container_of(io, struct folder_watch, io);
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool some = false;
	ssize_t n;

	for (unsigned i = 0; i < READS_MAX && (n = read(io->fd, buf, sizeof buf)) > 0; i++)
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *ev = (void *)p;

			some |= concerns(w, ev);
			p += sizeof *ev + ev->len;
		}
	if (some)
		w->h.changed(w->h.arg);
}

struct folder_watch *folder_watch_new(struct loop *l, uint32_t events, const struct folder_watch_handler *h)
{
	struct folder_watch *w = calloc(1, sizeof *w);
	int fd = w ? inotify_init1(IN_CLOEXEC | IN_NONBLOCK) : -1, e;

	if (fd >= 0) {
		*w = (struct folder_watch){.loop = l, .h = *h, .events = events};
		io_init(&w->io, fd, events_came);
		e = io_want(l, &w->io, EPOLLIN);
		if (!e)
			return w;
		close(fd);
		errno = -e;
	}
	free(w);
	return NULL;
}

void folder_watch_free(struct folder_watch *w)
{
	if (!w)
		return;
	io_stop(w->loop, &w->io);
	close(w->io.fd);
	free(w);
}

/* The folder, or the nearest one above it: *above. */
static int add_nearest(struct folder_watch *w, const char *folder, bool *above)
{
	uint32_t mask = w->events | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
	char path[PATH_MAX];
	int wd;

	snprintf(path, sizeof path, "%s", folder);
	for (*above = false;; *above = true) {
		char *slash = strrchr(path, '/');

		wd = inotify_add_watch(w->io.fd, path, mask);
		if (wd >= 0 || (errno != ENOENT && errno != ENOTDIR) || !slash || !path[1])
			break;
		slash[slash == path] = '\0';
		mask |= IN_CREATE | IN_MOVED_TO;
	}
	return wd < 0 ? -errno : wd;
}

/* What came while the one above it was not watched yet was not told: it is tried again. A watch too many only wakes. */
static int folder_add(struct folder_watch *w, const char *folder)
{
	int wd = -ENOENT, last = -1;
	bool above = true;

	for (unsigned i = 0; i < TRIES_MAX && above; i++) {
		wd = add_nearest(w, folder, &above);
		if (wd < 0 || wd == last)
			break;
		last = wd;
	}
	return wd;
}

static bool has(const int *wd, unsigned n, int one)
{
	for (unsigned i = 0; i < n; i++)
		if (wd[i] == one)
			return true;
	return false;
}

int folder_watch_set(struct folder_watch *w, const char *const *folders, unsigned n)
{
	int now[FOLDER_WATCH_MAX], e = 0;
	unsigned n_now = 0;

	for (unsigned i = 0; i < n && i < FOLDER_WATCH_MAX; i++) {
		int wd = folder_add(w, folders[i]);

		if (wd < 0)
			e = wd;
		else
			now[n_now++] = wd;
	}
	for (unsigned i = 0; i < w->n; i++)
		if (!has(now, n_now, w->wd[i]))
			inotify_rm_watch(w->io.fd, w->wd[i]);
	memcpy(w->wd, now, n_now * sizeof *now);
	w->n = n_now;
	return e;
}

int folder_watch_file(struct folder_watch *w, const char *path)
{
	char copy[PATH_MAX];
	const char *folder[1];

	snprintf(copy, sizeof copy, "%s", path);
	folder[0] = dirname(copy);
	return folder_watch_set(w, folder, 1);
}
