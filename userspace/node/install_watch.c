/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the inotify descriptor. What happens in folders is looked up in them, not in the events: these only wake. */
#include "node/install_watch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "node/install_file.h"

enum { READS_MAX = 64 }; /* of one turn */

struct install_watch {
	struct loop *loop;
	struct io io;
	void (*changed)(void *arg);
	void *arg;
	int wd[INSTALL_FOLDERS_MAX];
	unsigned n;
};

/* Our own files on their way concern nobody. */
static bool is_of_interest(const struct inotify_event *ev)
{
	return !(ev->mask & IN_IGNORED) && (!ev->len || !install_name_unfinished(ev->name));
}

static void events_came(struct io *io, uint32_t events)
{
	struct install_watch *w = container_of(io, struct install_watch, io);
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool some = false;
	ssize_t n;

	for (unsigned i = 0; i < READS_MAX && (n = read(io->fd, buf, sizeof buf)) > 0; i++)
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *ev = (void *)p;

			some |= is_of_interest(ev);
			p += sizeof *ev + ev->len;
		}
	if (some)
		w->changed(w->arg);
}

struct install_watch *install_watch_new(struct loop *l, void (*changed)(void *arg), void *arg)
{
	struct install_watch *w = calloc(1, sizeof *w);
	int fd = w ? inotify_init1(IN_CLOEXEC | IN_NONBLOCK) : -1, e;

	if (fd >= 0) {
		*w = (struct install_watch){.loop = l, .changed = changed, .arg = arg};
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

void install_watch_free(struct install_watch *w)
{
	if (!w)
		return;
	io_stop(w->loop, &w->io);
	close(w->io.fd);
	free(w);
}

static int folder_add(struct install_watch *w, const char *folder)
{
	const uint32_t mask = IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB |
			      IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
	char path[PATH_MAX];
	int wd;

	snprintf(path, sizeof path, "%s", folder);
	for (;;) {
		char *slash = strrchr(path, '/');

		wd = inotify_add_watch(w->io.fd, path, mask);
		if (wd >= 0 || (errno != ENOENT && errno != ENOTDIR) || !slash || !path[1])
			break;
		slash[slash == path] = '\0';
	}
	return wd < 0 ? -errno : wd;
}

static bool has(const int *wd, unsigned n, int one)
{
	for (unsigned i = 0; i < n; i++)
		if (wd[i] == one)
			return true;
	return false;
}

int install_watch_set(struct install_watch *w, const char *const *folders, unsigned n)
{
	int now[INSTALL_FOLDERS_MAX], e = 0;
	unsigned n_now = 0;

	for (unsigned i = 0; i < n && i < INSTALL_FOLDERS_MAX; i++) {
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
