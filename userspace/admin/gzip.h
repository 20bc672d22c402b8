/* SPDX-License-Identifier: Apache-2.0 */
/* gzip (RFC 1952) of a whole text. */
#pragma once
#include <stddef.h>

/* `out` is malloc'ed. -ENOMEM. */
int gzip(const void *in, size_t len, char **out, size_t *out_len);
