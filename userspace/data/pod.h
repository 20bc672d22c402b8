/* SPDX-License-Identifier: Apache-2.0 */
/* A pod of this node: its identity, namespace and listening sockets, shared by all workers; and each worker's post in
 * it: what it watches there. Private to data/. */
#pragma once
#include <stdbool.h>

#include "base/rstr.h"
#include "data/dns_cache.h"
#include "data/worker.h"
#include "net/netns.h"
#include "state/mesh.h"

/* As ZDS names them, then what is always opened here. */
enum pod_socket {
	POD_OUTBOUND,
	POD_INBOUND,
	POD_HBONE,
	POD_DNS_TCP,
	POD_DNS_UDP,
	POD_RAW4,
	POD_RAW6,
	POD_SOCKS,
	POD_SOCKETS
};
_Static_assert((int)POD_SOCKS == (int)DATA_SOCKETS, "those of ZDS come first");

struct pod {
	unsigned refs; /* atomic */
	struct list link;
	char uid[DUMP_UID_MAX], name[DUMP_NAME_MAX], ns[DUMP_NAME_MAX], sa[DUMP_NAME_MAX];
	int netns_fd;
	struct netns_id netns;
	enum data_pod_kind kind;
	uint32_t mark; /* of what is dialled; 0: none */
	bool spoof;    /* its application sees the clients' addresses */
	int socket[POD_SOCKETS];
	bool own_sockets;		 /* opened by ourselves, all of them */
	bool waits;			 /* the workers have not been told of it; control thread */
	bool certified;			 /* its certificate was asked for; control thread */
	unsigned n_queries, n_dns_conns; /* under way; atomic */
	uint16_t *taken; /* live inbound client ports of the spoofing range, counted; NULL: none ever (see dial.c) */
};

struct pod *pod_new(const struct data_plane *d, const struct data_pod *spec, char why[DATA_WHY_MAX]);
/* What to say of a connection when the mesh has no workload that is this pod. */
enum { POD_STRANGER_MAX = 3 * DUMP_NAME_MAX + 128 };
const char *pod_stranger(const struct pod *p, char out[POD_STRANGER_MAX]);
struct pod *pod_ref(struct pod *p);
void pod_unref(struct pod *p);
/* Are connections accepted from it? */
bool pod_listens(enum pod_socket which);
/* Was it opened here? Then nobody goes on with it after us. */
bool pod_owns(const struct pod *p, enum pod_socket which);
/* Puts the calling thread into the pod's namespace. */
int pod_enter(const struct pod *p);

/* The local workload as the mesh knows it, a reference, or NULL. */
struct workload *pod_workload(struct worker *w, const struct pod *p);

struct post {
	struct list link;
	struct worker *w;
	struct pod *pod;
	struct io io[POD_SOCKETS]; /* fd -1: not watched */
	struct timer retry;	   /* after EMFILE: the listeners rest */
	struct rstr *self;	   /* SPIFFE ID; follows the workload's trust domain */
	struct dns_share names;	   /* what its resolvers have answered */
	struct list dns_conns;	   /* of dns_tcp.c */
	size_t dns_out;		   /* bytes that they have not taken */
	struct addr own[2];	   /* the last address of each family that was found in the namespace */
	bool resting;
};
int post_open(struct worker *w, struct pod *p);
/* Resets the pod's connections and leaves its namespace. */
void post_close(struct post *p);
/* The post in the pod that is this workload and has its address `ip`; a pod of that name in another cluster, or one
 * that has gone from here, is another. NULL. */
struct post *post_find(struct worker *w, const struct workload *wl, const struct addr *ip);
/* The pod's SPIFFE ID under this workload's trust domain; borrowed. NULL: no memory. */
struct rstr *post_identity(struct post *p, const struct workload *wl);

/* Waits until the pod's workload is known. */
struct workload_wait {
	struct list link;
	struct worker *w;
	struct pod *pod; /* borrowed */
	struct timer timer;
	void (*done)(struct workload_wait *wait, struct workload *wl); /* a reference, or NULL: too late */
};
/* `done` follows, within DATA_WORKLOAD_MS. */
void workload_wait_start(struct worker *w, struct workload_wait *wait, struct pod *p,
			 void (*done)(struct workload_wait *wait, struct workload *wl));
/* The same, or from within where it is known already. */
void workload_await(struct worker *w, struct workload_wait *wait, struct pod *p,
		    void (*done)(struct workload_wait *wait, struct workload *wl));
void workload_wait_cancel(struct workload_wait *wait);
/* The store has changed: those who wait look again. */
void workload_wait_wake(struct worker *w);
