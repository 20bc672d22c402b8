/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh state: who wins when several fit, what becomes of endpoints before and after their service, batches and
 * full resyncs. Readers that look while it changes are in readers_test.c. */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mesh_rig.h"
#include "state/intern.h"
#include "state/store_internal.h"

static int nothing_left(void **state)
{
	return intern_count() ? -1 : 0;
}

/* --- workloads by address ------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	struct rig_workload in[4]; /* in this order */
	const char *network, *ip, *want;
} addresses[] = {
	{"found", {{"a", .ips = "10.0.0.1"}}, "", "10.0.0.1", "a"},
	{"found by its second address", {{"a", .ips = "10.0.0.1 fd00::1"}}, "", "fd00::1", "a"},
	{"not found", {{"a", .ips = "10.0.0.1"}}, "", "10.0.0.2", NULL},
	{"another network's", {{"a", .network = "far", .ips = "10.0.0.1"}}, "", "10.0.0.1", NULL},
	{"each network its own",
	 {{"a", .network = "far", .ips = "10.0.0.1"}, {"b", .ips = "10.0.0.1"}},
	 "far",
	 "10.0.0.1",
	 "a"},
	{"the node's address is nobody's", {{"a", .ips = "10.0.0.1", .host_network = true}}, "", "10.0.0.1", NULL},
	{"a pod with HBONE before one without",
	 {{"a", .ips = "10.0.0.1"}, {"b", .ips = "10.0.0.1", .tcp = true}},
	 "",
	 "10.0.0.1",
	 "a"},
	{"a pod without HBONE before another with it",
	 {{"a", .ips = "10.0.0.1", .tcp = true}, {"b", .uid = "c/x/b", .ips = "10.0.0.1"}},
	 "",
	 "10.0.0.1",
	 "a"},
	{"HBONE before none among others",
	 {{"a", .uid = "c/x/a", .ips = "10.0.0.1"}, {"b", .uid = "c/x/b", .ips = "10.0.0.1", .tcp = true}},
	 "",
	 "10.0.0.1",
	 "a"},
	{"the last of equals", {{"a", .ips = "10.0.0.1"}, {"b", .ips = "10.0.0.1"}}, "", "10.0.0.1", "b"},
	{"an update makes it the last",
	 {{"a", .ips = "10.0.0.1"}, {"b", .ips = "10.0.0.1"}, {"a", .ips = "10.0.0.1"}},
	 "",
	 "10.0.0.1",
	 "a"},
	{"an address that an update takes away",
	 {{"a", .ips = "10.0.0.1"}, {"a", .ips = "10.0.0.2"}},
	 "",
	 "10.0.0.1",
	 NULL},
	{"an address that an update brings",
	 {{"a", .ips = "10.0.0.1"}, {"a", .ips = "10.0.0.1 10.0.0.2"}},
	 "",
	 "10.0.0.2",
	 "a"},
	{"an address twice", {{"a", .ips = "10.0.0.1 10.0.0.1"}, {"a", .ips = "10.0.0.1"}}, "", "10.0.0.1", "a"},
	{"an address twice, taken away",
	 {{"a", .ips = "10.0.0.1 10.0.0.1"}, {"a", .ips = "10.0.0.2"}},
	 "",
	 "10.0.0.1",
	 NULL},
	{"a pod that moves to the node's network",
	 {{"a", .ips = "10.0.0.1"}, {"a", .ips = "10.0.0.1", .host_network = true}},
	 "",
	 "10.0.0.1",
	 NULL},
};

static void test_addresses(void **state)
{
	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		struct store *s = rig_store(addresses[i].in, NULL);
		struct addr ip = rig_addr(addresses[i].ip);
		struct workload *w = store_workload_by_addr(s, addresses[i].network, &ip);

		if (addresses[i].want ? !w || strcmp(w->name, addresses[i].want) : w != NULL)
			fail_msg("%s: %s", addresses[i].name, w ? w->name : "none");
		store_free(s);
	}
}

/* --- services by VIP and name -------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	struct rig_service in[4];
	const char *network, *ip, *client; /* client NULL: sees all */
	const char *want;		   /* namespace of the winner */
} vips[] = {
	{"found", {{"h", "a", "10.1.0.1"}}, "", "10.1.0.1", "x", "a"},
	{"found by its second VIP", {{"h", "a", "10.1.0.1 fd01::1"}}, "", "fd01::1", "x", "a"},
	{"not found", {{"h", "a", "10.1.0.1"}}, "", "10.1.0.2", "x", NULL},
	{"another network's", {{"h", "a", "far/10.1.0.1"}}, "", "10.1.0.1", "x", NULL},
	{"on that network", {{"h", "a", "far/10.1.0.1"}}, "far", "10.1.0.1", "x", "a"},
	{"the first of equals", {{"h", "a", "10.1.0.1"}, {"h", "b", "10.1.0.1"}}, "", "10.1.0.1", "x", "a"},
	{"an update stays the first",
	 {{"h", "a", "10.1.0.1"}, {"h", "b", "10.1.0.1"}, {"h", "a", "10.1.0.1"}},
	 "",
	 "10.1.0.1",
	 "x",
	 "a"},
	{"the client's namespace before the first",
	 {{"h", "a", "10.1.0.1"}, {"h", "b", "10.1.0.1"}},
	 "",
	 "10.1.0.1",
	 "b",
	 "b"},
	{"a canonical one before the first",
	 {{"h", "a", "10.1.0.1"}, {"h", "b", "10.1.0.1", .canonical = true}},
	 "",
	 "10.1.0.1",
	 "x",
	 "b"},
	{"the client's namespace before a canonical one",
	 {{"h", "a", "10.1.0.1", .canonical = true}, {"h", "b", "10.1.0.1"}},
	 "",
	 "10.1.0.1",
	 "b",
	 "b"},
	{"the first of canonical ones",
	 {{"h", "a", "10.1.0.1", .canonical = true}, {"h", "b", "10.1.0.1", .canonical = true}},
	 "",
	 "10.1.0.1",
	 "x",
	 "a"},
	{"two services of one namespace on one VIP: the first",
	 {{"h", "a", "10.1.0.1"}, {"g", "a", "10.1.0.1"}},
	 "",
	 "10.1.0.1",
	 "x",
	 "a"},
	{"a hidden one is not seen elsewhere", {{"h", "a", "10.1.0.1", .private = true}}, "", "10.1.0.1", "x", NULL},
	{"a hidden one is seen in its namespace", {{"h", "a", "10.1.0.1", .private = true}}, "", "10.1.0.1", "a", "a"},
	{"a hidden one is seen without a namespace",
	 {{"h", "a", "10.1.0.1", .private = true}},
	 "",
	 "10.1.0.1",
	 NULL,
	 "a"},
	{"a hidden canonical one does not win",
	 {{"h", "a", "10.1.0.1", .private = true, .canonical = true}, {"h", "b", "10.1.0.1"}},
	 "",
	 "10.1.0.1",
	 "x",
	 "b"},
	/* CIDR VIPs */
	{"inside a prefix", {{"h", "a", "10.1.0.0/16"}}, "", "10.1.2.3", "x", "a"},
	{"inside a v6 prefix", {{"h", "a", "fd01::/32"}}, "", "fd01:0:7::1", "x", "a"},
	{"outside a prefix", {{"h", "a", "10.1.0.0/16"}}, "", "10.2.0.0", "x", NULL},
	{"host bits do not count", {{"h", "a", "10.1.2.3/16"}}, "", "10.1.9.9", "x", "a"},
	{"a prefix of odd length", {{"h", "a", "10.1.2.0/23"}}, "", "10.1.3.255", "x", "a"},
	{"a prefix of odd length, outside", {{"h", "a", "10.1.2.0/23"}}, "", "10.1.4.0", "x", NULL},
	{"all of IPv4", {{"h", "a", "0.0.0.0/0"}}, "", "192.0.2.1", "x", "a"},
	{"all of IPv4 holds no IPv6", {{"h", "a", "0.0.0.0/0"}}, "", "2001:db8::1", "x", NULL},
	{"all of IPv6 holds no IPv4", {{"h", "a", "::/0"}}, "", "192.0.2.1", "x", NULL},
	{"a prefix of another network", {{"h", "a", "far/10.1.0.0/16"}}, "", "10.1.2.3", "x", NULL},
	{"the longer prefix", {{"h", "a", "10.0.0.0/8"}, {"h", "b", "10.1.0.0/16"}}, "", "10.1.2.3", "x", "b"},
	{"the longer prefix, whatever the order",
	 {{"h", "b", "10.1.0.0/16"}, {"h", "a", "10.0.0.0/8"}},
	 "",
	 "10.1.2.3",
	 "x",
	 "b"},
	{"an exact one before a prefix of the client's namespace",
	 {{"h", "a", "10.1.0.0/16"}, {"h", "b", "10.1.2.3"}},
	 "",
	 "10.1.2.3",
	 "a",
	 "b"},
	{"a full length is an exact one",
	 {{"h", "a", "10.1.0.0/16"}, {"h", "b", "10.1.2.3/32"}},
	 "",
	 "10.1.2.3",
	 "a",
	 "b"},
	{"more than the full length too", {{"h", "b", "10.1.2.3/40"}}, "", "10.1.2.3", "a", "b"},
	{"the client's namespace before the longer prefix",
	 {{"h", "a", "10.0.0.0/8"}, {"h", "b", "10.1.0.0/16"}},
	 "",
	 "10.1.2.3",
	 "a",
	 "a"},
	{"the longer prefix before a canonical one",
	 {{"h", "a", "10.0.0.0/8", .canonical = true}, {"h", "b", "10.1.0.0/16"}},
	 "",
	 "10.1.2.3",
	 "x",
	 "b"},
	{"of equal prefixes the canonical one",
	 {{"h", "a", "10.1.0.0/16"}, {"h", "b", "10.1.0.0/16", .canonical = true}},
	 "",
	 "10.1.2.3",
	 "x",
	 "b"},
	{"of equal prefixes the first",
	 {{"h", "a", "10.1.0.0/16"}, {"h", "b", "10.1.0.0/16"}},
	 "",
	 "10.1.2.3",
	 "x",
	 "a"},
	{"a hidden exact one leaves it to a prefix",
	 {{"h", "a", "10.1.2.3", .private = true}, {"h", "b", "10.1.0.0/16"}},
	 "",
	 "10.1.2.3",
	 "x",
	 "b"},
	{"a hidden prefix leaves it to a shorter one",
	 {{"h", "a", "10.1.0.0/16", .private = true}, {"h", "b", "10.0.0.0/8"}},
	 "",
	 "10.1.2.3",
	 "x",
	 "b"},
	{"a VIP that an update takes away",
	 {{"h", "a", "10.1.0.1"}, {"h", "a", "10.1.0.2"}},
	 "",
	 "10.1.0.1",
	 "x",
	 NULL},
	{"a prefix that an update takes away",
	 {{"h", "a", "10.1.0.0/16"}, {"h", "a", "10.2.0.0/16"}},
	 "",
	 "10.1.0.1",
	 "x",
	 NULL},
	{"a prefix that an update makes longer",
	 {{"h", "a", "10.1.0.0/16"}, {"h", "a", "10.1.0.0/24"}},
	 "",
	 "10.1.1.1",
	 "x",
	 NULL},
};

static struct store *store_of_services(const struct rig_service *in, bool batches)
{
	struct store *s = store_new("");

	store_begin(s);
	for (unsigned i = 0; i < 4 && in[i].hostname; i++) {
		store_insert_service(s, rig_service_new(&in[i]));
		if (batches) {
			store_commit(s);
			store_begin(s);
		}
	}
	store_commit(s);
	return s;
}

static void test_vips(void **state)
{
	for (size_t i = 0; i < 2 * sizeof vips / sizeof *vips; i++) {
		struct store *s = store_of_services(vips[i / 2].in, i % 2);
		struct addr ip = rig_addr(vips[i / 2].ip);
		struct service *v = store_service_by_vip(s, vips[i / 2].network, &ip, vips[i / 2].client);

		if (vips[i / 2].want ? !v || strcmp(v->ns, vips[i / 2].want) : v != NULL)
			fail_msg("%s: %s", vips[i / 2].name, v ? v->ns : "none");
		store_free(s);
	}
}

static const struct {
	const char *name;
	struct rig_service in[4];
	const char *hostname, *client, *want;
} hosts[] = {
	{"found", {{"h", "a"}}, "h", "x", "a"},
	{"not found", {{"h", "a"}}, "g", "x", NULL},
	{"case counts", {{"h", "a"}}, "H", "x", NULL},
	{"the first of equals", {{"h", "a"}, {"h", "b"}}, "h", "x", "a"},
	{"the client's namespace", {{"h", "a"}, {"h", "b"}}, "h", "b", "b"},
	{"a canonical one", {{"h", "a"}, {"h", "b", .canonical = true}}, "h", "x", "b"},
	{"the client's namespace before a canonical one", {{"h", "a", .canonical = true}, {"h", "b"}}, "h", "b", "b"},
	{"the later of two canonical ones",
	 {{"h", "a", .canonical = true}, {"h", "b", .canonical = true}},
	 "h",
	 "x",
	 "b"},
	{"hidden elsewhere", {{"h", "a", .private = true}}, "h", "x", NULL},
	{"seen at home", {{"h", "a", .private = true}}, "h", "a", "a"},
	{"a hidden one leaves it to the next", {{"h", "a", .private = true}, {"h", "b"}}, "h", "x", "b"},
};

static void test_hosts(void **state)
{
	for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
		struct store *s = store_of_services(hosts[i].in, false);
		struct service *v = store_service_by_host(s, hosts[i].hostname, hosts[i].client);

		if (hosts[i].want ? !v || strcmp(v->ns, hosts[i].want) : v != NULL)
			fail_msg("%s: %s", hosts[i].name, v ? v->ns : "none");
		for (unsigned k = 0; k < 4 && hosts[i].in[k].hostname; k++)
			if (!store_service_exact(s, hosts[i].in[k].ns, hosts[i].in[k].hostname))
				fail_msg("%s: not found by its full name", hosts[i].name);
		assert_null(store_service_exact(s, "nobody", "h"));
		store_free(s);
	}
}

/* --- local workloads ----------------------------------------------------------------------------------------------- */

static void test_local_workloads(void **state)
{
	static const struct rig_workload in[] = {
		{"a", .ns = "n", .sa = "s", .node = "here"},
		{"b", .ns = "n", .sa = "s", .node = "there"},
		{"a", .uid = "other", .ns = "m", .sa = "s", .node = "here"},
		{0},
	};
	static const struct {
		const char *name, *node, *ns, *sa, *pod, *want; /* want: uid */
	} rows[] = {
		{"on this node", "here", "n", "s", "a", "c//Pod/n/a"},
		{"on another node", "here", "n", "s", "b", NULL},
		{"any node where none is ours", "", "n", "s", "b", "c//Pod/n/b"},
		{"another service account", "here", "n", "t", "a", NULL},
		{"another namespace has its own", "here", "m", "s", "a", "other"},
		{"another pod", "here", "n", "s", "c", NULL},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct store *s = store_new(rows[i].node);

		store_begin(s);
		rig_add(s, in, NULL);
		store_commit(s);
		struct workload *w = store_local_workload(s, rows[i].ns, rows[i].sa, rows[i].pod);
		if (rows[i].want ? !w || strcmp(w->uid, rows[i].want) : w != NULL)
			fail_msg("%s: %s", rows[i].name, w ? w->uid : "none");
		store_free(s);
	}
}

static void test_a_pod_that_moves_away_is_not_local(void **state)
{
	struct rig_workload w[] = {{"a", .ns = "n", .sa = "s", .node = "here"}, {0}};
	struct store *s = store_new("here");

	store_begin(s);
	rig_add(s, w, NULL);
	w[0].node = "there";
	rig_add(s, w, NULL);
	store_commit(s);
	assert_null(store_local_workload(s, "n", "s", "a"));
	assert_non_null(store_workload_by_uid(s, "c//Pod/n/a"));
	store_free(s);
}

static void test_workloads_by_host(void **state)
{
	static const struct rig_workload in[] = {
		{"a", .ns = "n", .hostname = "db.example"},
		{"b", .ns = "n", .hostname = "db.example"},
		{"c", .ns = "m", .hostname = "db.example"},
		{"d", .ns = "n"},
		{0},
	};
	struct store *s = rig_store(in, NULL);

	assert_string_equal(store_workload_by_host(s, "n", "db.example")->name, "a");
	assert_string_equal(store_workload_by_host(s, "m", "db.example")->name, "c");
	assert_null(store_workload_by_host(s, "n", ""));
	assert_null(store_workload_by_host(s, "x", "db.example"));
	store_begin(s);
	store_remove_address(s, "c//Pod/n/a");
	store_commit(s);
	assert_string_equal(store_workload_by_host(s, "n", "db.example")->name, "b");
	store_free(s);
}

/* --- endpoints ----------------------------------------------------------------------------------------------------- */

/* Steps: "+POD" inserts that workload of the table, "-NAME" removes an address, "S" inserts the service, "A" the same with
 * unhealthy ones allowed, "P" with another VIP, ";" commits. */
static const struct rig_workload members[] = {
	{"a", .ns = "n", .ips = "10.0.0.1", .services = "n/h 80:1"},
	{"b", .ns = "n", .ips = "10.0.0.2", .services = "n/h 80:2 n/g"},
	{"sick", .ns = "n", .ips = "10.0.0.3", .services = "n/h 80:3", .unhealthy = true},
	{"twice", .ns = "n", .ips = "10.0.0.4", .services = "n/h 80:4 n/h 80:5"},
	{"left", .uid = "c//Pod/n/a", .ns = "n", .ips = "10.0.0.1"},
	{"well", .uid = "c//Pod/n/sick", .ns = "n", .ips = "10.0.0.3", .services = "n/h 80:3"},
	{"ill", .uid = "c//Pod/n/a", .ns = "n", .ips = "10.0.0.1", .services = "n/h 80:1", .unhealthy = true},
	{"changed", .uid = "c//Pod/n/a", .ns = "n", .ips = "10.0.0.1", .services = "n/h 80:9"},
	{"foreign", .ns = "m", .ips = "10.0.0.6", .services = "n/h 80:6"},
	{0},
};

static const struct {
	const char *name, *steps;
	const char *want; /* names of the endpoints with their ports, sorted; NULL: no service */
	unsigned staged;
} endpoints[] = {
	{"after their service", "S +a +b ;", "a:1 b:2", 1},
	{"before their service", "+a +b S ;", "a:1 b:2", 1},
	{"in another batch after their service", "S ; +a ; +b ;", "a:1 b:2", 1},
	{"in another batch before their service", "+a ; +b ; S ;", "a:1 b:2", 1},
	{"of a service that never comes", "+a +b ;", NULL, 3},
	{"a service of nobody", "S ;", "", 0},
	{"of another namespace", "S +foreign ;", "foreign:6", 0},
	{"unhealthy ones do not count", "S +a +sick ;", "a:1", 0},
	{"unhealthy ones count where that is allowed", "A +a +sick ;", "a:1 sick:3", 0},
	{"allowing them later brings them back (not_ztunnel: only after a resend)", "S +a +sick ; A ;", "a:1 sick:3",
	 0},
	{"disallowing them later takes them out", "A +a +sick ; S ;", "a:1", 0},
	{"one that recovers", "S +sick ; +well ;", "well:3", 0},
	{"one that falls ill", "S +a +b ; +ill ;", "b:2", 1},
	{"one that is named twice counts once, with its first ports", "S +twice ;", "twice:4", 0},
	{"one that is named twice goes once", "S +twice +a ; -c//Pod/n/twice ;", "a:1", 0},
	{"one that leaves the service", "S +a +b ; +left ;", "b:2", 1},
	{"one that changes its port", "S +a ; +changed ;", "changed:9", 0},
	{"one that is removed", "S +a +b ; -c//Pod/n/a ;", "b:2", 1},
	{"one that is removed in the batch that brought it", "S +a +b -c//Pod/n/a ;", "b:2", 1},
	{"all are removed", "S +a +b ; -c//Pod/n/a -c//Pod/n/b ;", "", 0},
	{"the service is removed, the endpoints are kept for later", "S +a +b ; -n/h ;", NULL, 3},
	{"the service comes again", "S +a +b ; -n/h ; S ;", "a:1 b:2", 1},
	{"the service is replaced", "S +a +b ; P ;", "a:1 b:2", 1},
	{"removed and brought again in one batch", "S +a ; -n/h S ;", "a:1", 0},
	{"a name with two slashes is no service", "S +a ; -n/h/x ;", "a:1", 0},
	{"a name without a slash is no service", "S +a ; -h ;", "a:1", 0},
	{"an unknown name is ignored", "S +a ; -x/y ;", "a:1", 0},
	{"staged ones that go", "+a +b ; -c//Pod/n/a -c//Pod/n/b ; S ;", "", 0},
};

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static const char *endpoints_text(const struct service *v, char buf[256])
{
	char one[8][32];
	unsigned n = 0;

	for (; n < v->n_endpoints && n < 8; n++)
		snprintf(one[n], sizeof one[n], "%s:%u", v->endpoints[n].workload->name,
			 v->endpoints[n].part->ports[0].target_port);
	qsort(one, n, sizeof one[0], by_text);
	buf[0] = 0;
	for (unsigned i = 0; i < n; i++) {
		strcat(buf, i ? " " : "");
		strcat(buf, one[i]);
	}
	return buf;
}

static void step(struct store *s, const char *what)
{
	struct rig_service v = {"h", "n", what[0] == 'P' ? "10.1.0.2" : "10.1.0.1", .allow_unhealthy = what[0] == 'A'};

	if (what[0] == ';') {
		store_commit(s);
		store_begin(s);
	} else if (what[0] == '-') {
		store_remove_address(s, what + 1);
	} else if (what[0] == '+') {
		for (const struct rig_workload *w = members; w->name; w++)
			if (strcmp(w->name, what + 1) == 0)
				store_insert_workload(s, rig_workload_new(w));
	} else {
		store_insert_service(s, rig_service_new(&v));
	}
}

static void test_endpoints(void **state)
{
	for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
		struct store *s = store_new("");
		struct store_counts counts;
		struct rig_items steps;
		char text[256];

		rig_split(&steps, endpoints[i].steps);
		store_begin(s);
		for (unsigned k = 0; k < steps.n; k++)
			step(s, steps.item[k]);
		struct service *v = store_service_exact(s, "n", "h");
		if (!v != !endpoints[i].want || (v && strcmp(endpoints_text(v, text), endpoints[i].want)))
			fail_msg("%s: %s", endpoints[i].name, v ? text : "no service");
		store_count(s, &counts);
		if (counts.staged_endpoints != endpoints[i].staged)
			fail_msg("%s: %u staged", endpoints[i].name, counts.staged_endpoints);
		if (v && (store_service_by_host(s, "h", NULL) != v ||
			  store_service_by_vip(s, "", &v->vips[0].addr.ip, NULL) != v))
			fail_msg("%s: the indexes do not agree", endpoints[i].name);
		store_free(s);
	}
}

/* --- batches ------------------------------------------------------------------------------------------------------- */

static void count_call(void *arg)
{
	++*(unsigned *)arg;
}

/* Steps as above; "F" begins a full resync. */
static const struct {
	const char *name, *steps;
	unsigned calls; /* of the watcher, and growth of the version */
} batches[] = {
	{"nothing changes nothing", ";", 0},
	{"several changes are one", "S +a +b ;", 1},
	{"two batches are two", "S ; +a ;", 2},
	{"removing what is unknown changes nothing", "-x -y/z ;", 0},
	{"an empty resync of an empty store", "F ;", 0},
	{"an empty resync of a full store", "S +a ; F ;", 2},
};

static void test_watchers(void **state)
{
	for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
		struct store *s = store_new("");
		unsigned calls = 0;
		struct rig_items steps;

		assert_int_equal(store_watch(s, count_call, &calls), 0);
		rig_split(&steps, batches[i].steps);
		store_begin(s);
		for (unsigned k = 0; k < steps.n; k++)
			if (steps.item[k][0] == 'F')
				store_begin_full(s);
			else
				step(s, steps.item[k]);
		if (calls != batches[i].calls || store_version(s) != batches[i].calls)
			fail_msg("%s: %u calls, version %u", batches[i].name, calls, (unsigned)store_version(s));
		store_free(s);
	}
}

static void test_watchers_are_bounded(void **state)
{
	struct store *s = store_new("");
	unsigned calls = 0;

	for (unsigned i = 0; i < STORE_WATCHERS_MAX; i++)
		assert_int_equal(store_watch(s, count_call, &calls), 0);
	assert_int_equal(store_watch(s, count_call, &calls), -ENOSPC);
	store_begin(s);
	step(s, "S");
	store_commit(s);
	assert_int_equal(calls, STORE_WATCHERS_MAX);
	store_free(s);
}

/* A resync keeps what it brings again and takes out all the rest, of each kind. */
static void test_full_resync(void **state)
{
	struct store *s = store_new("");
	struct store_counts counts;
	struct addr ip = rig_addr("10.0.0.2"), vip = rig_addr("10.1.0.1");

	store_begin(s);
	step(s, "S");
	step(s, "+a");
	step(s, "+b");
	store_insert_policy(s, rig_policy_new("n", "keep", POLICY_NAMESPACE, POLICY_DENY));
	store_insert_policy(s, rig_policy_new("n", "drop", POLICY_NAMESPACE, POLICY_DENY));
	store_commit(s);
	store_begin_full(s);
	step(s, "+a");
	store_insert_policy(s, rig_policy_new("n", "keep", POLICY_NAMESPACE, POLICY_DENY));
	store_commit(s);
	store_count(s, &counts);
	assert_int_equal(counts.workloads, 1);
	assert_int_equal(counts.services, 0);
	assert_int_equal(counts.policies, 1);
	assert_int_equal(counts.staged_endpoints, 1);
	assert_null(store_workload_by_addr(s, "", &ip));
	assert_null(store_service_by_vip(s, "", &vip, NULL));
	assert_non_null(store_policy(s, "n/keep"));
	assert_null(store_policy(s, "n/drop"));
	store_begin(s); /* an ordinary batch takes nothing out */
	step(s, "S");
	store_commit(s);
	store_count(s, &counts);
	assert_int_equal(counts.workloads, 1);
	assert_int_equal(counts.services, 1);
	assert_int_equal(counts.staged_endpoints, 0);
	store_free(s);
}

/* What somebody keeps outlives the store's own copy, with everything that it points to. */
static void test_references_outlive_the_store(void **state)
{
	struct store *s = rig_store(members, (struct rig_service[]){{"h", "n", "10.1.0.1"}, {0}});
	struct workload *w = workload_ref(store_workload_by_uid(s, "c//Pod/n/b"));
	struct service *v = service_ref(store_service_exact(s, "n", "h"));

	store_free(s);
	assert_string_equal(w->services[0].hostname, "h");
	assert_int_equal(v->n_endpoints, 5);
	for (unsigned i = 0; i < v->n_endpoints; i++)
		assert_string_equal(v->endpoints[i].workload->services[0].hostname, "h");
	workload_unref(w);
	service_unref(v);
}

static int note_uid(void *arg, struct workload *w)
{
	strcat(arg, w->name);
	return strcmp(w->name, "c") == 0 ? 7 : 0;
}

static void test_dumps_are_sorted_and_stop(void **state)
{
	static const struct rig_workload in[] = {{"d"}, {"b"}, {"a"}, {"c"}, {0}};
	struct store *s = rig_store(in, NULL);
	char seen[16] = "";

	assert_int_equal(store_each_workload(s, note_uid, seen), 7);
	assert_string_equal(seen, "abc");
	store_free(s);
}

/* --- policies ------------------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	struct {
		const char *ns, *name;
		enum policy_scope scope;
	} in[3];
	struct rig_workload w;
	const char *want; /* sorted names */
	unsigned missing;
} applying[] = {
	{"none", {{0}}, {"w", .ns = "n"}, "", 0},
	{"global", {{"root", "g", POLICY_GLOBAL}}, {"w", .ns = "n"}, "root/g", 0},
	{"the namespace's", {{"n", "p", POLICY_NAMESPACE}}, {"w", .ns = "n"}, "n/p", 0},
	{"another namespace's", {{"m", "p", POLICY_NAMESPACE}}, {"w", .ns = "n"}, "", 0},
	{"a namespace policy without a namespace is global", {{"", "p", POLICY_NAMESPACE}}, {"w", .ns = "n"}, "/p", 0},
	{"a selector's, not named", {{"n", "p", POLICY_SELECTOR}}, {"w", .ns = "n"}, "", 0},
	{"a selector's, named", {{"n", "p", POLICY_SELECTOR}}, {"w", .ns = "n", .policies = "n/p"}, "n/p", 0},
	{"a selector's of another namespace, named",
	 {{"root", "p", POLICY_SELECTOR}},
	 {"w", .ns = "n", .policies = "root/p"},
	 "root/p",
	 0},
	{"all three",
	 {{"root", "g", POLICY_GLOBAL}, {"n", "p", POLICY_NAMESPACE}, {"n", "s", POLICY_SELECTOR}},
	 {"w", .ns = "n", .policies = "n/s"},
	 "n/p n/s root/g",
	 0},
	{"named and by scope counts once",
	 {{"n", "p", POLICY_NAMESPACE}},
	 {"w", .ns = "n", .policies = "n/p n/p"},
	 "n/p",
	 0},
	{"unknown names are counted",
	 {{"n", "p", POLICY_SELECTOR}},
	 {"w", .ns = "n", .policies = "n/x n/p x y/z"},
	 "n/p",
	 3},
	{"a workload without a namespace has the global ones once",
	 {{"root", "g", POLICY_GLOBAL}},
	 {"w", .ns = ""},
	 "root/g",
	 0},
	{"a change of scope takes it out of the old one",
	 {{"n", "p", POLICY_NAMESPACE}, {"n", "p", POLICY_SELECTOR}},
	 {"w", .ns = "n"},
	 "",
	 0},
	{"a change of scope puts it into the new one",
	 {{"n", "p", POLICY_NAMESPACE}, {"n", "p", POLICY_GLOBAL}},
	 {"w", .ns = "m"},
	 "n/p",
	 0},
	{"a replaced one counts once",
	 {{"n", "p", POLICY_NAMESPACE}, {"n", "p", POLICY_NAMESPACE}},
	 {"w", .ns = "n"},
	 "n/p",
	 0},
};

static void test_policies_for(void **state)
{
	for (size_t i = 0; i < sizeof applying / sizeof *applying; i++) {
		struct store *s = store_new("");
		struct workload *w = rig_workload_new(&applying[i].w);
		struct policy *got[8];
		char names[8][32], text[256] = "";
		unsigned n, missing;

		store_begin(s);
		for (unsigned k = 0; k < 3 && applying[i].in[k].name; k++)
			store_insert_policy(s, rig_policy_new(applying[i].in[k].ns, applying[i].in[k].name,
							      applying[i].in[k].scope, POLICY_DENY));
		store_commit(s);
		n = store_policies_for(s, w, got, 8, &missing);
		for (unsigned k = 0; k < n; k++)
			snprintf(names[k], sizeof names[k], "%s/%s", got[k]->ns, got[k]->name);
		qsort(names, n, sizeof names[0], by_text);
		for (unsigned k = 0; k < n; k++) {
			strcat(text, k ? " " : "");
			strcat(text, names[k]);
		}
		if (strcmp(text, applying[i].want) || missing != applying[i].missing)
			fail_msg("%s: \"%s\", %u missing", applying[i].name, text, missing);
		workload_unref(w);
		store_free(s);
	}
}

/* From its namespace's to one that a workload names: between the policy and the workload of one batch it applies still. */
static void test_a_policy_whose_scope_moves_always_applies(void **state)
{
	struct store *s = store_new("");
	struct workload *w = rig_workload_new(&(struct rig_workload){"w", .ns = "n"});
	struct policy *got[2];
	unsigned missing;

	store_begin(s);
	store_insert_policy(s, rig_policy_new("n", "p", POLICY_NAMESPACE, POLICY_DENY));
	store_commit(s);
	store_begin(s);
	store_insert_policy(s, rig_policy_new("n", "p", POLICY_SELECTOR, POLICY_DENY));
	assert_int_equal(store_policies_for(s, w, got, 2, &missing), 1);
	store_commit(s);
	assert_int_equal(store_policies_for(s, w, got, 2, &missing), 0);
	workload_unref(w);
	store_free(s);
}

/* Who has room for fewer than there are learns how many there are. */
static void test_policies_are_counted_beyond_the_room(void **state)
{
	struct store *s = store_new("");
	struct workload *w = rig_workload_new(&(struct rig_workload){"w", .ns = "n"});
	struct policy *got[3] = {NULL, NULL, (struct policy *)1};
	unsigned missing;
	char name[8];

	store_begin(s);
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof name, "p%u", i);
		store_insert_policy(s, rig_policy_new("n", name, POLICY_NAMESPACE, POLICY_DENY));
	}
	store_commit(s);
	assert_int_equal(store_policies_for(s, w, got, 2, &missing), 5);
	assert_true(got[0] && got[1] && got[0] != got[1]);
	assert_ptr_equal(got[2], (struct policy *)1);
	store_begin(s);
	store_remove_policy(s, "n/p0");
	store_remove_policy(s, "n/unknown");
	store_remove_policy(s, "no slash");
	store_commit(s);
	assert_int_equal(store_policies_for(s, w, got, 2, &missing), 4);
	workload_unref(w);
	store_free(s);
}

/* --- many ---------------------------------------------------------------------------------------------------------- */

/* Random inserts, changes and removals against a plain array; every index must agree with it after each batch. */
enum { POOL = 64, ROUNDS = 400 };

static struct rig_workload pool_workload(unsigned i, unsigned variant, char text[3][64])
{
	snprintf(text[0], sizeof text[0], "w%u", i);
	snprintf(text[1], sizeof text[1], "10.0.%u.%u fd00::%u", variant, i, i);
	snprintf(text[2], sizeof text[2], "n/s%u 80:%u n/s%u 80:%u", i % 4, i + 1, variant % 4, i + 1);
	return (struct rig_workload){text[0], .ns = "n", .ips = text[1], .services = text[2],
				     .unhealthy = variant == 3};
}

static void check_against(struct store *s, const int *variant)
{
	unsigned want[4] = {0}, live = 0;
	struct store_counts counts;
	char text[64];

	for (unsigned i = 0; i < POOL; i++) {
		live += variant[i] >= 0;
		for (unsigned k = 0; k < 4; k++) {
			snprintf(text, sizeof text, "10.0.%u.%u", k, i);
			struct addr ip = rig_addr(text);
			if (!store_workload_by_addr(s, "", &ip) != ((int)k != variant[i]))
				fail_msg("10.0.%u.%u is wrong", k, i);
			want[k] += variant[i] >= 0 && variant[i] != 3 && (i % 4 == k || (unsigned)variant[i] % 4 == k);
		}
		snprintf(text, sizeof text, "c//Pod/n/w%u", i);
		assert_int_equal(!store_workload_by_uid(s, text), variant[i] < 0);
	}
	store_count(s, &counts);
	assert_int_equal(counts.workloads, live);
	for (unsigned k = 0; k < 4; k++) {
		snprintf(text, sizeof text, "s%u", k);
		struct service *v = store_service_exact(s, "n", text);
		assert_int_equal(v->n_endpoints, want[k]);
	}
}

static void test_churn_keeps_the_indexes_right(void **state)
{
	static const struct rig_service services[] = {{"s0", "n"}, {"s1", "n"}, {"s2", "n"}, {"s3", "n"}, {0}};
	struct store *s = rig_store(NULL, services);
	int variant[POOL];
	uint32_t random = 1;

	memset(variant, 0xff, sizeof variant);
	for (unsigned round = 0; round < ROUNDS; round++) {
		store_begin(s);
		for (unsigned k = 0; k < 8; k++) {
			random = random * 1664525 + 1013904223;
			unsigned i = random >> 8 & (POOL - 1);
			char text[3][64], uid[64];
			if (random >> 30 == 0) {
				snprintf(uid, sizeof uid, "c//Pod/n/w%u", i);
				store_remove_address(s, uid);
				variant[i] = -1;
			} else {
				variant[i] = (int)(random >> 20 & 3);
				struct rig_workload w = pool_workload(i, (unsigned)variant[i], text);
				store_insert_workload(s, rig_workload_new(&w));
			}
		}
		store_commit(s);
		check_against(s, variant);
	}
	store_free(s);
}

int main(void)
{
	mallopt(M_PERTURB, 0x5a); /* new memory is not zero */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_addresses, nothing_left),
		cmocka_unit_test_teardown(test_vips, nothing_left),
		cmocka_unit_test_teardown(test_hosts, nothing_left),
		cmocka_unit_test_teardown(test_local_workloads, nothing_left),
		cmocka_unit_test_teardown(test_a_pod_that_moves_away_is_not_local, nothing_left),
		cmocka_unit_test_teardown(test_workloads_by_host, nothing_left),
		cmocka_unit_test_teardown(test_endpoints, nothing_left),
		cmocka_unit_test_teardown(test_watchers, nothing_left),
		cmocka_unit_test_teardown(test_watchers_are_bounded, nothing_left),
		cmocka_unit_test_teardown(test_full_resync, nothing_left),
		cmocka_unit_test_teardown(test_references_outlive_the_store, nothing_left),
		cmocka_unit_test_teardown(test_dumps_are_sorted_and_stop, nothing_left),
		cmocka_unit_test_teardown(test_policies_for, nothing_left),
		cmocka_unit_test_teardown(test_a_policy_whose_scope_moves_always_applies, nothing_left),
		cmocka_unit_test_teardown(test_policies_are_counted_beyond_the_room, nothing_left),
		cmocka_unit_test_teardown(test_churn_keeps_the_indexes_right, nothing_left),
	};
	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
