/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, endpoints and prefixes as text: what parses prints, and parses again to the same value. */
#include <stdlib.h>

#include "base/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[256], out[ENDPOINT_STRLEN];
	struct addr a, a2;
	struct endpoint e, e2;
	struct prefix p, p2;

	if (size >= sizeof text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (addr_parse(&a, text) == 0)
		require(addr_parse(&a2, addr_str(&a, out)) == 0 && addr_eq(&a, &a2));
	if (endpoint_parse(&e, text) == 0)
		require(endpoint_parse(&e2, endpoint_str(&e, out)) == 0 && endpoint_eq(&e, &e2));
	if (prefix_parse(&p, text) == 0) {
		require(prefix_parse(&p2, prefix_str(&p, out)) == 0 && p2.len == p.len && addr_eq(&p.ip, &p2.ip));
		require(prefix_contains(&p, &p.ip));
	}
	return 0;
}
