/* SPDX-License-Identifier: Apache-2.0 */
/* Who connects to a worker's HBONE servers, and the share of it that one of them may take. A source is an address; of
 * IPv6 hosts that the mesh does not know it is the network of 64 bits, of which a single host may have all. Private to
 * data/, each worker has its own. */
#pragma once
#include "base/addr.h"
#include "base/list.h"
#include "data/limits.h"
#include "net/h2.h"

/* Of a source on a worker; fewer where descriptors are: a share of them is said in brackets. */
enum {
	SOURCE_CONNS_MAX = 4096,    /* HBONE connections; one more is refused */
	SOURCE_WAITING_MAX = 3072,  /* of these not yet through with TLS (a quarter); for one more the oldest goes. To
				       hold one costs less than to have it come again. All sources and workers together have
				       that quarter too, and a worker its share of it whatever the others do */
	SOURCE_HANDSHAKES_MAX = 64, /* of these in a handshake; more wait their turn */
	SOURCE_STREAMS_MAX = 32768, /* requests (half, for all workers); one more is refused */
	SOURCE_REQUESTS_MAX = 16,   /* of all sources that are begun in one turn of the loop; they take turns */
	SOURCE_PLACE_MS = 25,	    /* between two handshakes that are stuck and make room for others of their source */
	SOURCE_CALM_MS = 1000,	    /* after a flood: until its next handshake */
	SOURCE_FAULTS_MAX = 64,	    /* connections that broke the protocol: this many at once, */
	SOURCE_FAULT_MS = 250,	    /* and one in this time; more is a flood */
	SOURCE_BUCKETS = 256,
};

/* A connection that waits until TLS is done. */
struct source_waiter {
	struct list of_source, of_all; /* the oldest first */
};

struct source {
	struct list link;     /* bucket */
	struct list turn;     /* among those that have a server queued */
	struct list waiting;  /* its waiters */
	struct list queued;   /* servers that have heard from their client and wait for their turn, the newest first */
	struct list asking;   /* among those that have a request that has not begun */
	struct list requests; /* these */
	struct sources *all;
	struct addr ip;
	unsigned refs, n_conns, n_waiting, n_shaking, n_streams;
	struct h2_share share; /* what its connections hold */
	uint64_t calm_at, place_at;
	uint64_t faults_until; /* when all that it broke is forgotten */
};

struct sources {
	struct loop *loop;
	struct list bucket[SOURCE_BUCKETS];
	struct list turn;    /* sources that have a server queued, in the order in which they are served */
	struct list asking;  /* sources whose requests wait, in the same way */
	struct task begin;   /* some of them */
	struct list waiting; /* all waiters of this worker */
	unsigned n_waiting, *all_waiting;
	unsigned streams_max, waiting_max;   /* SOURCE_STREAMS_MAX, SOURCE_WAITING_MAX, or what descriptors allow */
	unsigned waiting_all, waiting_share; /* how many may wait in all workers, and always in this one */
};

/* One of `workers`, which share the descriptors and `waiting` (atomic). NULL: no memory. */
struct sources *sources_new(struct loop *l, unsigned workers, unsigned *waiting);
/* There are no references any more. Takes NULL. */
void sources_free(struct sources *all);
/* A reference. NULL: no memory. */
struct source *source_get(struct sources *all, const struct addr *ip, bool known);
struct source *source_ref(struct source *s);
/* Takes NULL. */
void source_put(struct source *s);
void source_waiter_init(struct source_waiter *w);
/* `w` waits from now on. Returns the one that has to go for it, and why, or NULL. */
struct source_waiter *source_wait(struct source *s, struct source_waiter *w, enum limit *why);
/* It waits no longer, or has not. */
void source_waited(struct source *s, struct source_waiter *w);
/* Its connection was ended for a flood. */
void source_flooded(struct source *s);
/* Its connection was ended since it broke the protocol: many of them are a flood. */
void source_fault(struct source *s);
/* May it begin another handshake now? */
bool source_may_begin(const struct source *s);
