/* SPDX-License-Identifier: Apache-2.0 */
/* Meshes for tests, written as tables: lists are texts with blanks between the items, what is left out has the value
 * that matters least (HBONE, healthy, capacity 1, trust domain "td"). */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state/arena.h"
#include "state/store.h"

struct rig_workload {
	const char *name; /* NULL ends a table */
	const char *uid;  /* "c//Pod/NS/NAME" */
	const char *ns, *sa, *network, *node, *cluster, *hostname, *region, *zone, *subzone;
	const char *ips;		/* "10.0.0.1 fd00::1" */
	const char *services;		/* "NS/HOST 80:8080 81:0 NS/HOST" */
	const char *policies;		/* "NS/NAME NS/NAME" */
	const char *waypoint, *gateway; /* "NETWORK/IP@PORT" or "NS/HOST@PORT" */
	unsigned capacity;		/* plus one */
	bool tcp, unhealthy, host_network;
	enum app_tunnel tunnel;
	uint16_t tunnel_port;
};

struct rig_service {
	const char *hostname; /* NULL ends a table */
	const char *ns;
	const char *vips;  /* "10.1.0.1 fd01::1 10.2.0.0/16 other/10.1.0.1" */
	const char *ports; /* "80:8080 81:0" */
	const char *sans;
	const char *waypoint;
	const char *waypoints; /* "NS/HOST@PORT*WEIGHT ..." */
	enum lb_mode lb;
	enum lb_scope scopes[LB_SCOPES_MAX];
	bool allow_unhealthy, private, canonical;
	enum ip_families families;
};

static inline const char *rig_text(struct arena *a, const char *s)
{
	return s ? arena_str(a, s, strlen(s)) : "";
}

static inline struct addr rig_addr(const char *s)
{
	struct addr a;

	if (addr_parse(&a, s))
		abort();
	return a;
}

static inline struct endpoint rig_endpoint(const char *s)
{
	struct endpoint e;

	if (endpoint_parse(&e, s))
		abort();
	return e;
}

enum { RIG_ITEMS = 16 };
struct rig_items {
	unsigned n;
	char text[512];
	char *item[RIG_ITEMS];
};

static inline void rig_split(struct rig_items *l, const char *list)
{
	char *save = NULL;

	l->n = 0;
	snprintf(l->text, sizeof l->text, "%s", list ? list : "");
	for (char *p = strtok_r(l->text, " ", &save); p; p = strtok_r(NULL, " ", &save))
		l->item[l->n++] = p;
}

static inline void rig_gateway(struct arena *a, const char *text, struct gateway *g)
{
	char copy[256], *slash, *at;
	struct addr ip;

	if (!text)
		return;
	snprintf(copy, sizeof copy, "%s", text);
	slash = strchr(copy, '/');
	at = strrchr(copy, '@');
	*slash = *at = 0;
	g->hbone_port = (uint16_t)atoi(at + 1);
	if (addr_parse(&ip, slash + 1) == 0) {
		g->kind = GATEWAY_ADDR;
		g->addr.network = rig_text(a, copy);
		g->addr.ip = ip;
	} else {
		g->kind = GATEWAY_HOST;
		g->ns = rig_text(a, copy);
		g->hostname = rig_text(a, slash + 1);
	}
}

static inline void rig_port(const char *text, struct port_map *p)
{
	unsigned service, target;

	if (sscanf(text, "%u:%u", &service, &target) != 2)
		abort();
	*p = (struct port_map){(uint16_t)service, (uint16_t)target};
}

/* A name with a slash begins a service, ports follow. */
static inline void rig_memberships(struct arena *a, const char *text, struct workload *w)
{
	struct rig_items l;

	rig_split(&l, text);
	w->services = arena_alloc(a, l.n, sizeof *w->services);
	for (unsigned i = 0; i < l.n; i++) {
		char *slash = strchr(l.item[i], '/');
		struct membership *m = slash ? &w->services[w->n_services++] : &w->services[w->n_services - 1];

		if (slash) {
			*slash = 0;
			m->ns = rig_text(a, l.item[i]);
			m->hostname = rig_text(a, slash + 1);
			m->ports = arena_alloc(a, l.n, sizeof *m->ports);
		} else {
			rig_port(l.item[i], &m->ports[m->n_ports++]);
		}
	}
}

static inline void rig_workload_lists(struct arena *a, const struct rig_workload *r, struct workload *w)
{
	struct rig_items l;

	rig_split(&l, r->ips);
	w->ips = arena_alloc(a, l.n, sizeof *w->ips);
	for (; w->n_ips < l.n; w->n_ips++)
		w->ips[w->n_ips] = rig_addr(l.item[w->n_ips]);
	rig_split(&l, r->policies);
	w->policies = arena_alloc(a, l.n, sizeof *w->policies);
	for (; w->n_policies < l.n; w->n_policies++)
		w->policies[w->n_policies] = rig_text(a, l.item[w->n_policies]);
	rig_memberships(a, r->services, w);
	rig_gateway(a, r->waypoint, &w->waypoint);
	rig_gateway(a, r->gateway, &w->network_gateway);
}

static inline struct workload *rig_workload_new(const struct rig_workload *r)
{
	struct arena *a;
	struct workload *w = workload_new(&a);
	char uid[256];

	snprintf(uid, sizeof uid, "c//Pod/%s/%s", r->ns ? r->ns : "", r->name);
	w->uid = rig_text(a, r->uid ? r->uid : uid);
	w->name = rig_text(a, r->name);
	w->ns = rig_text(a, r->ns);
	w->trust_domain = "td";
	w->service_account = rig_text(a, r->sa ? r->sa : "default");
	w->network = rig_text(a, r->network);
	w->node = rig_text(a, r->node);
	w->cluster_id = rig_text(a, r->cluster);
	w->hostname = rig_text(a, r->hostname);
	w->region = rig_text(a, r->region);
	w->zone = rig_text(a, r->zone);
	w->subzone = rig_text(a, r->subzone);
	w->protocol = r->tcp ? PROTO_TCP : PROTO_HBONE;
	w->network_mode = r->host_network ? NETWORK_HOST : NETWORK_STANDARD;
	w->healthy = !r->unhealthy;
	w->capacity = r->capacity ? r->capacity - 1 : 1;
	w->app_tunnel = r->tunnel;
	w->app_tunnel_port = r->tunnel_port;
	rig_workload_lists(a, r, w);
	return w;
}

/* "IP", "IP/LENGTH", "NETWORK/IP" or "NETWORK/IP/LENGTH" */
static inline void rig_vip(struct arena *a, const char *text, struct vip *v)
{
	char copy[64], *slash, *ip = copy;

	snprintf(copy, sizeof copy, "%s", text);
	slash = strchr(copy, '/');
	if (slash)
		*slash = 0;
	v->addr.network = "";
	if (addr_parse(&v->addr.ip, copy)) {
		v->addr.network = rig_text(a, copy);
		ip = slash + 1;
		slash = strchr(ip, '/');
		if (slash)
			*slash = 0;
	}
	v->addr.ip = rig_addr(ip);
	v->len = slash ? (uint8_t)atoi(slash + 1) : addr_is4(&v->addr.ip) ? 32 : 128;
}

static inline void rig_waypoints(struct arena *a, const char *text, struct service *v)
{
	struct rig_items l;

	rig_split(&l, text);
	v->waypoints = arena_alloc(a, l.n, sizeof *v->waypoints);
	for (; v->n_waypoints < l.n; v->n_waypoints++) {
		struct weighted_gateway *g = &v->waypoints[v->n_waypoints];

		g->to.ns = g->to.hostname = "";
		rig_gateway(a, l.item[v->n_waypoints], &g->to);
		g->weight = (uint32_t)atoi(strchr(l.item[v->n_waypoints], '*') + 1);
	}
}

static inline struct service *rig_service_new(const struct rig_service *r)
{
	struct arena *a;
	struct service *v = service_new(&a);
	struct rig_items l;

	v->name = v->hostname = rig_text(a, r->hostname);
	v->ns = rig_text(a, r->ns);
	rig_split(&l, r->vips);
	v->vips = arena_alloc(a, l.n, sizeof *v->vips);
	for (; v->n_vips < l.n; v->n_vips++)
		rig_vip(a, l.item[v->n_vips], &v->vips[v->n_vips]);
	rig_split(&l, r->ports);
	v->ports = arena_alloc(a, l.n, sizeof *v->ports);
	for (; v->n_ports < l.n; v->n_ports++)
		rig_port(l.item[v->n_ports], &v->ports[v->n_ports]);
	rig_split(&l, r->sans);
	v->sans = arena_alloc(a, l.n, sizeof *v->sans);
	for (; v->n_sans < l.n; v->n_sans++)
		v->sans[v->n_sans] = rig_text(a, l.item[v->n_sans]);
	rig_gateway(a, r->waypoint, &v->waypoint);
	rig_waypoints(a, r->waypoints, v);
	v->lb_mode = r->lb;
	while (v->n_lb_scopes < LB_SCOPES_MAX && r->scopes[v->n_lb_scopes]) {
		v->lb_scopes[v->n_lb_scopes] = r->scopes[v->n_lb_scopes];
		v->n_lb_scopes++;
	}
	v->lb_allow_unhealthy = r->allow_unhealthy;
	v->visibility = r->private ? VISIBLE_NAMESPACE : VISIBLE_PUBLIC;
	v->canonical = r->canonical;
	v->ip_families = r->families;
	return v;
}

static inline struct policy *rig_policy_new(const char *ns, const char *name, enum policy_scope scope,
					    enum policy_action action)
{
	struct arena *a;
	struct policy *p = policy_new(&a);

	p->ns = rig_text(a, ns);
	p->name = rig_text(a, name);
	p->scope = scope;
	p->action = action;
	return p;
}

/* Into a batch that is open. */
static inline void rig_add(struct store *s, const struct rig_workload *w, const struct rig_service *v)
{
	for (; w && w->name; w++)
		if (store_insert_workload(s, rig_workload_new(w)) < 0)
			abort();
	for (; v && v->hostname; v++)
		if (store_insert_service(s, rig_service_new(v)) < 0)
			abort();
}

static inline struct store *rig_store(const struct rig_workload *w, const struct rig_service *v)
{
	struct store *s = store_new("");

	store_begin(s);
	rig_add(s, w, v);
	store_commit(s);
	return s;
}
