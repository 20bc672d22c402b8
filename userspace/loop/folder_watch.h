/* SPDX-License-Identifier: Apache-2.0 */
/* Changes in folders, by inotify. What happens in them is looked up there, not in the events: these only wake. Of a folder
 * that is not there the nearest one above it is watched. */
#pragma once
#include "loop/loop.h"

enum { FOLDER_WATCH_MAX = 8 };

struct folder_watch_handler {
	/* Whether a change of this name may be of interest; "": of a folder itself, or not known of what. NULL: all are. */
	bool (*concerns)(void *arg, const char *name);
	void (*changed)(void *arg); /* once for what came together */
	void *arg;
};

struct folder_watch;
/* `events`: inotify's bits; that a folder comes and goes is told without. NULL and errno: no memory, or no inotify. */
struct folder_watch *folder_watch_new(struct loop *l, uint32_t events, const struct folder_watch_handler *h);
void folder_watch_free(struct folder_watch *w); /* takes NULL */
/* Watches these from now on and no others. To be called after each change: a folder may have been replaced. 0, or the
 * -errno of one that cannot be watched. */
int folder_watch_set(struct folder_watch *w, const char *const *folders, unsigned n);
/* The same of the folder that this file is in. */
int folder_watch_file(struct folder_watch *w, const char *path);
