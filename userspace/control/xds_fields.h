/* SPDX-License-Identifier: Apache-2.0 */
/* The outermost level of a protobuf message, field by field in place. A response has the whole mesh in one message, and
 * the library copies all of a message before one sees any of it; its resources are decoded by the library, one by one. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xds_fields {
	const uint8_t *at, *end;
	bool bad; /* the bytes are no message */
	/* The field under the cursor. */
	uint32_t number;
	const uint8_t *bytes; /* of a length-delimited one; NULL: another wire type */
	size_t len;
};

static inline struct xds_fields xds_fields(const uint8_t *msg, size_t len)
{
	return (struct xds_fields){.at = msg, .end = len ? msg + len : msg};
}
/* False at the end, or when `bad`. */
bool xds_field_next(struct xds_fields *f);
