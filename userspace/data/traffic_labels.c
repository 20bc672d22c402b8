// SPDX-License-Identifier: Apache-2.0
/* Owns ztunnel's labels of connections: their order, and whence their values come. A new label is a name here and a line
 * in traffic_labels_fill(), and one more in TRAFFIC_LABELS. */
#include "data/traffic_labels.h"

#include <string.h>

/* In the order in which side() has their values. */
#define SIDE(name)                                                                                           \
	name "_workload", name "_canonical_service", name "_canonical_revision", name "_workload_namespace", \
		name "_principal", name "_app", name "_version", name "_cluster"
const char *const traffic_label_names[] = {
	"reporter",
	SIDE("source"),
	"destination_service",
	"destination_service_namespace",
	"destination_service_name",
	SIDE("destination"),
	"request_protocol",
	"response_flags",
	"connection_security_policy",
	"source_region",
	"source_zone",
	"destination_region",
	"destination_zone",
	NULL,
};
const char *const traffic_lookup_names[] = {SIDE("source"), "hostname", NULL};
const char *const traffic_reporter_names[] = {"source", "destination"};
static const char *const flag_names[] = {
	[FLAG_NONE] = "-",
	[FLAG_DENY] = "DENY",
	[FLAG_CONNECT] = "CONNECT",
	[FLAG_TLS_FAILURE] = "TLS_FAILURE",
	[FLAG_H2_FAILURE] = "H2_HANDSHAKE_FAILURE",
	[FLAG_NETWORK_POLICY] = "NETWORK_POLICY",
	[FLAG_IDENTITY] = "IDENTITY_ERROR",
	[FLAG_CERT_REVOKED] = "CERT_REVOKED",
};

/* The order of a side's eight labels; `principal` is filled in by the caller. */
static const char **side(const char **v, const char *workload, const char *service, const char *revision,
			 const char *ns, const char *principal, const char *app, const char *cluster)
{
	*v++ = traffic_known(workload);
	*v++ = traffic_known(service);
	*v++ = traffic_known(revision);
	*v++ = traffic_known(ns);
	*v++ = traffic_known(principal);
	*v++ = traffic_known(app);
	*v++ = traffic_known(revision);
	*v++ = traffic_known(cluster);
	return v;
}

static const char **side_workload(const char **v, const struct workload *w, const char *principal)
{
	if (!w)
		return side(v, NULL, NULL, NULL, NULL, principal, NULL, NULL);
	return side(v, w->workload_name, w->canonical_name, w->canonical_revision, w->ns, principal, w->canonical_name,
		    w->cluster_id);
}

static const char **side_baggage(const char **v, struct baggage *b, const char *header, const char *principal)
{
	baggage_parse(b, header, strlen(header));
	return side(v, b->workload, b->service, b->version, b->ns, principal, b->workload, b->cluster);
}

static const char *principal_of(const struct workload *w, char buf[IDENTITY_MAX])
{
	return w && !identity_format(buf, w->trust_domain, w->ns, w->service_account) ? buf : NULL;
}

void traffic_labels_fill(struct traffic_labels *l, const struct traffic_facts *f, enum traffic_flag flag)
{
	const struct workload *src = f->source, *dst = f->destination;
	const char **v = l->value, *principal = f->mutual_tls ? f->src_identity : NULL;
	const bool told_src = !src && f->baggage && f->reporter == REPORT_DESTINATION;
	const bool told_dst = !dst && f->baggage && f->reporter == REPORT_SOURCE;
	const bool places = src || dst || told_src || told_dst;
	const struct baggage *b = &l->baggage;

	*v++ = traffic_reporter_names[f->reporter];
	v = told_src ? side_baggage(v, &l->baggage, f->baggage, principal) : side_workload(v, src, principal);
	*v++ = traffic_known(f->service ? f->service->hostname : NULL);
	*v++ = traffic_known(f->service ? f->service->ns : NULL);
	*v++ = traffic_known(f->service ? f->service->name : NULL);
	v = told_dst ? side_baggage(v, &l->baggage, f->baggage, f->dst_identity)
		     : side_workload(v, dst, principal_of(dst, l->principal));
	*v++ = "tcp";
	*v++ = flag_names[flag];
	*v++ = f->mutual_tls ? "mutual_tls" : "unknown";
	*v++ = places ? traffic_known(src ? src->region : told_src ? b->region : NULL) : NULL;
	*v++ = places ? traffic_known(src ? src->zone : told_src ? b->zone : NULL) : NULL;
	*v++ = places ? traffic_known(dst ? dst->region : told_dst ? b->region : NULL) : NULL;
	*v++ = places ? traffic_known(dst ? dst->zone : told_dst ? b->zone : NULL) : NULL;
}

void traffic_lookup_fill(const char *value[TRAFFIC_LOOKUP_LABELS], char principal[IDENTITY_MAX],
			 const struct workload *source, const char *host)
{
	*side_workload(value, source, principal_of(source, principal)) = host;
}

const char *traffic_flag_name(enum traffic_flag flag)
{
	return flag_names[flag];
}
