/* SPDX-License-Identifier: Apache-2.0 */
/* ZDS, the server's side (ztunnel's protocol with istio-cni, and our extension of it): tells tunnels of pods.
 * Several tunnels may be connected, as they are during an upgrade: pods are added to the newest, removed from all. The
 * newest is the one whose process is the youngest, of those that do not drain: a tunnel that reconnects, to this keeper
 * or to the next one, does not come to the front by that.
 * Each connection has one request under way at a time and ZDS_ACK_MS for its answer; whoever is late, speaks unasked
 * or speaks garbage is disconnected, and what waited for it fails. On the keeper's loop. */
#pragma once
#include <sys/types.h>

#include "loop/loop.h"
#include "node/zds_messages.h"

enum {
	ZDS_CLIENTS_MAX = 16, /* one more is refused; SUPERVISE_GENERATIONS_MAX and others beside them */
	ZDS_ACK_MS = 5000,    /* for the hello, and for each answer */
};

struct zds_server;
struct zds_client;

/* A request has come to an end: 0; -EREMOTEIO with what the tunnel answered in `why`; -ECONNRESET when the connection
 * ended first. `socket`: what came with the answer to a Keep, -1 for the rest; the callee's to close. */
typedef void (*zds_done)(void *arg, int err, const char *why, int socket[ZDS_SOCKETS]);

struct zds_server_handler {
	/* The workload as it is when its Add is sent; -ENOENT if there is none any more. */
	int (*describe)(void *arg, const char *uid, struct zds_workload *out);
	/* A tunnel has come, the newest now: the handler asks zds_add() and zds_keep() for all pods that there are, and
	 * may ask for more when these are done; SnapshotSent follows when nothing is left and complete() agrees. */
	void (*hello)(void *arg, struct zds_client *c);
	/* False: not yet. It is asked again after the next request, and when zds_continue() says so. */
	bool (*complete)(void *arg, struct zds_client *c);
	void (*live)(void *arg, struct zds_client *c); /* the snapshot was taken; also by one that drains */
	void (*gone)(void *arg, struct zds_client *c); /* after hello only */
	void *arg;
};

/* 0, or -errno and a line in `why`; -EADDRINUSE: another keeper serves `path`. */
int zds_server_open(struct zds_server **out, struct loop *l, const char *path, const struct zds_server_handler *h,
		    char why[ZDS_WHY_MAX]);
/* Forgets requests without calling `done`. */
void zds_server_free(struct zds_server *s);

/* The newest tunnel that said hello and does not drain, or NULL. */
struct zds_client *zds_server_newest(const struct zds_server *s);
unsigned zds_server_clients(const struct zds_server *s);
/* Those that said hello. */
void zds_server_each(const struct zds_server *s, void (*each)(void *arg, const struct zds_client *c), void *arg);

bool zds_client_ours(const struct zds_client *c); /* it takes and gives sockets */
bool zds_client_live(const struct zds_client *c);
bool zds_client_draining(const struct zds_client *c);
pid_t zds_client_pid(const struct zds_client *c); /* 0: not of this PID namespace */
/* How many pods of the snapshot it could not serve, and why the last of them; lives as long as the client. */
unsigned zds_client_refused(const struct zds_client *c, const char **why);
/* A client of this process; NULL: not connected, or no hello yet. */
struct zds_client *zds_server_find(const struct zds_server *s, pid_t pid);

/* `done` is called once, never before these return; with -ENOMEM it is not. `done` may be NULL. */
int zds_add(struct zds_client *c, const char *uid, zds_done done, void *arg);
/* Before the snapshot only. Asks for the pod's sockets where the tunnel is ours and does not drain. */
int zds_keep(struct zds_client *c, const char *uid, zds_done done, void *arg);
void zds_continue(struct zds_client *c);
/* A successor serves: it drains from now on, and is not asked to add anything. One that is not live yet is only passed
 * over. -EOPNOTSUPP: it does not know of that, and is to be ended by a signal. */
int zds_retire(struct zds_client *c);
/* From every tunnel; `done` when all have answered or are gone. */
int zds_del(struct zds_server *s, const char *uid, zds_done done, void *arg);
