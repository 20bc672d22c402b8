/* SPDX-License-Identifier: Apache-2.0 */
/* HBONE within HBONE, to another network: a CONNECT stream of a pooled tunnel to the gateway, and inside it TLS and
 * HTTP/2 with whoever serves the service over there. Made for one connection, never pooled. Private to data/.
 *
 * The inner TLS has one end of a socket pair, the outer stream's leg the other: to both it is a descriptor like any. */
#pragma once
#include "base/rstr.h"
#include "data/leg.h"
#include "data/traffic.h"
#include "state/route.h"

enum { NESTED_LINGER_MS = 30000 }; /* what the outer stream may take to end once the inner tunnel has */

struct nested;
struct nested_ops {
	/* The inner tunnel is there: `h` takes streams, `peer` (borrowed) is who was verified. */
	void (*up)(void *owner, struct h2 *h, struct rstr *peer);
	/* It failed before that, and is closed. `refused`: the gateway has not seen the request. */
	void (*failed)(void *owner, enum traffic_flag flag, const char *why, bool refused);
};

/* `self`: the identity to be in the inner tunnel; `expect`: who may answer there. Both are copied. NULL: no memory. */
struct nested *nested_new(struct worker *w, const char *self, const struct route_peers *expect,
			  const struct nested_ops *ops, void *owner);
/* Opens the outer stream in a tunnel that has room for it; events follow later. -errno: nothing happened. */
int nested_start(struct nested *n, struct h2 *outer, const char *authority, const nghttp2_nv *nv, size_t n_nv);
/* The owner is done, or gives up; it hears no more. What the inner tunnel has yet to say still goes out. Takes NULL. */
void nested_close(struct nested *n);
/* Cuts those whose peer's certificate is revoked by now, and those within a tunnel that was cut. */
void nested_revoke(struct worker *w);
/* The worker ends: frees all that are left. */
void nested_free_all(struct worker *w);
