/* SPDX-License-Identifier: Apache-2.0 */
/* The timers of one loop by the tick at which they fire. Private to loop/. */
#pragma once
#include "loop/loop.h"

enum { WHEEL_SLOTS = 1024 };

struct wheel {
	uint64_t tick;			 /* last one served */
	uint64_t busy[WHEEL_SLOTS / 64]; /* slots that may hold timers */
	struct list slot[WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, uint64_t tick);
/* To fire at `tick`, or at the next one if that has passed. */
void wheel_add(struct wheel *w, struct timer *t, uint64_t tick);
/* Fires what is due up to `tick`. */
void wheel_serve(struct wheel *w, uint64_t tick);
/* How many ticks from the last one served a slot comes up that is not empty; 0: the wheel is empty. */
unsigned wheel_next(struct wheel *w);
