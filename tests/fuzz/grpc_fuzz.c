/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the cutting of gRPC messages: however the bytes are split, the same messages come out, and memory stays in
 * proportion to what has arrived. The first byte is the step. */
#include <stdlib.h>

#include "net/grpc_frame.h"

enum { MESSAGE_MAX = 4096 };

struct sum {
	size_t messages, bytes;
	uint64_t hash;
};

static int add(void *arg, const uint8_t *msg, size_t len)
{
	struct sum *s = arg;

	if (len > MESSAGE_MAX)
		abort();
	s->messages++;
	s->bytes += len;
	for (size_t i = 0; i < len; i++)
		s->hash = (s->hash ^ msg[i]) * 1099511628211ull;
	return msg && len == 13 ? 13 : 0; /* the receiver may have had enough */
}

static int feed(const uint8_t *p, size_t len, size_t step, struct sum *s)
{
	struct grpc_frames f = {.max = MESSAGE_MAX};
	int e = 0;

	for (size_t at = 0; at < len && !e; at += step)
		e = grpc_frames_feed(&f, p + at, len - at < step ? len - at : step, add, s);
	if (f.cap > 2 * MESSAGE_MAX + 4096)
		abort();
	grpc_frames_free(&f);
	return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct sum whole = {0}, parts = {0};

	if (!len)
		return 0;
	if (feed(p + 1, len - 1, len, &whole) != feed(p + 1, len - 1, 1u + p[0], &parts) ||
	    whole.messages != parts.messages || whole.hash != parts.hash)
		abort();
	return 0;
}
