/* SPDX-License-Identifier: Apache-2.0 */
/* What a tunnel may send to the keeper: a hello or an answer, by the first byte. What is accepted must be in bounds. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/zds_messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct zds_answer a;
	struct zds_hello hello;
	unsigned seen = 0;

	if (!len)
		return 0;
	if (data[0] & 1) {
		zds_hello_decode(&hello, data + 1, len - 1);
		return 0;
	}
	if (zds_answer_decode(&a, data + 1, len - 1) < 0)
		return 0;
	if (a.n_sockets > ZDS_SOCKETS || strlen(a.error) >= ZDS_WHY_MAX)
		abort();
	for (unsigned i = 0; i < a.n_sockets; i++) {
		if (a.socket[i] >= ZDS_SOCKETS || seen & 1u << a.socket[i])
			abort();
		seen |= 1u << a.socket[i];
	}
	return 0;
}
