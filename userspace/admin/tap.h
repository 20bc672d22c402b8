/* SPDX-License-Identifier: Apache-2.0 */
/* Serves taps at RUN_DIR/tap.sock (headers/tap_abi.h). Each has a thread of its own, so that a reader that is slow delays
 * nobody; who began one, what for, and what came of it is in the log whatever its level. */
#pragma once
#include "data/data.h"

enum {
	TAP_JOIN_MS = 2000,   /* for all workers to join; then those count that have */
	TAP_LOOK_UP = 64,     /* records, then the reader is told what was lost, and an end is noticed */
	TAP_STALL_MS = 60000, /* a reader that takes nothing for so long has gone */
};

struct tap_server;
/* Listens at `path`; a socket there is replaced, also one that somebody listens on. On the control thread, as all here.
 * NULL with one line in `why`. */
struct tap_server *tap_server_new(struct loop *control, struct data_plane *data, const char *path, char *why,
				  size_t len);
/* No new taps. Those that there are go on. Takes NULL. */
void tap_server_drain(struct tap_server *s);
/* Ends all, waiting for their threads; before the data plane goes. Takes NULL. */
void tap_server_free(struct tap_server *s);
