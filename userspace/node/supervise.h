/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps a tunnel running, and replaces it without losing a connection. A tunnel is never ended because the keeper ends,
 * but by supervise_stop(). On the keeper's loop.
 *
 * Each process of the tunnel is a generation:
 *
 *   STARTING  it was started, or came by itself, and has not been told of all pods yet
 *   SERVING   it has them and their sockets: new connections are its own
 *   DRAINING  it was told to retire, and ends with its last connection or at its limit
 *
 * At most one starts and one serves. An upgrade starts a second one beside that which serves. When it has all pods
 * (supervise_serves) the older one is retired; when it ends before, loses its connection, cannot serve a pod or takes
 * longer than SUPERVISE_UPGRADE_MS, it is ended, a line says why, and the older one goes on as if nothing had been: the
 * upgrade has failed, and its program is not started again until the file changes or somebody asks for it.
 *
 * When the serving one is silent, which is to have lost its connection and not be back SUPERVISE_SILENT_MS later, it may
 * be slow or hang for ever: a successor starts beside it, as for an upgrade, and again after pauses that grow while that
 * fails. The older one drains when it is back, or is killed SUPERVISE_SILENT_END_MS after its successor serves.
 *
 * When the serving one ends by accident, the next starts at once, and after pauses when that happens again and again.
 * Connections wait for it in the sockets that the keeper holds. What is started is the file at `path`, but that which
 * served last where the file is known to fail: a descriptor of it is kept.
 *
 * Nothing of this is on disk. A keeper that finds generations of an earlier one knows them by what they are: who listens
 * on the tunnel's own socket has served, who drains says so in its hello, and of others the younger process is the
 * successor. So an upgrade that a keeper did not live to see goes on under the next one. */
#pragma once
#include <limits.h>
#include <sys/types.h>

#include "loop/loop.h"

enum {
	SUPERVISE_BACKOFF_MIN_MS = 100, /* after a tunnel that ended before it served; doubled, up to */
	SUPERVISE_BACKOFF_MAX_MS = 10000,
	SUPERVISE_AT_ONCE = 5, /* so many ends of tunnels that served without a pause; then the least, doubled, up to */
	SUPERVISE_SERVED_MAX_MS = 500,
	SUPERVISE_STABLE_MS = 60000,  /* having run so long, all pauses are the shortest again */
	SUPERVISE_UPGRADE_MS = 60000, /* from the start of a successor until it serves */
	SUPERVISE_LOST_MS = 1000,     /* for a successor to come back */
	SUPERVISE_SILENT_MS = 5000,   /* doubled, up to */
	SUPERVISE_SILENT_MAX_MS = 60000,
	SUPERVISE_SILENT_END_MS = 60000,
	SUPERVISE_END_MS = 15000,	/* from the order to end a successor that failed until it is killed */
	SUPERVISE_LATE_MS = 60000,	/* beyond its own limit; then one that drains is killed */
	SUPERVISE_GENERATIONS_MAX = 12, /* no upgrade while so many live */
	SUPERVISE_WHY_MAX = 512,
	SUPERVISE_SETTLE_MS = 500, /* without a change of the file, until it is taken for complete */
};

enum generation_state { GENERATION_STARTING, GENERATION_SERVING, GENERATION_DRAINING };

/* The upgrade is over: 0, or -errno and a line in `why`. */
typedef void (*supervise_done)(void *arg, int err, const char *why);

struct supervise_handler {
	void (*started)(void *arg, pid_t pid); /* also for one that was taken over */
	/* The first tunnel ended before it served: it refuses its configuration, and has said why. */
	void (*refused)(void *arg, int status);
	void (*retire)(void *arg, pid_t pid); /* its successor serves: it is to be told */
	void (*ended)(void *arg, pid_t pid);
	void (*stopped)(void *arg); /* after supervise_stop() */
	void *arg;
};
struct generation_status {
	pid_t pid;
	enum generation_state state;
	bool adopted;
	bool current; /* it runs the file that is at `path` */
	uint64_t age_s;
	char program[PATH_MAX]; /* that which it runs, as it was called */
};
struct supervise_status {
	pid_t pid; /* that which serves, else that which starts; 0: none */
	bool adopted;
	bool upgrading;
	bool silent;			       /* that which serves */
	unsigned restarts, upgrades, failures; /* of the serving one; that succeeded; that failed */
	char trouble[SUPERVISE_WHY_MAX];       /* why the last upgrade failed; "" */
	unsigned n;
	struct generation_status generation[SUPERVISE_GENERATIONS_MAX + 1]; /* oldest first */
};

struct supervise;
/* `path`, `argv` and `envp` must live as long. What is started beside another one has SUPERVISE_SUCCEEDS=PID in its
 * environment as well. `drain_ms`: the limit of tunnels that drain. NULL: no memory. */
#define SUPERVISE_SUCCEEDS "CULVERT_SUCCEEDS"
struct supervise *supervise_new(struct loop *l, const char *path, char *const argv[], char *const envp[],
				unsigned drain_ms, const struct supervise_handler *h);
void supervise_free(struct supervise *s); /* the tunnels go on */
/* From now on a changed file at `path` is an upgrade: also one that changed before, under a tunnel that is taken over.
 * What is renamed there or written there counts; another target of a link on the way does not. */
int supervise_follow(struct supervise *s);

/* Starts the tunnel unless one is there. */
void supervise_start(struct supervise *s);
/* This process is there (it listens on the tunnel's own socket, or said hello): taken over where it is not known yet. A
 * younger one than ours is its successor. One that drains though nobody told it to gets one. 0 or -errno. */
int supervise_adopt(struct supervise *s, pid_t pid, bool draining);
/* It has all pods: it serves, and the others are retired. `retire` is called for those that are to be told, also again
 * for one that drains already as far as we know. */
void supervise_serves(struct supervise *s, pid_t pid);
/* It will not serve, for this reason: as a successor it has failed. */
void supervise_fails(struct supervise *s, pid_t pid, const char *why);
/* It has lost its connection: a successor that does not serve SUPERVISE_LOST_MS later has failed, one that serves is
 * silent until supervise_adopt(). */
void supervise_lost(struct supervise *s, pid_t pid);
/* Starts a successor. `done` is called once, perhaps before this returns; may be NULL. */
void supervise_upgrade(struct supervise *s, supervise_done done, void *arg);
/* Starts nothing any more: the end is near. */
void supervise_hold(struct supervise *s);
/* SIGTERM to all; `stopped` when they have ended. Killed if they still run after `limit_ms`. */
void supervise_stop(struct supervise *s, unsigned limit_ms);
void supervise_status(const struct supervise *s, struct supervise_status *out);
