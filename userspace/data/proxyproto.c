// SPDX-License-Identifier: Apache-2.0
/* Writes PROXY protocol headers. */
#include "data/proxyproto.h"

enum { V2_PROXY = 0x21, INET_STREAM = 0x11, INET6_STREAM = 0x21 };

static uint8_t *put16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

size_t proxyproto_write(uint8_t buf[PROXYPROTO_MAX], const struct endpoint *src, const struct endpoint *dst,
			const char *peer)
{
	static const uint8_t signature[12] = "\r\n\r\n\0\r\nQUIT\n";
	bool v4 = addr_is4(&src->ip) && addr_is4(&dst->ip);
	size_t skip = v4 ? 12 : 0, n = 16 - skip, peer_len = peer ? strnlen(peer, 1024) : 0;
	uint8_t *p = buf + 16;

	memcpy(buf, signature, sizeof signature);
	buf[12] = V2_PROXY;
	buf[13] = v4 ? INET_STREAM : INET6_STREAM;
	memcpy(p, src->ip.b + skip, n);
	memcpy(p + n, dst->ip.b + skip, n);
	p = put16(p + 2 * n, src->port);
	p = put16(p, dst->port);
	if (peer_len) {
		*p++ = PROXYPROTO_TLV_SPIFFE;
		p = put16(p, peer_len);
		memcpy(p, peer, peer_len);
		p += peer_len;
	}
	put16(buf + 14, (size_t)(p - buf) - 16);
	return (size_t)(p - buf);
}
