// SPDX-License-Identifier: Apache-2.0
/* On demand: an outbound connection waits for what the mesh lacks to route it. Each name is asked for once; when istiod does
 * not say in time what it is, or each answer leads to one more name, nobody knows whether plaintext is right, and the
 * connection is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/outbound.h"

struct wanted {
	struct demand_request request;
	unsigned asked; /* names so far */
	bool waits;
};

enum { WANTED_MAX = 4 }; /* an address, a waypoint, the waypoint's gateway; then it goes in circles */

static void answered(struct demand_request *r)
{
	struct wanted *w = container_of(r, struct wanted, request);
	struct outbound *o = r->owner;

	w->waits = false;
	if (!o) {
		free(w);
		return;
	}
	if (r->answered)
		outbound_route(o);
	else
		outbound_finish(o, FLAG_CONNECT, "istiod did not say in time what the destination is");
}

static bool name_of(const struct gateway *g, char name[DEMAND_NAME_MAX])
{
	char ip[ADDR_STRLEN];
	int n;

	if (g->kind == GATEWAY_ADDR)
		n = snprintf(name, DEMAND_NAME_MAX, "%s/%s", g->addr.network, addr_str(&g->addr.ip, ip));
	else
		n = snprintf(name, DEMAND_NAME_MAX, "%s/%s", g->ns, g->hostname);
	return n > 0 && n < DEMAND_NAME_MAX;
}

int wanted_ask(struct outbound *o, const struct gateway *missing)
{
	struct demand *d = o->conn.w->o->demand;
	char name[DEMAND_NAME_MAX];

	if (!d)
		return 0;
	if (!name_of(missing, name))
		return -ENAMETOOLONG;
	if (!o->wanted)
		o->wanted = calloc(1, sizeof *o->wanted);
	if (!o->wanted)
		return -ENOMEM;
	if (!strcmp(o->wanted->request.name, name))
		return 0;
	if (o->wanted->asked == WANTED_MAX) {
		traffic_demand_refused();
		return -ELOOP;
	}
	o->wanted->asked++;
	o->wanted->waits = true;
	strcpy(o->wanted->request.name, name);
	o->wanted->request.loop = o->conn.w->loop;
	o->wanted->request.owner = o;
	o->wanted->request.done = answered;
	d->ask(d, &o->wanted->request);
	return 1;
}

void wanted_end(struct outbound *o)
{
	if (o->wanted && o->wanted->waits)
		o->wanted->request.owner = NULL; /* freed when it is answered */
	else
		free(o->wanted);
	o->wanted = NULL;
}
