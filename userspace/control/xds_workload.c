// SPDX-License-Identifier: Apache-2.0
/* Workloads from istiod. What decides where traffic goes must be understood; of what is only a label, the unknown counts as
 * the first of its kind, as for ztunnel. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/xds_parts.h"

#define ENUM(name) ISTIO__WORKLOAD__##name

/* --- names ---------------------------------------------------------------------------------------------- */

/* A pod's name is the end of its uid as well: then it is kept once. */
static const char *tail(struct xds_part *p, const char *of, const char *text)
{
	size_t all = strlen(of), len = strlen(text);

	return len && len <= all && !strcmp(of + all - len, text) ? of + all - len : xds_own(p, text);
}

static const char *alias(struct xds_part *p, const char *known, const char *text)
{
	return !strcmp(known, text) ? known : xds_text(p, text);
}

static void names(struct xds_part *p, const Istio__Workload__Workload *m, struct workload *w)
{
	if (!*m->uid)
		xds_fail(p, "no uid");
	w->uid = xds_own(p, m->uid);
	w->name = tail(p, w->uid, m->name);
	w->ns = xds_text(p, m->namespace_);
	w->trust_domain = xds_text(p, *m->trust_domain ? m->trust_domain : "cluster.local");
	w->service_account = xds_text(p, *m->service_account ? m->service_account : "default");
	w->network = xds_text(p, m->network);
	w->node = xds_text(p, m->node);
	w->cluster_id = xds_text(p, *m->cluster_id ? m->cluster_id : "Kubernetes");
	w->hostname = xds_text(p, m->hostname);
	w->canonical_name = alias(p, w->name, m->canonical_name);
	w->workload_name = alias(p, w->name, m->workload_name);
	w->canonical_revision = xds_text(p, m->canonical_revision);
	if (!m->locality)
		return;
	w->region = xds_text(p, m->locality->region);
	w->zone = xds_text(p, m->locality->zone);
	w->subzone = xds_text(p, m->locality->subzone);
}

static const char *type_name(int type)
{
	static const char *const all[] = {"deployment", "cronjob", "pod", "job"};

	return all[(unsigned)type < sizeof all / sizeof *all ? type : 0];
}

/* --- enums ---------------------------------------------------------------------------------------------- */

static void kinds(struct xds_part *p, const Istio__Workload__Workload *m, struct workload *w)
{
	/* A sidecar takes plaintext as well: its own mutual TLS is not for us to speak. */
	if (m->tunnel_protocol < 0 || m->tunnel_protocol > ENUM(TUNNEL_PROTOCOL__LEGACY_ISTIO_MTLS))
		xds_fail(p, "unknown tunnel protocol %d", m->tunnel_protocol);
	w->protocol = m->tunnel_protocol == ENUM(TUNNEL_PROTOCOL__HBONE) ? PROTO_HBONE : PROTO_TCP;
	if (m->status < 0 || m->status > ENUM(WORKLOAD_STATUS__UNHEALTHY))
		xds_fail(p, "unknown status %d", m->status);
	w->healthy = m->status == ENUM(WORKLOAD_STATUS__HEALTHY);
	if (m->network_mode < 0 || m->network_mode > ENUM(NETWORK_MODE__HOST_NETWORK))
		xds_fail(p, "unknown network mode %d", m->network_mode);
	w->network_mode = m->network_mode == ENUM(NETWORK_MODE__HOST_NETWORK) ? NETWORK_HOST : NETWORK_STANDARD;
	w->workload_type = xds_text(p, type_name(m->workload_type));
	w->native_tunnel = m->native_tunnel;
	w->capacity = m->capacity ? m->capacity->value : 1;
}

static void app_tunnel(struct xds_part *p, const Istio__Workload__ApplicationTunnel *m, struct workload *w)
{
	if (!m)
		return;
	if (m->protocol < 0 || m->protocol > ENUM(APPLICATION_TUNNEL__PROTOCOL__PROXY))
		xds_fail(p, "unknown application tunnel %d", m->protocol);
	w->app_tunnel = m->protocol == ENUM(APPLICATION_TUNNEL__PROTOCOL__PROXY) ? APP_TUNNEL_PROXY : APP_TUNNEL_NONE;
	w->app_tunnel_port = xds_port(p, "application tunnel", m->port);
}

/* --- lists ---------------------------------------------------------------------------------------------- */

/* Each address once. */
static void ips(struct xds_part *p, const Istio__Workload__Workload *m, struct workload *w)
{
	unsigned room, n = 0;

	if (m->n_addresses > XDS_ADDRESSES_MAX)
		xds_fail(p, "%zu addresses, %d at most", m->n_addresses, XDS_ADDRESSES_MAX);
	w->ips = xds_array(p, m->n_addresses, sizeof *w->ips, &room);
	for (unsigned i = 0; i < room; i++) {
		struct addr a = xds_addr(p, "addresses", &m->addresses[i]);
		unsigned at = 0;

		while (at < n && !addr_eq(&w->ips[at], &a))
			at++;
		w->ips[at] = a;
		n += at == n;
	}
	w->n_ips = n;
}

static void services(struct xds_part *p, const Istio__Workload__Workload *m, struct workload *w)
{
	if (m->n_services > XDS_SERVICES_MAX)
		xds_fail(p, "%zu services, %d at most", m->n_services, XDS_SERVICES_MAX);
	w->services = xds_array(p, m->n_services, sizeof *w->services, &w->n_services);
	for (unsigned i = 0; i < w->n_services; i++) {
		const Istio__Workload__Membership *from = m->services[i];
		struct membership *to = &w->services[i];

		xds_split(p, from->key, &to->ns, &to->hostname);
		if (from->value)
			to->ports = xds_ports(p, from->value->ports, from->value->n_ports, &to->n_ports);
	}
}

/* --- the whole ------------------------------------------------------------------------------------------ */

int xds_workload(const Istio__Workload__Workload *m, struct workload **out, char why[XDS_REASON_MAX])
{
	struct xds_part p = {.error = 0};
	struct workload *w = workload_new(&p.arena);

	if (w) {
		names(&p, m, w);
		kinds(&p, m, w);
		app_tunnel(&p, m->application_tunnel, w);
		ips(&p, m, w);
		xds_gateway(&p, "waypoint", m->waypoint, &w->waypoint);
		xds_gateway(&p, "network gateway", m->network_gateway, &w->network_gateway);
		services(&p, m, w);
		w->policies = xds_texts(&p, m->authorization_policies, m->n_authorization_policies, &w->n_policies);
	} else {
		xds_no_memory(&p);
	}
	if (!p.error) {
		*out = w;
		return 0;
	}
	workload_unref(w);
	snprintf(why, XDS_REASON_MAX, "%s", p.why);
	return p.error;
}
