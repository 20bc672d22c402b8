/* SPDX-License-Identifier: Apache-2.0 */
/* The PROXY protocol's header, version 2, binary (HAProxy's specification, section 2.2), as applications with a tunnel
 * protocol PROXY expect it. Private to data/. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

enum { PROXYPROTO_MAX = 16 + 36 + 3 + 1024, PROXYPROTO_TLV_SPIFFE = 0xd0 };

/* Writes the header; `peer`: SPIFFE ID for the TLV, or NULL. Where the families differ, IPv4 goes as ::ffff:a.b.c.d: what was
 * dialled must not be lost, a waypoint chooses by it. Returns its length. */
size_t proxyproto_write(uint8_t buf[PROXYPROTO_MAX], const struct endpoint *src, const struct endpoint *dst,
			const char *peer);
