/* SPDX-License-Identifier: Apache-2.0 */
/* What readers may still look at: it is collected while the store is written and given back after a grace period.
 * The one place that knows the flavour of RCU (QSBR: reading costs nothing, sleepers are offline). */
#pragma once

struct garbage_bag;
struct garbage {
	struct garbage_bag *bag;
};

/* `release(p)` is called later, on any thread. When memory is short it waits for the readers and calls it now. */
void garbage_add(struct garbage *g, void (*release)(void *p), void *p);
/* Ends a batch: from here the grace period runs. */
void garbage_flush(struct garbage *g);
/* Waits until everything that was flushed has been released. */
void garbage_wait(void);
