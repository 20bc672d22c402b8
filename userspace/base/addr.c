/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the one representation of addresses: conversions from and to text, bytes and sockaddr. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MAPPED 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff

const struct addr addr_any4 = {{MAPPED, 0, 0, 0, 0}};
const struct addr addr_any6 = {{0}};
const struct addr addr_loopback4 = {{MAPPED, 127, 0, 0, 1}};
const struct addr addr_loopback6 = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

bool addr_is4(const struct addr *a)
{
	return memcmp(a->b, addr_any4.b, 12) == 0;
}

bool addr_is_loopback(const struct addr *a)
{
	return addr_is4(a) ? a->b[12] == 127 : addr_eq(a, &addr_loopback6);
}

struct addr addr_from4(uint32_t net_order)
{
	struct addr a = addr_any4;
	memcpy(a.b + 12, &net_order, 4);
	return a;
}

int addr_from_bytes(struct addr *out, const void *p, size_t len)
{
	if (len != 4 && len != 16)
		return -EINVAL;
	if (len == 4)
		*out = addr_any4;
	memcpy(out->b + 16 - len, p, len);
	return 0;
}

int addr_parse(struct addr *out, const char *s)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (inet_pton(AF_INET, s, &v4) == 1)
		return addr_from_bytes(out, &v4, 4);
	if (inet_pton(AF_INET6, s, &v6) == 1)
		return addr_from_bytes(out, &v6, 16);
	return -EINVAL;
}

int port_parse(uint16_t *out, const char *s)
{
	unsigned v = 0;
	size_t n = strspn(s, "0123456789");

	if (n < 1 || n > 5 || s[n])
		return -EINVAL;
	for (; *s; s++)
		v = v * 10 + (unsigned)(*s - '0');
	if (v > 65535)
		return -EINVAL;
	*out = (uint16_t)v;
	return 0;
}

int endpoint_parse(struct endpoint *out, const char *s)
{
	const char *colon = strrchr(s, ':');
	bool bracket = s[0] == '[';
	struct endpoint e;
	char host[ADDR_STRLEN];
	size_t n;

	if (!colon)
		return -EINVAL;
	n = (size_t)(colon - s);
	if (bracket) {
		if (n < 2 || s[n - 1] != ']')
			return -EINVAL;
		s++;
		n -= 2;
	}
	if (n >= sizeof host)
		return -EINVAL;
	memcpy(host, s, n);
	host[n] = 0;
	if (addr_parse(&e.ip, host) || port_parse(&e.port, colon + 1) || addr_is4(&e.ip) == bracket)
		return -EINVAL;
	*out = e;
	return 0;
}

static void prefix_mask(struct prefix *p)
{
	unsigned bits = p->len + (addr_is4(&p->ip) ? 96u : 0u);

	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = bits > i * 8 ? bits - i * 8 : 0;
		if (keep < 8)
			p->ip.b[i] &= (uint8_t)(0xff00u >> keep);
	}
}

int prefix_parse(struct prefix *out, const char *s)
{
	const char *slash = strchr(s, '/');
	struct prefix p;
	char host[ADDR_STRLEN];
	uint16_t len;

	if (!slash || (size_t)(slash - s) >= sizeof host)
		return -EINVAL;
	memcpy(host, s, (size_t)(slash - s));
	host[slash - s] = 0;
	if (addr_parse(&p.ip, host) || port_parse(&len, slash + 1) || len > (addr_is4(&p.ip) ? 32 : 128))
		return -EINVAL;
	p.len = (uint8_t)len;
	prefix_mask(&p);
	*out = p;
	return 0;
}

const char *addr_str(const struct addr *a, char buf[ADDR_STRLEN])
{
	if (addr_is4(a))
		inet_ntop(AF_INET, a->b + 12, buf, ADDR_STRLEN);
	else
		inet_ntop(AF_INET6, a->b, buf, ADDR_STRLEN);
	return buf;
}

const char *endpoint_str(const struct endpoint *e, char buf[ENDPOINT_STRLEN])
{
	char ip[ADDR_STRLEN];

	addr_str(&e->ip, ip);
	snprintf(buf, ENDPOINT_STRLEN, addr_is4(&e->ip) ? "%s:%u" : "[%s]:%u", ip, (unsigned)e->port);
	return buf;
}

const char *prefix_str(const struct prefix *p, char buf[ADDR_STRLEN + 4])
{
	char ip[ADDR_STRLEN];

	snprintf(buf, ADDR_STRLEN + 4, "%s/%u", addr_str(&p->ip, ip), p->len);
	return buf;
}

bool prefix_contains(const struct prefix *p, const struct addr *a)
{
	struct prefix q = {*a, p->len};

	if (addr_is4(&p->ip) != addr_is4(a))
		return false;
	prefix_mask(&q);
	return addr_eq(&q.ip, &p->ip);
}

socklen_t endpoint_to_sockaddr(const struct endpoint *e, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof *ss);
	if (addr_is4(&e->ip)) {
		struct sockaddr_in *in = (struct sockaddr_in *)ss;
		in->sin_family = AF_INET;
		in->sin_port = htons(e->port);
		memcpy(&in->sin_addr, e->ip.b + 12, 4);
		return sizeof *in;
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(e->port);
	memcpy(&in6->sin6_addr, e->ip.b, 16);
	return sizeof *in6;
}

int endpoint_from_sockaddr(struct endpoint *e, const struct sockaddr_storage *ss)
{
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
		e->port = ntohs(in->sin_port);
		return addr_from_bytes(&e->ip, &in->sin_addr, 4);
	}
	if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;
		e->port = ntohs(in6->sin6_port);
		return addr_from_bytes(&e->ip, &in6->sin6_addr, 16);
	}
	return -EAFNOSUPPORT;
}

uint64_t addr_hash(const struct addr *a)
{
	uint64_t x, y;

	memcpy(&x, a->b, 8);
	memcpy(&y, a->b + 8, 8);
	x = (x ^ (y * 0x9e3779b97f4a7c15ull)) * 0xff51afd7ed558ccdull;
	return x ^ (x >> 32);
}
