/* SPDX-License-Identifier: Apache-2.0 */
/* What names mean to a pod: one mesh, and a row for each way in which a name may be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mesh_rig.h"
#include "state/dns_name.h"
#include "state/intern.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define K	 ".svc.cluster.local"
#define LONG	 "a23456789.b23456789.c23456789.d23456789.e23456789.f23456789.g23456789.h23456789.i23456789.j23456789."

static const struct rig_workload workloads[] = {
	{"client", .ns = "ns1", .ips = "10.0.0.1 fd00::1"},
	{"other", .ns = "ns9", .ips = "10.0.0.2"},
	{"beyond", .ns = "ns1", .network = "far", .ips = "10.0.0.1"},
	{"db-0", .ns = "ns1", .ips = "10.0.1.1 fd00:1::1", .services = "ns1/db.ns1" K},
	{"db-1", .ns = "ns1", .ips = "10.0.1.2 fd00:1::2", .services = "ns1/db.ns1" K},
	{"db-2", .ns = "ns1", .network = "far", .ips = "10.0.1.3", .services = "ns1/db.ns1" K},
	{"db-3", .ns = "ns1", .ips = "10.0.1.4", .services = "ns1/db.ns1" K, .unhealthy = true},
	{"db-4", .ns = "ns1", .ips = "10.0.1.5", .services = "ns1/db.ns1" K, .cluster = "c2"},
	{"web-0", .ns = "ns2", .ips = "10.0.2.1", .services = "ns2/web.ns2" K},
	{"four-0", .ns = "ns1", .ips = "10.0.3.1 fd00:3::1", .services = "ns1/four.ns1" K},
	{"six-0", .ns = "ns1", .ips = "10.0.3.2 fd00:3::2", .services = "ns1/six.ns1" K},
	{"named", .ns = "ns1", .hostname = "out.example", .services = "ns1/named.ns1" K},
	{"hidden-0", .ns = "ns2", .ips = "10.0.4.1", .services = "ns2/hidden.ns2" K},
	{"ext-0", .ns = "ns1", .ips = "10.0.5.1", .services = "ns1/headless.example.com"},
	{"twin", .uid = "one", .ns = "ns1", .ips = "10.0.6.1", .cluster = "c2", .services = "ns1/twins.ns1" K},
	{"twin", .uid = "two", .ns = "ns1", .ips = "10.0.6.2", .services = "ns1/twins.ns1" K},
	{0},
};

static const struct rig_service services[] = {
	{"www.example.com", "ns1", .vips = "1.1.1.1"},
	{"productpage.ns1" K, "ns1", .vips = "9.9.9.9"},
	{"web.ns2" K, "ns2", .vips = "10.10.10.10"},
	{"details.ns2.svc.cluster.remote", "ns2", .vips = "11.1.1.1 11.1.1.2 11.1.1.3 11.1.1.4"},
	{"hidden.ns2" K, "ns2", .vips = "10.10.10.24", .private = true},
	{"own.ns1" K, "ns1", .vips = "10.10.10.25", .private = true},
	{"v4.test", "ns1", .vips = "2.2.2.2"},
	{"v6.test", "ns1", .vips = "fd01::2"},
	{"dual.test", "ns1", .vips = "2.2.2.3 fd01::3"},
	{"*.wild", "ns1", .vips = "3.3.3.1"},
	{"*.b.wild", "ns1", .vips = "3.3.3.2"},
	{"*.svc.mesh.company.net", "ns1", .vips = "3.3.3.3"},
	{"*.short.ns1" K, "ns1", .vips = "3.3.3.4"},
	{"far-only.ns1" K, "ns1", .vips = "far/20.20.20.20"},
	{"both.ns1" K, "ns1", .vips = "21.21.21.21 far/22.22.22.22"},
	{"range.ns1" K, "ns1", .vips = "10.3.0.0/16"},
	{"range.example.com", "ns1", .vips = "10.3.0.0/16"},
	{"range-and-host.example.com", "ns1", .vips = "10.3.0.0/16 10.4.0.1"},
	{"db.ns1" K, "ns1"},
	{"empty.ns1" K, "ns1"},
	{"named.ns1" K, "ns1"},
	{"twins.ns1" K, "ns1"},
	{"four.ns1" K, "ns1", .families = FAMILIES_IPV4},
	{"six.ns1" K, "ns1", .families = FAMILIES_IPV6},
	{"headless.example.com", "ns1"},
	{"nobody.example.com", "ns1"},
	{"svc.cluster.local", "ns1"},
	{"everywhere.io", "ns2", .vips = "4.4.4.1"},
	{"everywhere.io", "pref", .vips = "4.4.4.2"},
	{"everywhere.io", "ns1", .vips = "4.4.4.3"},
	{"preferred.io", "ns2", .vips = "4.4.5.1"},
	{"preferred.io", "pref", .vips = "4.4.5.2"},
	{"canonical.io", "pref", .vips = "4.4.6.1"},
	{"canonical.io", "ns3", .vips = "4.4.6.2", .canonical = true},
	{"canonical.io", "ns4", .vips = "4.4.6.3"},
	{"mine-not-canonical.io", "ns1", .vips = "4.4.7.1"},
	{"mine-not-canonical.io", "ns3", .vips = "4.4.7.2", .canonical = true},
	{"oldest.io", "ns3", .vips = "4.4.8.1"},
	{"oldest.io", "ns4", .vips = "4.4.8.2"},
	{"seen-of-two.io", "ns3", .vips = "4.4.9.1", .private = true, .canonical = true},
	{"seen-of-two.io", "ns4", .vips = "4.4.9.2"},
	{"addressed-of-two.io", "ns1"},
	{"addressed-of-two.io", "ns4", .vips = "4.4.10.2"},
	{"exact.nsx" K, "nsx", .vips = "5.5.5.1"},
	{"*.nsx", "ns1", .vips = "5.5.5.2"},
	{0},
};

static const struct {
	const char *name, *query, *want, *client; /* client NULL: "ns1" */
	bool v6;
} rows[] = {
	{"the name itself", "www.example.com", "1.1.1.1"},
	{"a name that nobody has", "www.example.org", "forward"},
	{"no name", "", "forward"},
	{"one label", "productpage", "9.9.9.9"},
	{"one label, of another namespace", "web", "forward"},
	{"service and namespace", "web.ns2", "10.10.10.10"},
	{"up to svc", "web.ns2.svc", "10.10.10.10"},
	{"whole", "web.ns2" K, "10.10.10.10"},
	{"a domain that is not the cluster's", "web.ns2.svc.cluster", "forward"},
	{"of another cluster's domain", "details.ns2.svc.cluster.remote", "11.1.1.1 11.1.1.2 11.1.1.3 11.1.1.4"},
	{"of another cluster's domain, in short", "details.ns2", "forward"},
	/* search domains */
	{"searched in the namespace", "www.example.com.ns1" K, "alias=www.example.com 1.1.1.1"},
	{"searched in svc", "www.example.com" K, "alias=www.example.com 1.1.1.1"},
	{"searched in the domain", "www.example.com.cluster.local", "alias=www.example.com 1.1.1.1"},
	{"not of another namespace", "www.example.com.ns2" K, "forward"},
	{"short and searched", "web.ns2.ns1" K, "alias=web.ns2 10.10.10.10"},
	{"searched, family that is not there", "web.ns2.ns1" K, "empty", .v6 = true},
	{"the domain alone", "cluster.local", "forward"},
	{"a search domain alone is a name", "ns1" K, "forward"},
	/* families */
	{"only its IPv4", "dual.test", "2.2.2.3"},
	{"only its IPv6", "dual.test", "fd01::3", .v6 = true},
	{"IPv6 of what has IPv4", "v4.test", "empty", .v6 = true},
	{"IPv4 of what has IPv6", "v6.test", "empty"},
	{"headless of one family", "six.ns1" K, "no family"},
	{"headless of one family, that one", "six.ns1" K, "fd00:3::2", .v6 = true},
	{"headless of the other family", "four.ns1" K, "no family", .v6 = true},
	/* wildcards */
	{"wildcard", "foo.wild", "3.3.3.1"},
	{"the longest wildcard", "a.b.wild", "3.3.3.2"},
	{"a wildcard for several labels", "x.y.z.wild", "3.3.3.1"},
	{"asked for as it is", "*.wild", "3.3.3.1"},
	{"no wildcard for the name below it", "wild", "forward"},
	{"wildcard like a namespace", "foo.svc.mesh.company.net", "3.3.3.3"},
	{"wildcard and search domain: no alias", "foo.svc.mesh.company.net.ns1" K, "3.3.3.3"},
	{"a wildcard of the name beats what it is short for", "exact.nsx", "5.5.5.2"},
	{"wildcard as it is and search domain: no alias", "*.wild.ns1" K, "3.3.3.1"},
	{"wildcard of the cluster's", "a.short", "3.3.3.4"},
	/* networks */
	{"no address on this network", "far-only.ns1" K, "empty"},
	{"the addresses of this network", "both.ns1" K, "21.21.21.21"},
	{"the addresses of that network", "both.ns1" K, "22.22.22.22", "far"},
	{"ranges are no addresses", "range.ns1" K, "empty"},
	{"ranges are no addresses outside", "range.example.com", "forward"},
	{"a range and an address", "range-and-host.example.com", "10.4.0.1"},
	/* headless */
	{"headless", "db", "10.0.1.1 10.0.1.2 10.0.1.3 10.0.1.5"},
	{"headless, IPv6", "db.ns1" K, "fd00:1::1 fd00:1::2", .v6 = true},
	{"headless without endpoints", "empty", "empty"},
	{"headless whose endpoint has no address", "named", "empty"},
	{"headless outside the cluster", "headless.example.com", "forward"},
	{"outside, without anything", "nobody.example.com", "forward"},
	{"no service at all", "svc.cluster.local", "forward"},
	/* who owns it */
	{"the client's namespace", "everywhere.io", "4.4.4.3"},
	{"the preferred namespace", "preferred.io", "4.4.5.2"},
	{"canonical before preferred", "canonical.io", "4.4.6.2"},
	{"own before canonical", "mine-not-canonical.io", "4.4.7.1"},
	{"the oldest", "oldest.io", "4.4.8.1"},
	{"of those that may be seen", "seen-of-two.io", "4.4.9.2"},
	{"of those that have an address", "addressed-of-two.io", "4.4.10.2"},
	{"hidden from other namespaces", "hidden.ns2" K, "forward"},
	{"shown in its own", "own", "10.10.10.25"},
	{"own to another namespace", "own.ns1" K, "forward", "ns9"},
	/* pods */
	{"pod", "db-0.db.ns1" K, "10.0.1.1"},
	{"pod, IPv6", "db-0.db.ns1" K, "fd00:1::1", .v6 = true},
	{"pod and service", "db-1.db", "10.0.1.2"},
	{"pod, service and namespace", "db-1.db.ns1", "10.0.1.2", "ns9"},
	{"pod up to svc", "db-1.db.ns1.svc", "10.0.1.2", "ns9"},
	{"pod, searched", "db-1.db.ns1.ns1" K, "alias=db-1.db.ns1 10.0.1.2"},
	{"pod of a service with an address", "web-0.web.ns2" K, "10.0.2.1"},
	{"pod by its address", "10-0-1-2.db.ns1" K, "10.0.1.2"},
	{"pod by its IPv6 address", "fd00-1--2.db.ns1" K, "fd00:1::2", .v6 = true},
	{"pod that is not there", "db-9.db.ns1" K, "forward"},
	{"pod of no such service", "db-0.nothing.ns1" K, "forward"},
	{"pod of another service", "db-0.empty.ns1" K, "forward"},
	{"pod of another network", "db-2.db.ns1" K, "forward"},
	{"pod that is not ready", "db-3.db.ns1" K, "forward"},
	{"pod of another cluster", "db-4.db.ns1" K, "10.0.1.5"},
	{"of two clusters' pods, ours", "twin.twins.ns1" K, "10.0.6.2"},
	{"pod without an address", "named.named.ns1" K, "forward"},
	{"pod without such an address", "web-0.web.ns2" K, "empty", .v6 = true},
	{"pod of a service of one family", "six-0.six.ns1" K, "no family"},
	{"pod of a hidden service", "hidden-0.hidden.ns2" K, "forward"},
	{"deeper than a pod", "x.db-0.db.ns1" K, "forward"},
	{"address as a pod", "10-0-1-1.ns1.pod.cluster.local", "10.0.1.1"},
	{"address as a pod, IPv6", "fd00-1--1.ns1.pod.cluster.local", "fd00:1::1", .v6 = true},
	{"address as a pod, other family", "10-0-1-1.ns1.pod.cluster.local", "empty", .v6 = true},
	{"address as a pod of another namespace", "10-0-1-1.ns2.pod.cluster.local", "forward"},
	{"address as a pod that is not there", "10-9-9-9.ns1.pod.cluster.local", "forward"},
	{"no address as a pod", "db-0.ns1.pod.cluster.local", "forward"},
	/* lengths */
	{"what it is short for would be too long", LONG LONG "x", "forward"},
	{"the longest name", LONG LONG LONG, "forward"},
};

static struct dns_zone zone = {.domain = "cluster.local", .preferred = "pref", .ipv6 = true};
static struct store *store;

static struct workload *client_in(const char *ns)
{
	if (ns && !strcmp(ns, "far"))
		return store_local_workload(store, "ns1", "default", "beyond");
	return store_local_workload(store, ns ? ns : "ns1", "default", ns ? "other" : "client");
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static const char *ask(const struct dns_zone *z, const char *client, const char *query, bool v6, char out[512])
{
	static struct dns_found found;
	struct dns_asker a = {store, z, client_in(client), 42};
	char text[8][ADDR_STRLEN], *sorted[8];
	enum dns_verdict v = dns_name_find(&a, query, v6, &found);
	size_t n = 0;

	assert_non_null(a.who);
	if (v != DNS_FOUND) {
		assert_int_equal(found.n, 0);
		return v == DNS_UNKNOWN ? "forward" : v == DNS_EMPTY ? "empty" : "no family";
	}
	if (found.alias[0])
		n = (size_t)snprintf(out, 512, "alias=%s ", found.alias);
	assert_in_range(found.n, 1, 8);
	for (unsigned i = 0; i < found.n; i++)
		sorted[i] = (char *)addr_str(&found.at[i], text[i]);
	qsort(sorted, found.n, sizeof *sorted, by_text);
	for (unsigned i = 0; i < found.n; i++)
		n += (size_t)snprintf(out + n, 512 - n, "%s%s", i ? " " : "", sorted[i]);
	return out;
}

static void test_names(void **state)
{
	char out[512];
	unsigned failed = 0;

	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *got = ask(&zone, rows[i].client, rows[i].query, rows[i].v6, out);

		if (strcmp(got, rows[i].want) != 0) {
			print_error("%s: %s: %s, not %s\n", rows[i].name, rows[i].query, got, rows[i].want);
			failed++;
		}
	}
	assert_int_equal(failed, 0);
}

static void test_without_ipv6(void **state)
{
	struct dns_zone z = zone;
	char out[512];

	z.ipv6 = false;
	assert_string_equal(ask(&z, NULL, "dual.test", true, out), "no family");
	assert_string_equal(ask(&z, NULL, "dual.test", false, out), "2.2.2.3");
	assert_string_equal(ask(&z, NULL, "db-0.db", true, out), "no family");
	assert_string_equal(ask(&z, NULL, "fd00-1--1.ns1.pod.cluster.local", true, out), "empty");
}

static void test_dedicated_search(void **state)
{
	struct dns_zone z = zone;
	char out[512];

	z.dedicated = true;
	z.n_search = 2;
	strcpy(z.search[0], "corp.test");
	strcpy(z.search[1], "lab.test");
	assert_string_equal(ask(&z, NULL, "www.example.com.lab.test", false, out), "alias=www.example.com 1.1.1.1");
	assert_string_equal(ask(&z, NULL, "www.example.com.ns1" K, false, out), "forward");
}

/* Of many endpoints each has its chance, in any order. */
static void test_many(void **state)
{
	enum { ALL = DNS_ADDRS_MAX + 200, ROUNDS = 64 };
	static struct dns_found found;
	struct store *s = store_new("");
	const struct rig_workload who = {"client", .ns = "ns1", .ips = "10.0.0.1"};
	const struct rig_service many[] = {{"many.ns1" K, "ns1"}, {0}};
	unsigned last = 0, first = 0;

	store_begin(s);
	store_insert_workload(s, rig_workload_new(&who));
	rig_add(s, NULL, many);
	for (unsigned i = 0; i < ALL; i++) {
		char name[16], ip[32];
		const struct rig_workload w = {name, .ns = "ns1", .ips = ip, .services = "ns1/many.ns1" K};

		snprintf(name, sizeof name, "w%u", i);
		snprintf(ip, sizeof ip, "10.1.%u.%u", i >> 8, i & 255);
		store_insert_workload(s, rig_workload_new(&w));
	}
	store_commit(s);
	store_read_lock();
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct dns_asker a = {s, &zone, store_local_workload(s, "ns1", "default", "client"), i};
		struct addr begin = rig_addr("10.1.0.0"), end;
		char text[ADDR_STRLEN];

		snprintf(text, sizeof text, "10.1.%u.%u", (ALL - 1) >> 8, (ALL - 1) & 255);
		end = rig_addr(text);
		assert_int_equal(dns_name_find(&a, "many", false, &found), DNS_FOUND);
		assert_int_equal(found.n, DNS_ADDRS_MAX);
		first += addr_eq(&found.at[0], &begin);
		for (unsigned k = 0; k < found.n; k++)
			last += addr_eq(&found.at[k], &end);
	}
	store_read_unlock();
	assert_in_range(last, 1, ROUNDS - 1);
	assert_in_range(first, 0, 3);
	store_free(s);
}

static void test_below(void **state)
{
	assert_true(dns_name_below("a.b", "b"));
	assert_true(dns_name_below("a.b.c", "b.c"));
	assert_false(dns_name_below("b", "b"));
	assert_false(dns_name_below("ab", "b"));
	assert_false(dns_name_below(".b", "b"));
	assert_false(dns_name_below("a.", ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_without_ipv6),
		cmocka_unit_test(test_dedicated_search),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_below),
	};
	int failed;

	store_thread_register();
	store = rig_store(workloads, services);
	store_read_lock();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	store_read_unlock();
	store_free(store);
	store_thread_unregister();
	return failed;
}
