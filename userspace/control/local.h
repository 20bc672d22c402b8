/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh state from a local file (LOCAL_XDS_PATH) or text: the YAML that ztunnel's local mode takes, and the shape
 * of /config_dump as well. A file that is wrong changes nothing: unknown keys, bad addresses,
 * two objects of one name and policy entries that cannot be understood are errors with their line. */
#pragma once
#include "loop/loop.h"
#include "state/store.h"

enum {
	LOCAL_REASON_MAX = 512,
	LOCAL_FILE_MAX = 256 << 20, /* bytes */
	LOCAL_TEXT_MAX = 4096,	    /* bytes of one text */
	LOCAL_DEPTH_MAX = 32,
	LOCAL_TRIM_MS = 10000, /* readers may have something of the mesh before until then */
};

/* 0, or -errno with one line in `why`: file, line, what is wrong, what is allowed. */
int local_load_file(struct store *s, const char *path, char why[LOCAL_REASON_MAX]);
int local_load_text(struct store *s, const char *name, const char *text, size_t len, char why[LOCAL_REASON_MAX]);

/* Loads the file again whenever it has changed since now; a failure is one line in the log and the state stays. Make it
 * before the first load, so that no change falls between. */
struct local_watch;
struct local_watch *local_watch_new(struct loop *l, struct store *s, const char *path); /* NULL: no memory */
/* Why the file as it is now is not in use; "": it is. Any thread. */
void local_watch_trouble(struct local_watch *w, char out[LOCAL_REASON_MAX]);
void local_watch_free(struct local_watch *w); /* takes NULL */
