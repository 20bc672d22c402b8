/* SPDX-License-Identifier: Apache-2.0 */
/* Owns resolution of targets and of references to waypoints and gateways. */
#include "state/upstream.h"

#include "state/balance.h"

static enum upstream_result found(struct workload *w, struct service *v, const struct addr *ip, uint16_t port,
				  struct upstream *out)
{
	*out = (struct upstream){.workload = w, .service = v, .at = {.port = port}, .has_addr = ip};
	if (ip)
		out->at.ip = *ip;
	return UPSTREAM_FOUND;
}

static enum upstream_result by_service(struct service *v, const struct upstream_query *q, const struct addr *asked,
				       uint16_t port, bool waypoint, struct upstream *out)
{
	struct balance_request b = {q->source, port, waypoint, q->random, q->why};
	struct balance_choice c = balance_pick(v, &b);

	if (!c.workload)
		return UPSTREAM_NONE;
	return found(c.workload, v, balance_addr(v, c.workload, asked), c.port, out);
}

enum upstream_result upstream_by_addr(struct store *s, const struct upstream_query *q, const char *network,
				      const struct endpoint *target, bool waypoint, struct upstream *out)
{
	struct service *v = store_service_by_vip(s, network, &target->ip, q->source->ns);
	struct workload *w;

	if (v && v->lb_mode == LB_PASSTHROUGH)
		return UPSTREAM_PASSTHROUGH;
	if (v)
		return by_service(v, q, &target->ip, target->port, waypoint, out);
	w = store_workload_by_addr(s, network, &target->ip);
	return w ? found(w, NULL, &target->ip, target->port, out) : UPSTREAM_UNKNOWN;
}

enum upstream_result upstream_by_gateway(struct store *s, const struct upstream_query *q, const struct gateway *g,
					 bool waypoint, struct upstream *out)
{
	struct endpoint at = {g->addr.ip, g->hbone_port};
	struct service *v;
	struct workload *w;

	if (g->kind == GATEWAY_ADDR)
		return upstream_by_addr(s, q, g->addr.network, &at, waypoint, out);
	v = store_service_exact(s, g->ns, g->hostname);
	if (v)
		return by_service(v, q, &q->asked, g->hbone_port, waypoint, out);
	w = store_workload_by_host(s, g->ns, g->hostname);
	if (!w)
		return UPSTREAM_UNKNOWN;
	return found(w, NULL, balance_addr(NULL, w, &q->asked), g->hbone_port, out);
}

static bool same(const struct workload *a, const struct workload *b)
{
	return a == b || (a && strcmp(a->uid, b->uid) == 0);
}

bool upstream_gateway_is(struct store *s, const struct gateway *g, const struct workload *w)
{
	bool by_addr = g->kind == GATEWAY_ADDR;
	struct service *v;

	if (g->kind == GATEWAY_NONE)
		return false;
	v = by_addr ? store_service_by_vip(s, g->addr.network, &g->addr.ip, w->ns)
		    : store_service_exact(s, g->ns, g->hostname);
	for (unsigned i = 0; v && i < v->n_endpoints; i++)
		if (same(v->endpoints[i].workload, w))
			return true;
	if (v)
		return false;
	return same(by_addr ? store_workload_by_addr(s, g->addr.network, &g->addr.ip)
			    : store_workload_by_host(s, g->ns, g->hostname),
		    w);
}
