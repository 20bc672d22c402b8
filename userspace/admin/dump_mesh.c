// SPDX-License-Identifier: Apache-2.0
/* Workloads, services and policies in the dump, with ztunnel's names. Keys in alphabetical order; what has its default
 * is left out where ztunnel leaves it out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/dump.h"

static const char *const scopes[] = {
	[SCOPE_REGION] = "Region", [SCOPE_ZONE] = "Zone",	[SCOPE_SUBZONE] = "Subzone",
	[SCOPE_NODE] = "Node",	   [SCOPE_CLUSTER] = "Cluster", [SCOPE_NETWORK] = "Network"};

/* --- parts ---------------------------------------------------------------------------------------------- */

static void net_addr(struct json *j, const struct net_addr *a)
{
	char buf[ADDR_STRLEN];

	json_textf(j, "%s/%s", a->network, addr_str(&a->ip, buf));
}

static void gateway(struct json *j, const char *key, const struct gateway *g)
{
	if (g->kind == GATEWAY_NONE)
		return;
	json_key(j, key);
	json_open(j, '{');
	json_key(j, "destination");
	if (g->kind == GATEWAY_ADDR)
		net_addr(j, &g->addr);
	else
		json_textf(j, "%s/%s", g->ns, g->hostname);
	json_key(j, "hboneMtlsPort");
	json_number(j, g->hbone_port);
	json_close(j, '}');
}

static void ports(struct json *j, const char *key, const struct port_map *p, unsigned n)
{
	char buf[8];

	json_key(j, key);
	json_open(j, '{');
	for (unsigned i = 0; i < n; i++) {
		snprintf(buf, sizeof buf, "%u", p[i].service_port);
		json_key(j, buf);
		json_number(j, p[i].target_port);
	}
	json_close(j, '}');
}

static void texts(struct json *j, const char *key, const char *const *s, unsigned n)
{
	json_key(j, key);
	json_open(j, '[');
	for (unsigned i = 0; i < n; i++)
		json_text(j, s[i]);
	json_close(j, ']');
}

/* --- workloads ------------------------------------------------------------------------------------------ */

static void app_tunnel(struct json *j, const struct workload *w)
{
	if (w->app_tunnel == APP_TUNNEL_ABSENT)
		return;
	json_key(j, "applicationTunnel");
	json_open(j, '{');
	if (w->app_tunnel_port) {
		json_key(j, "port");
		json_number(j, w->app_tunnel_port);
	}
	json_key_text(j, "protocol", w->app_tunnel == APP_TUNNEL_PROXY ? "PROXY" : "NONE");
	json_close(j, '}');
}

static void locality(struct json *j, const struct workload *w)
{
	if (!*w->region && !*w->zone && !*w->subzone)
		return;
	json_key(j, "locality");
	json_open(j, '{');
	json_key_text(j, "region", w->region);
	json_key_text(j, "subzone", w->subzone);
	json_key_text(j, "zone", w->zone);
	json_close(j, '}');
}

static void memberships(struct json *j, const struct workload *w)
{
	if (!w->n_services)
		return;
	json_key(j, "services");
	json_open(j, '[');
	for (unsigned i = 0; i < w->n_services; i++)
		json_textf(j, "%s/%s", w->services[i].ns, w->services[i].hostname);
	json_close(j, ']');
}

static int workload(void *arg, struct workload *w)
{
	struct json *j = arg;
	char buf[ADDR_STRLEN];

	json_open(j, '{');
	app_tunnel(j, w);
	if (w->n_policies)
		texts(j, "authorizationPolicies", w->policies, w->n_policies);
	json_key_some(j, "canonicalName", w->canonical_name);
	json_key_some(j, "canonicalRevision", w->canonical_revision);
	json_key(j, "capacity");
	json_number(j, w->capacity);
	json_key_text(j, "clusterId", w->cluster_id);
	json_key_some(j, "hostname", w->hostname);
	locality(j, w);
	json_key_text(j, "name", w->name);
	json_key_text(j, "namespace", w->ns);
	if (w->native_tunnel) {
		json_key(j, "nativeTunnel");
		json_bool(j, true);
	}
	json_key_some(j, "network", w->network);
	gateway(j, "networkGateway", &w->network_gateway);
	json_key_text(j, "networkMode", w->network_mode == NETWORK_HOST ? "HostNetwork" : "Standard");
	json_key_some(j, "node", w->node);
	json_key_text(j, "protocol", w->protocol == PROTO_HBONE ? "HBONE" : "TCP");
	json_key_some(j, "serviceAccount", w->service_account);
	memberships(j, w);
	json_key_text(j, "status", w->healthy ? "Healthy" : "Unhealthy");
	json_key_some(j, "trustDomain", w->trust_domain);
	json_key_some(j, "uid", w->uid);
	gateway(j, "waypoint", &w->waypoint);
	json_key(j, "workloadIps");
	json_open(j, '[');
	for (unsigned i = 0; i < w->n_ips; i++)
		json_text(j, addr_str(&w->ips[i], buf));
	json_close(j, ']');
	json_key_some(j, "workloadName", w->workload_name);
	json_key_some(j, "workloadType", w->workload_type);
	json_close(j, '}');
	return j->failed;
}

void dump_workloads(struct json *j, struct store *s)
{
	json_open(j, '[');
	store_each_workload(s, workload, j);
	json_close(j, ']');
}

/* --- services ------------------------------------------------------------------------------------------- */

static bool is_cidr(const struct vip *v)
{
	return v->len < (addr_is4(&v->addr.ip) ? 32 : 128);
}

static void cidr_vips(struct json *j, const struct service *v)
{
	bool any = false;
	char buf[ADDR_STRLEN + 4];

	for (unsigned i = 0; i < v->n_vips; i++) {
		if (!is_cidr(&v->vips[i]))
			continue;
		if (!any) {
			json_key(j, "cidrVips");
			json_open(j, '[');
		}
		any = true;
		json_open(j, '{');
		json_key_text(j, "cidr", prefix_str(&(struct prefix){v->vips[i].addr.ip, v->vips[i].len}, buf));
		json_key_text(j, "network", v->vips[i].addr.network);
		json_close(j, '}');
	}
	if (any)
		json_close(j, ']');
}

static void endpoint(struct json *j, const struct workload *w, const struct membership *m)
{
	json_key(j, w->uid);
	json_open(j, '{');
	ports(j, "port", m->ports, m->n_ports);
	json_key_text(j, "status", w->healthy ? "Healthy" : "Unhealthy");
	json_key_text(j, "workloadUid", w->uid);
	json_close(j, '}');
}

static void load_balancer(struct json *j, const struct service *v)
{
	static const char *const modes[] = {[LB_STANDARD] = "Standard",
					    [LB_STRICT] = "Strict",
					    [LB_FAILOVER] = "Failover",
					    [LB_PASSTHROUGH] = "Passthrough"};

	if (v->lb_mode == LB_STANDARD && !v->n_lb_scopes && !v->lb_allow_unhealthy)
		return;
	json_key(j, "loadBalancer");
	json_open(j, '{');
	json_key_text(j, "healthPolicy", v->lb_allow_unhealthy ? "AllowAll" : "OnlyHealthy");
	json_key_text(j, "mode", modes[v->lb_mode]);
	json_key(j, "routingPreferences");
	json_open(j, '[');
	for (unsigned i = 0; i < v->n_lb_scopes; i++)
		json_text(j, scopes[v->lb_scopes[i]]);
	json_close(j, ']');
	json_close(j, '}');
}

static void weighted(struct json *j, const struct service *v)
{
	if (!v->n_waypoints)
		return;
	json_key(j, "weightedWaypoints");
	json_open(j, '[');
	for (unsigned i = 0; i < v->n_waypoints; i++) {
		json_open(j, '{');
		gateway(j, "destination", &v->waypoints[i].to);
		json_key(j, "weight");
		json_number(j, v->waypoints[i].weight);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void vips(struct json *j, const struct service *v)
{
	json_key(j, "vips");
	json_open(j, '[');
	for (unsigned i = 0; i < v->n_vips; i++)
		if (!is_cidr(&v->vips[i]))
			net_addr(j, &v->vips[i].addr);
	json_close(j, ']');
}

static int service(void *arg, struct service *v)
{
	static const char *const families[] = {
		[FAMILIES_IPV4] = "IPv4", [FAMILIES_IPV6] = "IPv6", [FAMILIES_DUAL] = "Dual"};
	struct json *j = arg;

	json_open(j, '{');
	json_key(j, "canonical");
	json_bool(j, v->canonical);
	cidr_vips(j, v);
	json_key(j, "endpoints");
	json_open(j, '{');
	for (unsigned i = 0; i < v->n_endpoints; i++)
		endpoint(j, v->endpoints[i].workload, v->endpoints[i].part);
	json_close(j, '}');
	json_key_text(j, "hostname", v->hostname);
	if (v->ip_families != FAMILIES_ANY)
		json_key_text(j, "ipFamilies", families[v->ip_families]);
	load_balancer(j, v);
	json_key_text(j, "name", v->name);
	json_key_text(j, "namespace", v->ns);
	ports(j, "ports", v->ports, v->n_ports);
	texts(j, "subjectAltNames", v->sans, v->n_sans);
	vips(j, v);
	json_key_text(j, "visibility", v->visibility == VISIBLE_NAMESPACE ? "Namespace" : "Public");
	gateway(j, "waypoint", &v->waypoint);
	weighted(j, v);
	json_close(j, '}');
	return j->failed;
}

void dump_services(struct json *j, struct store *s)
{
	json_open(j, '[');
	store_each_service(s, service, j);
	json_close(j, ']');
}

/* --- staged endpoints ----------------------------------------------------------------------------------- */

struct staged {
	const struct membership *m;
	const struct workload *w;
};
struct staging {
	struct store *store;
	struct staged *all;
	size_t n, cap;
	bool failed;
};

static int stage(void *arg, struct workload *w)
{
	struct staging *g = arg;

	for (unsigned i = 0; i < w->n_services && !g->failed; i++) {
		struct staged *more;

		if (store_service_exact(g->store, w->services[i].ns, w->services[i].hostname))
			continue;
		if (g->n == g->cap) {
			g->cap = g->cap ? 2 * g->cap : 64;
			more = realloc(g->all, g->cap * sizeof *more);
			g->failed = !more;
			if (!more)
				break;
			g->all = more;
		}
		g->all[g->n++] = (struct staged){&w->services[i], w};
	}
	return g->failed;
}

static int by_service(const void *a, const void *b)
{
	const struct staged *x = a, *y = b;
	int e = strcmp(x->m->ns, y->m->ns);

	e = e ? e : strcmp(x->m->hostname, y->m->hostname);
	return e ? e : strcmp(x->w->uid, y->w->uid);
}

void dump_staged(struct json *j, struct store *s)
{
	struct staging g = {.store = s};
	char *name;

	json_open(j, '{');
	store_read_lock(); /* what is collected must live until it is written */
	store_each_workload(s, stage, &g);
	if (g.n)
		qsort(g.all, g.n, sizeof *g.all, by_service);
	for (size_t i = 0; i < g.n && !g.failed;) {
		const struct membership *m = g.all[i].m;

		if (asprintf(&name, "%s/%s", m->ns, m->hostname) < 0) {
			g.failed = true;
			break;
		}
		json_key(j, name);
		free(name);
		json_open(j, '{');
		for (; i < g.n && !strcmp(g.all[i].m->ns, m->ns) && !strcmp(g.all[i].m->hostname, m->hostname); i++)
			endpoint(j, g.all[i].w, g.all[i].m);
		json_close(j, '}');
	}
	store_read_unlock();
	json_close(j, '}');
	j->failed |= g.failed;
	free(g.all);
}
