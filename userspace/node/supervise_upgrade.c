/* SPDX-License-Identifier: Apache-2.0 */
/* Owns upgrades: a successor is started beside the tunnel that serves, and has to serve in time. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "node/supervise_internal.h"

static const char target[] = "supervise";

/* --- its end --------------------------------------------------------------------------------------------- */

void upgrade_over(struct supervise *s, int err, const char *why)
{
	const struct generation *g = generation_in(s, GENERATION_SERVING);
	supervise_done done = s->done;

	timer_cancel(&s->deadline);
	s->upgrading = false;
	s->done = NULL;
	snprintf(s->trouble, sizeof s->trouble, "%s", why);
	if (err)
		s->failures++;
	else
		s->upgrades++;
	if (err)
		log_error(target, "the upgrade failed: %s; process %d goes on serving", why, g ? (int)g->pid : 0);
	if (done)
		done(s->done_arg, err, why);
	if (err)
		follow_look(s); /* the file may have changed again meanwhile */
}

void program_is_bad(struct supervise *s, const struct generation *g)
{
	if (g->program_fd >= 0 && s->good_fd >= 0 && !program_same(&g->program, &s->good))
		s->bad = g->program;
}

void program_is_good(struct supervise *s, const struct generation *g)
{
	int fd = g->program_fd < 0 ? -1 : fcntl(g->program_fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		return;
	if (s->good_fd >= 0)
		close(s->good_fd);
	s->good_fd = fd;
	s->good = g->program;
}

void supervise_fails(struct supervise *s, pid_t pid, const char *why)
{
	struct generation *g = generation_find(s, pid);

	if (!g || g->state != GENERATION_STARTING || !s->upgrading)
		return;
	program_is_bad(s, g);
	if (!generation_in(s, GENERATION_SERVING)) { /* nobody waits for it to say more: its end starts the next one */
		log_error(target, "%s, and nobody else serves: it is killed", why);
		generation_signal(g, SIGKILL);
		return;
	}
	g->state = GENERATION_DRAINING; /* it may have taken connections already */
	generation_kill_after(g, SUPERVISE_END_MS);
	s->h.retire(s->h.arg, pid);
	generation_signal(g, SIGTERM);
	upgrade_over(s, -EPROTO, why);
}

void upgrade_late(struct timer *t)
{
	struct supervise *s = container_of(t, struct supervise, deadline);
	const struct generation *g = generation_in(s, GENERATION_STARTING);
	char why[128];

	if (!g)
		return;
	snprintf(why, sizeof why, "process %d does not serve after %d s", (int)g->pid, SUPERVISE_UPGRADE_MS / 1000);
	supervise_fails(s, g->pid, why);
}

static void upgrade_lost(struct timer *t)
{
	struct supervise *s = container_of(t, struct supervise, deadline);
	const struct generation *g = generation_in(s, GENERATION_STARTING);

	if (g)
		supervise_fails(s, g->pid, "the new tunnel has lost its connection to the keeper");
}

void supervise_lost(struct supervise *s, pid_t pid)
{
	struct generation *g = generation_find(s, pid);

	if (!g || s->stopping)
		return;
	if (g->state == GENERATION_STARTING && s->upgrading)
		timer_set(s->loop, &s->deadline, SUPERVISE_LOST_MS, upgrade_lost);
	silence_begins(s, g);
}

/* --- its beginning --------------------------------------------------------------------------------------- */

static void __attribute__((format(printf, 5, 6)))
answer(supervise_done done, void *arg, int err, struct supervise *s, const char *fmt, ...)
{
	char why[SUPERVISE_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	if (done)
		done(arg, err, why);
	else
		log_error(target, "no upgrade: %s", why);
}

/* 0, or answered. */
static int may_upgrade(struct supervise *s, supervise_done done, void *arg)
{
	struct program now;
	int e = program_of_path(s->path, &now);

	if (s->held || !generation_in(s, GENERATION_SERVING)) {
		e = -EAGAIN;
		answer(done, arg, e, s, "no tunnel serves now; the next one that starts is %s anyway", s->path);
	} else if (generation_in(s, GENERATION_STARTING)) {
		e = -EBUSY;
		answer(done, arg, e, s, "another upgrade is under way; see culvertctl status");
	} else if (s->n >= SUPERVISE_GENERATIONS_MAX) {
		e = -E2BIG;
		answer(done, arg, e, s,
		       "%u earlier tunnels still drain; wait for their end, or end the oldest (kill -TERM %d)",
		       s->n - 1, (int)list_entry(s->generations.next, struct generation, link)->pid);
	} else if (e) {
		answer(done, arg, e, s, "%s: %s", s->path, e == -EACCES ? "not a program" : strerror(-e));
	}
	return e;
}

void upgrade_begin(struct supervise *s, const char *path, supervise_done done, void *arg)
{
	char why[SUPERVISE_WHY_MAX];
	struct generation *g;
	int e;

	if (may_upgrade(s, done, arg) < 0)
		return;
	s->upgrading = true;
	s->done = done;
	s->done_arg = arg;
	g = generation_spawn(s, path, generation_in(s, GENERATION_SERVING)->pid);
	if (!g) {
		e = -errno;
		program_of_path(path, &s->bad);
		snprintf(why, sizeof why, "cannot start %.256s: %s", path, strerror(-e));
		upgrade_over(s, e, why);
		return;
	}
	timer_set(s->loop, &s->deadline, SUPERVISE_UPGRADE_MS, upgrade_late);
	log_info(target, "upgrade: started process %d, %s", (int)g->pid, g->name);
	s->h.started(s->h.arg, g->pid);
}

void supervise_upgrade(struct supervise *s, supervise_done done, void *arg)
{
	upgrade_begin(s, s->path, done, arg);
}
