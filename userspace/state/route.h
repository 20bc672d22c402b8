/* SPDX-License-Identifier: Apache-2.0 */
/* Where a connection goes: pure functions over the store, for outbound (spec 5.2) and inbound (6.3, 6.4). They run
 * inside a read section; the result holds references that route_release() drops. */
#pragma once
#include "state/store.h"

enum { ROUTE_SANS_MAX = 32 };

struct route_request {
	const struct workload *source; /* the pod that dials */
	const char *network;           /* this node's network */
	struct endpoint target;        /* original destination */
	uint64_t random;               /* picks the endpoint; same value, same choice */
};

enum route_kind {
	ROUTE_PASSTHROUGH, /* plain TCP to `next_hop` */
	ROUTE_HBONE,       /* CONNECT `authority` over HBONE to `next_hop` */
	ROUTE_REJECT,      /* `reason` says why */
};

struct route {
	enum route_kind kind;
	struct endpoint next_hop;
	struct endpoint authority;          /* of the CONNECT; for a waypoint the original target */
	bool waypoint;                      /* next hop is a waypoint */
	struct workload *destination;       /* the workload behind next_hop, or NULL; referenced */
	struct service *service;            /* the service that was dialled, or NULL; referenced */
	/* Accepted server identities: the destination's, then the service's SANs that are SPIFFE IDs. */
	char *expect[ROUTE_SANS_MAX];
	unsigned n_expect;
	const char *reason;                 /* static text; with ROUTE_REJECT */
};

void route_outbound(struct store *s, const struct route_request *q, struct route *out);
void route_release(struct route *r);

/* Inbound: which local address and port a CONNECT means. */
struct inbound_request {
	const struct workload *local;
	const char *network;
	struct addr pod_ip;          /* local address of the HBONE connection */
	struct endpoint authority;   /* when `host` is NULL */
	const char *host;            /* host part of a hostname authority (port in authority.port) */
	const char *forwarded_host;  /* host= of the forwarded header, or NULL: which service to report */
};

enum inbound_error {
	INBOUND_OK,
	INBOUND_IP_MISMATCH,   /* 400 */
	INBOUND_UNKNOWN_HOST,  /* 503; also a service that the local pod does not belong to */
	INBOUND_NO_PORT,       /* 503 */
	INBOUND_ILLEGAL_PORT,  /* 503: one of ours, "attempted recursive call to ourselves" */
};

struct inbound_route {
	enum inbound_error error;
	struct endpoint target;      /* the application */
	bool app_loopback;           /* dial the loopback address instead of the pod's (application tunnel) */
	bool proxy_protocol;         /* write a PROXY v2 header first */
	struct service *service;     /* for telemetry, or NULL; referenced */
};

void route_inbound(struct store *s, const struct inbound_request *q, struct inbound_route *out);
void route_inbound_release(struct inbound_route *r);
/* The service of the local workload that best explains a plaintext connection to `dst` (spec 6.5), or NULL. */
struct service *route_service_by_port(struct store *s, const struct workload *local, uint16_t port);

/* Ports that lead back to the agent (spec 2.5). */
bool route_illegal_port(uint16_t port);
