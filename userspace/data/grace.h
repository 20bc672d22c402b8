/* SPDX-License-Identifier: Apache-2.0 */
/* A connection of which one side has ended: how long the other is waited for, to have the last bytes. Private to data/. */
#pragma once
#include "loop/loop.h"

enum {
	GRACE_TICK_MS = 50,
	GRACE_MS = 30000,      /* for this long, */
	GRACE_STALL_MS = 1000, /* before a reset only while it takes some */
};

struct grace { /* zeroed: nobody is waited for */
	struct timer timer;
	struct loop *loop;
	void (*look)(struct grace *g);
	uint32_t lasted, stalled, left; /* ms, ms without a byte taken, bytes that it has not taken */
};

/* `look` is called each GRACE_TICK_MS until grace_stop(). */
void grace_begin(struct grace *g, struct loop *loop, void (*look)(struct grace *g));
void grace_stop(struct grace *g);
/* With `left` bytes that it has not taken: it has all, or is not waited for any longer. */
bool grace_over(struct grace *g, uint32_t left);
