// SPDX-License-Identifier: Apache-2.0
/* The folder is watched, not the file: editors and Kubernetes put a new one in its place, the latter by swapping a
 * symbolic link; and one that is written in place is whole when it is closed. Whatever happens there, the file is another
 * one only by inode, size or times. */
#include "control/file_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/folder_watch.h"

struct file_watch {
	struct loop *loop;
	void (*changed)(void *arg);
	void *arg;
	struct folder_watch *folder; /* NULL: inotify does not work here, the poll remains */
	struct timer poll, settle;
	unsigned settle_ms;
	struct stat last; /* zeroed: there was no file */
	char path[];
};

bool file_is_same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Is somebody writing it now? A read lease is granted only while nobody has the file open for writing; where there are
 * no leases, nobody can tell. Half a file may well parse, and half of the policies is no mesh. */
static bool being_written(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool busy = fd >= 0 && fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;

	if (fd >= 0)
		close(fd); /* and the lease goes */
	return busy;
}

static void look(const struct file_watch *w, struct stat *now)
{
	if (stat(w->path, now) < 0)
		memset(now, 0, sizeof *now);
}

static void compare(struct file_watch *w)
{
	struct stat now;

	look(w, &now);
	if (file_is_same(&now, &w->last) || being_written(w->path))
		return; /* its closing, or the poll, comes back here */
	w->last = now;
	w->changed(w->arg);
}

static void settled(struct timer *t)
{
	compare(container_of(t, struct file_watch, settle));
}

static void polled(struct timer *t)
{
	struct file_watch *w = container_of(t, struct file_watch, poll);

	timer_set(w->loop, t, FILE_WATCH_POLL_MS, polled);
	if (!timer_armed(&w->settle))
		compare(w);
}

static void told(void *arg)
{
	struct file_watch *w = arg;

	folder_watch_file(w->folder, w->path);
	if (!w->settle_ms)
		compare(w);
	else if (!timer_armed(&w->settle))
		timer_set(w->loop, &w->settle, w->settle_ms, settled);
}

struct file_watch *file_watch_new(struct loop *l, const char *path, unsigned settle_ms, void (*changed)(void *arg),
				  void *arg)
{
	struct file_watch *w = calloc(1, sizeof *w + strlen(path) + 1);
	const struct folder_watch_handler h = {NULL, told, w};

	if (!w)
		return NULL;
	signal(SIGIO, SIG_IGN); /* a writer that meets our lease sends it */
	w->loop = l;
	w->changed = changed;
	w->arg = arg;
	w->settle_ms = settle_ms;
	memcpy(w->path, path, strlen(path) + 1);
	look(w, &w->last);
	w->folder = folder_watch_new(l, IN_CLOSE_WRITE | IN_MOVED_TO, &h);
	if (!w->folder || folder_watch_file(w->folder, w->path) < 0)
		log_warn("watch", "%s: cannot be watched; changes are seen every %d s", path,
			 FILE_WATCH_POLL_MS / 1000);
	timer_set(l, &w->poll, FILE_WATCH_POLL_MS, polled);
	return w;
}

void file_watch_free(struct file_watch *w)
{
	if (!w)
		return;
	timer_cancel(&w->poll);
	timer_cancel(&w->settle);
	folder_watch_free(w->folder);
	free(w);
}
