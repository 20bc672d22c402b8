/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's length-prefixed messages: one byte of flags, four of length, the message. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { GRPC_PREFIX = 5 };

/* Collects one message at a time; memory grows with what has arrived, not with what a prefix promises, and a large
 * message's goes when it has been delivered.
 * Zero-initialised but for `max`, the longest message. */
struct grpc_frames {
	size_t max;
	uint8_t prefix[GRPC_PREFIX];
	size_t have; /* bytes of the prefix, then of the message on top */
	uint8_t *body;
	size_t cap;
};

void grpc_prefix_write(uint8_t out[GRPC_PREFIX], uint32_t len);
/* Calls `message` for each message that is complete, until it returns non-zero. 0, what `message` returned,
 * -EMSGSIZE (longer than `max`), -EPROTO (compressed: we never offer that) or -ENOMEM. */
int grpc_frames_feed(struct grpc_frames *f, const uint8_t *data, size_t len,
		     int (*message)(void *arg, const uint8_t *msg, size_t len), void *arg);
/* Whether the bytes end inside a message. */
int grpc_frames_partial(const struct grpc_frames *f);
void grpc_frames_free(struct grpc_frames *f);
