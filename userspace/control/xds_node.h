/* SPDX-License-Identifier: Apache-2.0 */
/* Who we are, for istiod: the Node of xDS requests. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { XDS_METADATA_MAX = 512, XDS_JSON_DEPTH_MAX = 32 };

struct xds_metadata { /* of the same key the last one counts */
	const char *key, *text;
	bool json; /* `text` is a JSON value, not a string */
};

/* The encoded Node, malloc'ed. 0; -EINVAL when `*bad` is the index of an entry that is no JSON; -ENOMEM. */
int xds_node_encode(const char *id, const struct xds_metadata *m, unsigned n, uint8_t **out, size_t *len,
		    unsigned *bad);
