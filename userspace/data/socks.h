/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of SOCKS5 (RFC 1928) as a server of CONNECT without authentication reads them: pure functions over bytes that may
 * hold anything. Private to data/. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

enum {
	SOCKS_HANDSHAKE_MS = 10000, /* from accept to the whole request */
	SOCKS_MESSAGE_MAX = 4 + 1 + 255 + 2,
	SOCKS_HOST_MAX = 256,
};

enum socks_reply {
	SOCKS_SUCCEEDED,
	SOCKS_FAILED,
	SOCKS_UNREACHABLE = 4,
	SOCKS_UNSUPPORTED = 7, /* as ztunnel answers whatever is against the protocol */
};

/* How many more bytes the message that begins with these `n` has at least. 0: it is whole, or already wrong. Never more
 * than fit into SOCKS_MESSAGE_MAX. */
size_t socks_methods_lack(const uint8_t *p, size_t n);
size_t socks_request_lack(const uint8_t *p, size_t n);

/* Of messages that lack nothing. NULL, or what is wrong. */
const char *socks_methods_read(const uint8_t *p);
/* `host` "": the destination is an address; else its name, and `to` has the port alone. */
const char *socks_request_read(const uint8_t *p, struct endpoint *to, char host[SOCKS_HOST_MAX]);
