/* SPDX-License-Identifier: Apache-2.0 */
/* What follows when a tunnel's process has ended: another one at once, after a pause that grows, or the keeper's end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/supervise_internal.h"

static const char target[] = "supervise";

static void ended_text(char *out, size_t len, const siginfo_t *how)
{
	if (how->si_code == CLD_EXITED)
		snprintf(out, len, "ended with status %d", how->si_status);
	else if (how->si_code)
		snprintf(out, len, "was killed by signal %d (%s)", how->si_status, strsignal(how->si_status));
	else
		snprintf(out, len, "ended");
}

static void spawn_again(struct timer *t)
{
	supervise_start(container_of(t, struct supervise, again));
}

static unsigned doubled(unsigned ms, unsigned most)
{
	return 2 * ms < most ? 2 * ms : most;
}

/* Until the next start: none for the first ends of tunnels that have served. */
static unsigned pause_take(struct supervise *s, bool served)
{
	unsigned ms = s->backoff_ms;

	if (!served) {
		s->backoff_ms = doubled(ms, SUPERVISE_BACKOFF_MAX_MS);
		return ms;
	}
	s->falls++;
	ms = SUPERVISE_BACKOFF_MIN_MS;
	for (unsigned i = SUPERVISE_AT_ONCE + 1; i < s->falls && ms < SUPERVISE_SERVED_MAX_MS; i++)
		ms = doubled(ms, SUPERVISE_SERVED_MAX_MS);
	return s->falls <= SUPERVISE_AT_ONCE ? 0 : ms;
}

unsigned supervise_later(struct supervise *s, bool served)
{
	unsigned ms = pause_take(s, served);

	if (ms && !s->held)
		timer_set(s->loop, &s->again, ms, spawn_again);
	return ms;
}

/* What is left when neither serves nor starts one. */
static void accident(struct supervise *s, pid_t pid, const char *how, bool served)
{
	unsigned ms = supervise_later(s, served);

	if (s->held)
		return;
	s->restarts++;
	if (ms) {
		log_error(target, "the tunnel (process %d) %s; the next one starts in %u ms", (int)pid, how, ms);
		return;
	}
	log_error(target, "the tunnel (process %d) %s; the next one starts", (int)pid, how);
	supervise_start(s);
}

static void successor_ended(struct supervise *s, pid_t pid, const char *text, const siginfo_t *how)
{
	char why[SUPERVISE_WHY_MAX];

	if (s->upgrading) {
		snprintf(why, sizeof why, "process %d %s before it served%s", (int)pid, text,
			 how->si_code == CLD_EXITED && how->si_status ? "; its last line in the log says why" : "");
		upgrade_over(s, -ECHILD, why);
	}
	if (generation_in(s, GENERATION_SERVING))
		return;
	if (!s->proved && how->si_code == CLD_EXITED && how->si_status)
		s->h.refused(s->h.arg, how->si_status);
	else
		accident(s, pid, text, false);
}

static void serving_ended(struct supervise *s, pid_t pid, const char *text)
{
	const struct generation *next = generation_in(s, GENERATION_STARTING);

	timer_cancel(&s->stable);
	if (!next) {
		accident(s, pid, text, true);
		return;
	}
	s->restarts++; /* the successor's time goes on: one that hangs makes room for what served before */
	log_error(target, "the tunnel (process %d) %s; its successor, process %d, is starting", (int)pid, text,
		  (int)next->pid);
}

void supervise_ended(struct generation *g, const siginfo_t *how)
{
	struct supervise *s = g->owner;
	enum generation_state state = g->state;
	pid_t pid = g->pid;
	char text[128];

	ended_text(text, sizeof text, how);
	if (state == GENERATION_STARTING)
		program_is_bad(s, g);
	generation_free(g);
	s->h.ended(s->h.arg, pid);
	if (s->stopping) {
		if (!s->n)
			s->h.stopped(s->h.arg);
		return;
	}
	if (state == GENERATION_STARTING)
		successor_ended(s, pid, text, how);
	else if (state == GENERATION_SERVING)
		serving_ended(s, pid, text);
	else
		log_info(target, "the old tunnel (process %d) %s", (int)pid, text);
	if (state == GENERATION_DRAINING)
		follow_look(s); /* an upgrade may have been one too many */
}
