/* SPDX-License-Identifier: Apache-2.0 */
/* Tells when a configuration file has become another one: written in place, replaced, or put there by a symbolic link of
 * Kubernetes that was swapped. On one loop. */
#pragma once
#include <sys/stat.h>

#include "loop/loop.h"

enum { FILE_WATCH_POLL_MS = 5000 }; /* a change is found this late where inotify does not tell */

struct file_watch;
/* `changed` comes when the file is another one than the last time, or has gone; not while somebody writes it, and
 * `settle_ms` after the first sign of it (0: at once), so that what comes in pieces is one change. Make it before the
 * first reading, so that no change falls between. NULL: no memory. */
struct file_watch *file_watch_new(struct loop *l, const char *path, unsigned settle_ms, void (*changed)(void *arg),
				  void *arg);
/* Whether a file is still what it was. */
bool file_is_same(const struct stat *a, const struct stat *b);
void file_watch_free(struct file_watch *w); /* takes NULL */
