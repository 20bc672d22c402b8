/* SPDX-License-Identifier: Apache-2.0 */
/* Makes way for a Unix socket at a path. Only sockets are ever removed: what else is there is somebody's file. */
#pragma once

/* Removes a socket of this type (SOCK_STREAM, ...) on which nobody listens. 0, also when nothing is there; -EADDRINUSE when
 * somebody listens, or when it is no socket; -errno. */
int unix_path_clear(const char *path, int type);
/* Removes a socket though somebody may listen on it: who did keeps his connections and gets no more. */
int unix_path_take(const char *path);
