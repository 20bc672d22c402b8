// SPDX-License-Identifier: Apache-2.0
/* Reads what a SOCKS5 client says. */
#include "data/socks.h"

enum { VERSION = 5, NO_AUTHENTICATION = 0, CONNECT = 1, ADDR_IPV4 = 1, ADDR_NAME = 3, ADDR_IPV6 = 4 };
enum { REQUEST_HEAD = 4 }; /* version, command, reserved, kind of address */

size_t socks_methods_lack(const uint8_t *p, size_t n)
{
	if (n && p[0] != VERSION)
		return 0;
	if (n < 2)
		return 2 - n;
	return n < 2u + p[1] ? 2u + p[1] - n : 0;
}

const char *socks_methods_read(const uint8_t *p)
{
	if (p[0] != VERSION)
		return "SOCKS: only version 5 is served";
	return memchr(p + 2, NO_AUTHENTICATION, p[1]) ? NULL : "SOCKS: the client wants to authenticate itself";
}

/* Of a request whose head is there and, for a name, its length; 0: no such kind. */
static size_t request_len(const uint8_t *p)
{
	switch (p[3]) {
	case ADDR_IPV4:
		return REQUEST_HEAD + 4 + 2;
	case ADDR_IPV6:
		return REQUEST_HEAD + 16 + 2;
	case ADDR_NAME:
		return REQUEST_HEAD + 1 + p[REQUEST_HEAD] + 2;
	default:
		return 0;
	}
}

size_t socks_request_lack(const uint8_t *p, size_t n)
{
	size_t len;

	if (n && p[0] != VERSION)
		return 0;
	if (n < REQUEST_HEAD)
		return REQUEST_HEAD - n;
	if (p[3] == ADDR_NAME && n == REQUEST_HEAD)
		return 1;
	len = request_len(p);
	return n < len ? len - n : 0;
}

static bool name_read(const uint8_t *p, size_t len, char host[SOCKS_HOST_MAX])
{
	for (size_t i = 0; i < len; i++)
		if (p[i] <= ' ' || p[i] > '~')
			return false;
	memcpy(host, p, len);
	host[len] = '\0';
	return len > 0;
}

const char *socks_request_read(const uint8_t *p, struct endpoint *to, char host[SOCKS_HOST_MAX])
{
	const uint8_t *end;

	host[0] = '\0';
	if (p[0] != VERSION)
		return "SOCKS: only version 5 is served";
	if (p[1] != CONNECT)
		return "SOCKS: only CONNECT is served";
	if (!request_len(p))
		return "SOCKS: unknown kind of address";
	end = p + request_len(p);
	to->ip = addr_any4;
	to->port = (uint16_t)(end[-2] << 8 | end[-1]);
	if (p[3] != ADDR_NAME)
		return addr_from_bytes(&to->ip, p + REQUEST_HEAD, p[3] == ADDR_IPV4 ? 4 : 16) < 0 ? "SOCKS: bad address"
												  : NULL;
	if (!name_read(p + REQUEST_HEAD + 1, p[REQUEST_HEAD], host))
		return "SOCKS: bad host name";
	if (addr_parse(&to->ip, host) == 0)
		host[0] = '\0';
	return NULL;
}
