/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the PROXY header and HBONE's authority: lengths that are told are the lengths that are written, whatever the
 * peer's identity and the CONNECT's authority hold. Input: two endpoints (18 bytes each), then the text. */
#include <stdlib.h>
#include <string.h>

#include "data/hbone.h"
#include "data/proxyproto.h"

enum { ENDPOINT_BYTES = 18 };

static struct endpoint take(const uint8_t *p)
{
	struct endpoint e;

	memcpy(e.ip.b, p, 16);
	e.port = (uint16_t)(p[16] << 8 | p[17]);
	return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	uint8_t out[PROXYPROTO_MAX];
	char buf[HBONE_AUTHORITY_MAX];
	const char *host = NULL;
	struct endpoint a, b, authority;
	char *text;
	size_t n;

	if (len < 2 * ENDPOINT_BYTES)
		return 0;
	a = take(p);
	b = take(p + ENDPOINT_BYTES);
	text = calloc(1, len - 2 * ENDPOINT_BYTES + 1);
	memcpy(text, p + 2 * ENDPOINT_BYTES, len - 2 * ENDPOINT_BYTES);
	n = proxyproto_write(out, &a, &b, *text ? text : NULL);
	if (n < 16 || n > sizeof out || n - 16 != ((size_t)out[14] << 8 | out[15]))
		abort();
	if (hbone_authority(text, &authority, &host, buf) == 0 && host && strlen(host) >= sizeof buf)
		abort();
	free(text);
	return 0;
}
