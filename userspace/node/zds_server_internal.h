/* SPDX-License-Identifier: Apache-2.0 */
/* What zds_server.c (listening, who is there) and zds_client.c (one connection) share. */
#pragma once
#include "node/zds_server.h"

#define ZDS_LOG "zds"

enum phase { HELLO, SNAPSHOT, LIVE, DEAD };

struct request;

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
