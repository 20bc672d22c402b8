/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes SOCKS5's messages as the server reads them: only what a message lacks, into a buffer that ends where the longest
 * one does. Input: the first byte chooses the message, the others are what the client sends. */
#include <stdlib.h>
#include <string.h>

#include "data/socks.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	bool methods = len && p[0] & 1;
	size_t (*lack)(const uint8_t *p, size_t n) = methods ? socks_methods_lack : socks_request_lack;
	uint8_t *buf = malloc(SOCKS_MESSAGE_MAX);
	char host[SOCKS_HOST_MAX];
	struct endpoint to;
	size_t n = 0, more, at = 1;

	while ((more = lack(buf, n))) {
		if (n + more > SOCKS_MESSAGE_MAX)
			abort();
		more = more < len - at ? more : len - at;
		if (at >= len || !more)
			break;
		memcpy(buf + n, p + at, more);
		n += more;
		at += more;
	}
	if (n && !lack(buf, n)) {
		if (methods)
			socks_methods_read(buf);
		else if (!socks_request_read(buf, &to, host) && strlen(host) >= sizeof host)
			abort();
	}
	free(buf);
	return 0;
}
