/* SPDX-License-Identifier: Apache-2.0 */
/* What one proxied connection reports: traffic metrics with ztunnel's names and labels, and its access log
 * lines. data/ fills in the facts; this file knows labels and lines. */
#pragma once
#include "base/metrics.h"
#include "data/baggage.h"
#include "loop/loop.h"
#include "state/mesh.h"

enum traffic_reporter { REPORT_SOURCE, REPORT_DESTINATION };

enum traffic_flag { /* response_flags */
		    FLAG_NONE,
		    FLAG_DENY,
		    FLAG_CONNECT,
		    FLAG_TLS_FAILURE,
		    FLAG_H2_FAILURE,
		    FLAG_NETWORK_POLICY,
		    FLAG_IDENTITY,
		    FLAG_CERT_REVOKED,
};

/* Facts of a connection; pointers are borrowed for the duration of the call. */
struct traffic_facts {
	enum traffic_reporter reporter;
	struct endpoint src, dst;
	const char *hbone_target;      /* authority, or NULL when it is not over HBONE */
	const struct workload *source; /* or NULL: unknown */
	const struct workload *destination;
	const struct service *service;
	const char *src_identity, *dst_identity; /* SPIFFE IDs; NULL: not mutual TLS */
	bool mutual_tls;
	const char *baggage; /* header of the peer, used where its workload is NULL; or NULL */
};

enum {
	TRAFFIC_IDLE_MAX = 1024, /* label sets without a connection that are kept at hand */
	TRAFFIC_ERROR_LINES =
		80, /* a second, of connections that ended badly; workers share them, each has one at least */
	TRAFFIC_REJECT_LINES = 30, /* the same of connections that were refused early */
};

/* A connection's share in the metrics; per direction bytes are added as they flow (live). */
struct traffic;

/* Counts "opened", logs "connection opened" at debug. NULL when out of memory: everything below takes NULL. */
struct traffic *traffic_open(const struct traffic_facts *f);
/* `received`: from the accepted side towards upstream; `sent`: the other way. */
void traffic_received(struct traffic *t, size_t n);
void traffic_sent(struct traffic *t, size_t n);
/* Counts "closed" (and "failed" for any flag but FLAG_NONE), writes the access line, frees `t`. `error`: NULL
 * for a clean end. `f`: the same facts, or better ones. */
void traffic_close(struct traffic *t, const struct traffic_facts *f, enum traffic_flag flag, const char *error);
/* A connection that was refused before its route was known: the WARN line "connection failed", rate-limited
 * per thread and counted. */
void traffic_reject(enum traffic_reporter reporter, const struct endpoint *src, const struct endpoint *dst,
		    const char *error, uint64_t now_ms);
/* As response_flags has it: "-" for none. */
const char *traffic_flag_name(enum traffic_flag flag);
/* istio_tcp_sockets_open. */
void traffic_sockets(enum traffic_reporter reporter, int delta);
/* istio_on_demand_dns: a connection's next hop is resolved by host name, also where the answer is there. */
void traffic_lookup(const struct workload *source, const char *host);
/* On demand, a connection that would have needed more names than one may ask for. */
void traffic_demand_refused(void);
/* Registers the families; once, before threads start. 0 or -ENOMEM. */
int traffic_init(void);
