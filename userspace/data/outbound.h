/* SPDX-License-Identifier: Apache-2.0 */
/* An outbound connection, shared by outbound*.c, local.c, socks.c and wanted.c. Private to data/. */
#pragma once
#include "data/conn.h"
#include "data/dial.h"
#include "data/leg.h"
#include "data/names.h"
#include "data/nested.h"
#include "data/pool.h"
#include "data/relay.h"

enum carrier { CARRIER_NONE, CARRIER_RELAY, CARRIER_LEG };

struct local;
struct lookup;
struct wanted;
struct socks;
struct outbound {
	struct conn conn;
	struct post *post; /* outlives us: its end kills us first */
	int fd;		   /* the client's, until a relay or a leg has it; else -1 */
	struct workload_wait wait;
	struct pool_request request;
	struct dial dial;
	struct timer timer;    /* for the answer to CONNECT */
	struct local *local;   /* destination on this node */
	struct nested *nested; /* on another network */
	struct lookup *lookup; /* of the next hop's host name, while it is under way */
	struct wanted *wanted; /* what istiod was last asked for */
	struct socks *socks;   /* the client is owed SOCKS5's answer */
	enum carrier carrier;
	union {
		struct relay relay;
		struct leg leg;
	};
	struct task bury;
	bool answered, repeated;
};

/* Accepted: `fd` is taken over. NULL: no memory. */
struct outbound *outbound_new(struct post *p, int fd, const struct endpoint *peer);
/* The destination is known: on to there. */
void outbound_begin(struct outbound *o, const struct endpoint *to);
/* Ends it, however far it is; a failure resets the client. */
void outbound_finish(struct outbound *o, enum traffic_flag flag, const char *why);
/* Joins the client with `fd`, which is taken over. */
void outbound_relay(struct outbound *o, int fd);

/* Routes it, also again, with the mesh as it is now. */
void outbound_route(struct outbound *o);
/* The route is there, with an address. */
void outbound_follow(struct outbound *o, struct route *r);

/* outbound_hbone.c: the route leads through HBONE. */
void outbound_tunnel(struct outbound *o, struct route *r);

/* outbound_lookup.c: the route, which is taken over, is followed once its host name has an address. */
void outbound_look_up(struct outbound *o, struct route *r);
/* Takes one that looks nothing up. */
void outbound_lookup_end(struct outbound *o);

/* wanted.c, inside a read section. 1: istiod is asked for what the mesh lacks, and the decision has to wait for
 * outbound_route(); 0: it is as good as it gets; -ENOMEM; -ELOOP, -ENAMETOOLONG: it cannot be known. */
int wanted_ask(struct outbound *o, const struct gateway *missing);
void wanted_end(struct outbound *o);

/* The client's bytes go through from now on: it is told so. */
void socks_succeed(struct outbound *o);
/* It is told that they do not, before its connection is closed. */
void socks_fail(struct outbound *o);

/* Destination on this node: true when it is, and then all is taken care of. */
bool local_start(struct outbound *o, const struct route *r);
bool local_revoked(const struct outbound *o);
void local_moved(struct outbound *o, bool from_client, const struct iovec *iov, size_t n);
void local_end(struct outbound *o, enum traffic_flag flag, const char *why);
