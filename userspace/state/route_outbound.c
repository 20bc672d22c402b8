/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the outbound decision: who is dialled, through what, and which identities may answer. */
#include "state/route.h"

#include <stdio.h>
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
	WHY(c->q->why, "refused", "%s", reason);
}

static void passthrough(struct ctx *c, const struct endpoint *to)
{
	char at[ENDPOINT_STRLEN];

	WHY(c->q->why, "protocol", "plain TCP to %s", endpoint_str(to, at));
	c->out->kind = ROUTE_PASSTHROUGH;
	c->out->next_hop = *to;
}

static struct upstream_query query(const struct ctx *c, uint64_t salt)
{
	return (struct upstream_query){c->q->source, c->q->target.ip, balance_mix(c->q->random, salt), c->q->why};
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
	char at[ENDPOINT_STRLEN], to[ENDPOINT_STRLEN];

	if (!has_place(c, u))
		return false;
	if (!peers_add_upstream(&c->out->expect, u)) {
		reject(c, "the destination's identity cannot be told");
		return false;
	}
	c->out->kind = ROUTE_HBONE;
	c->out->next_hop = (struct endpoint){u->at.ip, port};
	c->out->authority = *authority;
	WHY(c->q->why, "protocol", "HBONE to %s/%s, %s, for %s; it must be %s", u->workload->ns, u->workload->name,
	    u->has_addr ? endpoint_str(&c->out->next_hop, at) : u->workload->hostname, endpoint_str(authority, to),
	    c->out->expect.id[0]);
	c->out->destination = workload_ref(u->workload);
	return true;
}

/* To another network: HBONE within HBONE through its gateway. Who answers in the inner tunnel is chosen over there; it
 * can be known by the names that the service has for all its endpoints, not by those of the one found here. */
static void through_gateway(struct ctx *c, const struct upstream *beyond, const struct service *service)
{
	struct upstream_query q = query(c, CHOOSE_GATEWAY);
	struct upstream u;

	WHY(c->q->why, "network",
	    "%s/%s is on network \"%s\", the client on \"%s\": through its gateway, HBONE within HBONE",
	    beyond->workload->ns, beyond->workload->name, beyond->workload->network, c->q->source->network);
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

static void note_waypoint(struct ctx *c, const struct gateway *g, const struct service *service)
{
	char ip[ADDR_STRLEN], name[WHY_TEXT_MAX / 2];

	if (!c->q->why)
		return;
	if (g->kind == GATEWAY_ADDR)
		snprintf(name, sizeof name, "%s", addr_str(&g->addr.ip, ip));
	else
		snprintf(name, sizeof name, "%s/%s", g->ns, g->hostname);
	why_note(c->q->why, "waypoint", "the %s is behind waypoint %s, port %u, which decides where it goes from there",
		 service ? "service" : "workload", name, g->hbone_port);
}

static void through_waypoint(struct ctx *c, const struct gateway *g, const struct service *service)
{
	struct upstream_query q = query(c, CHOOSE_WAYPOINT);
	struct upstream u;

	note_waypoint(c, g, service);
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
	if (e == UPSTREAM_PASSTHROUGH)
		WHY(c->q->why, "destination", "the service wants connections to go where the client dialled");
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
		WHY(c->q->why, "protocol", "%s/%s does not speak HBONE", u->workload->ns, u->workload->name);
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

/* `v`: the service that has the address, unless a workload has it. */
static void note_target(const struct ctx *c, const struct service *v)
{
	const struct workload *w;
	char ip[ADDR_STRLEN];

	if (!c->q->why)
		return;
	addr_str(&c->q->target.ip, ip);
	w = v ? NULL : store_workload_by_addr(c->store, c->q->network, &c->q->target.ip);
	if (v)
		why_note(c->q->why, "destination", "%s is an address of service %s/%s", ip, v->ns, v->hostname);
	else if (w)
		why_note(c->q->why, "destination", "%s is workload %s/%s on node \"%s\"", ip, w->ns, w->name, w->node);
	else
		why_note(c->q->why, "destination", "nothing in the mesh has the address %s that %s may see", ip,
			 c->q->source->ns);
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
	note_target(&c, v);
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
