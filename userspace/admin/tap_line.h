/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of headers/tap_abi.h: what is asked, and a record. */
#pragma once
#include "data/tap.h"

struct tap_question {
	char pod[2 * DUMP_NAME_MAX], peer[TAP_PEER_MAX]; /* peer "": any */
};
/* NULL, or what is wrong with it. */
const char *tap_question(const char *text, struct tap_question *out);

/* `out` is malloc'ed. -ENOMEM. */
int tap_line(const struct tap_record *r, char **out, size_t *len);
