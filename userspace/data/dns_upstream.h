/* SPDX-License-Identifier: Apache-2.0 */
/* One query to resolvers, from the pod's namespace: over UDP by a socket of its own, connected, with a random port, so
 * that the kernel keeps out answers from elsewhere; over TCP by a connection of its own. Private to data/. */
#pragma once
#include "data/dns_message.h"
#include "data/pod.h"

enum {
	DNS_RESOLVERS_MAX = 3,
	DNS_QUERY_MS = 5000, /* for an answer, from however many resolvers */
};

struct dns_resolvers {
	struct endpoint at[DNS_RESOLVERS_MAX];
	unsigned n;
};

/* Embedded in whoever asks. */
struct dns_upstream {
	struct worker *w;
	const struct pod *pod;
	const struct dns_resolvers *to;
	const struct dns_question *q; /* NULL: whatever has the same id is the answer */
	const uint8_t *msg;	      /* the asker's, until it is over */
	size_t len;
	bool tcp;
	/* Once: an answer, which is valid during the call, or NULL and why. */
	void (*done)(struct dns_upstream *u, uint8_t *answer, size_t len, const char *why);

	/* its own */
	struct io io;
	struct timer timer;
	struct task at_once;
	const char *why;
	unsigned asked; /* resolvers */
	uint8_t *in;	/* over TCP: length and answer */
	size_t sent, have;
};

/* All fields above are set. `done` is called from a later turn. */
void dns_upstream_start(struct dns_upstream *u);
/* Takes one that is over. */
void dns_upstream_cancel(struct dns_upstream *u);
