/* SPDX-License-Identifier: Apache-2.0 */
/* The header `forwarded` as a peer sent it: a pure function over bytes that need no terminator and may hold anything.
 * Private to data/. */
#pragma once
#include <stddef.h>

/* The first host= of a `forwarded` header (RFC 7239; quotes are taken off), terminated, into `host`. Returns
 * its length, 0 if there is none or it is empty, -EINVAL for what is not ASCII or an open quote,
 * -ENAMETOOLONG where it does not fit; `host` is "" unless a length is returned. */
int forwarded_parse(const char *p, size_t len, char *host, size_t host_len);
