/* SPDX-License-Identifier: Apache-2.0 */
/* Owns load balancing: endpoints that are fit, of those the ones with the best rank, of those one by weight. */
#include "state/balance.h"

#include <string.h>

#include "state/arena.h"

/* Draws from all endpoints before they are all looked at; with at least half of them fit, one in 65,536 fails. */
enum { DRAWS = 16 };

uint64_t balance_mix(uint64_t random, uint64_t salt)
{
	uint64_t x = random + (salt + 1) * 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* A value below n, evenly: the high part of a product. */
static uint64_t below(uint64_t random, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)random * n) >> 64);
}

static const struct port_map *port_find(const struct port_map *p, unsigned n, uint16_t port)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i].service_port == port)
			return &p[i];
	return NULL;
}

bool balance_port(const struct service *v, const struct workload *w, const struct membership *part, uint16_t port,
		  bool waypoint, uint16_t *out)
{
	const struct port_map *of_service = port_find(v->ports, v->n_ports, port);
	const struct port_map *own = port_find(part->ports, part->n_ports, port);

	if (!of_service && !(waypoint && w->app_tunnel != APP_TUNNEL_ABSENT))
		return false;
	if (own && own->target_port)
		*out = own->target_port;
	else if (of_service && of_service->target_port)
		*out = of_service->target_port;
	else if (waypoint && w->app_tunnel != APP_TUNNEL_ABSENT && w->app_tunnel_port)
		*out = port;
	else
		return false;
	return true;
}

static bool scope_matches(enum lb_scope scope, const struct workload *a, const struct workload *b)
{
	switch (scope) {
	case SCOPE_REGION:
		return strcmp(a->region, b->region) == 0;
	case SCOPE_ZONE:
		return strcmp(a->zone, b->zone) == 0;
	case SCOPE_SUBZONE:
		return strcmp(a->subzone, b->subzone) == 0;
	case SCOPE_NODE:
		return strcmp(a->node, b->node) == 0;
	case SCOPE_CLUSTER:
		return strcmp(a->cluster_id, b->cluster_id) == 0;
	case SCOPE_NETWORK:
		return strcmp(a->network, b->network) == 0;
	}
	return false;
}

unsigned balance_rank(const struct service *v, const struct workload *source, const struct workload *w,
		      unsigned *matched)
{
	unsigned bonus = 0;

	*matched = 0;
	for (unsigned i = 0; i < v->n_lb_scopes; i++) {
		bool network_first = i == 0 && v->lb_scopes[0] == SCOPE_NETWORK;
		if (scope_matches(v->lb_scopes[i], source, w)) {
			++*matched;
			bonus += network_first ? v->n_lb_scopes - 1 : 0;
		} else if (!network_first) {
			break;
		}
	}
	return *matched + bonus;
}

/* Without an address or a name it can be reached through its network's gateway only. */
static bool reachable(const struct workload *w, const struct workload *source)
{
	return w->n_ips || w->hostname[0] ||
	       (w->network_gateway.kind != GATEWAY_NONE && strcmp(w->network, source->network) != 0);
}

struct fitness {
	bool fit;
	unsigned rank;
	uint16_t port;
	const char *unfit; /* why not */
};

static struct fitness endpoint_fitness(const struct service *v, const struct endpoint_ref *e,
				       const struct balance_request *q)
{
	const struct workload *w = e->workload;
	struct fitness f = {0};
	unsigned matched;

	if (!w->capacity) {
		f.unfit = "its weight is 0";
		return f;
	}
	if (!balance_port(v, w, e->part, q->port, q->waypoint, &f.port)) {
		f.unfit = "it has no port for this one";
		return f;
	}
	if (v->lb_mode != LB_STANDARD) {
		f.rank = balance_rank(v, q->source, w, &matched);
		f.unfit = "its place is not that of the client, and the service is strict";
		if (v->lb_mode == LB_STRICT && matched < v->n_lb_scopes)
			return f;
	}
	f.fit = reachable(w, q->source);
	f.unfit = "no address, name or gateway leads to it";
	return f;
}

/* Endpoints of equal weight and rank: any fit one that is drawn will do. */
static bool pick_drawn(const struct service *v, const struct balance_request *q, struct balance_choice *out)
{
	bool even = service_head(v)->capacity && (v->lb_mode == LB_STANDARD || !v->n_lb_scopes);

	for (unsigned i = 0; even && i < DRAWS; i++) {
		const struct endpoint_ref *e = &v->endpoints[below(balance_mix(q->random, i), v->n_endpoints)];
		struct fitness f = endpoint_fitness(v, e, q);
		if (f.fit) {
			out->workload = e->workload;
			out->port = f.port;
			return true;
		}
	}
	return false;
}

static struct balance_choice pick(const struct service *v, const struct balance_request *q)
{
	struct balance_choice out = {0};
	unsigned best = 0;
	uint64_t total = 0, at;

	if (!v->n_endpoints || pick_drawn(v, q, &out))
		return out;
	for (unsigned i = 0; i < v->n_endpoints; i++) {
		struct fitness f = endpoint_fitness(v, &v->endpoints[i], q);
		if (!f.fit || f.rank < best)
			continue;
		total = (f.rank == best ? total : 0) + v->endpoints[i].workload->capacity;
		best = f.rank;
	}
	at = below(balance_mix(q->random, DRAWS), total);
	for (unsigned i = 0; total && i < v->n_endpoints; i++) {
		struct fitness f = endpoint_fitness(v, &v->endpoints[i], q);
		if (!f.fit || f.rank != best)
			continue;
		out.workload = v->endpoints[i].workload;
		out.port = f.port;
		if (at < out.workload->capacity)
			break;
		at -= out.workload->capacity;
	}
	return out;
}

static void explain_one(const struct service *v, const struct endpoint_ref *e, const struct balance_request *q,
			unsigned best, bool chosen)
{
	struct fitness f = endpoint_fitness(v, e, q);
	const struct workload *w = e->workload;

	if (!f.fit)
		why_note(q->why, "endpoint", "%s/%s: not fit: %s", w->ns, w->name, f.unfit);
	else if (f.rank < best)
		why_note(q->why, "endpoint", "%s/%s: others are nearer", w->ns, w->name);
	else
		why_note(q->why, "endpoint", "%s/%s: fit, weight %u, port %u%s", w->ns, w->name, w->capacity, f.port,
			 chosen ? "; chosen here (a connection draws one by weight)" : "");
}

static void explain(const struct service *v, const struct balance_request *q, const struct workload *chosen)
{
	unsigned best = 0;

	for (unsigned i = 0; i < v->n_endpoints; i++) {
		struct fitness f = endpoint_fitness(v, &v->endpoints[i], q);

		best = f.fit && f.rank > best ? f.rank : best;
	}
	why_note(q->why, "endpoint", "service %s/%s has %u endpoints in rotation", v->ns, v->hostname, v->n_endpoints);
	for (unsigned i = 0; i < v->n_endpoints && i < WHY_ENDPOINTS_MAX; i++)
		explain_one(v, &v->endpoints[i], q, best, v->endpoints[i].workload == chosen);
	if (v->n_endpoints > WHY_ENDPOINTS_MAX)
		why_note(q->why, "endpoint", "and %u more", v->n_endpoints - WHY_ENDPOINTS_MAX);
}

struct balance_choice balance_pick(const struct service *v, const struct balance_request *q)
{
	struct balance_choice c = pick(v, q);

	if (q->why)
		explain(v, q, c.workload);
	return c;
}

static bool family_allowed(const struct service *v, const struct addr *ip)
{
	enum ip_families f = v ? v->ip_families : FAMILIES_ANY;

	return f == FAMILIES_IPV4 ? addr_is4(ip) : f == FAMILIES_IPV6 ? !addr_is4(ip) : true;
}

const struct addr *balance_addr(const struct service *v, const struct workload *w, const struct addr *asked)
{
	const struct addr *first = NULL, *same_family = NULL;

	for (unsigned i = 0; i < w->n_ips; i++) {
		const struct addr *ip = &w->ips[i];
		if (addr_eq(ip, asked))
			return ip;
		if (!family_allowed(v, ip))
			continue;
		first = first ? first : ip;
		if (!same_family && addr_is4(ip) == addr_is4(asked))
			same_family = ip;
	}
	return same_family ? same_family : first;
}

int balance_weighted(const struct weighted_gateway *g, unsigned n, uint64_t random)
{
	uint64_t total = 0, at;

	for (unsigned i = 0; i < n; i++)
		total += g[i].weight;
	at = below(random, total);
	for (unsigned i = 0; total && i < n; i++) {
		if (at < g[i].weight)
			return (int)i;
		at -= g[i].weight;
	}
	return -1;
}
