/* SPDX-License-Identifier: Apache-2.0 */
/* The data plane as the tunnel's main program sees it: N workers, each with its own loop and HBONE pool, and the pods
 * whose connections they carry. All functions are for the control thread. */
#pragma once
#include "data/certs.h"
#include "data/demand.h"
#include "data/dump.h"
#include "net/ktls.h"
#include "net/sock.h"
#include "state/dns_name.h"
#include "state/store.h"

enum {
	DATA_WORKERS_MAX = 64,
	DATA_SOCKETS = 7,	   /* TCP15001 TCP15006 TCP15008 TCP15053 UDP15053 RAW4 RAW6, as ZDS names them */
	DATA_CONNECT_MS = 10000,   /* any TCP connect */
	DATA_HANDSHAKE_MS = 10000, /* of a TLS handshake, from its begin */
	DATA_RESPONSE_MS = 30000,  /* from CONNECT to its answer */
	DATA_WORKLOAD_MS = 5000,   /* until the local workload is known */
	DATA_WHY_MAX = 256,
};

enum data_spoof { SPOOF_AUTO, SPOOF_NEVER, SPOOF_ALWAYS }; /* ENABLE_ORIG_SRC */

struct data_options {
	struct store *store;
	struct certs *certs;
	struct demand *demand; /* NULL: the store has everything */
	unsigned workers;
	const char *network; /* this node's */
	const char *cluster_id;
	uint32_t mark; /* SO_MARK of our sockets; 0: none */
	struct sock_keepalive keepalive;
	enum data_spoof spoof;
	bool port_reuse;		  /* SO_REUSEPORT on listeners that we open ourselves */
	bool dns;			  /* open 15053 where the keeper sends no sockets */
	const struct dns_zone *dns_zone;  /* NULL: DNS is passed on unread */
	bool lists;			  /* revocation lists are in use */
	bool socks;			  /* SOCKS5 for applications */
	bool ipv4_only;			  /* IPV6_ENABLED=false: of listeners that we open ourselves */
	bool local_hbone;		  /* same node: through the tunnel all the same */
	bool openssl_only;		  /* encryption */
	bool app_tunnel_loopback;	  /* LOCALHOST_APP_TUNNEL */
	bool response_baggage;		  /* ENABLE_RESPONSE_BAGGAGE */
	bool authz_info;		  /* AUTHZ_POLICY_INFO_LOGGING: what dry runs find at INFO, not DEBUG */
	unsigned pool_streams;		  /* a connection */
	unsigned pool_idle_ms;		  /* without streams, then it is closed */
	const struct ktls_features *ktls; /* what HBONE connections may use; NULL: nothing */
};

struct data_plane;
/* NULL, with a line in `why`. */
struct data_plane *data_new(struct loop *control, const struct data_options *o, char why[DATA_WHY_MAX]);
int data_start(struct data_plane *d); /* threads; 0 or -errno */
/* Stops the workers; connections are reset. Their loops stay: certificates that they asked for may be answered yet. */
void data_stop(struct data_plane *d);
/* Also stops what runs. After the end of `certs`. */
void data_free(struct data_plane *d);

enum data_pod_kind {
	DATA_POD_NODE, /* one of this node's, in a namespace of its own */
	DATA_POD_SOLE, /* dedicated mode: the one that there is, in the tunnel's namespace */
	DATA_POD_SELF, /* the tunnel's own: HBONE leads to what it serves itself */
};

struct data_pod {
	const char *uid, *name, *ns, *sa;
	int netns_fd;
	int socket[DATA_SOCKETS]; /* -1: none */
	bool sockets_sent;	  /* -1 means "not wanted"; else listeners are opened here */
	enum data_pod_kind kind;
	bool waits; /* its listeners are opened, but nothing is accepted before data_pods_go() */
};
/* Descriptors are taken over in any case. Same uid and namespace: nothing changes, but a look is taken for connections
 * that wait, since a process that shared the listeners and is gone may have been told of them alone. -errno with a line
 * in `why`. */
int data_pod_add(struct data_plane *d, const struct data_pod *p, char why[DATA_WHY_MAX]);
void data_pods_go(struct data_plane *d);
/* Resets the pod's connections and lets go of its namespace; with the last pod of a service account its certificates go.
 * Unknown uids are ignored. */
void data_pod_remove(struct data_plane *d, const char *uid);
/* Those of DATA_POD_NODE. */
void data_pod_each(struct data_plane *d, void (*each)(void *ctx, const char *uid), void *ctx);
/* The pod's sockets, borrowed. -ENOENT. */
int data_pod_sockets(struct data_plane *d, const char *uid, int socket[DATA_SOCKETS]);
unsigned data_pods(const struct data_plane *d); /* but the tunnel's own */

/* There are other revocation lists: tunnels whose peers they name end. */
void data_lists_changed(struct data_plane *d);

/* No new connections, GOAWAY to HBONE peers; `done` once on the control loop when the last connection has ended or
 * `deadline_ms` have passed. Pods, identities and policies stay as they are meanwhile. `handed_over`: another process
 * serves the same sockets, DNS as well; else queries are answered until the end. */
void data_drain(struct data_plane *d, unsigned deadline_ms, bool handed_over, void (*done)(void *arg), void *arg);
/* While it drains: not longer than that from now on. */
void data_drain_limit(struct data_plane *d, unsigned deadline_ms);
/* What it was made with; does not change. */
const struct data_options *data_options(const struct data_plane *d);
/* Connections that it carries. Any thread. */
unsigned data_connections(const struct data_plane *d);
