/* SPDX-License-Identifier: Apache-2.0 */
/* What zds_server.c (listening, who is there), zds_client.c (one connection) and zds_exchange.c (what is said on it)
 * share. */
#pragma once
#include "node/zds_server.h"

#define ZDS_LOG "zds"

enum phase { HELLO, SNAPSHOT, LIVE, DEAD };

struct request {
	struct list link;
	enum zds_kind kind;
	zds_done done;
	void *arg;
	char uid[ZDS_UID_MAX];
};

struct zds_client {
	struct list link;
	struct zds_server *server;
	struct io io;
	struct timer deadline;
	struct task next, bury;
	enum phase phase;
	unsigned extension;
	bool draining; /* says so, or was told to */
	pid_t pid;
	uint64_t born; /* process_born() */
	unsigned refused;
	char refusal[ZDS_WHY_MAX];
	struct request *current; /* its answer is due */
	struct list queue;
};

struct zds_server {
	struct loop *loop;
	struct zds_server_handler h;
	struct io listener;
	struct timer resume;
	struct list clients; /* oldest first */
	unsigned n_clients;
	struct list buried, deletions;
};

/* Takes `fd` over when it returns 0. */
int zds_client_new(struct zds_server *s, int fd, pid_t pid);
/* At once: not from a callback of this client. */
void zds_client_free(struct zds_client *c);
int zds_client_ask(struct zds_client *c, enum zds_kind kind, const char *uid, zds_done done, void *arg);
void zds_no_sockets(int socket[ZDS_SOCKETS]);
/* Answers and frees it; takes the sockets. */
void zds_request_end(struct request *r, int err, const char *why, int socket[ZDS_SOCKETS]);
void zds_request_fail(struct request *r, int err, const char *why);
/* Takes it out, fails what it was asked, and frees it at the end of the turn. */
void zds_client_close(struct zds_client *c, const char *why);
void zds_client_late(struct timer *t);

/* zds_exchange.c: sends what comes next; SnapshotSent when the first queue has run dry. */
void zds_next(struct task *t);
void zds_packet_ready(struct io *io, uint32_t events);
