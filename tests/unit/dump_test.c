/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer, and /config_dump: pods with their connections, certificates, and the whole of it. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "admin/dump.h"
#include "admin_rig.h"
#include "base/log.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static char *finish(struct json *j)
{
	json_raw(j, "\n");
	assert_false(j->failed);
	j->p[j->len - 1] = '\0';
	return j->p;
}

/* --- the writer ---------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *in, *out;
} texts[] = {
	{"plain", "hello", "\"hello\""},
	{"empty", "", "\"\""},
	{"none", NULL, "null"},
	{"quote and backslash", "a\"b\\c", "\"a\\\"b\\\\c\""},
	{"control characters", "a\nb\tc\x01", "\"a\\u000ab\\u0009c\\u0001\""},
	{"two bytes", "\xc3\xa9", "\"\xc3\xa9\""},
	{"three bytes", "\xe2\x82\xac", "\"\xe2\x82\xac\""},
	{"four bytes", "\xf0\x9f\x99\x82", "\"\xf0\x9f\x99\x82\""},
	{"lone continuation", "a\x80z", "\"a\\ufffdz\""},
	{"cut at the end", "a\xe2\x82", "\"a\\ufffd\\ufffd\""},
	{"overlong", "\xc0\xaf", "\"\\ufffd\\ufffd\""},
	{"overlong of three", "\xe0\x80\x80", "\"\\ufffd\\ufffd\\ufffd\""},
	{"surrogate", "\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},
	{"beyond the last code point", "\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
	{"no UTF-8 at all", "\xff\xfe", "\"\\ufffd\\ufffd\""},
};

static void test_texts(void **state)
{
	for (size_t i = 0; i < COUNT(texts); i++) {
		struct json j = {0};

		json_text(&j, texts[i].in);
		if (strcmp(finish(&j), texts[i].out) != 0)
			fail_msg("%s: %s", texts[i].name, j.p);
		free(j.p);
	}
}

static void test_shape(void **state)
{
	struct json j = {0};

	json_open(&j, '{');
	json_key(&j, "empty");
	json_open(&j, '[');
	json_close(&j, ']');
	json_key(&j, "list");
	json_open(&j, '[');
	json_number(&j, UINT64_MAX);
	json_bool(&j, false);
	json_open(&j, '{');
	json_key_text(&j, "a\"", "b");
	json_key_some(&j, "left out", "");
	json_key_some(&j, "c", "d");
	json_close(&j, '}');
	json_close(&j, ']');
	json_close(&j, '}');
	assert_string_equal(finish(&j),
			    "{\n  \"empty\": [],\n  \"list\": [\n    18446744073709551615,\n    false,\n    {\n"
			    "      \"a\\\"\": \"b\",\n      \"c\": \"d\"\n    }\n  ]\n}");
	free(j.p);
}

/* --- pods ------------------------------------------------------------------------------------------------------------------ */

static struct dump_conn conn(const char *uid, bool inbound, const char *src, const char *original, const char *actual,
			     const char *host, bool hbone)
{
	struct dump_conn c = {.inbound = inbound, .hbone = hbone};

	strcpy(c.pod_uid, uid);
	strcpy(c.forwarded_host, host);
	assert_int_equal(endpoint_parse(&c.src, src), 0);
	assert_int_equal(endpoint_parse(&c.original_dst, original), 0);
	assert_int_equal(endpoint_parse(&c.actual_dst, actual), 0);
	return c;
}

static void test_pods(void **state)
{
	struct dump_pod pods[] = {
		{"u2", "b", "n", "sb", true}, {"u1", "a", "n", "sa", true}, {"u3", "c", "n", "sc", false}};
	struct dump_conn conns[] = {
		conn("u2", false, "10.0.0.2:1", "10.9.0.1:80", "10.0.1.1:15008", "", true),
		conn("gone", false, "10.0.0.9:9", "10.0.0.8:8", "10.0.0.8:8", "", false),
		conn("u1", false, "10.0.0.1:2", "[fd00::1]:80", "[fd00::1]:80", "", false),
		conn("u1", true, "10.0.0.7:3", "10.0.0.1:80", "10.0.0.1:80", "web.example", true),
		conn("u1", true, "10.0.0.7:4", "10.0.0.1:80", "10.0.0.1:80", "", false),
		conn("zz", true, "10.0.0.7:4", "10.0.0.1:80", "10.0.0.1:80", "", false),
	};
	struct tunnel_dump d = {pods, COUNT(pods), conns, COUNT(conns)};

	conns[0].cipher = "TLS_AES_128_GCM_SHA256";
	conns[0].kernel_tx = true;
	conns[2].hbone = conns[2].nested = true;

	static const char known[] =
		"workloads:\n- {uid: w1, name: a, namespace: n, serviceAccount: sa, workloadIps: [10.0.0.1]}\n"
		"- {uid: w2, name: b, namespace: n, serviceAccount: other, workloadIps: [10.0.0.2]}\n";
	static const char want[] =
		"{\"u1\":{\"connections\":{\"inbound\":["
		"{\"actualDst\":\"10.0.0.1:80\",\"originalDst\":\"web.example\",\"protocol\":\"HBONE\",\"src\":\"10.0."
		"0.7:3\"},"
		"{\"actualDst\":\"10.0.0.1:80\",\"originalDst\":null,\"protocol\":\"TCP\",\"src\":\"10.0.0.7:4\"}],"
		"\"outbound\":[{\"actualDst\":\"[fd00::1]:80\",\"originalDst\":\"[fd00::1]:80\",\"protocol\":"
		"\"DOUBLEHBONE\","
		"\"src\":\"10.0.0.1:2\"}]},"
		"\"inMesh\":true,\"info\":{\"name\":\"a\",\"namespace\":\"n\",\"serviceAccount\":\"sa\"},\"state\":"
		"\"Up\"},"
		"\"u2\":{\"connections\":{\"inbound\":[],\"outbound\":[{\"actualDst\":\"10.0.1.1:15008\","
		"\"originalDst\":\"10.9.0.1:80\",\"protocol\":\"HBONE\",\"src\":\"10.0.0.2:1\","
		"\"tls\":{\"cipher\":\"TLS_AES_128_GCM_SHA256\",\"rx\":\"user\",\"tx\":\"kernel\"}}]},"
		"\"inMesh\":false,\"info\":{\"name\":\"b\",\"namespace\":\"n\",\"serviceAccount\":\"sb\"},\"state\":"
		"\"Up\"},"
		"\"u3\":{\"connections\":{\"inbound\":[],\"outbound\":[]},"
		"\"inMesh\":false,\"info\":{\"name\":\"c\",\"namespace\":\"n\",\"serviceAccount\":\"sc\"},\"state\":"
		"\"Pending\"}}";
	struct json j = {0};
	json_t *got, *expected = json_loads(want, 0, NULL);
	struct store *s = store_new("");
	char why[LOCAL_REASON_MAX];

	assert_int_equal(local_load_text(s, "t", known, strlen(known), why), 0);
	store_thread_register();
	dump_pods(&j, &d, s);
	store_thread_unregister();
	store_free(s);
	got = json_loads(finish(&j), 0, NULL);
	assert_non_null(got);
	assert_non_null(expected);
	if (!json_equal(got, expected))
		fail_msg("%s", j.p);
	json_decref(got);
	json_decref(expected);
	free(j.p);
}

/* --- the whole, with a control thread, a CA and a data plane ----------------------------------------------------------------- */

static json_t *dumped(struct bed *b, bool all, size_t *len)
{
	struct http_response out = {.status = 200};
	json_error_t e;
	json_t *o;

	config_dump(&b->admin, all, &out);
	assert_int_equal(out.status, 200);
	assert_string_equal(out.content_type, "application/json");
	assert_int_equal(out.body[out.body_len - 1], '\n');
	o = json_loadb(out.body, out.body_len, JSON_REJECT_DUPLICATES, &e);
	if (!o)
		fail_msg("line %d: %s", e.line, e.text);
	free(out.body);
	*len = out.body_len;
	return o;
}

static json_t *whole(struct bed *b)
{
	size_t len;

	return dumped(b, true, &len);
}

/* Objects whose keys are fixed have them in alphabetical order. */
static void check_order(const json_t *o, const char *where)
{
	const char *key, *last = "";
	json_t *v;
	size_t i;

	if (json_is_array(o))
		json_array_foreach(o, i, v) check_order(v, where);
	json_object_foreach((json_t *)o, key, v)
	{
		if (strcmp(where, "ports") && strcmp(where, "port") && strcmp(last, key) >= 0)
			fail_msg("%s: %s after %s", where, key, last);
		last = key;
		check_order(v, key);
	}
}

static const char mesh[] =
	"workloads:\n- {uid: u1, name: a, namespace: n, workloadIps: [10.0.0.1], services: {n/h: {80: 1}, m/unknown: "
	"{90: 9}}}\n"
	"- {uid: u2, name: b, namespace: n, workloadIps: [10.0.0.2], services: {m/unknown: {}}}\n"
	"services:\n- {name: s, namespace: n, hostname: h, vips: [/10.9.0.1], ports: {80: 8080}}\n"
	"policies:\n- {name: p, namespace: n, scope: Namespace, action: Deny, dryRun: false, rules: []}\n";

static void check_counts(const json_t *o, int workloads, int services, int policies)
{
	const json_t *counts = json_object_get(o, "mesh");

	assert_int_equal(json_integer_value(json_object_get(counts, "workloads")), workloads);
	assert_int_equal(json_integer_value(json_object_get(counts, "services")), services);
	assert_int_equal(json_integer_value(json_object_get(counts, "policies")), policies);
}

static void test_whole(void **state)
{
	static const char *const keys[] = {"certificates", "config",  "policies",      "services", "stagedServices",
					   "staticConfig", "version", "workloadState", "workloads"};
	struct bed b;
	json_t *o;

	bed_open(&b, mesh);
	o = whole(&b);
	assert_int_equal(json_object_size(o), COUNT(keys));
	for (size_t i = 0; i < COUNT(keys); i++)
		assert_non_null(json_object_get(o, keys[i]));
	check_order(o, "dump");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "config"), "a")), 1);
	assert_int_equal(json_array_size(json_object_get(o, "workloads")), 2);
	assert_int_equal(json_object_size(json_object_get(json_object_get(o, "stagedServices"), "m/unknown")), 2);
	assert_int_equal(json_object_size(json_object_get(o, "stagedServices")), 1);
	assert_string_equal(json_string_value(json_object_get(json_object_get(o, "version"), "istioVersion")), "1.99");
	json_decref(o);
	bed_close(&b);
}

/* What a tunnel has that istiod feeds. */
struct parts {
	struct bed *b;
	struct crls *lists;
};

static void parts_up(void *arg)
{
	struct parts *p = arg;
	struct admin *a = &p->b->admin;
	char why[XDS_WHY_MAX];

	a->crl = crl_file_new(p->b->loop, p->lists, "/nonexistent", NULL, NULL);
	a->xds = xds_new(p->b->loop, a->store, &(struct xds_options){.server = {.address = "http://127.0.0.1:1"}}, why);
}

static void parts_down(void *arg)
{
	struct admin *a = arg;

	xds_free(a->xds);
	crl_file_free(a->crl);
}

/* All of it, whatever it has, is a mesh file. */
static void test_whole_is_a_mesh_file(void **state)
{
	static const struct ktls_features ktls;
	struct http_response out = {.status = 200};
	struct store *again = store_new("");
	struct parts p = {.lists = crls_new()};
	char why[LOCAL_REASON_MAX] = "";
	struct store_counts n;
	struct bed b;

	bed_open(&b, mesh);
	p.b = &b;
	assert_int_equal(xds_metrics_init(), 0);
	assert_int_equal(http_call(b.loop, parts_up, &p, NULL), 0);
	assert_non_null(b.admin.crl);
	assert_non_null(b.admin.xds);
	b.admin.ktls = &ktls;
	config_dump(&b.admin, true, &out);
	assert_int_equal(out.status, 200);
	for (const char *const *key = (const char *const[]){"crl", "ktls", "xds", NULL}; *key; key++) {
		char text[16];

		snprintf(text, sizeof text, "\n  \"%s\": {", *key);
		assert_non_null(memmem(out.body, out.body_len, text, strlen(text)));
	}
	if (local_load_text(again, "dump", out.body, out.body_len, why))
		fail_msg("%s", why);
	store_count(again, &n);
	assert_int_equal(n.workloads, 2);
	assert_int_equal(n.services, 1);
	assert_int_equal(n.policies, 1);
	free(out.body);
	store_free(again);
	assert_int_equal(http_call(b.loop, parts_down, &b.admin, NULL), 0);
	bed_close(&b);
	crls_free(p.lists);
}

static void test_brief(void **state)
{
	static const char *const keys[] = {"certificates", "config",  "mesh",
					   "staticConfig", "version", "workloadState"};
	struct bed b;
	size_t len;
	json_t *o;

	bed_open(&b, mesh);
	o = dumped(&b, false, &len);
	assert_int_equal(json_object_size(o), COUNT(keys));
	for (size_t i = 0; i < COUNT(keys); i++)
		assert_non_null(json_object_get(o, keys[i]));
	check_order(o, "dump");
	check_counts(o, 2, 1, 1);
	json_decref(o);
	bed_close(&b);
}

/* A dump is never cut, however large; a brief one is brief, however large the mesh. */
static void test_large(void **state)
{
	enum { MANY = 5000, BRIEF = 1024 };
	size_t len;
	char *text;
	FILE *f = open_memstream(&text, &len);
	struct bed b;
	json_t *o;

	fputs("workloads:\n", f);
	for (unsigned i = 0; i < MANY; i++)
		fprintf(f, "- {uid: u%05u, namespace: n, workloadIps: [10.0.%u.%u], services: {n/h: {80: 1}}}\n", i,
			i >> 8, i & 255);
	fputs("services:\n- {name: s, namespace: n, hostname: h, vips: [/10.9.0.1], ports: {80: 8080}}\n", f);
	fclose(f);
	bed_open(&b, text);
	o = whole(&b);
	assert_int_equal(json_array_size(json_object_get(o, "workloads")), MANY);
	assert_int_equal(
		json_object_size(json_object_get(json_array_get(json_object_get(o, "services"), 0), "endpoints")),
		MANY);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(json_object_get(o, "workloads"), MANY - 1), "uid")),
		"u04999");
	json_decref(o);
	o = dumped(&b, false, &len);
	check_counts(o, MANY, 1, 0);
	assert_in_range(len, 1, BRIEF);
	json_decref(o);
	free(text);
	bed_close(&b);
}

static const json_t *wait_certificate(struct bed *b, json_t **o, const char *state)
{
	for (unsigned i = 0; i < 500; i++) {
		const json_t *c;

		*o = whole(b);
		c = json_array_get(json_object_get(*o, "certificates"), 0);
		if (c && !strncmp(json_string_value(json_object_get(c, "state")), state, strlen(state)))
			return c;
		json_decref(*o);
	}
	fail_msg("never %s", state);
	return NULL;
}

static void test_certificates(void **state)
{
	struct bed b;
	const json_t *c, *x;
	json_t *o;

	bed_open(&b, "{}");
	certs_prefetch(b.admin.certs, "spiffe://cluster.local/ns/n/sa/a", CERT_WARMUP);
	c = wait_certificate(&b, &o, "Available");
	assert_string_equal(json_string_value(json_object_get(c, "identity")), "spiffe://cluster.local/ns/n/sa/a");
	assert_int_equal(json_array_size(json_object_get(c, "rootCerts")), 1);
	x = json_array_get(json_object_get(c, "certChain"), 0);
	assert_int_equal(json_object_size(x), 4);
	assert_memory_equal(json_string_value(json_object_get(x, "pem")), "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t", 36);
	assert_int_equal(strspn(json_string_value(json_object_get(x, "serialNumber")), "0123456789"),
			 strlen(json_string_value(json_object_get(x, "serialNumber"))));
	assert_int_equal(strlen(json_string_value(json_object_get(x, "validFrom"))), strlen("2026-01-01T00:00:00Z"));
	assert_true(strcmp(json_string_value(json_object_get(x, "validFrom")),
			   json_string_value(json_object_get(x, "expirationTime"))) < 0);
	check_order(o, "dump");
	json_decref(o);
	bed_close(&b);
}

static int setup(void **state)
{
	return log_set_filter("off");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),	     cmocka_unit_test(test_shape),
		cmocka_unit_test(test_pods),	     cmocka_unit_test(test_whole),
		cmocka_unit_test(test_brief),	     cmocka_unit_test(test_large),
		cmocka_unit_test(test_certificates), cmocka_unit_test(test_whole_is_a_mesh_file),
	};

	return cmocka_run_group_tests_name("dump", tests, setup, NULL);
}
