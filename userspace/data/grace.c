/* SPDX-License-Identifier: Apache-2.0 */
/* The wait for who has not had the last bytes. */
#include "data/grace.h"

static void tick(struct timer *t)
{
	struct grace *g = container_of(t, struct grace, timer);

	timer_set(g->loop, t, GRACE_TICK_MS, tick);
	g->lasted += GRACE_TICK_MS;
	g->stalled += GRACE_TICK_MS;
	g->look(g);
}

void grace_begin(struct grace *g, struct loop *loop, void (*look)(struct grace *g))
{
	*g = (struct grace){.loop = loop, .look = look, .left = UINT32_MAX};
	timer_set(loop, &g->timer, GRACE_TICK_MS, tick);
}

void grace_stop(struct grace *g)
{
	timer_cancel(&g->timer);
}

bool grace_over(struct grace *g, uint32_t left)
{
	if (left < g->left)
		g->stalled = 0;
	g->left = left;
	return !left || g->stalled > GRACE_STALL_MS || g->lasted > GRACE_MS;
}
