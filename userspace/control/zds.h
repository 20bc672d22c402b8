/* SPDX-License-Identifier: Apache-2.0 */
/* ZDS, the client's side (ztunnel's protocol with istio-cni): how the tunnel learns of pods from the keeper or from
 * istio-cni.
 * One connection at a time, on the control thread's loop, reconnecting with backoff. With a keeper of ours the
 * extension of it brings the pod's listening sockets; with istio-cni the pod's sockets are ours to
 * open.
 *
 * A tunnel that drains still has to learn which pods leave. Our keeper knows of that: it has retired this tunnel
 * (Retire), or is told by the hello of the next connection, and then names what there is (Keep), and removals, but no new
 * pod. Any other server would take the connection for a tunnel that serves, so with those it ends. */
#pragma once
#include "loop/loop.h"

enum {
	ZDS_UID_MAX = 64,
	ZDS_NAME_MAX = 256,
	ZDS_WHY_MAX = 256,
	ZDS_SOCKETS = 7,     /* TCP15001 TCP15006 TCP15008 TCP15053 UDP15053 RAW4 RAW6 */
	ZDS_RETRY_MS = 5000, /* pods that could not be started */
	ZDS_BACKOFF_MIN_MS = 20,
	ZDS_BACKOFF_MAX_MS = 15000,
	ZDS_PODS_MAX = 4096,
};

struct zds_pod {
	char uid[ZDS_UID_MAX], name[ZDS_NAME_MAX], ns[ZDS_NAME_MAX], sa[ZDS_NAME_MAX];
	int netns_fd;
	int socket[ZDS_SOCKETS]; /* -1: not sent */
	bool sockets_sent;	 /* the extension is in use: what is -1 is not wanted, open nothing */
};

/* What the tunnel does with it. Called on the loop. */
struct zds_handler {
	/* Descriptors in `p` are the callee's, also on failure. 0, or -errno with a line in `why` (becomes the NACK).
	 * The same uid with the same namespace must be answered 0 and change nothing; with another namespace it
	 * replaces. */
	int (*add)(void *arg, struct zds_pod *p, char why[ZDS_WHY_MAX]);
	void (*remove)(void *arg, const char *uid);
	/* Calls `each` for every running pod. */
	void (*each)(void *arg, void (*each)(void *ctx, const char *uid), void *ctx);
	/* Fills the pod's listening sockets for a keeper that asks them back; -ENOENT for an unknown uid. Not
	 * duplicated. */
	int (*sockets)(void *arg, const char *uid, int socket[ZDS_SOCKETS]);
	/* All pods were named: the server takes this tunnel for the one that serves, once it has our answer. 0, or
	 * -errno with a line in `why`: then it does not, and the connection ends. Not while draining. */
	int (*snapshot)(void *arg, char why[ZDS_WHY_MAX]);
	/* A successor has the pods: calls zds_drain(), and drains. */
	void (*retire)(void *arg);
	/* Ready: a snapshot was received and no pod is pending; false again on every disconnect. */
	void (*ready)(void *arg, bool ready);
	void *arg;
};

struct zds;
/* Connects to `path` as soon as the loop runs. NULL: no memory. */
struct zds *zds_new(struct loop *l, const char *path, const struct zds_handler *h);
void zds_free(struct zds *z);
/* No new pods from now on; see above. */
void zds_drain(struct zds *z);
unsigned zds_pending(const struct zds *z); /* pods that wait for a retry */
