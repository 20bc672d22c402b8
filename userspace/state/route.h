/* SPDX-License-Identifier: Apache-2.0 */
/* Where a connection goes: pure functions over the store, for outbound and inbound. They run
 * inside a read section; the result holds references that route_release() drops. Services in
 * it are descriptions, without their endpoints. */
#pragma once
#include "state/store.h"
#include "state/why.h"

enum { ROUTE_SANS_MAX = 32 };

/* SPIFFE IDs, any of which may answer; none: nobody may. */
struct route_peers {
	char *id[ROUTE_SANS_MAX];
	unsigned n;
};

struct route_request {
	const struct workload *source; /* the pod that dials */
	const char *network;	       /* this node's network */
	struct endpoint target;	       /* original destination */
	uint64_t random;	       /* picks the endpoint; same value, same choice */
	bool socks;		       /* SOCKS5 is served */
	struct why *why;	       /* or NULL */
};

enum route_kind {
	ROUTE_PASSTHROUGH, /* plain TCP to `next_hop` */
	ROUTE_HBONE,	   /* CONNECT `authority` over HBONE to `next_hop` */
	/* To another network: `next_hop` is its gateway, and within the tunnel to it goes another one. The authority of
	 * both is the service's host name with the port of the original target. */
	ROUTE_HBONE_NESTED,
	ROUTE_REJECT, /* `reason` says why */
};

struct route {
	enum route_kind kind;
	struct endpoint next_hop;
	struct endpoint authority; /* of the CONNECT; for a waypoint the original target */
	bool waypoint;		   /* next hop is a waypoint */
	/* `next_hop` has no address yet: it is what the destination's host name resolves to. So is `authority`'s, of plain
	 * HBONE. */
	bool lookup;
	struct workload *destination; /* the workload behind next_hop, or NULL; referenced */
	struct service *service;      /* the service that was dialled, or NULL; referenced */
	/* Who may answer at `next_hop`: the workload there, then the service's SANs that are SPIFFE IDs. */
	struct route_peers expect;
	struct route_peers inner; /* and who in the inner tunnel: what the service's SANs say */
	const char *reason;	  /* static text; with ROUTE_REJECT */
	/* What was looked for and is not known: the target's address, a waypoint, a gateway. On demand it may be asked for.
	 * Borrowed: good inside the read section. */
	struct gateway missing;
};

void route_outbound(struct store *s, const struct route_request *q, struct route *out);
void route_release(struct route *r);

/* Inbound: which local address and port a CONNECT means. */
struct inbound_request {
	const struct workload *local;
	const char *network;
	struct addr pod_ip;	    /* local address of the HBONE connection */
	struct endpoint authority;  /* when `host` is NULL */
	const char *host;	    /* host part of a hostname authority (port in authority.port) */
	const char *forwarded_host; /* host= of the forwarded header, or NULL: which service to report */
	bool socks;		    /* SOCKS5 is served */
};

enum inbound_error {
	INBOUND_OK,
	INBOUND_IP_MISMATCH,  /* 400 */
	INBOUND_UNKNOWN_HOST, /* 503; also a service that the local pod does not belong to */
	INBOUND_NO_PORT,      /* 503 */
	INBOUND_ILLEGAL_PORT, /* 503: one of ours, "attempted recursive call to ourselves" */
};

struct inbound_route {
	enum inbound_error error;
	struct endpoint target;	    /* the application */
	bool app_loopback;	    /* dial the loopback address instead of the pod's (application tunnel) */
	bool proxy_protocol;	    /* write a PROXY v2 header first */
	struct endpoint advertised; /* with proxy_protocol: the destination to tell in it */
	struct service *service;    /* for telemetry, or NULL; referenced */
};

void route_inbound(struct store *s, const struct inbound_request *q, struct inbound_route *out);
void route_inbound_release(struct inbound_route *r);
/* What the client is answered, and one line about it ("" for INBOUND_OK). */
int route_inbound_status(enum inbound_error e);
void route_inbound_reason(enum inbound_error e, const struct inbound_request *q, char *why, size_t len);
/* The service of the local workload that best explains a plaintext connection to `dst`, or NULL. */
struct service *route_service_by_port(struct store *s, const struct workload *local, uint16_t port);

/* Ports that lead back to the agent: those of ztunnel, the DNS listener's and, where there is one, SOCKS5's. */
bool route_illegal_port(uint16_t port, bool socks);
