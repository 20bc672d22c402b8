// SPDX-License-Identifier: Apache-2.0
/* Owns the look-up of an outbound connection's next hop that is known by its host name alone. The route waits here
 * meanwhile. */
#include <stdio.h>
#include <stdlib.h>

#include "data/outbound.h"

struct lookup {
	struct names_request request;
	struct outbound *o;
	struct route route;
};

void outbound_lookup_end(struct outbound *o)
{
	struct lookup *l = o->lookup;

	if (!l)
		return;
	o->lookup = NULL;
	names_cancel(&l->request);
	route_release(&l->route);
	free(l);
}

static void looked_up(struct names_request *r, const struct endpoint *at, unsigned n, const char *why)
{
	struct lookup *l = container_of(r, struct lookup, request);
	struct outbound *o = l->o;
	struct worker *w = o->conn.w;
	struct route route = l->route;
	char text[DATA_WHY_MAX];

	o->lookup = NULL;
	free(l);
	if (n) {
		route.next_hop.ip = *names_pick(at, n, &o->conn.original.ip, worker_random(w));
		if (route.kind == ROUTE_HBONE && !route.waypoint)
			route.authority.ip = route.next_hop.ip;
		outbound_follow(o, &route);
	} else {
		snprintf(text, sizeof text, "cannot resolve %.150s: %s", route.destination->hostname, why);
		outbound_finish(o, FLAG_CONNECT, text);
	}
	route_release(&route);
}

void outbound_look_up(struct outbound *o, struct route *r)
{
	struct lookup *l = calloc(1, sizeof *l);

	if (!l) {
		outbound_finish(o, FLAG_CONNECT, "out of memory");
		route_release(r);
		return;
	}
	l->o = o;
	l->route = *r;
	o->lookup = l;
	names_ask(o->conn.w, &l->request, o->conn.source, r->destination->hostname, looked_up);
}
