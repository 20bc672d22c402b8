/* SPDX-License-Identifier: Apache-2.0 */
/* What every proxied connection has, however it is carried: its facts for logs, metrics and dumps, and its place in the
 * worker's list, where policy changes find it. Private to data/. */
#pragma once
#include "base/rstr.h"
#include "data/hbone.h"
#include "data/pod.h"
#include "data/traffic.h"
#include "net/h2.h"
#include "state/policy.h"

enum {
	CONN_POLICY_LINES = 20, /* a second and thread, about policies in dry run or unknown */
	CONN_POLICY_NAME_MAX = 512,
};

struct conn;
struct conn_ops {
	/* Ends the connection with a reset. */
	void (*kill)(struct conn *c, enum traffic_flag flag, const char *why);
	/* Whether a certificate that it rests on is revoked: its tunnel is cut. NULL: it rests on none. */
	bool (*revoked)(const struct conn *c);
};

struct conn {
	struct list link;
	const struct conn_ops *ops;
	struct worker *w;
	struct pod *pod;	  /* referenced */
	struct endpoint src;	  /* the client */
	struct endpoint original; /* outbound: what the app dialled; inbound: the application's address */
	struct endpoint dst;	  /* the log's dst.addr: next hop; inbound HBONE: pod:15008 */
	struct endpoint authority;
	struct workload *source, *destination; /* referenced, or NULL */
	struct service *service;
	struct rstr *src_identity, *dst_identity;
	struct rstr *host;    /* inbound: host= of `forwarded`; or NULL */
	struct rstr *named;   /* inbound: the name in an authority that has one, else NULL */
	struct rstr *baggage; /* the peer's, where its workload is unknown */
	struct traffic *traffic;
	uint64_t id; /* of all connections of this process */
	uint64_t since, received, sent;
	bool inbound, hbone, local, opened;
	bool foreign;		   /* inbound: from another network: `src` is a gateway, the baggage says who it is */
	bool nested;		   /* outbound: the authority is the service's host name and this port */
	bool kernel_tx, kernel_rx; /* over HBONE: who carries the records of its tunnel */
	uint16_t cipher;	   /* enum record_cipher; 0: no tunnel */
};

/* Takes a reference to `p`. */
void conn_init(struct conn *c, struct worker *w, struct pod *p, bool inbound, const struct conn_ops *ops);
/* The authority of its CONNECT. */
const char *conn_authority(const struct conn *c, char buf[HBONE_AUTHORITY_MAX]);
/* It goes through this tunnel. */
void conn_tunnelled(struct conn *c, const struct h2 *h);
/* Counts and logs the opening, once. */
void conn_opened(struct conn *c);
/* Bytes that go towards upstream, or come from there: `n` from the front of `iov`. They are counted, and shown to taps. */
void conn_received(struct conn *c, const struct iovec *iov, size_t n);
void conn_sent(struct conn *c, const struct iovec *iov, size_t n);
/* Writes the closing line (or the refusal, when it was never opened) and drops the references. Call once. */
void conn_closed(struct conn *c, enum traffic_flag flag, const char *error);

/* An inbound connection, or a request of one, that never became a connection here: the line and the entry of its refusal.
 * `peer`: the client's identity, or NULL. */
void conn_rejected(struct worker *w, const struct pod *p, const struct endpoint *src, const struct endpoint *dst,
		   const char *peer, const char *why);

/* The policies' verdict on an inbound connection, on the workload as it is now. */
bool conn_allowed(struct conn *c, char *why, size_t len);
/* Re-evaluates all of the worker's inbound connections. */
void conns_enforce(struct worker *w);
/* Those that rest on a revoked certificate. */
void conns_kill_revoked(struct worker *w, const char *why);
/* `p` NULL: all. */
void conns_kill_pod(struct worker *w, const struct pod *p, const char *why);
