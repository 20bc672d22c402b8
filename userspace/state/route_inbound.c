/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the inbound decision: whether a CONNECT may mean this pod, and which port and service of it. */
#include "state/route.h"

#include <stdio.h>

#include "state/arena.h"
#include "state/upstream.h"

static const struct port_map *port_find(const struct port_map *p, unsigned n, uint16_t port)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i].service_port == port)
			return &p[i];
	return NULL;
}

/* The pod's port for a service's port. 0: there is none. */
static uint16_t target_port(const struct service *v, const struct membership *m, uint16_t port)
{
	const struct port_map *own = port_find(m->ports, m->n_ports, port);
	const struct port_map *of_service = port_find(v->ports, v->n_ports, port);

	if (own && own->target_port)
		return own->target_port;
	return of_service ? of_service->target_port : 0;
}

/* Does any port of the service lead to this port of the pod? */
static bool leads_to(const struct service *v, const struct membership *m, uint16_t port)
{
	for (unsigned i = 0; i < m->n_ports; i++)
		if (m->ports[i].target_port == port)
			return true;
	for (unsigned i = 0; i < v->n_ports; i++)
		if (target_port(v, m, v->ports[i].service_port) == port)
			return true;
	return false;
}

/* The pod's own service of this name; its own namespace's first, then a canonical one. */
static struct service *own_service(struct store *s, const struct workload *local, const char *host,
				   const struct membership **m)
{
	struct service *best = NULL;

	for (unsigned i = 0; i < local->n_services; i++) {
		struct service *v;
		unsigned rank, best_rank;

		if (strcmp(local->services[i].hostname, host) != 0)
			continue;
		v = store_service_exact(s, local->services[i].ns, host);
		if (!v)
			continue;
		rank = (strcmp(v->ns, local->ns) == 0 ? 2u : 0u) + v->canonical;
		best_rank = best ? (strcmp(best->ns, local->ns) == 0 ? 2u : 0u) + best->canonical : 0;
		if (!best || rank > best_rank) {
			best = v;
			*m = &local->services[i];
		}
	}
	return best;
}

struct service *route_service_by_port(struct store *s, const struct workload *local, uint16_t port)
{
	for (unsigned i = 0; i < local->n_services; i++) {
		const struct membership *m = &local->services[i];
		struct service *v = store_service_exact(s, m->ns, m->hostname);
		if (v && leads_to(v, m, port))
			return service_description(v);
	}
	return NULL;
}

/* --- is it for us? -------------------------------------------------------------------------------------- */

static bool service_uses(struct store *s, const struct service *v, const struct workload *waypoint)
{
	for (unsigned i = 0; i < v->n_waypoints; i++)
		if (upstream_gateway_is(s, &v->waypoints[i].to, waypoint))
			return true;
	return upstream_gateway_is(s, &v->waypoint, waypoint);
}

/* Another pod's or a service's address is good for the waypoint that serves it. */
static bool addr_allowed(struct store *s, const struct inbound_request *q)
{
	const struct addr *ip = &q->authority.ip;
	const struct workload *w;
	const struct service *v;

	if (addr_eq(ip, &q->pod_ip) || q->local->app_tunnel != APP_TUNNEL_ABSENT)
		return true;
	w = store_workload_by_addr(s, q->network, ip);
	if (w)
		return upstream_gateway_is(s, &w->waypoint, q->local);
	v = store_service_by_vip(s, q->network, ip, q->local->ns);
	return v && service_uses(s, v, q->local);
}

/* --- where does it go? ---------------------------------------------------------------------------------- */

/* A VIP to name the service by: this network's first, IPv4 first. */
static bool service_addr(const struct service *v, const char *network, struct addr *out)
{
	unsigned best = 0;

	for (unsigned i = 0; i < v->n_vips; i++) {
		const struct addr *ip = &v->vips[i].addr.ip;
		unsigned rank = strcmp(v->vips[i].addr.network, network) != 0 ? 1 : addr_is4(ip) ? 3 : 2;
		if (rank > best) {
			best = rank;
			*out = *ip;
		}
	}
	return best > 0;
}

static enum inbound_error by_host(struct store *s, const struct inbound_request *q, struct inbound_route *out)
{
	const struct membership *m;
	struct service *v = own_service(s, q->local, q->host, &m);

	if (!v)
		return INBOUND_UNKNOWN_HOST;
	out->target.port = target_port(v, m, q->authority.port);
	if (!out->target.port)
		return INBOUND_NO_PORT;
	out->advertised.port = q->authority.port;
	if (q->local->app_tunnel == APP_TUNNEL_PROXY && !service_addr(v, q->network, &out->advertised.ip))
		return INBOUND_UNKNOWN_HOST;
	out->service = service_ref(service_description(v));
	return INBOUND_OK;
}

static enum inbound_error by_addr(struct store *s, const struct inbound_request *q, struct inbound_route *out)
{
	if (!addr_allowed(s, q))
		return INBOUND_IP_MISMATCH;
	out->target.port = q->authority.port;
	out->advertised = q->authority;
	return INBOUND_OK;
}

static void tunnel(const struct workload *local, struct inbound_route *out)
{
	if (local->app_tunnel == APP_TUNNEL_ABSENT)
		return;
	if (local->app_tunnel_port)
		out->target.port = local->app_tunnel_port;
	out->proxy_protocol = out->app_loopback = local->app_tunnel == APP_TUNNEL_PROXY;
}

void route_inbound(struct store *s, const struct inbound_request *q, struct inbound_route *out)
{
	const struct membership *m;
	struct service *v;

	*out = (struct inbound_route){.target = {q->pod_ip, q->authority.port}};
	out->error = q->host ? by_host(s, q, out) : by_addr(s, q, out);
	if (out->error == INBOUND_OK && route_illegal_port(out->target.port, q->socks))
		out->error = INBOUND_ILLEGAL_PORT;
	if (out->error != INBOUND_OK)
		return;
	tunnel(q->local, out);
	v = q->forwarded_host ? own_service(s, q->local, q->forwarded_host, &m) : NULL;
	if (!v && !out->service)
		v = route_service_by_port(s, q->local, out->target.port);
	if (v) {
		service_unref(out->service);
		out->service = service_ref(service_description(v));
	}
}

void route_inbound_release(struct inbound_route *r)
{
	service_unref(r->service);
	*r = (struct inbound_route){0};
}

int route_inbound_status(enum inbound_error e)
{
	return e == INBOUND_OK ? 200 : e == INBOUND_IP_MISMATCH ? 400 : 503;
}

void route_inbound_reason(enum inbound_error e, const struct inbound_request *q, char *why, size_t len)
{
	char a[ADDR_STRLEN], b[ADDR_STRLEN];

	switch (e) {
	case INBOUND_IP_MISMATCH:
		snprintf(why, len, "ip mismatch: %s != %s", addr_str(&q->pod_ip, a), addr_str(&q->authority.ip, b));
		break;
	case INBOUND_UNKNOWN_HOST:
		snprintf(why, len, "requested service %s is unknown or not of this pod", q->host);
		break;
	case INBOUND_NO_PORT:
		snprintf(why, len, "requested service %s cannot resolve port %u", q->host ? q->host : "",
			 q->authority.port);
		break;
	case INBOUND_ILLEGAL_PORT:
		snprintf(why, len, "attempted recursive call to ourselves");
		break;
	case INBOUND_OK:
		why[0] = '\0';
	}
}
