/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the generations of the tunnel: which one starts, serves and drains, and what follows when one ends. */
#include "node/supervise.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "node/supervise_internal.h"

static const char target[] = "supervise";

struct supervise *supervise_new(struct loop *l, const char *path, char *const argv[], char *const envp[],
				unsigned drain_ms, const struct supervise_handler *h)
{
	struct supervise *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->loop = l;
	s->h = *h;
	s->path = path;
	s->argv = argv;
	s->envp = envp;
	s->drain_ms = drain_ms;
	s->good_fd = -1;
	s->backoff_ms = SUPERVISE_BACKOFF_MIN_MS;
	list_init(&s->generations);
	return s;
}

void supervise_free(struct supervise *s)
{
	if (!s)
		return;
	list_for_each_safe (p, tmp, &s->generations)
		generation_free(list_entry(p, struct generation, link));
	timer_cancel(&s->again);
	timer_cancel(&s->stable);
	timer_cancel(&s->deadline);
	follow_stop(s);
	if (s->good_fd >= 0)
		close(s->good_fd);
	free(s);
}

/* --- the end of a process ------------------------------------------------------------------------------- */

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

/* What is left when neither serves nor starts one. */
static void accident(struct supervise *s, pid_t pid, const char *how, bool served)
{
	unsigned ms = pause_take(s, served);

	if (s->held)
		return;
	s->restarts++;
	if (ms)
		log_error(target, "the tunnel (process %d) %s; the next one starts in %u ms", (int)pid, how, ms);
	else
		log_error(target, "the tunnel (process %d) %s; the next one starts", (int)pid, how);
	if (ms)
		timer_set(s->loop, &s->again, ms, spawn_again);
	else
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

/* --- beginnings ----------------------------------------------------------------------------------------- */

/* What to start after an accident: the file, or what served before it where that one fails. */
static const char *program_path(const struct supervise *s, char buf[64])
{
	struct program now;

	if (s->good_fd < 0 || program_of_path(s->path, &now) < 0 || !program_same(&now, &s->bad))
		return s->path;
	log_warn(target, "%s failed before: the program that served before it is started again", s->path);
	snprintf(buf, 64, "/proc/self/fd/%d", s->good_fd);
	return buf;
}

void supervise_start(struct supervise *s)
{
	struct generation *g;
	char buf[64];
	unsigned ms;
	int e;

	if (s->held || generation_in(s, GENERATION_STARTING) || generation_in(s, GENERATION_SERVING))
		return;
	timer_cancel(&s->again);
	g = generation_spawn(s, program_path(s, buf), 0);
	if (g) {
		log_info(target, "started the tunnel, process %d", (int)g->pid);
		s->h.started(s->h.arg, g->pid);
		return;
	}
	e = errno;
	ms = pause_take(s, false);
	log_error(target, "cannot start %s: %s; next attempt in %u ms", s->path, strerror(e), ms);
	timer_set(s->loop, &s->again, ms, spawn_again);
}

/* Among those that do not drain the youngest starts, the one before it serves, as far as is known yet. */
static enum generation_state place(struct supervise *s, const struct generation *g)
{
	struct generation *serving = generation_in(s, GENERATION_SERVING),
			  *starting = generation_in(s, GENERATION_STARTING);

	if (serving && serving->born > g->born)
		return GENERATION_DRAINING;
	if (starting && starting->born > g->born)
		return serving ? GENERATION_DRAINING : GENERATION_SERVING;
	if (starting && serving)
		starting->state = GENERATION_DRAINING;
	else if (starting)
		starting->state = GENERATION_SERVING;
	return GENERATION_STARTING;
}

/* Of its own accord, or somebody's: the next one begins at once. */
static void drains(struct supervise *s, struct generation *g)
{
	enum generation_state was = g->state;

	if (was == GENERATION_SERVING && !generation_in(s, GENERATION_STARTING))
		log_info(target, "the tunnel (process %d) drains; the next one starts", (int)g->pid);
	g->state = GENERATION_DRAINING;
	if (was == GENERATION_STARTING && s->upgrading)
		upgrade_over(s, -ECANCELED, "the new tunnel was told to end");
	supervise_start(s);
}

int supervise_adopt(struct supervise *s, pid_t pid, bool draining)
{
	struct generation *g = generation_find(s, pid);
	enum generation_state state;

	if (g || s->stopping) {
		if (g && draining)
			drains(s, g);
		return 0;
	}
	if (s->n > SUPERVISE_GENERATIONS_MAX)
		return -E2BIG;
	g = generation_adopt(s, pid);
	if (!g)
		return -errno;
	g->state = GENERATION_DRAINING; /* not counted by place() */
	state = draining ? GENERATION_DRAINING : place(s, g);
	g->state = state;
	s->proved = true;
	log_info(target, "took over the tunnel that runs already, process %d%s", (int)pid,
		 draining ? ", which drains" : "");
	if (state == GENERATION_STARTING && generation_in(s, GENERATION_SERVING)) {
		s->upgrading = true;
		timer_set(s->loop, &s->deadline, SUPERVISE_UPGRADE_MS, upgrade_late);
	}
	if (!draining)
		timer_cancel(&s->again);
	s->h.started(s->h.arg, pid);
	return 0;
}

static void has_been_stable(struct timer *t)
{
	struct supervise *s = container_of(t, struct supervise, stable);

	s->backoff_ms = SUPERVISE_BACKOFF_MIN_MS;
	s->falls = 0;
}

static void retire(struct supervise *s, struct generation *g)
{
	g->state = GENERATION_DRAINING;
	if (!timer_armed(&g->kill))
		generation_kill_after(g, (uint64_t)s->drain_ms + SUPERVISE_LATE_MS);
	s->h.retire(s->h.arg, g->pid);
}

static void serve(struct supervise *s, struct generation *g)
{
	bool upgrade = s->upgrading;

	g->state = GENERATION_SERVING;
	s->proved = true;
	program_is_good(s, g);
	timer_set(s->loop, &s->stable, SUPERVISE_STABLE_MS, has_been_stable);
	list_for_each (p, &s->generations) {
		struct generation *o = list_entry(p, struct generation, link);

		if (o != g && o->state != GENERATION_DRAINING)
			retire(s, o);
	}
	if (!upgrade)
		return;
	log_info(target, "upgraded: process %d serves, %s", (int)g->pid, g->name);
	upgrade_over(s, 0, "");
}

void supervise_serves(struct supervise *s, pid_t pid)
{
	struct generation *g = generation_find(s, pid);

	if (!g || s->stopping)
		return;
	if (g->state == GENERATION_DRAINING)
		retire(s, g);
	else if (g->state == GENERATION_STARTING)
		serve(s, g);
	else if (s->good_fd < 0)
		program_is_good(s, g);
	follow_look(s);
}

/* --- the end of all ------------------------------------------------------------------------------------- */

void supervise_hold(struct supervise *s)
{
	s->held = true;
	timer_cancel(&s->again);
	follow_stop(s);
}

void supervise_stop(struct supervise *s, unsigned limit_ms)
{
	bool again = s->stopping;

	s->stopping = true;
	supervise_hold(s);
	if (s->upgrading)
		upgrade_over(s, -ECANCELED, "the keeper ends");
	if (!s->n) {
		if (!again)
			s->h.stopped(s->h.arg);
		return;
	}
	list_for_each (p, &s->generations) {
		struct generation *g = list_entry(p, struct generation, link);

		generation_signal(g, SIGTERM);
		if (!again)
			generation_kill_after(g, limit_ms);
	}
}

void supervise_status(const struct supervise *s, struct supervise_status *out)
{
	const struct generation *first = generation_in(s, GENERATION_SERVING);
	struct program now;
	bool known = program_of_path(s->path, &now) == 0;

	first = first ? first : generation_in(s, GENERATION_STARTING);
	memset(out, 0, sizeof *out);
	out->pid = first ? first->pid : 0;
	out->adopted = first && first->adopted;
	out->upgrading = s->upgrading;
	out->restarts = s->restarts;
	out->upgrades = s->upgrades;
	out->failures = s->failures;
	memcpy(out->trouble, s->trouble, sizeof out->trouble);
	list_for_each (p, &s->generations) {
		const struct generation *g = list_entry(p, struct generation, link);
		struct generation_status *o = &out->generation[out->n++];

		o->pid = g->pid;
		o->state = g->state;
		o->adopted = g->adopted;
		o->current = known && program_same(&g->program, &now);
		o->age_s = process_age(g->pid);
		memcpy(o->program, g->name, sizeof o->program);
		if (out->n == sizeof out->generation / sizeof *out->generation)
			break;
	}
}
