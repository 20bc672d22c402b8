/* SPDX-License-Identifier: Apache-2.0 */
/* What the admin interface may ask of the data plane: live connections and pods, as plain copies. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

enum {
	DUMP_NAME_MAX = 256,
	DUMP_UID_MAX = 64,
};

struct dump_pod {
	char uid[DUMP_UID_MAX], name[DUMP_NAME_MAX], ns[DUMP_NAME_MAX], sa[DUMP_NAME_MAX];
	bool up;
};

struct dump_conn {
	char pod_uid[DUMP_UID_MAX];
	bool inbound;
	struct endpoint src, original_dst, actual_dst;
	char forwarded_host[DUMP_NAME_MAX];			       /* inbound: or "" */
	char src_identity[DUMP_NAME_MAX], dst_identity[DUMP_NAME_MAX]; /* or "" */
	bool hbone, nested, local; /* over a tunnel; within another one; same node */
	const char *cipher;	   /* of the tunnel, static storage; or NULL */
	bool kernel_tx, kernel_rx;
	uint64_t received, sent, age_ms;
};

struct tunnel_dump {
	struct dump_pod *pods;
	unsigned n_pods;
	struct dump_conn *conns;
	unsigned n_conns;
};

struct data_plane;
enum dump_what { DUMP_PODS, DUMP_PODS_AND_CONNS };
/* Pods are the control thread's, connections all workers'; waits for them (bounded: 2 s, -ETIMEDOUT). Call from another
 * thread. */
int data_dump(struct data_plane *d, enum dump_what what, struct tunnel_dump *out);
void tunnel_dump_free(struct tunnel_dump *d);
