/* SPDX-License-Identifier: Apache-2.0 */
/* Host names, of workloads that have no address (external services) and of those that SOCKS clients ask for, as the node's
 * resolver knows them: looked up by each worker in the node's namespace, shared by all who ask, and kept for a moment, since getaddrinfo(3) tells no lifetime.
 * Private to data/. */
#pragma once
#include "data/worker.h"
#include "net/resolve.h"
#include "state/mesh.h"

enum {
	NAMES_MAX = 4096,	/* of a worker; the least recently used one makes room */
	NAMES_FRESH_MS = 5000,	/* an answer is good for so long */
	NAMES_FAILED_MS = 1000, /* and a failure */
	NAMES_WAIT_MS = 8000,	/* for an answer */
};

/* Embedded in whoever asks. */
struct names_request {
	struct list link;
	bool waits;
	/* `n` addresses (their ports mean nothing), or 0 and why. Called once, perhaps from within names_ask(). */
	void (*done)(struct names_request *r, const struct endpoint *at, unsigned n, const char *why);
};

/* `source`: whose connection it is, for the metric; NULL: not counted. */
void names_ask(struct worker *w, struct names_request *r, const struct workload *source, const char *host,
	       void (*done)(struct names_request *r, const struct endpoint *at, unsigned n, const char *why));
/* Takes one that does not wait. */
void names_cancel(struct names_request *r);
/* One of n >= 1 addresses: of the family of `like` if there is one. `random`: same value, same choice. */
const struct addr *names_pick(const struct endpoint *at, unsigned n, const struct addr *like, uint64_t random);

struct names;
struct names *names_new(void);
void names_free(struct names *n); /* nobody waits any more */
