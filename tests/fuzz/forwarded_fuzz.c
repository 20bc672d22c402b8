/* SPDX-License-Identifier: Apache-2.0 */
/* The forwarded header of a peer, into buffers of several sizes: what is returned is in the buffer, whatever
 * comes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/headers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t rooms[] = {1, 2, 16, 256};

	for (unsigned i = 0; i < sizeof rooms / sizeof *rooms; i++) {
		char *host = malloc(rooms[i]);
		int n = forwarded_parse((const char *)data, size, host, rooms[i]);

		if (strnlen(host, rooms[i]) != (size_t)(n > 0 ? n : 0))
			abort();
		free(host);
	}
	return 0;
}
