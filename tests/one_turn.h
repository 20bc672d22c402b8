/* SPDX-License-Identifier: Apache-2.0 */
/* For tests that drive a loop by hand: it does what is due, and comes back. */
#pragma once
#include "loop/loop.h"

static void one_turn_stop(struct loop *l, struct msg *m)
{
	loop_stop(l);
}

static inline void one_turn(struct loop *l)
{
	static struct msg m;

	loop_post(l, &m, one_turn_stop);
	loop_run(l);
}
