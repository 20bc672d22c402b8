/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the generations of the tunnel: which one starts, serves and drains. */
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
	s->silence_ms = SUPERVISE_SILENT_MS;
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
	timer_cancel(&s->silence);
	follow_stop(s);
	if (s->good_fd >= 0)
		close(s->good_fd);
	free(s);
}

/* --- beginnings ----------------------------------------------------------------------------------------- */

const char *program_path(const struct supervise *s, char buf[64])
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
	ms = supervise_later(s, false);
	log_error(target, "cannot start %s: %s; next attempt in %u ms", s->path, strerror(e), ms);
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
		if (g)
			silence_ends(s, g);
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
	s->silence_ms = SUPERVISE_SILENT_MS;
	s->falls = 0;
}

static void retire(struct supervise *s, struct generation *g)
{
	g->state = GENERATION_DRAINING;
	if (!timer_armed(&g->kill))
		generation_kill_after(g,
				      g->silent ? SUPERVISE_SILENT_END_MS : (uint64_t)s->drain_ms + SUPERVISE_LATE_MS);
	s->h.retire(s->h.arg, g->pid);
}

static void serve(struct supervise *s, struct generation *g)
{
	bool upgrade = s->upgrading;

	g->state = GENERATION_SERVING;
	g->silent = false;
	s->proved = true;
	timer_cancel(&s->silence); /* the older one's */
	program_is_good(s, g);
	timer_set(s->loop, &s->stable, SUPERVISE_STABLE_MS, has_been_stable);
	list_for_each (p, &s->generations) {
		struct generation *o = list_entry(p, struct generation, link);

		if (o != g && o->state != GENERATION_DRAINING)
			retire(s, o);
	}
	if (!upgrade) {
		s->trouble[0] = '\0'; /* what failed before is over */
		return;
	}
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
	timer_cancel(&s->silence);
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
	bool silent = first && first->silent;
	struct program now;
	bool known = program_of_path(s->path, &now) == 0;

	first = first ? first : generation_in(s, GENERATION_STARTING);
	memset(out, 0, sizeof *out);
	out->pid = first ? first->pid : 0;
	out->adopted = first && first->adopted;
	out->upgrading = s->upgrading;
	out->silent = silent;
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
