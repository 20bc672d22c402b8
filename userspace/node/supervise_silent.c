/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what is done about a tunnel that serves and does not answer. It may only be slow, so it is not killed for that, and
 * finishes what it has when it is back; but its process does not end either, so nothing else would replace it. */
#include "base/log.h"
#include "node/supervise_internal.h"

static const char target[] = "supervise";

static void lasts(struct timer *t)
{
	struct supervise *s = container_of(t, struct supervise, silence);
	struct generation *g = generation_in(s, GENERATION_SERVING);
	char buf[64];

	if (!g || !g->silent)
		return;
	/* Should that one fail, or be no successor of it, there is another attempt. */
	s->silence_ms = 2 * s->silence_ms < SUPERVISE_SILENT_MAX_MS ? 2 * s->silence_ms : SUPERVISE_SILENT_MAX_MS;
	timer_set(s->loop, &s->silence, s->silence_ms, lasts);
	if (generation_in(s, GENERATION_STARTING))
		return;
	log_error(target, "the tunnel (process %d) does not answer: its successor starts beside it", (int)g->pid);
	s->restarts++;
	upgrade_begin(s, program_path(s, buf), NULL, NULL);
}

void silence_begins(struct supervise *s, struct generation *g)
{
	g->silent = true;
	/* Nobody starts beside one of an earlier keeper that never came: it is the one that served. */
	if (g->state == GENERATION_STARTING && g->adopted && !s->upgrading)
		g->state = GENERATION_SERVING;
	if (g->state == GENERATION_SERVING && !s->held)
		timer_set(s->loop, &s->silence, s->silence_ms, lasts);
}

void silence_ends(struct supervise *s, struct generation *g)
{
	if (!g->silent)
		return;
	g->silent = false;
	if (g->state == GENERATION_SERVING)
		timer_cancel(&s->silence);
	else if (g->state == GENERATION_DRAINING && timer_armed(&g->kill)) /* it has the time of all that drain */
		generation_kill_after(g, (uint64_t)s->drain_ms + SUPERVISE_LATE_MS);
}
