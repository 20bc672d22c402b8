/* SPDX-License-Identifier: Apache-2.0 */
/* What zds.c (the connection), zds_serve.c (what is asked on it) and zds_pending.c (pods that cannot be started yet)
 * share. */
#pragma once
#include "base/list.h"
#include "control/zds.h"

typedef char zds_uid[ZDS_UID_MAX];
struct zds_uids {
	zds_uid *v;
	unsigned n, cap;
};

struct zds {
	struct loop *loop;
	struct zds_handler h;
	struct io io; /* fd -1: not connected */
	struct timer again, retry;
	uint64_t backoff_ms;
	bool snapshot, ready, draining;
	bool ours;	       /* the server speaks the extension */
	bool retiring;	       /* Retire is being served */
	struct zds_uids named; /* since the connection began, until the snapshot is complete */
	struct list pending;   /* of zds_pending.c */
	unsigned n_pending;
	char path[];
};

/* zds.c: tells whether it is ready, where that has changed. */
void zds_ready_update(struct zds *z);

/* zds_serve.c: one request, decoded and carried out; the descriptors are taken over. 0, with the sockets that the answer
 * brings, or -errno with `why`. -EBADMSG and -EPROTO end the connection, once they have been answered. */
int zds_serve(struct zds *z, const void *buf, size_t len, const int *fds, size_t n_fds, char *why,
	      int socket[ZDS_SOCKETS]);
/* What a connection has named so far. */
void zds_named_clear(struct zds *z);

/* zds_pending.c: takes the pod over. -errno with `why`: it will be tried again. */
int zds_pod_start(struct zds *z, struct zds_pod *p, char *why);
void zds_pod_close(struct zds_pod *p);
void zds_pending_forget(struct zds *z, const char *uid);
void zds_pending_clear(struct zds *z);
