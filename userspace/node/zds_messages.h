/* SPDX-License-Identifier: Apache-2.0 */
/* ZDS messages in the server's direction: hello and answers decoded and checked, requests encoded. No I/O. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/zds_msg.h"

/* What an Add says of a pod. Descriptors stay the owner's. */
struct zds_workload {
	const char *uid, *name, *ns, *sa;
	int netns_fd;
	const int *socket; /* ZDS_SOCKETS of them, -1 for what the pod has not; NULL: the tunnel opens its own */
};

struct zds_answer {
	char error[ZDS_WHY_MAX]; /* "": done */
	unsigned n_sockets;	 /* whose descriptors came with it, in this order */
	uint8_t socket[ZDS_SOCKETS];
};

struct zds_hello {
	unsigned extension; /* the version that the tunnel speaks, 0 for a foreign one */
	bool draining;
};

/* -EBADMSG. */
int zds_hello_decode(struct zds_hello *out, const void *buf, size_t len);
/* -EBADMSG for what is no answer. A long error is cut. */
int zds_answer_decode(struct zds_answer *out, const void *buf, size_t len);

/* Bytes written, or -EMSGSIZE when SEQPACKET_BYTES would not do. Add: `fds` and `n_fds` are what goes with it. */
int zds_add_encode(uint8_t *buf, const struct zds_workload *w, int fds[1 + ZDS_SOCKETS], unsigned *n_fds);
int zds_keep_encode(uint8_t *buf, const char *uid, bool return_sockets);
int zds_del_encode(uint8_t *buf, const char *uid);
int zds_snapshot_encode(uint8_t *buf);
int zds_retire_encode(uint8_t *buf);
