/* SPDX-License-Identifier: Apache-2.0 */
/* Taps: copies of what chosen connections carry, in plaintext, for whoever is allowed to look (admin/tap.c asks). A tap
 * follows one pod, and if it names a peer only the connections with that one.
 *
 * Each worker has a ring in each tap: the worker writes, the tap's reader reads, neither waits. What does not fit is left
 * out and counted, so a reader that is slow, or stands still, costs the tunnel the attempt and nothing else. A worker learns of a tap by
 * message; one that has none looks at an empty list for each piece of data and does nothing more. */
#pragma once
#include "data/data.h"

enum {
	TAPS_MAX = 4,		    /* at once */
	TAP_RING_BYTES = 1 << 20,   /* of a worker, at most, */
	TAP_RINGS_BYTES = 16 << 20, /* and of all workers of a tap */
	TAP_PIECE_MAX = 16384,	    /* bytes of data in a record */
	TAP_TEXT_MAX = 256,
	TAP_PEER_MAX = 512,
};

struct tap_filter {
	char uid[DUMP_UID_MAX]; /* the pod's */
	/* "": any. An address, NAME or NAMESPACE/NAME of a workload, the host name of a service, or a SPIFFE ID. */
	char peer[TAP_PEER_MAX];
};

enum tap_event { TAP_OPENED, TAP_DATA, TAP_CLOSED };

/* Names of the two ends, as far as they are known; "" if not. */
enum tap_text { TAP_CLIENT_ID, TAP_SERVER_ID, TAP_CLIENT, TAP_SERVER, TAP_SERVICE, TAP_ERROR, TAP_TEXTS };

struct tap_head {
	uint64_t conn;	  /* the connection's number */
	uint64_t time_us; /* wall clock */
	/* Data before this piece in its direction, and in the other. */
	uint64_t offset, other;
	struct endpoint client, server; /* `server`: what the client dialled; inbound the application */
	uint8_t event;			/* enum tap_event */
	bool inbound, to_server;	/* the pod is the server; the data goes to it */
	bool hbone, local;		/* through a tunnel; to a pod of this node, without one */
	uint16_t text_len[TAP_TEXTS];	/* without a terminator */
	uint32_t data_len;
};

struct tap_record {
	struct tap_head head;
	char text[TAP_TEXTS][TAP_TEXT_MAX];
	uint8_t data[TAP_PIECE_MAX];
};

struct tap_lost {
	uint64_t records, bytes; /* bytes: of data */
};

struct tap;
/* Begins: each worker joins in its own time. Any thread that is no worker. NULL: no memory. */
struct tap *tap_new(struct data_plane *d, const struct tap_filter *f);
/* All workers have joined: nothing that happens from now on is passed over. When it becomes true tap_fd() is readable. */
bool tap_begun(const struct tap *t);
/* Ends. The workers let go of it in their own time; call before the data plane goes. */
void tap_free(struct tap *t);
/* Readable when there may be something, after tap_next() was false. Reading it is tap_next()'s. */
int tap_fd(const struct tap *t);
/* The next record; false: there is none now. The order is that of things within one connection. One thread. */
bool tap_next(struct tap *t, struct tap_record *out);
/* What did not fit, so far. */
void tap_lost(const struct tap *t, struct tap_lost *out);
