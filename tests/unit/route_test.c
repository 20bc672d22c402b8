/* SPDX-License-Identifier: Apache-2.0 */
/* Where connections go: outbound and inbound vectors over one mesh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mesh_rig.h"
#include "state/intern.h"
#include "state/route.h"

enum { SEEDS = 256 };

/* Networks: "" is ours, "far" another one. Waypoints listen on 15008; "wp.ns" is a service with two of them. */
static const struct rig_workload workloads[] = {
	{"client", .ns = "shop", .sa = "client", .ips = "10.0.0.1 fd00::1"},
	{"lonely", .ns = "far", .network = "far", .ips = "10.0.0.1"},
	{"tcp", .ns = "shop", .ips = "10.0.0.2 fd00::2", .tcp = true},
	{"pod", .ns = "shop", .sa = "pod", .ips = "10.0.0.3 fd00::3"},
	{"host", .ns = "shop", .ips = "10.0.9.9 fd00:9::9", .host_network = true},
	{"web1", .ns = "shop", .sa = "web", .ips = "10.0.1.1 fd00:1::1", .services = "shop/web 80:8080 81:9090"},
	{"web2", .ns = "shop", .sa = "web", .ips = "10.0.1.2 fd00:1::2", .services = "shop/web 80:8080"},
	{"plain1", .ns = "shop", .ips = "10.0.2.1", .services = "shop/plain", .tcp = true},
	{"six1", .ns = "shop", .ips = "10.0.3.1 fd00:3::1", .services = "shop/six 80:8080"},
	{"four1", .ns = "shop", .ips = "fd00:4::1", .services = "shop/four 80:8080"},
	{"byname", .ns = "shop", .hostname = "db.example", .services = "shop/external 80:80"},
	{"outside1", .ns = "shop", .hostname = "out.example", .services = "shop/outside 80:80", .tcp = true},
	{"sick1", .ns = "shop", .ips = "10.0.5.1", .services = "shop/sick 80:80 shop/open 80:80", .unhealthy = true},
	{"both", .ns = "shop", .ips = "10.0.6.1", .waypoint = "shop/wp@15008"},
	{"both2", .ns = "shop", .ips = "10.0.6.2"},
	{"behind", .ns = "shop", .ips = "10.0.6.3", .services = "shop/shadow2 80:8080"},
	/* waypoints */
	{"wp1", .ns = "shop", .sa = "wp", .ips = "10.0.7.1 fd00:7::1", .services = "shop/wp 15008:15008"},
	{"wp2", .ns = "shop", .sa = "wp", .ips = "10.0.7.2 fd00:7::2", .services = "shop/wp 15008:15008"},
	{"wp4", .ns = "shop", .sa = "wp4", .ips = "10.0.7.4", .hostname = "wp4.example"},
	{"wpfar", .ns = "shop", .network = "far", .ips = "10.0.7.9", .services = "shop/wpfar 15008:15008"},
	{"wpfargw", .ns = "shop", .network = "far", .gateway = "/10.0.8.1@15008",
	 .services = "shop/wpfargw 15008:15008"},
	/* workloads behind waypoints */
	{"guarded", .ns = "shop", .ips = "10.0.4.1 fd00:4::41", .waypoint = "shop/wp@15008"},
	{"guarded4", .ns = "shop", .ips = "10.0.4.2 fd00:4::42", .waypoint = "/10.0.7.4@15008"},
	{"guardedname", .ns = "shop", .ips = "10.0.4.3 fd00:4::43", .waypoint = "shop/wp4.example@15008"},
	{"guardedlost", .ns = "shop", .ips = "10.0.4.4", .waypoint = "shop/nobody@15008"},
	{"guardedlostip", .ns = "shop", .ips = "10.0.4.5", .waypoint = "/10.9.9.9@15008"},
	{"guardedport", .ns = "shop", .ips = "10.0.4.6", .waypoint = "shop/wp@1"},
	{"guardedfar", .ns = "shop", .ips = "10.0.4.7", .waypoint = "shop/wpfar@15008"},
	{"guardedtcp", .ns = "shop", .ips = "10.0.4.8", .waypoint = "shop/wp@15008", .tcp = true},
	{"guardedweb", .ns = "shop", .ips = "10.0.4.9", .waypoint = "shop/wp@15008", .services = "shop/gweb 80:8080"},
	/* other networks */
	{"far1", .ns = "shop", .network = "far", .ips = "10.0.3.3", .services = "shop/nogw 80:80"},
	{"far2", .ns = "shop", .network = "far", .gateway = "/10.0.8.1@15008",
	 .services = "shop/gw 80:80 shop/gwnames 80:80"},
	{"far3", .ns = "shop", .network = "far", .gateway = "/10.9.9.9@15008", .services = "shop/gwlost 80:80"},
	{"far4", .ns = "shop", .services = "shop/noaddr 80:80"},
	{"gw", .ns = "istio", .sa = "gw", .ips = "10.0.8.1"},
	{0},
};

static const struct rig_service services[] = {
	{"web", "shop", .vips = "10.1.0.1 fd01::1", .ports = "80:8080 81:0",
	 .sans = "spiffe://td/ns/shop/sa/extra dns.example spiffe://td/ns/shop/sa/web"},
	{"plain", "shop", .vips = "10.1.0.2", .ports = "80:8080", .sans = "spiffe://td/ns/x/sa/y"},
	{"empty", "shop", .vips = "10.1.0.3 fd01::3", .ports = "80:8080"},
	{"six", "shop", .vips = "10.1.0.4", .ports = "80:8080", .families = FAMILIES_IPV6},
	{"four", "shop", .vips = "10.1.0.5", .ports = "80:8080", .families = FAMILIES_IPV4},
	{"through", "shop", .vips = "10.1.0.6 fd01::6", .ports = "80:80", .lb = LB_PASSTHROUGH},
	{"throughwp", "shop", .vips = "10.1.0.7", .ports = "80:80", .lb = LB_PASSTHROUGH, .waypoint = "shop/wp@15008"},
	{"external", "shop", .vips = "10.1.0.8", .ports = "80:80"},
	{"sick", "shop", .vips = "10.1.0.9", .ports = "80:80"},
	{"outside", "shop", .vips = "10.1.0.11", .ports = "80:80"},
	{"namedwp", "shop", .vips = "10.1.0.12", .ports = "80:80", .waypoint = "shop/db.example@15008"},
	{"open", "shop", .vips = "10.1.0.10", .ports = "80:80", .allow_unhealthy = true},
	{"shadow", "shop", .vips = "10.0.6.1", .ports = "80:80"},
	{"shadow2", "shop", .vips = "10.0.6.2", .ports = "80:80", .waypoint = "shop/wp@15008"},
	{"net", "shop", .vips = "10.3.0.0/16 fd03::/32", .ports = "80:8080"},
	{"wp", "shop", .ports = "15008:15008", .sans = "spiffe://td/ns/shop/sa/wpsan"},
	{"wpfar", "shop", .ports = "15008:15008"},
	{"wpfargw", "shop", .ports = "15008:15008", .sans = "spiffe://td/ns/shop/sa/wpbeyond"},
	{"gweb", "shop", .vips = "10.1.1.0", .ports = "80:8080"},
	{"vwp", "shop", .vips = "10.1.1.1 fd01:1::1", .ports = "80:8080", .waypoint = "shop/wp@15008"},
	{"vwpip", "shop", .vips = "10.1.1.2 fd01:1::2", .ports = "80:8080", .waypoint = "/10.0.7.4@15008"},
	{"vwplost", "shop", .vips = "10.1.1.3", .ports = "80:8080", .waypoint = "shop/nobody@15008"},
	{"vwpfar", "shop", .vips = "10.1.1.4", .ports = "80:8080", .waypoint = "shop/wpfar@15008"},
	{"vwpfargw", "shop", .vips = "10.1.1.5", .ports = "80:8080", .waypoint = "shop/wpfargw@15008"},
	{"vww", "shop", .vips = "10.1.1.6", .ports = "80:80", .waypoints = "/10.0.7.1@15008*1 /10.0.7.4@15008*3",
	 .waypoint = "shop/nobody@15008"},
	{"vwwzero", "shop", .vips = "10.1.1.7", .ports = "80:80", .waypoints = "shop/nobody@15008*0",
	 .waypoint = "/10.0.7.4@15008"},
	{"nogw", "shop", .vips = "10.1.2.1", .ports = "80:80"},
	{"gw", "shop", .vips = "10.1.2.2", .ports = "80:80", .sans = "spiffe://td/ns/shop/sa/beyond dns.example"},
	{"gwnames", "shop", .vips = "10.1.2.5", .ports = "80:80"},
	{"gwlost", "shop", .vips = "10.1.2.3", .ports = "80:80"},
	{"noaddr", "shop", .vips = "10.1.2.4", .ports = "80:80"},
	{"remote", "shop", .vips = "far/10.4.0.1", .ports = "80:80"},
	{"secret", "other", .vips = "10.1.3.1", .ports = "80:80", .private = true},
	{0},
};

static struct store *mesh;

static int set_up(void **state)
{
	mesh = rig_store(workloads, services);
	return 0;
}

static int tear_down(void **state)
{
	store_free(mesh);
	return intern_count() ? -1 : 0; /* an object has leaked */
}

static struct workload *pod(const char *name)
{
	char uid[64];

	snprintf(uid, sizeof uid, "c//Pod/%s/%s", strcmp(name, "lonely") ? "shop" : "far", name);
	return store_workload_by_uid(mesh, uid);
}

/* --- outbound ------------------------------------------------------------------------------------------- */

/* "lookup NAME:PORT[ for AUTHORITY]", "tcp NEXT", "hbone NEXT for AUTHORITY", "waypoint NEXT for AUTHORITY", "nested NEXT for SERVICE:PORT" or "reject
 * REASON". */
static const char *route_text(const struct route *r, char *buf, size_t len)
{
	char next[ENDPOINT_STRLEN], authority[ENDPOINT_STRLEN];

	endpoint_str(&r->next_hop, next);
	endpoint_str(&r->authority, authority);
	if (r->kind == ROUTE_REJECT)
		snprintf(buf, len, "reject %s", r->reason);
	else if (r->lookup && r->kind == ROUTE_PASSTHROUGH)
		snprintf(buf, len, "lookup %s:%u", r->destination->hostname, r->next_hop.port);
	else if (r->lookup && !r->waypoint)
		snprintf(buf, len, "lookup %s:%u for :%u", r->destination->hostname, r->next_hop.port,
			 r->authority.port);
	else if (r->lookup)
		snprintf(buf, len, "lookup %s:%u for %s", r->destination->hostname, r->next_hop.port, authority);
	else if (r->kind == ROUTE_PASSTHROUGH)
		snprintf(buf, len, "tcp %s", next);
	else if (r->kind == ROUTE_HBONE_NESTED)
		snprintf(buf, len, "nested %s for %s:%u", next, r->service->hostname, r->authority.port);
	else
		snprintf(buf, len, "%s %s for %s", r->waypoint ? "waypoint" : "hbone", next, authority);
	return buf;
}

static const struct {
	const char *name, *source, *target;
	const char *want[3];  /* each of them comes, and nothing else */
	const char *service;  /* dialled, or NULL */
	const char *identity; /* the first that may answer */
} outbound[] = {
	{"an unknown address is dialled as it is", "client", "203.0.113.9:80", {"tcp 203.0.113.9:80"}},
	{"an unknown v6 address is dialled as it is", "client", "[2001:db8::9]:80", {"tcp [2001:db8::9]:80"}},
	{"a pod without HBONE is dialled as it is", "client", "10.0.0.2:80", {"tcp 10.0.0.2:80"}},
	{"a v6 pod without HBONE is dialled as it is", "client", "[fd00::2]:80", {"tcp [fd00::2]:80"}},
	{"an HBONE pod is tunnelled to",
	 "client",
	 "10.0.0.3:80",
	 {"hbone 10.0.0.3:15008 for 10.0.0.3:80"},
	 NULL,
	 "spiffe://td/ns/shop/sa/pod"},
	{"an HBONE pod is tunnelled to over v6",
	 "client",
	 "[fd00::3]:80",
	 {"hbone [fd00::3]:15008 for [fd00::3]:80"},
	 NULL,
	 "spiffe://td/ns/shop/sa/pod"},
	{"the node's address is no workload", "client", "10.0.9.9:80", {"tcp 10.0.9.9:80"}},
	{"the node's v6 address is no workload", "client", "[fd00:9::9]:80", {"tcp [fd00:9::9]:80"}},
	{"a pod of another network is not at this address", "client", "10.0.3.3:80", {"tcp 10.0.3.3:80"}},
	/* services */
	{"a service spreads over its endpoints",
	 "client",
	 "10.1.0.1:80",
	 {"hbone 10.0.1.1:15008 for 10.0.1.1:8080", "hbone 10.0.1.2:15008 for 10.0.1.2:8080"},
	 "web",
	 "spiffe://td/ns/shop/sa/web"},
	{"a v6 VIP leads to v6 endpoints",
	 "client",
	 "[fd01::1]:80",
	 {"hbone [fd00:1::1]:15008 for [fd00:1::1]:8080", "hbone [fd00:1::2]:15008 for [fd00:1::2]:8080"},
	 "web"},
	{"a named port picks only endpoints that map it",
	 "client",
	 "10.1.0.1:81",
	 {"hbone 10.0.1.1:15008 for 10.0.1.1:9090"},
	 "web"},
	{"a port that the service lacks is refused", "client", "10.1.0.1:82", {"reject no healthy upstream"}, "web"},
	{"an endpoint without HBONE gets plain TCP at its port",
	 "client",
	 "10.1.0.2:80",
	 {"tcp 10.0.2.1:8080"},
	 "plain"},
	{"a service without endpoints is refused", "client", "10.1.0.3:80", {"reject no healthy upstream"}, "empty"},
	{"a service without endpoints is refused over v6",
	 "client",
	 "[fd01::3]:80",
	 {"reject no healthy upstream"},
	 "empty"},
	{"an IPv6-only service on a v4 VIP leads to v6",
	 "client",
	 "10.1.0.4:80",
	 {"hbone [fd00:3::1]:15008 for [fd00:3::1]:8080"},
	 "six"},
	{"an IPv4-only service whose endpoint has v6 only is refused",
	 "client",
	 "10.1.0.5:80",
	 {"reject the destination has no address"},
	 "four"},
	{"a passthrough service gets the original destination",
	 "client",
	 "10.1.0.6:80",
	 {"tcp 10.1.0.6:80"},
	 "through"},
	{"a passthrough service gets the original v6 destination",
	 "client",
	 "[fd01::6]:80",
	 {"tcp [fd01::6]:80"},
	 "through"},
	{"an endpoint known by name only", "client", "10.1.0.8:80", {"lookup db.example:15008 for :80"}, "external"},
	{"a plaintext endpoint known by name only", "client", "10.1.0.11:80", {"lookup out.example:80"}, "outside"},
	{"a waypoint known by name only keeps the target",
	 "client",
	 "10.1.0.12:80",
	 {"lookup db.example:15008 for 10.1.0.12:80"},
	 "namedwp"},
	{"an unhealthy endpoint gets nothing", "client", "10.1.0.9:80", {"reject no healthy upstream"}, "sick"},
	{"an unhealthy endpoint is used where the service allows it",
	 "client",
	 "10.1.0.10:80",
	 {"hbone 10.0.5.1:15008 for 10.0.5.1:80"},
	 "open"},
	{"an endpoint without any address is refused",
	 "client",
	 "10.1.2.4:80",
	 {"reject no healthy upstream"},
	 "noaddr"},
	{"an address in a CIDR VIP belongs to the service",
	 "client",
	 "10.3.44.55:80",
	 {"reject no healthy upstream"},
	 "net"},
	{"a v6 address in a CIDR VIP belongs to the service",
	 "client",
	 "[fd03:0:1::5]:80",
	 {"reject no healthy upstream"},
	 "net"},
	{"a service of another namespace that hides is unknown", "client", "10.1.3.1:80", {"tcp 10.1.3.1:80"}},
	{"a VIP of another network is unknown", "client", "10.4.0.1:80", {"tcp 10.4.0.1:80"}},
	{"a VIP that is also a pod's address is balanced as the service",
	 "client",
	 "10.0.6.1:80",
	 {"reject no healthy upstream"}},
	{"and that service's waypoint is not asked",
	 "client",
	 "10.0.6.2:80",
	 {"hbone 10.0.6.3:15008 for 10.0.6.3:8080"},
	 "shadow2"},
	/* waypoints of services */
	{"a service's waypoint gets the VIP as authority",
	 "client",
	 "10.1.1.1:80",
	 {"waypoint 10.0.7.1:15008 for 10.1.1.1:80", "waypoint 10.0.7.2:15008 for 10.1.1.1:80"},
	 "vwp",
	 "spiffe://td/ns/shop/sa/wp"},
	{"a service's waypoint is dialled over the VIP's family",
	 "client",
	 "[fd01:1::1]:80",
	 {"waypoint [fd00:7::1]:15008 for [fd01:1::1]:80", "waypoint [fd00:7::2]:15008 for [fd01:1::1]:80"},
	 "vwp"},
	{"a waypoint by v4 address serves a v6 target",
	 "client",
	 "[fd01:1::2]:80",
	 {"waypoint 10.0.7.4:15008 for [fd01:1::2]:80"},
	 "vwpip",
	 "spiffe://td/ns/shop/sa/wp4"},
	{"a port that the service lacks is the waypoint's to judge",
	 "client",
	 "10.1.1.2:99",
	 {"waypoint 10.0.7.4:15008 for 10.1.1.2:99"},
	 "vwpip"},
	{"a passthrough service with a waypoint goes to the waypoint",
	 "client",
	 "10.1.0.7:80",
	 {"waypoint 10.0.7.1:15008 for 10.1.0.7:80", "waypoint 10.0.7.2:15008 for 10.1.0.7:80"},
	 "throughwp"},
	{"an unknown waypoint of a service is refused",
	 "client",
	 "10.1.1.3:80",
	 {"reject unknown waypoint"},
	 "vwplost"},
	{"a waypoint of a service on another network without a gateway is refused",
	 "client",
	 "10.1.1.4:80",
	 {"reject no valid routing destination"},
	 "vwpfar"},
	{"a waypoint of a service behind a network gateway: the service is asked for, not the waypoint",
	 "client",
	 "10.1.1.5:80",
	 {"nested 10.0.8.1:15008 for vwpfargw:80"},
	 "vwpfargw"},
	{"weighted waypoints are all used",
	 "client",
	 "10.1.1.6:80",
	 {"waypoint 10.0.7.1:15008 for 10.1.1.6:80", "waypoint 10.0.7.4:15008 for 10.1.1.6:80"},
	 "vww"},
	{"weights of zero leave the plain waypoint",
	 "client",
	 "10.1.1.7:80",
	 {"waypoint 10.0.7.4:15008 for 10.1.1.7:80"},
	 "vwwzero"},
	/* waypoints of workloads */
	{"a pod's waypoint gets the pod's address as authority",
	 "client",
	 "10.0.4.1:80",
	 {"waypoint 10.0.7.1:15008 for 10.0.4.1:80", "waypoint 10.0.7.2:15008 for 10.0.4.1:80"},
	 NULL,
	 "spiffe://td/ns/shop/sa/wp"},
	{"a pod's v6 address as authority",
	 "client",
	 "[fd00:4::41]:80",
	 {"waypoint [fd00:7::1]:15008 for [fd00:4::41]:80", "waypoint [fd00:7::2]:15008 for [fd00:4::41]:80"}},
	{"a pod's waypoint by v4 address with a v6 target",
	 "client",
	 "[fd00:4::42]:80",
	 {"waypoint 10.0.7.4:15008 for [fd00:4::42]:80"}},
	{"a pod's waypoint by a workload's host name",
	 "client",
	 "10.0.4.3:80",
	 {"waypoint 10.0.7.4:15008 for 10.0.4.3:80"}},
	{"a waypoint without v6 serves a v6 target by name",
	 "client",
	 "[fd00:4::43]:80",
	 {"waypoint 10.0.7.4:15008 for [fd00:4::43]:80"}},
	{"an unknown waypoint of a pod is refused", "client", "10.0.4.4:80", {"reject unknown waypoint"}},
	{"an unknown waypoint address of a pod is refused", "client", "10.0.4.5:80", {"reject unknown waypoint"}},
	{"a port that the waypoint lacks is refused", "client", "10.0.4.6:80", {"reject unknown waypoint"}},
	{"a pod's waypoint on another network is refused", "client", "10.0.4.7:80", {"reject no service for target"}},
	{"a pod without HBONE still has its waypoint",
	 "client",
	 "10.0.4.8:80",
	 {"waypoint 10.0.7.1:15008 for 10.0.4.8:80", "waypoint 10.0.7.2:15008 for 10.0.4.8:80"}},
	{"a waypoint reaches its pod directly", "wp1", "10.0.4.1:80", {"hbone 10.0.4.1:15008 for 10.0.4.1:80"}},
	{"a waypoint by address reaches its pod directly",
	 "wp4",
	 "10.0.4.2:80",
	 {"hbone 10.0.4.2:15008 for 10.0.4.2:80"}},
	{"a waypoint by name reaches its pod directly", "wp4", "10.0.4.3:80", {"hbone 10.0.4.3:15008 for 10.0.4.3:80"}},
	{"another waypoint does not",
	 "wp4",
	 "10.0.4.1:80",
	 {"waypoint 10.0.7.1:15008 for 10.0.4.1:80", "waypoint 10.0.7.2:15008 for 10.0.4.1:80"}},
	{"a dialled service never uses its pods' waypoints",
	 "client",
	 "10.1.1.0:80",
	 {"hbone 10.0.4.9:15008 for 10.0.4.9:8080"},
	 "gweb"},
	/* networks */
	{"a service on another network without a gateway is refused",
	 "client",
	 "10.1.2.1:80",
	 {"reject no valid routing destination"},
	 "nogw"},
	{"a service behind a network gateway", "client", "10.1.2.2:80", {"nested 10.0.8.1:15008 for gw:80"}, "gw"},
	{"an unknown network gateway is refused",
	 "client",
	 "10.1.2.3:80",
	 {"reject unknown network gateway"},
	 "gwlost"},
	{"pods see their own network", "lonely", "10.0.3.3:80", {"hbone 10.0.3.3:15008 for 10.0.3.3:80"}},
	/* loops */
	{"loopback and our outbound port",
	 "client",
	 "127.0.0.1:15001",
	 {"reject attempted recursive call to ourselves"}},
	{"loopback and our inbound port",
	 "client",
	 "127.9.9.9:15006",
	 {"reject attempted recursive call to ourselves"}},
	{"v6 loopback and our HBONE port", "client", "[::1]:15008", {"reject attempted recursive call to ourselves"}},
	{"the pod itself and our outbound port",
	 "client",
	 "10.0.0.1:15001",
	 {"reject attempted recursive call to ourselves"}},
	{"the pod itself and our inbound port",
	 "client",
	 "[fd00::1]:15006",
	 {"reject attempted recursive call to ourselves"}},
	{"the pod itself and our HBONE port",
	 "client",
	 "10.0.0.1:15008",
	 {"reject attempted recursive call to ourselves"}},
	{"the pod itself and our DNS port",
	 "client",
	 "10.0.0.1:15053",
	 {"reject attempted recursive call to ourselves"}},
	{"the pod itself and a port of its own", "client", "10.0.0.1:8080", {"hbone 10.0.0.1:15008 for 10.0.0.1:8080"}},
	{"another pod's ports are its own to refuse",
	 "client",
	 "10.0.0.3:15006",
	 {"hbone 10.0.0.3:15008 for 10.0.0.3:15006"}},
};

static void route_from(const char *source, const char *target, uint64_t random, struct route *r)
{
	struct route_request q = {pod(source), pod(source)->network, rig_endpoint(target), random};

	route_outbound(mesh, &q, r);
}

static unsigned index_in(const char *const *want, const char *text)
{
	for (unsigned i = 0; i < 3 && want[i]; i++)
		if (strcmp(want[i], text) == 0)
			return i;
	return 3;
}

static void test_outbound(void **state)
{
	for (size_t i = 0; i < sizeof outbound / sizeof *outbound; i++) {
		unsigned seen[4] = {0};
		char text[256];

		for (uint64_t random = 0; random < SEEDS; random++) {
			struct route r;

			route_from(outbound[i].source, outbound[i].target, random, &r);
			unsigned which = index_in(outbound[i].want, route_text(&r, text, sizeof text));
			const char *service = r.service ? r.service->hostname : NULL, *want = outbound[i].service;
			if (which == 3)
				fail_msg("%s: %s", outbound[i].name, text);
			if (want && (!service || strcmp(service, want)))
				fail_msg("%s: service %s", outbound[i].name, service ? service : "none");
			if (outbound[i].identity && (!r.expect.n || strcmp(r.expect.id[0], outbound[i].identity)))
				fail_msg("%s: expects %s", outbound[i].name, r.expect.n ? r.expect.id[0] : "nobody");
			if (r.kind == ROUTE_HBONE && (!r.expect.n || !r.destination))
				fail_msg("%s: a tunnel to anybody", outbound[i].name);
			if (r.service && r.service->n_endpoints)
				fail_msg("%s: the service comes with its endpoints", outbound[i].name);
			seen[which]++;
			route_release(&r);
		}
		for (unsigned k = 0; k < 3 && outbound[i].want[k]; k++)
			if (!seen[k])
				fail_msg("%s: never %s", outbound[i].name, outbound[i].want[k]);
	}
}

/* Who may answer: the workload, then what the service says and is a SPIFFE id, each once. */
static const struct {
	const char *name, *target, *want, *inner;
} expected[] = {
	{"a pod's own", "10.0.0.3:80", "spiffe://td/ns/shop/sa/pod", ""},
	{"a service's names that are identities, once", "10.1.0.1:81",
	 "spiffe://td/ns/shop/sa/web spiffe://td/ns/shop/sa/extra", ""},
	{"a waypoint's service's names, not those of what is dialled", "10.1.1.1:80",
	 "spiffe://td/ns/shop/sa/wp spiffe://td/ns/shop/sa/wpsan", ""},
	{"a waypoint that is no service", "10.1.1.2:80", "spiffe://td/ns/shop/sa/wp4", ""},
	{"a network gateway, and within the service's names alone", "10.1.2.2:80", "spiffe://td/ns/istio/sa/gw",
	 "spiffe://td/ns/shop/sa/beyond"},
	{"a network gateway to a service without names: nobody may answer", "10.1.2.5:80", "spiffe://td/ns/istio/sa/gw",
	 ""},
	{"a network gateway to a waypoint: the waypoint's service's names", "10.1.1.5:80", "spiffe://td/ns/istio/sa/gw",
	 "spiffe://td/ns/shop/sa/wpbeyond"},
};

static void same_peers(const char *name, const struct route_peers *p, const char *want)
{
	char text[512] = "";

	for (unsigned k = 0; k < p->n; k++) {
		strcat(text, k ? " " : "");
		strcat(text, p->id[k]);
	}
	if (strcmp(text, want))
		fail_msg("%s: %s", name, text);
}

static void test_expected(void **state)
{
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		struct route r;

		route_from("client", expected[i].target, 1, &r);
		same_peers(expected[i].name, &r.expect, expected[i].want);
		same_peers(expected[i].name, &r.inner, expected[i].inner);
		route_release(&r);
	}
}

static void test_same_random_same_route(void **state)
{
	char a[256], b[256];
	struct route r;

	for (uint64_t random = 0; random < SEEDS; random++) {
		route_from("client", "10.1.1.1:80", random, &r);
		route_text(&r, a, sizeof a);
		route_release(&r);
		route_from("client", "10.1.1.1:80", random, &r);
		assert_string_equal(route_text(&r, b, sizeof b), a);
		route_release(&r);
	}
}

/* --- inbound -------------------------------------------------------------------------------------------- */

/* Pods that are dialled: `app` has services with numeric and named ports, `sandwich` is a waypoint without a tunnel. */
static const struct rig_workload inbound_workloads[] = {
	{"app", .ns = "shop", .ips = "10.0.0.5 fd00::5",
	 .services = "shop/app 80:8080 81:9090 82:15006 shop/twin 80:8080 other/canon 80:7070 gone/gone 80:1"},
	{"other", .ns = "shop", .ips = "10.0.0.6 fd00::6"},
	{"manyfold", .ns = "shop", .ips = "10.0.0.11",
	 .services = "other/canon 80:7070 shop/canon 80:6060 a/x 80:1 b/x 80:2"},
	{"sandwich", .ns = "shop", .ips = "10.0.0.7 fd00::7", .hostname = "sandwich.example",
	 .services = "shop/wp 15008:15008"},
	{"tunnelled", .ns = "shop", .ips = "10.0.0.8", .tunnel = APP_TUNNEL_NONE, .services = "shop/app 80:8080"},
	{"proxied", .ns = "shop", .ips = "10.0.0.9 fd00::9", .tunnel = APP_TUNNEL_PROXY, .tunnel_port = 15088,
	 .services = "shop/app 80:8080 shop/novip 80:8080"},
	{"byservice", .ns = "shop", .ips = "10.0.1.1 fd00:1::1", .waypoint = "shop/wp@15008"},
	{"byhost", .ns = "shop", .ips = "10.0.1.2", .waypoint = "shop/sandwich.example@15008"},
	{"byip", .ns = "shop", .ips = "10.0.1.3", .waypoint = "/10.0.0.7@15008"},
	{"byother", .ns = "shop", .ips = "10.0.1.4", .waypoint = "/10.0.0.6@15008"},
	{0},
};
static const struct rig_service inbound_services[] = {
	{"app", "shop", .vips = "far/10.1.9.9 fd01::1 10.1.0.1", .ports = "80:8080 81:0 82:0 83:0 84:8484"},
	{"twin", "shop", .vips = "10.1.0.2", .ports = "80:8080"},
	{"canon", "shop", .vips = "10.1.0.3", .ports = "80:1"},
	{"canon", "other", .vips = "10.1.0.4", .ports = "80:1", .canonical = true},
	{"x", "a", .ports = "80:0"},
	{"x", "b", .ports = "80:0", .canonical = true},
	{"notmine", "shop", .vips = "10.1.0.5", .ports = "80:8080"},
	{"novip", "shop", .ports = "80:8080"},
	{"wp", "shop", .ports = "15008:15008"},
	{"vwp", "shop", .vips = "10.1.1.1 fd01:1::1", .ports = "80:80", .waypoint = "shop/wp@15008"},
	{"vww", "shop", .vips = "10.1.1.2", .ports = "80:80", .waypoints = "shop/nobody@15008*1 /10.0.0.7@15008*0"},
	{"vother", "shop", .vips = "10.1.1.3", .ports = "80:80", .waypoint = "/10.0.0.6@15008"},
	{0},
};

static const char *const errors[] = {"ok", "ip mismatch", "unknown host", "no port", "illegal port"};

static const struct {
	const char *name, *local, *pod_ip;
	const char *authority, *host; /* with a host the address in `authority` does not matter */
	const char *forwarded;
	const char *want; /* "TARGET service" or an error */
} inbound[] = {
	{"the pod's own address", "app", "10.0.0.5", "10.0.0.5:1234", NULL, NULL, "10.0.0.5:1234"},
	{"the pod's own v6 address", "app", "fd00::5", "[fd00::5]:1234", NULL, NULL, "[fd00::5]:1234"},
	{"the pod's other address is not the one that was dialled", "app", "10.0.0.5", "[fd00::5]:80", NULL, NULL,
	 "ip mismatch"},
	{"another pod's address", "app", "10.0.0.5", "10.0.0.6:80", NULL, NULL, "ip mismatch"},
	{"another pod's v6 address", "app", "fd00::5", "[fd00::6]:80", NULL, NULL, "ip mismatch"},
	{"an unknown address", "app", "10.0.0.5", "203.0.113.1:80", NULL, NULL, "ip mismatch"},
	{"the own service's VIP", "app", "10.0.0.5", "10.1.0.1:80", NULL, NULL, "ip mismatch"},
	{"loopback", "app", "10.0.0.5", "127.0.0.1:80", NULL, NULL, "ip mismatch"},
	/* which service is told */
	{"the service whose port leads here", "app", "10.0.0.5", "10.0.0.5:9090", NULL, NULL, "10.0.0.5:9090 shop/app"},
	{"the first of two such services", "app", "10.0.0.5", "10.0.0.5:8080", NULL, NULL, "10.0.0.5:8080 shop/app"},
	{"the one that the peer names", "app", "10.0.0.5", "10.0.0.5:8080", NULL, "twin", "10.0.0.5:8080 shop/twin"},
	{"a name that the pod has no part in is not believed", "app", "10.0.0.5", "10.0.0.5:8080", NULL, "notmine",
	 "10.0.0.5:8080 shop/app"},
	{"a service's own port counts where the pod has none", "app", "10.0.0.5", "10.0.0.5:8484", NULL, NULL,
	 "10.0.0.5:8484 shop/app"},
	/* host names */
	{"a service by name and numeric port", "app", "10.0.0.5", "0.0.0.0:80", "app", NULL, "10.0.0.5:8080 shop/app"},
	{"a service by name over v6", "app", "fd00::5", "0.0.0.0:80", "app", NULL, "[fd00::5]:8080 shop/app"},
	{"a service by name and named port", "app", "10.0.0.5", "0.0.0.0:81", "app", NULL, "10.0.0.5:9090 shop/app"},
	{"the service's own number where the pod has none", "app", "10.0.0.5", "0.0.0.0:84", "app", NULL,
	 "10.0.0.5:8484 shop/app"},
	{"a named port that the pod does not have", "app", "10.0.0.5", "0.0.0.0:83", "app", NULL, "no port"},
	{"a port that the service does not have", "app", "10.0.0.5", "0.0.0.0:99", "app", NULL, "no port"},
	{"a service that the pod is not in", "app", "10.0.0.5", "0.0.0.0:80", "notmine", NULL, "unknown host"},
	{"a name in another namespace than the pod's", "app", "10.0.0.5", "0.0.0.0:80", "canon", NULL,
	 "10.0.0.5:7070 other/canon"},
	{"a name in two namespaces means the pod's own", "manyfold", "10.0.0.11", "0.0.0.0:80", "canon", NULL,
	 "10.0.0.11:6060 shop/canon"},
	{"a name in two other namespaces means the canonical one", "manyfold", "10.0.0.11", "0.0.0.0:80", "x", NULL,
	 "10.0.0.11:2 b/x"},
	{"an unknown name", "app", "10.0.0.5", "0.0.0.0:80", "nobody", NULL, "unknown host"},
	{"a name whose service is gone", "app", "10.0.0.5", "0.0.0.0:80", "gone", NULL, "unknown host"},
	{"case counts", "app", "10.0.0.5", "0.0.0.0:80", "APP", NULL, "unknown host"},
	/* our own ports */
	{"our outbound port", "app", "10.0.0.5", "10.0.0.5:15001", NULL, NULL, "illegal port"},
	{"our inbound port", "app", "10.0.0.5", "10.0.0.5:15006", NULL, NULL, "illegal port"},
	{"our HBONE port", "app", "fd00::5", "[fd00::5]:15008", NULL, NULL, "illegal port"},
	{"our DNS port", "app", "10.0.0.5", "10.0.0.5:15053", NULL, NULL, "illegal port"},
	{"a service's port that maps to ours", "app", "10.0.0.5", "0.0.0.0:82", "app", NULL, "illegal port"},
	{"the tunnel's port does not make ours legal", "proxied", "10.0.0.9", "10.0.0.9:15006", NULL, NULL,
	 "illegal port"},
	/* waypoints without a tunnel */
	{"a waypoint takes the VIP of a service that names it by service", "sandwich", "10.0.0.7", "10.1.1.1:80", NULL,
	 NULL, "10.0.0.7:80"},
	{"a waypoint takes such a v6 VIP", "sandwich", "fd00::7", "[fd01:1::1]:80", NULL, NULL, "[fd00::7]:80"},
	{"a waypoint takes the VIP of a service that weighs it", "sandwich", "10.0.0.7", "10.1.1.2:80", NULL, NULL,
	 "10.0.0.7:80"},
	{"a waypoint takes a pod that names it by service", "sandwich", "10.0.0.7", "10.0.1.1:80", NULL, NULL,
	 "10.0.0.7:80"},
	{"a waypoint takes a v6 pod", "sandwich", "fd00::7", "[fd00:1::1]:80", NULL, NULL, "[fd00::7]:80"},
	{"a waypoint takes a pod that names it by host name", "sandwich", "10.0.0.7", "10.0.1.2:80", NULL, NULL,
	 "10.0.0.7:80"},
	{"a waypoint takes a pod that names it by address", "sandwich", "10.0.0.7", "10.0.1.3:80", NULL, NULL,
	 "10.0.0.7:80"},
	{"another waypoint's pod", "sandwich", "10.0.0.7", "10.0.1.4:80", NULL, NULL, "ip mismatch"},
	{"another waypoint's service", "sandwich", "10.0.0.7", "10.1.1.3:80", NULL, NULL, "ip mismatch"},
	{"a pod without a waypoint", "sandwich", "10.0.0.7", "10.0.0.6:80", NULL, NULL, "ip mismatch"},
	{"a service without a waypoint", "sandwich", "10.0.0.7", "10.1.0.1:80", NULL, NULL, "ip mismatch"},
	/* application tunnels */
	{"with a tunnel any address will do", "tunnelled", "10.0.0.8", "203.0.113.1:80", NULL, NULL, "10.0.0.8:80"},
	{"a PROXY tunnel has its own port and tells the address", "proxied", "10.0.0.9", "10.1.1.1:80", NULL, NULL,
	 "10.0.0.9:15088 proxy 10.1.1.1:80"},
	{"a PROXY tunnel tells a VIP of this network, v4 first, for a name", "proxied", "10.0.0.9", "0.0.0.0:80", "app",
	 NULL, "10.0.0.9:15088 shop/app proxy 10.1.0.1:80"},
	{"a PROXY tunnel for a name without a VIP", "proxied", "10.0.0.9", "0.0.0.0:80", "novip", NULL, "unknown host"},
};

static const char *inbound_text(const struct inbound_route *r, char *buf, size_t len)
{
	char target[ENDPOINT_STRLEN], advertised[ENDPOINT_STRLEN];
	size_t n;

	if (r->error != INBOUND_OK)
		return errors[r->error];
	n = (size_t)snprintf(buf, len, "%s", endpoint_str(&r->target, target));
	if (r->service)
		n += (size_t)snprintf(buf + n, len - n, " %s/%s", r->service->ns, r->service->hostname);
	if (r->proxy_protocol)
		snprintf(buf + n, len - n, " proxy %s", endpoint_str(&r->advertised, advertised));
	return buf;
}

static void test_inbound(void **state)
{
	struct store *s = rig_store(inbound_workloads, inbound_services);

	for (size_t i = 0; i < sizeof inbound / sizeof *inbound; i++) {
		char uid[64], text[256];
		struct inbound_route r;

		snprintf(uid, sizeof uid, "c//Pod/shop/%s", inbound[i].local);
		struct inbound_request q = {.local = store_workload_by_uid(s, uid),
					    .network = "",
					    .pod_ip = rig_addr(inbound[i].pod_ip),
					    .authority = rig_endpoint(inbound[i].authority),
					    .host = inbound[i].host,
					    .forwarded_host = inbound[i].forwarded};
		route_inbound(s, &q, &r);
		if (strcmp(inbound_text(&r, text, sizeof text), inbound[i].want))
			fail_msg("%s: %s", inbound[i].name, inbound_text(&r, text, sizeof text));
		if (r.app_loopback != r.proxy_protocol)
			fail_msg("%s: loopback %d", inbound[i].name, r.app_loopback);
		if (r.service && r.service->n_endpoints)
			fail_msg("%s: the service comes with its endpoints", inbound[i].name);
		route_inbound_release(&r);
	}
	store_free(s);
}

/* --- ports that lead back ------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	uint16_t port;
	bool socks, want;
} own_ports[] = {
	{"outbound", 15001, false, true},
	{"inbound", 15006, false, true},
	{"HBONE", 15008, false, true},
	{"DNS", 15053, false, true},
	{"SOCKS5, not served", 15080, false, false},
	{"SOCKS5", 15080, true, true},
	{"outbound beside SOCKS5", 15001, true, true},
	{"metrics are for all", 15020, true, false},
};

static void test_own_ports(void **state)
{
	for (size_t i = 0; i < sizeof own_ports / sizeof *own_ports; i++)
		if (route_illegal_port(own_ports[i].port, own_ports[i].socks) != own_ports[i].want)
			fail_msg("%s: %s", own_ports[i].name, own_ports[i].want ? "taken" : "refused");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outbound),
		cmocka_unit_test(test_expected),
		cmocka_unit_test(test_same_random_same_route),
		cmocka_unit_test(test_inbound),
		cmocka_unit_test(test_own_ports),
	};
	return cmocka_run_group_tests_name("route", tests, set_up, tear_down);
}
