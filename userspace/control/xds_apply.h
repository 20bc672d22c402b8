/* SPDX-License-Identifier: Apache-2.0 */
/* One response of istiod goes into the store: resources, then removals, as one batch. A resource that is wrong is left
 * out and named; the others apply. Nothing here knows of connections. */
#pragma once
#include "state/store.h"

enum {
	XDS_NONCE_MAX = 1024,
	XDS_TYPE_MAX = 256,
	XDS_NACK_MAX = 4096,	    /* text of an answer that refuses resources; the rest are counted */
	XDS_LINE_MAX = 480,	    /* of it, what is said of one: its name, cut, and the reason */
	XDS_RESOURCE_MAX = 4 << 20, /* bytes of one resource */
	XDS_SCRATCH_MAX = 64 << 20, /* memory of one resource while it is decoded */
};

enum xds_type { XDS_ADDRESS, XDS_AUTHORIZATION, XDS_TYPES };
extern const char *const xds_type_urls[XDS_TYPES];

struct xds_result {
	enum xds_type type; /* XDS_TYPES: one that nobody asked for; nothing was applied */
	char type_url[XDS_TYPE_MAX + 1], nonce[XDS_NONCE_MAX + 1];
	size_t bytes; /* of resources */
	unsigned resources, removed;
	unsigned rejected;	/* left out: the mesh lacks them, or has them as they were before */
	unsigned closed;	/* policies that were not understood and fail closed */
	char why[XDS_NACK_MAX]; /* "name: reason; name: reason", or "" */
};

/* Who wants to know more; either function may be NULL. */
struct xds_listener {
	/* Every name and alias of what was not left out, and every removed name, once all of it is in the store. */
	void (*named)(void *arg, const char *name, bool removed);
	/* Each resource by its name: `line` says what is wrong with it, and whether it is a policy that fails closed. NULL:
	 * nothing is, or it was removed. */
	void (*judged)(void *arg, enum xds_type type, const char *name, const char *line, bool closed);
	void *arg;
};

/* `whole`: types (bits) of which the response has everything; what of it is not in there goes. `listener` may be NULL. 0; -EPROTO
 * with nothing changed when the message cannot be decoded, -ENOMEM when it was applied in parts. */
int xds_apply(struct store *s, const uint8_t *msg, size_t len, unsigned whole, const struct xds_listener *listener,
	      struct xds_result *out);
