/* SPDX-License-Identifier: Apache-2.0 */
/* What connections to istiod have in common, for xDS and for its CA: address, roots, token, headers of their own. */
#pragma once
#include "net/grpc.h"
#include "tunnel_config.h"

enum { ISTIOD_HEADERS_MAX = 16, ISTIOD_HEADER_NAME_MAX = 64 };

struct istiod_headers {
	struct grpc_header all[ISTIOD_HEADERS_MAX];
	char names[ISTIOD_HEADERS_MAX][ISTIOD_HEADER_NAME_MAX];
	unsigned n;
};

/* PREFIXname=value of the environment: a header "name". -1 with one line in `why`. */
int istiod_headers_read(struct istiod_headers *h, const char *prefix, char why[CONFIG_WHY_MAX]);
/* The bearer token (control/token.h), or NULL for none. */
const char *istiod_token(const struct tunnel_config *c);
/* The address with its scheme, malloc'ed. NULL with one line in `why`, which begins with a variable's name: when it is one
 * where everybody could listen, or when `root` is nothing that can be used. */
char *istiod_address(const char *variable, const char *address, const char *root_variable, const char *root,
		     char why[CONFIG_WHY_MAX]);
