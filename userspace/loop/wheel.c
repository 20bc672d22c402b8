/* SPDX-License-Identifier: Apache-2.0 */
/* Owns when timers fire.
 *
 * Timers hang in a hashed wheel: WHEEL_SLOTS lists, one per tick, an entry stays in its list until its own tick comes
 * round. Arming and cancelling are O(1); a turn visits only the ticks that have passed. Bits of `busy` are set when a
 * timer is armed and cleared when its slot is found empty. */
#include "loop/wheel.h"

void wheel_init(struct wheel *w, uint64_t tick)
{
	*w = (struct wheel){.tick = tick};
	for (unsigned i = 0; i < WHEEL_SLOTS; i++)
		list_init(&w->slot[i]);
}

void wheel_add(struct wheel *w, struct timer *t, uint64_t tick)
{
	t->expires = tick > w->tick ? tick : w->tick + 1;
	list_init(&t->link);
	list_add_tail(&w->slot[t->expires % WHEEL_SLOTS], &t->link);
	w->busy[t->expires % WHEEL_SLOTS / 64] |= 1ull << (t->expires % 64);
}

static void serve_slot(struct list *slot, uint64_t tick)
{
	struct list due;

	list_init(&due);
	list_for_each_safe (p, tmp, slot) {
		struct timer *t = list_entry(p, struct timer, link);
		if (t->expires <= tick) {
			list_del(&t->link);
			list_add_tail(&due, &t->link);
		}
	}
	while (!list_empty(&due)) { /* a callback may cancel any other timer in `due` */
		struct timer *t = list_entry(due.next, struct timer, link);
		list_del(&t->link);
		t->fire(t);
	}
}

void wheel_serve(struct wheel *w, uint64_t tick)
{
	if (tick - w->tick > WHEEL_SLOTS)
		w->tick = tick - WHEEL_SLOTS;
	while (w->tick < tick) {
		w->tick++;
		serve_slot(&w->slot[w->tick % WHEEL_SLOTS], w->tick);
	}
}

unsigned wheel_next(struct wheel *w)
{
	for (unsigned i = 1; i <= WHEEL_SLOTS;) {
		unsigned s = (unsigned)((w->tick + i) % WHEEL_SLOTS);
		uint64_t word = w->busy[s / 64] >> (s % 64);

		if (!word) {
			i += 64 - s % 64;
			continue;
		}
		i += (unsigned)__builtin_ctzll(word);
		s = (unsigned)((w->tick + i) % WHEEL_SLOTS);
		if (!list_empty(&w->slot[s]))
			return i <= WHEEL_SLOTS ? i : WHEEL_SLOTS;
		w->busy[s / 64] &= ~(1ull << (s % 64));
	}
	return 0;
}
