/* SPDX-License-Identifier: Apache-2.0 */
/* Changes in folders, by inotify. Of a folder that is not there the nearest one above it is watched. */
#pragma once
#include "loop/loop.h"

enum { INSTALL_FOLDERS_MAX = 8 };

struct install_watch;
/* `changed` may be called for changes that concern nobody. NULL and errno: no memory, or no inotify. */
struct install_watch *install_watch_new(struct loop *l, void (*changed)(void *arg), void *arg);
void install_watch_free(struct install_watch *w); /* takes NULL */
/* Watches these from now on and no others. To be called after each change: a folder may have been replaced. 0, or the
 * -errno of one that cannot be watched. */
int install_watch_set(struct install_watch *w, const char *const *folders, unsigned n);
