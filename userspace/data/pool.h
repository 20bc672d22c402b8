/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's HBONE connections to other nodes: one from a pod to a next hop as one identity, shared by all that goes there;
 * siblings when one is full. Private to data/. */
#pragma once
#include "data/pod.h"
#include "data/traffic.h"
#include "net/h2.h"
#include "state/route.h"

/* For one more than there may be the one goes that has been without streams longest; where all have some, it fails. */
enum {
	POOL_CONNS_MAX = 4096, /* of a worker; fewer where a quarter of the descriptors is, for all workers */
	POOL_SHARES = 2,       /* a pod has no more than this part of them (1/2): one of its own goes */
	POOL_SPARE_MS = 5000,  /* without streams while a sibling has room */
	POOL_WHY_MAX = 256,
};

/* Asks for a connection with room for one more stream. Embedded in the asker. */
struct pool_request {
	struct list link;
	struct worker *w;
	bool fresh; /* with `h`: its peer has not said a word yet */
	/* `h` has room now: open the stream at once; NULL: `why` and `flag` say what went wrong. Called once, perhaps
	 * from within pool_acquire(). */
	void (*done)(struct pool_request *r, struct h2 *h, enum traffic_flag flag, const char *why);
};

struct pool *pool_new(struct worker *w);
/* Closes everything; requests are answered with a failure. */
void pool_free(struct pool *p);

/* `self`: the identity to be; `route`: next hop and the identities to accept. `peer` is not known before: the identity
 * that was verified is told by pool_peer(). */
void pool_acquire(struct pool *p, struct pool_request *r, struct pod *pod, struct rstr *self, const struct route *route,
		  void (*done)(struct pool_request *r, struct h2 *h, enum traffic_flag flag, const char *why));
void pool_cancel(struct pool_request *r);
/* The verified identity of a pooled connection's peer. */
struct rstr *pool_peer(const struct h2 *h);
/* Cuts those whose peer's certificate is revoked by now. */
void pool_revoke(struct pool *p);
/* Closes the connections of a pod. */
void pool_drop_pod(struct pool *p, const struct pod *pod);
/* GOAWAY to those without streams; the others follow when they have none. */
void pool_drain(struct pool *p);
