/* SPDX-License-Identifier: Apache-2.0 */
/* IP addresses, ports and prefixes in one form: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d
 * (RFC 4291, 2.5.5.2). Everything above net/sock.c uses this form only. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct addr {
	uint8_t b[16];
};

struct endpoint { /* an address and a TCP or UDP port, the port in host order */
	struct addr ip;
	uint16_t port;
};

struct prefix { /* `len` counts bits of the native family: 0-32 for IPv4, 0-128 for IPv6 */
	struct addr ip;
	uint8_t len;
};

#define ADDR_STRLEN	46 /* with the terminator, as INET6_ADDRSTRLEN */
#define ENDPOINT_STRLEN 56 /* "[" address "]:65535" and the terminator */

extern const struct addr addr_any4, addr_any6, addr_loopback4, addr_loopback6;

static inline bool addr_eq(const struct addr *a, const struct addr *b)
{
	return memcmp(a, b, sizeof *a) == 0;
}

static inline bool endpoint_eq(const struct endpoint *a, const struct endpoint *b)
{
	return addr_eq(&a->ip, &b->ip) && a->port == b->port;
}

bool addr_is4(const struct addr *a);
bool addr_is_loopback(const struct addr *a); /* 127/8 or ::1 */
struct addr addr_from4(uint32_t net_order);

/* From 4 or 16 bytes in network order, as xDS carries them. -EINVAL for any other length. */
int addr_from_bytes(struct addr *out, const void *p, size_t len);

/* Textual form; only what inet_pton(3) takes, so no leading zeros, no hex or decimal IPv4. -EINVAL. */
int addr_parse(struct addr *out, const char *s);
/* Decimal, 1 to 5 digits, 0 to 65535. -EINVAL. */
int port_parse(uint16_t *out, const char *s);
/* "a.b.c.d:port" or "[v6]:port"; the port is decimal, 1 to 5 digits, 0 to 65535. -EINVAL. */
int endpoint_parse(struct endpoint *out, const char *s);
/* "ip/len". Host bits are cleared. -EINVAL, also without "/len" or with one too large. */
int prefix_parse(struct prefix *out, const char *s);

/* Write the text into `buf` and return it. Sizes: ADDR_STRLEN, ENDPOINT_STRLEN, ADDR_STRLEN + 4. */
const char *addr_str(const struct addr *a, char buf[ADDR_STRLEN]);
const char *endpoint_str(const struct endpoint *e, char buf[ENDPOINT_STRLEN]);
const char *prefix_str(const struct prefix *p, char buf[ADDR_STRLEN + 4]);

/* An address matches a prefix of its own family only. */
bool prefix_contains(const struct prefix *p, const struct addr *a);

/* sockaddr of the native family (AF_INET for mapped addresses); returns its length. */
socklen_t endpoint_to_sockaddr(const struct endpoint *e, struct sockaddr_storage *ss);
/* -EAFNOSUPPORT for anything but AF_INET and AF_INET6. */
int endpoint_from_sockaddr(struct endpoint *e, const struct sockaddr_storage *ss);

uint64_t addr_hash(const struct addr *a);
