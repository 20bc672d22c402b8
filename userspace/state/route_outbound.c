/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the outbound decision: who is dialled, through what, and which identities may answer. */
#include "state/route.h"

#include <stdlib.h>

#include "ports.h"
#include "state/arena.h"
#include "state/balance.h"
#include "state/identity.h"
#include "state/upstream.h"

/* Salts of the independent random choices of one route. */
enum { CHOOSE_ENDPOINT = 100, CHOOSE_WEIGHT, CHOOSE_WAYPOINT, CHOOSE_GATEWAY };

struct ctx {
	struct store *store;
	const struct route_request *q;
	struct route *out;
};

static void reject(struct ctx *c, const char *reason)
{
	c->out->kind = ROUTE_REJECT;
	c->out->reason = reason;
}

static void passthrough(struct ctx *c, const struct endpoint *to)
{
	c->out->kind = ROUTE_PASSTHROUGH;
	c->out->next_hop = *to;
}

static struct upstream_query query(const struct ctx *c, uint64_t salt)
{
	return (struct upstream_query){c->q->source, c->q->target.ip, balance_mix(c->q->random, salt)};
}

/* --- identities ----------------------------------------------------------------------------------------- */

static bool peers_add(struct route_peers *p, const char *id)
{
	for (unsigned i = 0; i < p->n; i++)
		if (strcmp(p->id[i], id) == 0)
			return true;
	if (p->n == ROUTE_SANS_MAX)
		return true; /* fewer may answer */
	p->id[p->n] = strdup(id);
	if (!p->id[p->n])
		return false;
	p->n++;
	return true;
}

static bool peers_add_service(struct route_peers *p, const struct service *v)
{
	struct identity id;

	for (unsigned i = 0; v && i < v->n_sans; i++)
		if (identity_parse(&id, v->sans[i]) == 0 && !peers_add(p, v->sans[i]))
			return false;
	return true;
}

/* The workload's identity, then what the service says. Fails only without memory or with a name that is no identity. */
static bool peers_add_upstream(struct route_peers *p, const struct upstream *u)
{
	char text[IDENTITY_MAX];

	return identity_format(text, u->workload->trust_domain, u->workload->ns, u->workload->service_account) == 0 &&
	       peers_add(p, text) && peers_add_service(p, u->service);
}

static void peers_clear(struct route_peers *p)
{
	for (unsigned i = 0; i < p->n; i++)
		free(p->id[i]);
}

/* --- hops ----------------------------------------------------------------------------------------------- */

static bool has_place(struct ctx *c, const struct upstream *u)
{
	c->out->lookup = !u->has_addr;
	if (!u->has_addr && !u->workload->hostname[0])
		reject(c, "the destination has no address");
	return u->has_addr || u->workload->hostname[0];
}

static bool hop(struct ctx *c, const struct upstream *u, uint16_t port, const struct endpoint *authority)
{
	if (!has_place(c, u))
		return false;
	if (!peers_add_upstream(&c->out->expect, u)) {
		reject(c, "the destination's identity cannot be told");
		return false;
	}
	c->out->kind = ROUTE_HBONE;
	c->out->next_hop = (struct endpoint){u->at.ip, port};
	c->out->authority = *authority;
	c->out->destination = workload_ref(u->workload);
	return true;
}

/* To another network: HBONE within HBONE through its gateway. Who answers in the inner tunnel is chosen over there; it
 * can be known by the names that the service has for all its endpoints, not by those of the one found here. */
static void through_gateway(struct ctx *c, const struct upstream *beyond, const struct service *service)
{
	struct upstream_query q = query(c, CHOOSE_GATEWAY);
	struct upstream u;

	if (!service) {
		reject(c, "no service for target");
		return;
	}
	if (beyond->workload->network_gateway.kind == GATEWAY_NONE) {
		reject(c, "no valid routing destination");
		return;
	}
	if (upstream_by_gateway(c->store, &q, &beyond->workload->network_gateway, false, &u) != UPSTREAM_FOUND) {
		c->out->missing = beyond->workload->network_gateway;
		reject(c, "unknown network gateway");
		return;
	}
	if (!hop(c, &u, u.at.port, &c->q->target))
		return;
	c->out->kind = ROUTE_HBONE_NESTED;
	if (!peers_add_service(&c->out->inner, beyond->service))
		reject(c, "out of memory");
}

static void through_waypoint(struct ctx *c, const struct gateway *g, const struct service *service)
{
	struct upstream_query q = query(c, CHOOSE_WAYPOINT);
	struct upstream u;

	if (upstream_by_gateway(c->store, &q, g, true, &u) != UPSTREAM_FOUND) {
		c->out->missing = *g;
		reject(c, "unknown waypoint");
		return;
	}
	if (strcmp(u.workload->network, c->q->source->network) != 0) {
		through_gateway(c, &u, service);
		return;
	}
	c->out->waypoint = true;
	hop(c, &u, u.at.port, &c->q->target);
}

static const struct gateway *service_waypoint(const struct ctx *c, const struct service *v)
{
	int i = balance_weighted(v->waypoints, v->n_waypoints, balance_mix(c->q->random, CHOOSE_WEIGHT));

	return i >= 0 ? &v->waypoints[i].to : &v->waypoint;
}

/* Without a mesh endpoint: back to where the application wanted to go, unless that would bypass a service. */
static void no_upstream(struct ctx *c, enum upstream_result e)
{
	if (e == UPSTREAM_UNKNOWN)
		c->out->missing = (struct gateway){.kind = GATEWAY_ADDR, .addr = {c->q->network, c->q->target.ip}};
	if (e == UPSTREAM_UNKNOWN || e == UPSTREAM_PASSTHROUGH)
		passthrough(c, &c->q->target);
	else
		reject(c, "no healthy upstream");
}

static void to_upstream(struct ctx *c, const struct upstream *u, const struct service *service)
{
	const struct gateway *waypoint = &u->workload->waypoint;

	if (strcmp(u->workload->network, c->q->source->network) != 0) {
		through_gateway(c, u, service);
	} else if (!service && waypoint->kind != GATEWAY_NONE &&
		   !upstream_gateway_is(c->store, waypoint, c->q->source)) {
		through_waypoint(c, waypoint, NULL);
	} else if (u->workload->protocol == PROTO_HBONE) {
		hop(c, u, PORT_HBONE, &u->at);
	} else if (has_place(c, u)) {
		passthrough(c, &u->at);
		c->out->destination = workload_ref(u->workload);
	}
}

/* --- the decision --------------------------------------------------------------------------------------- */

bool route_illegal_port(uint16_t port, bool socks)
{
	return port == PORT_HBONE || port == PORT_INBOUND || port == PORT_OUTBOUND || port == PORT_DNS ||
	       (socks && port == PORT_SOCKS);
}

/* A loop through the agent's own ports in the same pod. Elsewhere the receiving side refuses them. */
static bool calls_itself(const struct route_request *q)
{
	if (!route_illegal_port(q->target.port, q->socks))
		return false;
	for (unsigned i = 0; i < q->source->n_ips; i++)
		if (addr_eq(&q->source->ips[i], &q->target.ip))
			return true;
	return addr_is_loopback(&q->target.ip);
}

void route_outbound(struct store *s, const struct route_request *q, struct route *out)
{
	struct ctx c = {s, q, out};
	struct upstream_query uq = query(&c, CHOOSE_ENDPOINT);
	const struct gateway *waypoint;
	enum upstream_result e;
	struct service *v = NULL;
	struct upstream u;

	*out = (struct route){.next_hop = q->target, .authority = q->target};
	if (calls_itself(q)) {
		reject(&c, "attempted recursive call to ourselves");
		return;
	}
	/* A workload of this address comes before a service of it. */
	if (!store_workload_by_addr(s, q->network, &q->target.ip))
		v = store_service_by_vip(s, q->network, &q->target.ip, q->source->ns);
	waypoint = v ? service_waypoint(&c, v) : NULL;
	out->service = v ? service_ref(service_description(v)) : NULL;
	if (waypoint && waypoint->kind != GATEWAY_NONE) {
		through_waypoint(&c, waypoint, v);
		return;
	}
	e = upstream_by_addr(s, &uq, q->source->network, &q->target, false, &u);
	if (e != UPSTREAM_FOUND) {
		no_upstream(&c, v && e == UPSTREAM_UNKNOWN && v->lb_mode != LB_PASSTHROUGH ? UPSTREAM_NONE : e);
		return;
	}
	if (!v && u.service)
		out->service = service_ref(service_description(u.service));
	to_upstream(&c, &u, v);
}

void route_release(struct route *r)
{
	peers_clear(&r->expect);
	peers_clear(&r->inner);
	workload_unref(r->destination);
	service_unref(r->service);
	*r = (struct route){0};
}
