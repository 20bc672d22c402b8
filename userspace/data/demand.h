/* SPDX-License-Identifier: Apache-2.0 */
/* Where the data plane asks for what the mesh may have and does not know yet: an interface that control/xds_demand.c
 * implements. Without on-demand xDS there is none to ask. */
#pragma once
#include "base/list.h"
#include "loop/loop.h"

enum { DEMAND_NAME_MAX = 512 };

struct demand;

/* One name: "NETWORK/ADDRESS" or "NAMESPACE/HOSTNAME". The requester allocates it; `done` is called exactly once, on
 * `loop`, and owns it from then on. What `answered` says about the name is in the store by then, or there is no such thing.
 * A requester that goes away first clears `owner` and lets `done` free the request. */
struct demand_request {
	struct msg msg;	       /* private to the implementation */
	struct list link;      /* private to the implementation */
	struct demand *demand; /* private to the implementation */
	struct loop *loop;
	void *owner; /* the requester's back pointer */
	char name[DEMAND_NAME_MAX];
	bool answered; /* false: not in time, and nobody can say whether there is such a thing */
	void (*done)(struct demand_request *r);
};

struct demand {
	/* Any thread, never waits. */
	void (*ask)(struct demand *d, struct demand_request *r);
};
