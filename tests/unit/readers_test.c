/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of the mesh state while it changes: what is known before and after a change is found all the time, by a reader
 * in the middle of a search and by threads that look as fast as they can. A miss would be a connection in plaintext, or
 * a policy that is not asked. */
#include <malloc.h>
#include <pthread.h>
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

/* --- a reader in the middle ---------------------------------------------------------------------------------------- */

enum key { BY_ADDR, BY_HOST, LOCAL, BY_SCOPE, BY_VIP, BY_CIDR, BY_HOSTNAME };

static const struct {
	const char *name;
	enum key key;
} middles[] = {
	{"a pod by address", BY_ADDR},
	{"a workload by host name", BY_HOST},
	{"a local pod", LOCAL},
	{"a policy by namespace", BY_SCOPE},
	{"a service by VIP", BY_VIP},
	{"a service by CIDR VIP", BY_CIDR},
	{"a service by its name", BY_HOSTNAME},
};

static void cursor_at(struct store *s, enum key key, struct index_cursor *c)
{
	struct addr ip = rig_addr("10.0.0.1"), vip = rig_addr("10.1.0.1"), net = rig_addr("10.2.0.0");

	switch (key) {
	case BY_ADDR:
		index_find(&s->workload_addrs, key_addr("", &ip), c);
		break;
	case BY_HOST:
		index_find(&s->workload_hosts, key_two("n", "x.example"), c);
		break;
	case LOCAL:
		index_find(&s->local_workloads, key_local("n", "default", "w"), c);
		break;
	case BY_SCOPE:
		index_find(&s->policy_scopes, hash_text(0, "n"), c);
		break;
	case BY_VIP:
		index_find(&s->service_vips, key_vip("", &vip, 32), c);
		break;
	case BY_CIDR:
		index_find(&s->service_vips, key_vip("", &net, 16), c);
		break;
	case BY_HOSTNAME:
		index_find(&s->service_hosts, hash_text(0, "h"), c);
		break;
	}
}

/* One of each kind under the keys above. */
static void put_all(struct store *s, const char *id, bool changed)
{
	struct rig_workload w[] = {
		{"w", id, "n", .hostname = "x.example", .ips = changed ? "10.9.9.9 10.0.0.1" : "10.0.0.1"}, {0}};
	struct rig_service v[] = {{"h", id, changed ? "10.2.0.0/16 10.9.9.9 10.1.0.1" : "10.1.0.1 10.2.0.0/16"}, {0}};

	store_begin(s);
	rig_add(s, w, v);
	store_insert_policy(s, rig_policy_new("n", id, POLICY_NAMESPACE, POLICY_DENY));
	store_commit(s);
}

static void remove_all(struct store *s, const char *id)
{
	char text[32];

	store_begin(s);
	store_remove_address(s, id);
	snprintf(text, sizeof text, "%s/h", id);
	store_remove_address(s, text);
	snprintf(text, sizeof text, "n/%s", id);
	store_remove_policy(s, text);
	store_commit(s);
}

/* An address and a VIP move between objects in one batch. The same readers as below check it under way; here what can be
 * seen between two calls of the writer. */
static void test_an_address_that_moves_is_known_all_the_time(void **state)
{
	struct rig_workload from[] = {{"a", .ns = "n", .ips = "10.0.0.1"}, {0}},
			    to[] = {{"b", .ns = "n", .ips = "10.0.0.1"}, {0}};
	struct addr ip = rig_addr("10.0.0.1");
	struct store *s = rig_store(from, NULL);

	from[0].ips = "10.0.0.2";
	store_begin(s);
	rig_add(s, from, NULL);
	assert_string_equal(store_workload_by_addr(s, "", &ip)->name, "a");
	rig_add(s, to, NULL);
	assert_string_equal(store_workload_by_addr(s, "", &ip)->name, "b");
	store_remove_address(s, "c//Pod/n/b");
	assert_null(store_workload_by_uid(s, "c//Pod/n/b"));
	assert_non_null(store_workload_by_addr(s, "", &ip));
	to[0].uid = "other";
	rig_add(s, to, NULL);
	store_commit(s);
	assert_string_equal(store_workload_by_addr(s, "", &ip)->uid, "other");
	store_begin(s);
	store_remove_address(s, "other");
	assert_string_equal(store_workload_by_addr(s, "", &ip)->uid, "other"); /* somebody else may come yet */
	store_commit(s);
	assert_null(store_workload_by_addr(s, "", &ip));
	store_begin(s);
	store_remove_address(s, "c//Pod/n/a"); /* never committed */
	store_free(s);
}

/* A reader has just passed another object of the same key when that one goes and what it looks for is replaced: had the
 * new one taken the gap, the reader would find neither. */
static void test_a_reader_in_the_middle_finds_what_is_replaced(void **state)
{
	for (size_t i = 0; i < sizeof middles / sizeof *middles; i++) {
		struct store *s = store_new("");
		struct index_cursor c;

		put_all(s, "passer", false);
		put_all(s, "stable", false);
		cursor_at(s, middles[i].key, &c);
		if (!index_next(&c))
			fail_msg("%s: nothing there", middles[i].name);
		remove_all(s, "passer");
		put_all(s, "stable", true);
		if (!index_next(&c))
			fail_msg("%s: lost", middles[i].name);
		store_free(s);
	}
}

/* --- readers while it changes ---------------------------------------------------------------------------------------- */

/* The writer replaces everything all the time, with other objects around that come and go; a reader must find each
 * object that is known all the time in every single lookup, whole. */
enum { READERS = 2, STABLE = 8, PUSHES = 3000 };

static struct store *shared;
static bool stop;

struct seen {
	unsigned long lookups, lost, torn;
};

/* The stable one, not a passer. */
static bool stable_workload(const struct workload *w, const char *name)
{
	return w && w->protocol == PROTO_HBONE && strcmp(w->name, name) == 0;
}

static bool stable_service(const struct service *v)
{
	return v && strcmp(v->ns, "n") == 0;
}

static unsigned stable_policies(const struct workload *client)
{
	struct policy *p[64];
	unsigned missing, n = store_policies_for(shared, client, p, 64, &missing), stable = 0;

	for (unsigned i = 0; i < n && i < 64; i++)
		stable += p[i]->name[0] != 'x';
	return stable;
}

static void look(struct seen *seen, const struct workload *client)
{
	struct addr vip = rig_addr("10.1.0.1"), cidr = rig_addr("10.2.3.4"), moving = rig_addr("10.3.0.1");

	seen->lost += !store_service_by_vip(shared, "", &moving, "n");
	for (unsigned i = 0; i < STABLE; i++) {
		char ip[32], name[16];
		snprintf(ip, sizeof ip, "10.0.0.%u", i);
		snprintf(name, sizeof name, "w%u", i);
		struct addr a = rig_addr(ip);
		const struct workload *w = store_workload_by_addr(shared, "", &a);
		seen->lost += !stable_workload(w, name);
		seen->lost += !stable_workload(store_local_workload(shared, "n", "default", name), name);
		seen->torn += w && !addr_eq(&w->ips[0], &a);
	}
	struct service *v = store_service_by_vip(shared, "", &vip, "n");
	seen->lost += !stable_service(v) + !stable_service(store_service_by_vip(shared, "", &cidr, "n")) +
		      !stable_service(store_service_exact(shared, "n", "h")) +
		      !stable_service(store_service_by_host(shared, "h", "n"));
	seen->torn += stable_service(v) && v->n_endpoints != STABLE;
	for (unsigned i = 0; stable_service(v) && i < v->n_endpoints; i++)
		seen->torn += strcmp(v->endpoints[i].part->hostname, "h") != 0;
	seen->lost += stable_policies(client) != 3;
	seen->lookups++;
}

static void *reader(void *arg)
{
	struct workload *client = rig_workload_new(&(struct rig_workload){"x", .ns = "n", .policies = "n/selected"});
	struct seen *seen = arg;

	store_thread_register();
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		struct service *kept;

		store_read_lock();
		look(seen, client);
		kept = service_ref(store_service_exact(shared, "n", "h"));
		store_read_unlock();
		store_thread_online(); /* a quiescent state: what was looked up may be gone now, what is kept not */
		seen->torn += kept->n_endpoints != STABLE;
		service_unref(kept);
	}
	store_thread_offline();
	store_thread_online();
	store_thread_unregister();
	workload_unref(client);
	return NULL;
}

/* Others with the same keys, which lose to the stable ones, leave gaps where these are looked for. */
static void passers(unsigned round)
{
	char name[16], uid[32], ip[32], ns[16], service[32], policy[32];

	for (unsigned i = 0; i < 2 * STABLE; i++) {
		unsigned who = (round * 7 + i * 5) % 32;
		snprintf(name, sizeof name, "w%u", who % STABLE);
		snprintf(uid, sizeof uid, "c/x/%u", who);
		snprintf(ip, sizeof ip, "10.0.0.%u", who % STABLE);
		snprintf(ns, sizeof ns, "x%u", who);
		snprintf(service, sizeof service, "x%u/h", who);
		snprintf(policy, sizeof policy, "n/x%u", who);
		struct rig_workload w = {name, uid, "n", .ips = ip, .tcp = true};
		struct rig_service v = {"h", ns, "10.1.0.1 10.2.0.0/16 10.3.0.1", .private = true};
		if ((round + i) % 3 == 0) {
			store_remove_address(shared, uid);
			store_remove_address(shared, service);
			store_remove_policy(shared, policy);
		} else {
			store_insert_workload(shared, rig_workload_new(&w));
			store_insert_service(shared, rig_service_new(&v));
			store_insert_policy(shared, rig_policy_new("n", ns, POLICY_NAMESPACE, POLICY_DENY));
		}
	}
}

/* From one service to the other and back, now in this order, now in that. */
static void move_vip(unsigned round)
{
	struct rig_service v[] = {{"odd", "n", round & 1 ? "10.3.0.1" : ""},
				  {"even", "n", round & 1 ? "" : "10.3.0.1"}};

	store_insert_service(shared, rig_service_new(&v[round >> 1 & 1]));
	store_insert_service(shared, rig_service_new(&v[!(round >> 1 & 1)]));
}

static void push(unsigned round)
{
	char name[16], ip[64];
	struct rig_service v = {"h", "n", round & 1 ? "10.1.0.1 10.2.0.0/16" : "10.2.0.0/16 10.1.0.1 10.9.0.0/24"};

	store_begin(shared);
	passers(round);
	for (unsigned i = 0; i < STABLE; i++) {
		snprintf(name, sizeof name, "w%u", i);
		snprintf(ip, sizeof ip, "10.0.0.%u 10.8.%u.%u", i, round & 0xff, i);
		struct rig_workload w = {name, .ns = "n", .ips = ip, .services = "n/h 80:80"};
		store_insert_workload(shared, rig_workload_new(&w));
	}
	store_insert_service(shared, rig_service_new(&v));
	move_vip(round);
	store_insert_policy(shared, rig_policy_new("root", "global", POLICY_GLOBAL, POLICY_DENY));
	store_insert_policy(shared, rig_policy_new("n", "namespace", POLICY_NAMESPACE, POLICY_DENY));
	store_insert_policy(shared, rig_policy_new("n", "selected", POLICY_SELECTOR, POLICY_DENY));
	store_commit(shared);
}

static void test_readers_never_miss_what_is_known_all_the_time(void **state)
{
	struct seen seen[READERS] = {0};
	pthread_t thread[READERS];

	stop = false;
	shared = store_new("");
	push(0);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, reader, &seen[i]), 0);
	for (unsigned round = 1; round <= PUSHES || !seen[0].lookups || !seen[1].lookups; round++)
		push(round);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(thread[i], NULL);
	store_free(shared);
	for (unsigned i = 0; i < READERS; i++)
		if (seen[i].lost || seen[i].torn)
			fail_msg("%lu lost, %lu torn in %lu rounds", seen[i].lost, seen[i].torn, seen[i].lookups);
}

int main(void)
{
	mallopt(M_PERTURB, 0x5a); /* what is freed does not look as before */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_an_address_that_moves_is_known_all_the_time, nothing_left),
		cmocka_unit_test_teardown(test_a_reader_in_the_middle_finds_what_is_replaced, nothing_left),
		cmocka_unit_test_teardown(test_readers_never_miss_what_is_known_all_the_time, nothing_left),
	};
	return cmocka_run_group_tests_name("readers", tests, NULL, NULL);
}
