/* SPDX-License-Identifier: Apache-2.0 */
/* What supervise.c (who starts, serves and drains), supervise_ended.c, supervise_upgrade.c, supervise_silent.c,
 * supervise_follow.c (the file) and generation.c (one process) share. */
#pragma once
#include <signal.h>

#include "loop/folder_watch.h"
#include "node/process.h"
#include "node/supervise.h"

struct generation {
	struct list link; /* of supervise.generations, oldest first */
	struct supervise *owner;
	pid_t pid;
	uint64_t born;
	enum generation_state state;
	bool adopted; /* not our child */
	struct io io; /* its pidfd: tells its end, whoever started it */
	struct timer kill;
	bool silent; /* it has lost its connection, and is not back yet */
	struct program program;
	int program_fd;
	char name[PATH_MAX];
};

struct supervise {
	struct loop *loop;
	struct supervise_handler h;
	const char *path;
	char *const *argv, *const *envp;
	unsigned drain_ms;
	struct list generations;
	unsigned n;
	struct timer again, stable, deadline; /* the next start; falls are forgotten; of an upgrade */
	struct timer silence;		      /* of that which serves */
	unsigned silence_ms;
	bool held, stopping, upgrading;
	bool proved;			      /* some tunnel of this configuration has served */
	unsigned backoff_ms, falls, restarts; /* falls: ends of tunnels that served, one soon after the other */
	unsigned upgrades, failures;
	char trouble[SUPERVISE_WHY_MAX];
	supervise_done done; /* of the upgrade that is under way */
	void *done_arg;
	int good_fd; /* the program that served last; -1 */
	struct program good, bad;
	struct folder_watch *follow; /* NULL: it is not followed */
	struct timer settle;
};

/* Starts `path` as a child, with the signals of a new process; `succeeds` 0: nobody's successor. NULL with errno. */
struct generation *generation_spawn(struct supervise *s, const char *path, pid_t succeeds);
/* Takes a process over that runs already. NULL with errno. */
struct generation *generation_adopt(struct supervise *s, pid_t pid);
struct generation *generation_find(const struct supervise *s, pid_t pid);
/* The oldest one in this state, or NULL. */
struct generation *generation_in(const struct supervise *s, enum generation_state state);
int generation_signal(const struct generation *g, int sig);
/* SIGKILL if it still runs then. */
void generation_kill_after(struct generation *g, uint64_t ms);
/* Forgets the process. */
void generation_free(struct generation *g);

/* supervise_ended.c: it has ended, as `how` says; si_code 0: not known, it was nobody's child of ours. Frees it. */
void supervise_ended(struct generation *g, const siginfo_t *how);
/* The next start after one that failed, or that has served and ended. Milliseconds until then; 0: the caller's, at once. */
unsigned supervise_later(struct supervise *s, bool served);
/* supervise_upgrade.c: the upgrade that is under way has come to its end. */
void upgrade_over(struct supervise *s, int err, const char *why);
/* Its time is over. */
void upgrade_late(struct timer *t);
/* What it runs has failed, and is not started again by itself; has served, and is what to go back to. */
void program_is_bad(struct supervise *s, const struct generation *g);
void program_is_good(struct supervise *s, const struct generation *g);
/* Starts a successor of that which serves; `path` is run. Answers `done` as supervise_upgrade() does. */
void upgrade_begin(struct supervise *s, const char *path, supervise_done done, void *arg);
/* What to start after an accident: the file, or what served before it where that one fails. */
const char *program_path(const struct supervise *s, char buf[64]);
/* supervise_silent.c: it has lost its connection; is back. */
void silence_begins(struct supervise *s, struct generation *g);
void silence_ends(struct supervise *s, struct generation *g);
/* supervise_follow.c: looks whether the file is another one than that which serves. */
void follow_look(struct supervise *s);
void follow_stop(struct supervise *s);
