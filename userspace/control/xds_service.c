// SPDX-License-Identifier: Apache-2.0
/* Services from istiod. */
#include <errno.h>
#include <stdio.h>

#include "control/xds_parts.h"

#define ENUM(name) ISTIO__WORKLOAD__##name

static void vips(struct xds_part *p, const Istio__Workload__Service *m, struct service *s)
{
	if (m->n_addresses > XDS_ADDRESSES_MAX)
		xds_fail(p, "%zu addresses, %d at most", m->n_addresses, XDS_ADDRESSES_MAX);
	s->vips = xds_array(p, m->n_addresses, sizeof *s->vips, &s->n_vips);
	for (unsigned i = 0; i < s->n_vips; i++) {
		const Istio__Workload__NetworkAddress *from = m->addresses[i];
		struct vip *to = &s->vips[i];
		unsigned full = from->address.len == 4 ? 32 : 128;

		to->addr.network = xds_text(p, from->network);
		to->addr.ip = xds_addr(p, "addresses", &from->address);
		to->len = (uint8_t)full;
		if (from->has_length_case != ENUM(NETWORK_ADDRESS__HAS_LENGTH_LENGTH))
			continue;
		if (from->length > full)
			xds_fail(p, "addresses: a prefix of %u bits, %u at most", from->length, full);
		to->len = (uint8_t)from->length;
	}
}

static void waypoints(struct xds_part *p, const Istio__Workload__Service *m, struct service *s)
{
	xds_gateway(p, "waypoint", m->waypoint, &s->waypoint);
	s->waypoints = xds_array(p, m->n_weighted_waypoints, sizeof *s->waypoints, &s->n_waypoints);
	for (unsigned i = 0; i < s->n_waypoints; i++) {
		const Istio__Workload__WeightedWaypoint *from = m->weighted_waypoints[i];

		if (!from->destination)
			xds_fail(p, "weighted waypoint: no destination");
		xds_gateway(p, "weighted waypoint", from->destination, &s->waypoints[i].to);
		s->waypoints[i].weight = from->weight;
	}
}

/* The numbers of scopes are those of the protocol. */
_Static_assert((int)SCOPE_REGION == ENUM(LOAD_BALANCING__SCOPE__REGION) &&
		       (int)SCOPE_NETWORK == ENUM(LOAD_BALANCING__SCOPE__NETWORK),
	       "enum lb_scope follows the protocol");

static void load_balancing(struct xds_part *p, const Istio__Workload__LoadBalancing *m, struct service *s)
{
	static const enum lb_mode modes[] = {LB_STANDARD, LB_STRICT, LB_FAILOVER, LB_PASSTHROUGH};

	if (!m)
		return;
	if ((unsigned)m->mode >= sizeof modes / sizeof *modes)
		xds_fail(p, "unknown load balancing mode %d", m->mode);
	else
		s->lb_mode = modes[m->mode];
	if (m->health_policy < 0 || m->health_policy > ENUM(LOAD_BALANCING__HEALTH_POLICY__ALLOW_ALL))
		xds_fail(p, "unknown health policy %d", m->health_policy);
	s->lb_allow_unhealthy = m->health_policy == ENUM(LOAD_BALANCING__HEALTH_POLICY__ALLOW_ALL);
	if (m->n_routing_preference > LB_SCOPES_MAX)
		xds_fail(p, "%zu routing preferences, %d at most", m->n_routing_preference, LB_SCOPES_MAX);
	for (size_t i = 0; i < m->n_routing_preference && !p->error; i++) {
		int scope = (int)m->routing_preference[i];

		if (scope < (int)SCOPE_REGION || scope > (int)SCOPE_NETWORK)
			xds_fail(p, "unknown routing preference %d", scope);
		s->lb_scopes[s->n_lb_scopes++] = (enum lb_scope)scope;
	}
}

static void kinds(struct xds_part *p, const Istio__Workload__Service *m, struct service *s)
{
	static const enum ip_families families[] = {FAMILIES_ANY, FAMILIES_IPV4, FAMILIES_IPV6, FAMILIES_DUAL};

	if ((unsigned)m->ip_families >= sizeof families / sizeof *families)
		xds_fail(p, "unknown IP families %d", m->ip_families);
	else
		s->ip_families = families[m->ip_families];
	s->visibility = m->visibility == ENUM(SERVICE__VISIBILITY__NAMESPACE) ? VISIBLE_NAMESPACE : VISIBLE_PUBLIC;
	s->canonical = m->canonical;
}

int xds_service(const Istio__Workload__Service *m, struct service **out, char why[XDS_REASON_MAX])
{
	struct xds_part p = {.error = 0};
	struct service *s = service_new(&p.arena);

	if (s) {
		if (!*m->hostname)
			xds_fail(&p, "no hostname");
		s->name = xds_own(&p, m->name);
		s->ns = xds_text(&p, m->namespace_);
		s->hostname = xds_text(&p, m->hostname);
		vips(&p, m, s);
		s->ports = xds_ports(&p, m->ports, m->n_ports, &s->n_ports);
		s->sans = xds_texts(&p, m->subject_alt_names, m->n_subject_alt_names, &s->n_sans);
		waypoints(&p, m, s);
		load_balancing(&p, m->load_balancing, s);
		kinds(&p, m, s);
	} else {
		xds_no_memory(&p);
	}
	if (!p.error) {
		*out = s;
		return 0;
	}
	service_unref(s);
	snprintf(why, XDS_REASON_MAX, "%s", p.why);
	return p.error;
}
