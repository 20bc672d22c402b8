/* SPDX-License-Identifier: Apache-2.0 */
/* Watches the tunnel's file: another one in its place is an upgrade. The folder is watched, since files are installed by
 * renaming them into it, and a look is taken when nothing has happened for SUPERVISE_SETTLE_MS, since other installers
 * write them in pieces. */
#include <errno.h>
#include <string.h>
#include <sys/inotify.h>

#include "base/log.h"
#include "node/supervise_internal.h"

static void settled(struct timer *t)
{
	follow_look(container_of(t, struct supervise, settle));
}

/* Our file, or while its folder is away, what may become one above it. */
static bool concerns(void *arg, const char *name)
{
	const struct supervise *s = arg;
	size_t len = strlen(name);

	for (const char *p = s->path; *p; p += strcspn(p, "/")) {
		p += strspn(p, "/");
		if (strcspn(p, "/") == len && !memcmp(p, name, len))
			return true;
	}
	return !len;
}

static void changed(void *arg)
{
	struct supervise *s = arg;

	folder_watch_file(s->follow, s->path);
	timer_set(s->loop, &s->settle, SUPERVISE_SETTLE_MS, settled);
}

void follow_look(struct supervise *s)
{
	const struct generation *serving = NULL;
	struct program now;

	if (!s->follow)
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
	const struct folder_watch_handler h = {concerns, changed, s};
	int e;

	s->follow = folder_watch_new(s->loop, IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ATTRIB, &h);
	if (!s->follow)
		return -errno;
	e = folder_watch_file(s->follow, s->path);
	if (e)
		follow_stop(s);
	return e;
}

void follow_stop(struct supervise *s)
{
	timer_cancel(&s->settle);
	folder_watch_free(s->follow);
	s->follow = NULL;
}
