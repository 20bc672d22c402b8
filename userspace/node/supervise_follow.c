/* SPDX-License-Identifier: Apache-2.0 */
/* Watches the tunnel's file: another one in its place is an upgrade. The folder is watched, since files are installed by
 * renaming them into it, and a look is taken when nothing has happened for SUPERVISE_SETTLE_MS, since other installers
 * write them in pieces. A folder that goes away is looked for again. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/log.h"
#include "node/supervise_internal.h"

static void settled(struct timer *t)
{
	follow_look(container_of(t, struct supervise, settle));
}

static int watch_folder(struct supervise *s)
{
	const char *slash = strrchr(s->path, '/');
	char folder[PATH_MAX];

	if (s->follow_wd >= 0)
		return 0;
	snprintf(folder, sizeof folder, "%.*s", slash && slash > s->path ? (int)(slash - s->path) : 1,
		 slash ? s->path : ".");
	s->follow_wd = inotify_add_watch(s->follow.fd, folder,
					 IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ATTRIB | IN_DELETE_SELF |
						 IN_MOVE_SELF | IN_ONLYDIR);
	return s->follow_wd < 0 ? -errno : 0;
}

static void rewatch(struct timer *t)
{
	struct supervise *s = container_of(t, struct supervise, settle);

	if (watch_folder(s) < 0)
		timer_set(s->loop, t, SUPERVISE_REWATCH_MS, rewatch);
	else
		follow_look(s);
}

/* Whether this one may be about our file; one that ends the watch is. */
static bool concerns(struct supervise *s, const struct inotify_event *e)
{
	const char *slash = strrchr(s->path, '/');

	if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) {
		if (e->mask & IN_MOVE_SELF)
			inotify_rm_watch(s->follow.fd, s->follow_wd);
		s->follow_wd = -1;
		return true;
	}
	return e->mask & IN_Q_OVERFLOW || (e->len && !strcmp(e->name, slash ? slash + 1 : s->path));
}

static void changed(struct io *io, uint32_t events)
{
	struct supervise *s = container_of(io, struct supervise, follow);
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool ours = false;
	ssize_t n;

	while ((n = read(io->fd, buf, sizeof buf)) > 0)
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			ours |= concerns(s, e);
			p += sizeof *e + e->len;
		}
	if (s->follow_wd < 0)
		timer_set(s->loop, &s->settle, SUPERVISE_SETTLE_MS, rewatch);
	else if (ours)
		timer_set(s->loop, &s->settle, SUPERVISE_SETTLE_MS, settled);
}

void follow_look(struct supervise *s)
{
	const struct generation *serving = NULL;
	struct program now;

	if (s->follow.fd < 0)
		return;
	list_for_each (p, &s->generations) {
		const struct generation *g = list_entry(p, struct generation, link);

		if (g->state == GENERATION_STARTING)
			return; /* a look is taken when it serves or has failed */
		if (g->state == GENERATION_SERVING)
			serving = g;
	}
	if (!serving || serving->program_fd < 0 || program_of_path(s->path, &now) < 0 ||
	    program_same(&now, &serving->program) || program_same(&now, &s->bad))
		return;
	log_info("supervise", "%s is another file than that which process %d runs", s->path, (int)serving->pid);
	supervise_upgrade(s, NULL, NULL);
}

int supervise_follow(struct supervise *s)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), e = fd < 0 ? -errno : 0;

	if (e)
		return e;
	io_init(&s->follow, fd, changed);
	s->follow_wd = -1;
	e = io_want(s->loop, &s->follow, EPOLLIN);
	if (!e)
		e = watch_folder(s);
	if (e)
		follow_stop(s);
	return e;
}

void follow_stop(struct supervise *s)
{
	timer_cancel(&s->settle);
	if (s->follow.fd < 0)
		return;
	io_stop(s->loop, &s->follow);
	close(s->follow.fd);
	s->follow.fd = -1;
}
