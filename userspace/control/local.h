/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh state from a local file (LOCAL_XDS_PATH) or text: the YAML that ztunnel's local mode takes, and the shape
 * of /config_dump as well (spec 14.1, Appendix B). A file that is wrong changes nothing. */
#pragma once
#include "state/store.h"

enum {
	LOCAL_REASON_MAX = 512,
	LOCAL_FILE_MAX = 256 << 20, /* bytes */
	LOCAL_DEPTH_MAX = 32,
};

/* 0, or -errno with one line in `why`: file, line, what is wrong, what is allowed. */
int local_load_file(struct store *s, const char *path, char why[LOCAL_REASON_MAX]);
int local_load_text(struct store *s, const char *name, const char *text, size_t len, char why[LOCAL_REASON_MAX]);
