/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for one decoded message at a time, taken from the front and given back at once: a mesh comes as tens of thousands
 * of messages of ten small pieces each. Private to control/xds*.c. */
#pragma once
#include <protobuf-c/protobuf-c.h>

struct xds_scratch_block;
struct xds_scratch {
	ProtobufCAllocator allocator; /* for the generated unpack functions; what they free stays until the reset */
	struct xds_scratch_block *blocks;
	size_t used, max; /* bytes; beyond `max` there is no memory */
};

void xds_scratch_init(struct xds_scratch *s, size_t max);
void xds_scratch_reset(struct xds_scratch *s);
void xds_scratch_free(struct xds_scratch *s);
