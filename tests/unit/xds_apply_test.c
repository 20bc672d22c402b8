/* SPDX-License-Identifier: Apache-2.0 */
/* Responses as a whole: what of them gets into the store, what is refused with which answer, what a full resync removes; and
 * bytes that are no response. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/xds_fields.h"
#include "state/arena.h"
#include "xds_rig.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define ADDRESS	 "type.googleapis.com/istio.workload.Address"
#define POLICY	 "type.googleapis.com/istio.security.Authorization"

/* --- fields --------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *bytes;
	size_t len;
	unsigned fields;
	bool bad;
} field_rows[] = {
	{"nothing", "", 0, 0, false},
	{"a text", "\x0a\x01x", 3, 1, false},
	{"an empty text", "\x0a\x00", 2, 1, false},
	{"a number", "\x08\x96\x01", 3, 1, false},
	{"fixed ones", "\x0d\1\2\3\4\x11\1\2\3\4\5\6\7\b", 14, 2, false},
	{"a text that is cut", "\x0a\x02x", 3, 0, true},
	{"a length that is cut", "\x0a\x80", 2, 0, true},
	{"a length beyond all", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10, 0, true},
	{"a number without end", "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12, 0, true},
	{"field 0", "\x02\x00", 2, 0, true},
	{"a group", "\x0b\x0c", 2, 0, true},
	{"wire type 7", "\x0f\x00", 2, 0, true},
	{"a fixed one that is cut", "\x0d\1\2\3", 4, 0, true},
	{"good, then bad", "\x0a\x01x\x0f", 4, 1, true},
	{"a field number beyond 29 bits", "\x82\x80\x80\x80\x80\x80\x01\x00", 8, 0, true},
};

static void test_fields(void **state)
{
	for (size_t i = 0; i < COUNT(field_rows); i++) {
		struct xds_fields f = xds_fields((const uint8_t *)field_rows[i].bytes, field_rows[i].len);
		unsigned n = 0;

		while (xds_field_next(&f))
			n++;
		if (n != field_rows[i].fields || f.bad != field_rows[i].bad)
			fail_msg("%s: %u fields, %s", field_rows[i].name, n, f.bad ? "bad" : "good");
	}
}

/* --- what is no response -------------------------------------------------------------------------------- */

static void test_no_response(void **state)
{
	struct store *s = store_new("");
	struct xds_result r;
	char nonce[XDS_NONCE_MAX + 2], type[XDS_TYPE_MAX + 2];
	struct rig_response *m;

	assert_int_equal(xds_apply(s, (const uint8_t *)"\x0f", 1, 0, NULL, &r), -EPROTO);
	memset(nonce, 'n', sizeof nonce - 1);
	nonce[sizeof nonce - 1] = '\0';
	assert_int_equal(rig_apply(s, rig_response(ADDRESS, nonce), 0, &r), -EPROTO);
	nonce[sizeof nonce - 2] = '\0';
	assert_int_equal(rig_apply(s, rig_response(ADDRESS, nonce), 0, &r), 0);
	assert_string_equal(r.nonce, nonce);
	memset(type, 't', sizeof type - 1);
	type[sizeof type - 1] = '\0';
	assert_int_equal(rig_apply(s, rig_response(type, "n"), 0, &r), -EPROTO);

	assert_int_equal(xds_apply(s, NULL, 0, 0, NULL, &r), 0); /* an empty message is one of no type */
	assert_int_equal(r.type, XDS_TYPES);
	m = rig_response("type.googleapis.com/envoy.config.cluster.v3.Cluster", "n3");
	rig_resource(m, "x", "1", "", 0);
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_int_equal(r.type, XDS_TYPES);
	assert_string_equal(r.nonce, "n3");
	assert_string_equal(r.type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
	store_free(s);
}

/* --- resources ------------------------------------------------------------------------------------------ */

#define TWO                                                                                            \
	"workloads:\n"                                                                                 \
	"- {uid: a, name: a, namespace: ns, workloadIps: [10.0.0.1], services: {ns/s.ns: {80: 80}}}\n" \
	"- {uid: b, name: b, namespace: ns, workloadIps: [10.0.0.2]}\n"                                \
	"services: [{name: s, namespace: ns, hostname: s.ns, vips: [/10.1.0.1], ports: {80: 80}}]\n"   \
	"policies:\n"                                                                                  \
	"- {name: p, namespace: ns, scope: Namespace, action: Deny, rules: [[]]}\n"                    \
	"- {name: q, namespace: ns, scope: Namespace, action: Allow, rules: [[]]}\n"

/* A store with the mesh above, by xDS. */
static struct store *filled(void)
{
	struct store *file = rig_load(TWO), *s = store_new("");
	struct xds_result r;

	assert_int_equal(rig_apply(s, rig_addresses(file), 0, &r), 0);
	assert_int_equal(r.type, XDS_ADDRESS);
	assert_int_equal(r.resources, 3);
	assert_string_equal(r.nonce, "n1");
	assert_int_equal(rig_apply(s, rig_policies(file), 0, &r), 0);
	assert_int_equal(r.type, XDS_AUTHORIZATION);
	store_free(file);
	return s;
}

static void add(struct rig_response *m, const char *name, const char *uid, const char *ip)
{
	char text[256];
	struct store *one;
	size_t len;
	uint8_t *p;

	snprintf(text, sizeof text, "workloads: [{uid: %s, name: %s, namespace: ns, workloadIps: [%s]}]", uid, uid, ip);
	one = rig_load(text);
	p = encode_workload(store_workload_by_uid(one, uid), &len);
	rig_resource(m, name, "abc", p, len);
	free(p);
	store_free(one);
}

static bool has(struct store *s, const char *uid)
{
	return store_workload_by_uid(s, uid);
}

static void test_good_beside_bad(void **state)
{
	struct store *s = filled();
	struct rig_response *m = rig_response(ADDRESS, "n");
	struct xds_result r;

	add(m, "c", "c", "10.0.0.3");
	rig_resource(m, "x1", "1", NULL, 0);
	rig_resource(m, "x2", "1", "\xff\xff", 2);
	rig_resource(m, "x3", "1", "", 0);
	add(m, "another", "d", "10.0.0.4");
	add(m, "b", "b", "10.0.0.22");
	rig_resource(m, "", "1", "", 0);
	rig_resource(m, "\xc3\x28\n", "1", "", 0);
	rig_removed(m, "a");
	rig_removed(m, "nobody");
	rig_removed(m, "a/b/c");
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_int_equal(r.resources, 8);
	assert_int_equal(r.rejected, 6);
	assert_int_equal(r.removed, 3);
	assert_string_equal(r.why, "x1: it is empty; x2: it cannot be decoded; x3: neither a workload nor a service; "
				   "another: the resource's name is not the workload's uid; "
				   "(no name): neither a workload nor a service; "
				   "?(?: neither a workload nor a service");
	assert_true(has(s, "c") && has(s, "b") && !has(s, "a") && !has(s, "d"));
	assert_true(addr_eq(&store_workload_by_uid(s, "b")->ips[0], &(struct addr){{[10] = 255, 255, 10, 0, 0, 22}}));
	assert_int_equal(arena_of(store_workload_by_uid(s, "c"))->version, 0xabc);
	store_free(s);
}

/* Of two resources of a name the later one counts. */
static void test_duplicates(void **state)
{
	struct store *s = store_new("");
	struct rig_response *m = rig_response(ADDRESS, "n");
	struct store_counts n;
	struct xds_result r;

	add(m, "c", "c", "10.0.0.3");
	add(m, "c", "c", "10.0.0.4");
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_string_equal(r.why, "");
	store_count(s, &n);
	assert_int_equal(n.workloads, 1);
	assert_true(store_workload_by_addr(s, "", &(struct addr){{[10] = 255, 255, 10, 0, 0, 4}}));
	assert_false(store_workload_by_addr(s, "", &(struct addr){{[10] = 255, 255, 10, 0, 0, 3}}));
	store_free(s);
}

static void test_removals(void **state)
{
	struct store *s = filled();
	struct rig_response *m = rig_response(ADDRESS, "n");
	struct store_counts n;
	struct xds_result r;

	add(m, "c", "c", "10.0.0.3");
	rig_removed(m, "c"); /* removals come last, whatever the order in the message */
	rig_removed(m, "ns/s.ns");
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	m = rig_response(POLICY, "n");
	rig_removed(m, "ns/p");
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	store_count(s, &n);
	assert_int_equal(n.workloads, 2);
	assert_int_equal(n.services, 0);
	assert_int_equal(n.policies, 1);
	assert_int_equal(n.staged_endpoints, 1);
	assert_null(store_policy(s, "ns/p"));
	store_free(s);
}

/* --- versions ------------------------------------------------------------------------------------------- */

static const struct {
	const char *text;
	uint64_t kept;
} versions[] = {
	{"", 0},
	{"1", 1},
	{"fedcba9876543210", 0xfedcba9876543210},
	{"123456789abcdef", 0x123456789abcdef},
	{"0abc", 0},
	{"ABC", 0},
	{"10000000000000000", 0},
	{"2026-11-26", 0},
	{"0", 0},
};

/* What is kept must give the same text again. */
static void test_versions(void **state)
{
	for (size_t i = 0; i < COUNT(versions); i++) {
		struct store *file = rig_load(TWO), *s = store_new("");
		struct rig_response *m = rig_response(ADDRESS, "n");
		struct xds_result r;
		char again[32];
		size_t len;
		uint8_t *p = encode_workload(store_workload_by_uid(file, "a"), &len);
		uint64_t got;

		rig_resource(m, "a", versions[i].text, p, len);
		assert_int_equal(rig_apply(s, m, 0, &r), 0);
		got = arena_of(store_workload_by_uid(s, "a"))->version;
		snprintf(again, sizeof again, "%" PRIx64, got);
		if (got != versions[i].kept || (got && strcmp(again, versions[i].text) != 0))
			fail_msg("\"%s\": %s", versions[i].text, again);
		free(p);
		store_free(s);
		store_free(file);
	}
}

/* --- whole responses ------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	unsigned whole;
	bool bad; /* something in it is refused */
	unsigned workloads, services, policies;
} wholes[] = {
	{"a change", 0, false, 3, 1, 2},
	{"all addresses", 1u << XDS_ADDRESS, false, 1, 0, 2},
	{"all policies are another type", 1u << XDS_AUTHORIZATION, false, 3, 1, 2},
	{"what was refused may be there already", 1u << XDS_ADDRESS, true, 3, 1, 2},
};

static void test_whole(void **state)
{
	for (size_t i = 0; i < COUNT(wholes); i++) {
		struct store *s = filled();
		struct rig_response *m = rig_response(ADDRESS, "n");
		struct store_counts n;
		struct xds_result r;

		add(m, "c", "c", "10.0.0.3");
		if (wholes[i].bad)
			rig_resource(m, "a", "2", "", 0);
		assert_int_equal(rig_apply(s, m, wholes[i].whole, &r), 0);
		store_count(s, &n);
		if (n.workloads != wholes[i].workloads || n.services != wholes[i].services ||
		    n.policies != wholes[i].policies)
			fail_msg("%s: %u workloads, %u services, %u policies", wholes[i].name, n.workloads, n.services,
				 n.policies);
		store_free(s);
	}
}

/* What comes again with the version that is there is the object that is there: nobody has to look at it. */
static void test_whole_again(void **state)
{
	struct store *s = filled(), *file = rig_load(TWO);
	struct workload *a = store_workload_by_uid(s, "a"), *b = store_workload_by_uid(s, "b");
	struct rig_response *m = rig_addresses(file);
	struct xds_result r;
	uint64_t before = store_version(s);

	assert_int_equal(rig_apply(s, m, 1u << XDS_ADDRESS, &r), 0);
	assert_int_equal(r.resources, 3);
	assert_ptr_equal(store_workload_by_uid(s, "a"), a);
	assert_int_equal(store_version(s), before);
	m = rig_addresses(file);
	assert_int_equal(rig_apply(s, m, 0, &r), 0); /* what istiod pushes is new to it */
	assert_ptr_not_equal(store_workload_by_uid(s, "a"), a);
	a = store_workload_by_uid(s, "a");
	b = store_workload_by_uid(s, "b");
	m = rig_response(ADDRESS, "n");
	add(m, "b", "b", "10.0.0.9"); /* another version */
	rig_resource(m, "a", "1", "", 0);
	assert_int_equal(rig_apply(s, m, 1u << XDS_ADDRESS, &r), 0);
	assert_string_equal(r.why, "");
	assert_ptr_equal(store_workload_by_uid(s, "a"), a);
	assert_ptr_not_equal(store_workload_by_uid(s, "b"), b);
	assert_null(store_service_exact(s, "ns", "s.ns"));
	store_free(file);
	store_free(s);
}

/* One name twice in a response: the last one stays, whatever their versions say. */
static void test_one_name_twice(void **state)
{
	for (unsigned whole = 0; whole < 2; whole++) {
		struct store *s = filled();
		struct rig_response *m = rig_response(ADDRESS, "n");
		struct xds_result r;
		struct addr last;

		add(m, "b", "b", "10.0.0.8");
		add(m, "b", "b", "10.0.0.9");
		assert_int_equal(rig_apply(s, m, whole << XDS_ADDRESS, &r), 0);
		assert_int_equal(addr_parse(&last, "10.0.0.9"), 0);
		if (!addr_eq(&store_workload_by_uid(s, "b")->ips[0], &last))
			fail_msg("whole %u", whole);
		store_free(s);
	}
}

static void test_whole_policies(void **state)
{
	struct store *s = filled();
	struct store_counts n;
	struct xds_result r;

	assert_int_equal(rig_apply(s, rig_response(POLICY, "n"), 1u << XDS_AUTHORIZATION, &r), 0);
	store_count(s, &n);
	assert_int_equal(n.policies, 0);
	assert_int_equal(n.workloads, 2);
	store_free(s);
}

/* The local file and istiod side by side: neither's resync takes what is the other's. */
static void test_beside_a_file(void **state)
{
	static const char file[] = "workloads: [{uid: f, name: f, namespace: ns, workloadIps: [10.0.0.9]}]";
	struct store *s = filled();
	struct store_counts n;
	struct xds_result r;
	char why[LOCAL_REASON_MAX];

	assert_int_equal(local_load_text(s, "file", file, sizeof file - 1, why), 0);
	store_count(s, &n);
	assert_int_equal(n.workloads, 3);
	assert_int_equal(n.policies, 2);
	assert_int_equal(rig_apply(s, rig_response(ADDRESS, "n"), XDS_TYPES | 1, &r), 0);
	store_count(s, &n);
	assert_int_equal(n.workloads, 1);
	assert_int_equal(n.services, 0);
	assert_true(has(s, "f"));
	assert_false(store_workload_is_xds(store_workload_by_uid(s, "f")));
	assert_int_equal(local_load_text(s, "file", "{}", 2, why), 0);
	store_count(s, &n);
	assert_int_equal(n.workloads, 0);
	assert_int_equal(n.policies, 2);
	store_free(s);
}

/* --- policies that are not understood ------------------------------------------------------------------- */

static void test_closed(void **state)
{
	struct store *s = filled();
	struct rig_response *m = rig_response(POLICY, "n");
	struct xds_result r;

	rig_resource(m, "ns/q", "", "\xff", 1); /* was an ALLOW that is understood */
	rig_resource(m, "ns/new", "", NULL, 0);
	rig_resource(m, "ns/scope", "", "\n\5scope\x12\2ns\x18\7", 13);
	rig_resource(m, "ns/other", "", "\n\4name\x12\2ns", 10);
	rig_resource(m, "nameless", "", "\xff", 1);
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_string_equal(r.why, "ns/q: it cannot be decoded; ns/new: it is empty; ns/scope: unknown scope 7; "
				   "ns/other: the resource's name is not NAMESPACE/NAME of the policy; "
				   "nameless: it cannot be decoded");
	assert_int_equal(r.closed, 4);
	assert_int_equal(r.rejected, 1);
	assert_true(store_policy(s, "ns/q")->unparseable && store_policy(s, "ns/q")->action == POLICY_DENY);
	assert_true(store_policy(s, "ns/new")->unparseable && store_policy(s, "ns/other")->unparseable);
	assert_true(store_policy(s, "ns/scope")->unparseable);
	assert_null(store_policy(s, "ns/name"));
	assert_false(store_policy(s, "ns/p")->unparseable);
	store_free(s);
}

/* --- sizes ---------------------------------------------------------------------------------------------- */

static void test_too_long(void **state)
{
	struct store *s = store_new("");
	uint8_t *big = calloc(1, XDS_RESOURCE_MAX);
	struct rig_response *m = rig_response(ADDRESS, "n");
	struct xds_result r;

	rig_resource(m, "big", "1", big, XDS_RESOURCE_MAX);
	add(m, "c", "c", "10.0.0.3");
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_string_equal(r.why, "big: it is too long");
	assert_true(has(s, "c"));
	m = rig_response(POLICY, "n");
	rig_resource(m, "ns/big", "", big, XDS_RESOURCE_MAX);
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_string_equal(r.why, "ns/big: it is too long");
	assert_true(store_policy(s, "ns/big")->unparseable);
	free(big);
	store_free(s);
}

/* Two bytes on the wire are a hundred in memory. */
static void test_bomb(void **state)
{
	enum { RULES = (XDS_RESOURCE_MAX - 100) / 2 };
	struct store *s = store_new("");
	uint8_t *bomb = malloc(2 * RULES + 10);
	struct rig_response *m = rig_response(POLICY, "n");
	struct xds_result r;

	memcpy(bomb, "\n\1p\x12\2ns", 7);
	for (size_t i = 0; i < RULES; i++)
		memcpy(bomb + 7 + 2 * i, "\x2a\0", 2); /* an empty rule */
	rig_resource(m, "ns/p", "", bomb, 7 + 2 * RULES);
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_string_equal(r.why, "ns/p: it cannot be decoded");
	assert_true(store_policy(s, "ns/p")->unparseable);
	free(bomb);
	store_free(s);
}

/* The answer has an end, however much was wrong. */
/* One for the whole mesh does not shrink to its namespace because it is not understood any more. */
static void test_closed_scope(void **state)
{
	static const char mesh[] = "policies: [{name: g, namespace: ns, scope: Global, action: Deny, rules: [[]]}]";
	struct store *file = rig_load(mesh), *s = store_new("");
	struct rig_response *m = rig_response(POLICY, "n");
	struct xds_result r;

	assert_int_equal(rig_apply(s, rig_policies(file), 0, &r), 0);
	rig_resource(m, "ns/g", "", "\xff", 1);
	rig_resource(m, "ns/never-seen", "", "\xff", 1);
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_int_equal(r.closed, 2);
	assert_true(store_policy(s, "ns/g")->unparseable);
	assert_int_equal(store_policy(s, "ns/g")->scope, POLICY_GLOBAL);
	assert_int_equal(store_policy(s, "ns/never-seen")->scope, POLICY_NAMESPACE);
	store_free(file);
	store_free(s);
}

static void test_long_answer(void **state)
{
	struct store *s = store_new("");
	struct rig_response *m = rig_response(ADDRESS, "n");
	char name[3000];
	struct xds_result r;

	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	for (unsigned i = 0; i < RIG_RESOURCES_MAX; i++)
		rig_resource(m, name, "1", "", 0);
	assert_int_equal(rig_apply(s, m, 0, &r), 0);
	assert_int_equal(r.rejected, RIG_RESOURCES_MAX);
	assert_true(strlen(r.why) < XDS_NACK_MAX);
	assert_non_null(strstr(r.why, "; and 51 more"));
	store_free(s);
}

/* --- names, for those who wait for one ------------------------------------------------------------------ */

static char heard[256];

/* A message goes on where it ended: fields that follow belong to it. */
static void add_aliases(struct rig_response *m, const char *name, const char *ip, char **aliases, size_t n)
{
	Envoy__Service__Discovery__V3__Resource more = ENVOY__SERVICE__DISCOVERY__V3__RESOURCE__INIT;
	ProtobufCBinaryData *r = &m->resource[m->m.n_resources];
	size_t len;
	uint8_t *p;

	add(m, name, name, ip);
	more.n_aliases = n;
	more.aliases = aliases;
	p = encoder_pack(&more.base, &len);
	r->data = realloc(r->data, r->len + len);
	assert_non_null(r->data);
	memcpy(r->data + r->len, p, len);
	r->len += len;
	free(p);
}

static void hear(void *arg, const char *name, bool removed)
{
	struct store *s = arg;

	snprintf(heard + strlen(heard), sizeof heard - strlen(heard), "%s%s ", removed ? "-" : "", name);
	if (!strcmp(name, "c"))
		assert_true(has(s, "c")); /* it is there when its name is told */
}

/* Of what was taken, not of what was refused: who waits for that is told that it did not come. */
static void test_names(void **state)
{
	struct store *s = store_new("");
	struct rig_response *m = rig_response(ADDRESS, "n");
	Envoy__Service__Discovery__V3__Resource more = ENVOY__SERVICE__DISCOVERY__V3__RESOURCE__INIT;
	char *aliases[] = {"net/10.0.0.3", "net/fd00::3"};
	const struct xds_listener l = {.named = hear, .arg = s};
	struct xds_result r;
	size_t len;
	uint8_t *p;

	rig_resource(m, "refused", "1", "", 0);
	add(m, "c", "c", "10.0.0.3");
	more.name = "refused, with aliases";
	more.n_aliases = 2;
	more.aliases = aliases;
	m->resource[m->m.n_resources].data = encoder_pack(&more.base, &m->resource[m->m.n_resources].len);
	m->m.n_resources++;
	add_aliases(m, "d", "10.0.0.4", (char *[]){"net/10.0.0.4", "net/fd00::4"}, 2);
	rig_resource(m, "refused as well", "1", "", 0);
	rig_removed(m, "net/10.0.0.7");
	p = rig_bytes(m, &len);
	assert_int_equal(xds_apply(s, p, len, 0, &l, &r), 0);
	assert_string_equal(heard, "c d net/10.0.0.4 net/fd00::4 -net/10.0.0.7 ");
	free(p);
	store_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_no_response),
		cmocka_unit_test(test_good_beside_bad),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_removals),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_whole_again),
		cmocka_unit_test(test_one_name_twice),
		cmocka_unit_test(test_whole_policies),
		cmocka_unit_test(test_beside_a_file),
		cmocka_unit_test(test_closed),
		cmocka_unit_test(test_closed_scope),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_bomb),
		cmocka_unit_test(test_long_answer),
		cmocka_unit_test(test_names),
	};
	int e;

	store_thread_register();
	e = cmocka_run_group_tests_name("xds apply", tests, NULL, NULL);
	store_thread_unregister();
	return e;
}
