/* SPDX-License-Identifier: Apache-2.0 */
/* The bearer token that istiod wants: from a file that is read for every use, since Kubernetes rotates it. */
#pragma once
#include <stddef.h>

enum { TOKEN_MAX = 16384 };

/* Writes "Bearer TOKEN" into a malloc'ed `*out`. `source`: the path of an existing file, else the token itself. 0,
 * -ENODATA for an empty one, -EINVAL for one that cannot stand in a header, or -errno. */
int token_header(const char *source, char **out);
