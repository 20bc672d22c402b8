/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the cutting of a gRPC stream into messages. */
#include "net/grpc_frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_FIRST = 4096, BODY_KEEP = 64 << 10 };

void grpc_prefix_write(uint8_t out[GRPC_PREFIX], uint32_t len)
{
	out[0] = 0;
	out[1] = (uint8_t)(len >> 24);
	out[2] = (uint8_t)(len >> 16);
	out[3] = (uint8_t)(len >> 8);
	out[4] = (uint8_t)len;
}

static size_t message_len(const struct grpc_frames *f)
{
	return (size_t)f->prefix[1] << 24 | (size_t)f->prefix[2] << 16 | (size_t)f->prefix[3] << 8 | f->prefix[4];
}

static int body_add(struct grpc_frames *f, const uint8_t *data, size_t n)
{
	size_t at = f->have - GRPC_PREFIX;

	if (at + n > f->cap) {
		size_t cap = f->cap ? f->cap : BODY_FIRST;
		uint8_t *p;

		while (cap < at + n)
			cap *= 2;
		p = realloc(f->body, cap);
		if (!p)
			return -ENOMEM;
		f->body = p;
		f->cap = cap;
	}
	if (n)
		memcpy(f->body + at, data, n);
	f->have += n;
	return 0;
}

static int prefix_check(const struct grpc_frames *f)
{
	if (f->prefix[0])
		return -EPROTO;
	return message_len(f) > f->max ? -EMSGSIZE : 0;
}

int grpc_frames_feed(struct grpc_frames *f, const uint8_t *data, size_t len,
		     int (*message)(void *arg, const uint8_t *msg, size_t len), void *arg)
{
	int err = 0;

	while (len && !err) {
		size_t n;

		if (f->have < GRPC_PREFIX) {
			f->prefix[f->have++] = *data++;
			len--;
			if (f->have < GRPC_PREFIX)
				continue;
			err = prefix_check(f);
			if (err)
				return err;
		}
		n = message_len(f) + GRPC_PREFIX - f->have;
		n = n < len ? n : len;
		err = body_add(f, data, n);
		if (err)
			return err;
		data += n;
		len -= n;
		if (f->have == message_len(f) + GRPC_PREFIX) {
			f->have = 0;
			err = message(arg, f->body, message_len(f));
			if (f->cap > BODY_KEEP)
				grpc_frames_free(f);
		}
	}
	return err;
}

int grpc_frames_partial(const struct grpc_frames *f)
{
	return f->have != 0;
}

void grpc_frames_free(struct grpc_frames *f)
{
	free(f->body);
	f->body = NULL;
	f->cap = f->have = 0;
}
