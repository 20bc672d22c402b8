/* SPDX-License-Identifier: Apache-2.0 */
/* Host names to addresses without stopping the loop: getaddrinfo(3) runs in a thread of its own. */
#pragma once
#include "base/addr.h"
#include "loop/loop.h"

enum {
	RESOLVE_ADDRS_MAX = 16,
	RESOLVE_THREADS_MAX = 256, /* of the process, those included that nobody waits for any more */
};

struct resolve;
/* `done` is called once, from a later turn of the loop, unless cancelled: addresses in the resolver's order, or none
 * and why. The object is gone then. NULL: no memory, no thread, or too many of them. */
struct resolve *resolve_new(struct loop *l, const char *host, uint16_t port,
			    void (*done)(void *arg, const struct endpoint *at, unsigned n, const char *why), void *arg);
void resolve_cancel(struct resolve *r); /* takes NULL */
