/* SPDX-License-Identifier: Apache-2.0 */
/* Traces: what is said of a connection, step by step, over one mesh; whom names mean; and questions that are none. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "admin/trace.h"
#include "admin_rig.h"
#include "base/log.h"
#include "data/plane.h"
#include "data/pod.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char mesh[] =
	"workloads:\n"
	"- {uid: client, name: client, namespace: shop, serviceAccount: client, workloadIps: [10.0.0.1, 'fd00::1'], "
	"node: n1, "
	"protocol: HBONE}\n"
	"- {uid: web1, name: web1, namespace: shop, serviceAccount: web, workloadIps: [10.0.1.1, 'fd00:1::1'], node: "
	"n2, "
	"protocol: HBONE, services: {shop/web.shop.svc.cluster.local: {80: 8080}}, authorizationPolicies: "
	"[shop/no-9]}\n"
	"- {uid: web2, name: web2, namespace: shop, serviceAccount: web, workloadIps: [10.0.1.2], node: n2, "
	"protocol: HBONE, status: Unhealthy, services: {shop/web.shop.svc.cluster.local: {80: 8080}}}\n"
	"- {uid: web3, name: web3, namespace: shop, serviceAccount: web, workloadIps: [10.0.1.3], node: n2, "
	"protocol: HBONE, services: {shop/web.shop.svc.cluster.local: {81: 8080}}}\n"
	"- {uid: near, name: near, namespace: shop, workloadIps: [10.0.2.1], node: n1, locality: {region: r1}, "
	"protocol: HBONE, services: {shop/place.shop.svc.cluster.local: {80: 80}}}\n"
	"- {uid: db, name: db, namespace: shop, workloadIps: [10.0.3.1], node: n2, protocol: TCP}\n"
	"- {uid: locked, name: locked, namespace: vault, workloadIps: [10.0.4.1], node: n2, protocol: HBONE}\n"
	"- {uid: wp, name: wp, nativeTunnel: true, namespace: shop, workloadIps: [10.0.5.1], node: n2, protocol: "
	"HBONE}\n"
	"- {uid: behind, name: behind, namespace: shop, workloadIps: [10.0.5.2], node: n2, protocol: HBONE, "
	"waypoint: {destination: /10.0.5.1, hboneMtlsPort: 15008}}\n"
	"- {uid: twin1, name: twin, namespace: shop, workloadIps: [10.0.6.1], node: n2, protocol: HBONE}\n"
	"- {uid: twin2, name: twin, namespace: vault, workloadIps: [10.0.6.2], node: n2, protocol: HBONE}\n"
	"services:\n"
	"- {name: web, namespace: shop, hostname: web.shop.svc.cluster.local, vips: [/10.9.0.1, '/fd09::1'], ports: "
	"{80: 8080}}\n"
	"- {name: empty, namespace: shop, hostname: empty.shop.svc.cluster.local, vips: [/10.9.0.2], ports: {80: "
	"8080}}\n"
	"- {name: headless, namespace: shop, hostname: headless.shop.svc.cluster.local, vips: [], ports: {80: 8080}}\n"
	"policies:\n"
	"- {name: no-9, namespace: shop, scope: WorkloadSelector, action: Deny, dryRun: false, rules: "
	"[[[{destinationPorts: [9]}]], [[{destinationPorts: [99]}]]]}\n"
	"- {name: nobody, namespace: vault, scope: Namespace, action: Allow, dryRun: false, rules: "
	"[[[{principals: [!Exact cluster.local/ns/vault/sa/other]}]]]}\n";

static struct bed bed;

static json_t *ask(const char *query, int status)
{
	struct http_request rq = {.method = "GET", .path = "/trace", .query = query};
	struct http_response out = {.status = 200};
	json_t *o;

	trace_serve(&bed.admin, &rq, &out);
	if (out.status != status)
		fail_msg("%s: status %d: %s", query, out.status, out.body);
	assert_string_equal(out.content_type, "application/json");
	o = json_loadb(out.body, out.body_len, JSON_REJECT_DUPLICATES, NULL);
	if (!o)
		fail_msg("%s: %s", query, out.body);
	free(out.body);
	return o;
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static bool has_step(json_t *o, const char *topic, const char *want)
{
	json_t *s;
	size_t i;

	json_array_foreach(json_object_get(o, "steps"), i,
			   s) if (!strcmp(text(s, "topic"), topic) && strstr(text(s, "text"), want)) return true;
	return false;
}

static const struct {
	const char *name, *query;
	const char *kind, *hop, *outcome, *flag, *reason;
	const char *step[5][2]; /* topic, a part of the text */
} rows[] = {
	{"an HBONE pod",
	 "src=shop/client&dst=10.0.1.1&port=8080",
	 "hbone",
	 "10.0.1.1:15008",
	 "carried",
	 "-",
	 "",
	 {{"destination", "10.0.1.1 is workload shop/web1 on node \"n2\""},
	  {"protocol",
	   "HBONE to shop/web1, 10.0.1.1:15008, for 10.0.1.1:8080; it must be spiffe://cluster.local/ns/shop/sa/web"},
	  {"certificate", "no pod of this node"},
	  {"application", "10.0.1.1:8080"},
	  {"policy", "DENY shop/no-9: none of 2 rules matches; the last one fails at destination_ports"}}},
	{"over v6", "src=client&dst=fd00:1::1&port=8080", "hbone", "[fd00:1::1]:15008", "carried", "-", "", {{NULL}}},
	{"denied by a rule",
	 "src=client&dst=10.0.1.1&port=99",
	 "hbone",
	 "10.0.1.1:15008",
	 "denied",
	 "DENY",
	 "explicitly denied by: shop/no-9",
	 {{"policy", "DENY shop/no-9: rule 2 of 2 matches"}}},
	{"allowed to others only",
	 "src=client&dst=locked&port=80",
	 "hbone",
	 "10.0.4.1:15008",
	 "denied",
	 "DENY",
	 "allow policies exist, but none allowed",
	 {{"name", "locked is workload vault/locked, at 10.0.4.1"},
	  {"policy", "ALLOW vault/nobody: none of 1 rules matches; the last one fails at principals"}}},
	{"a service, and why not its other endpoints",
	 "src=client&dst=web&port=80",
	 "hbone",
	 "10.0.1.1:15008",
	 "carried",
	 "-",
	 "",
	 {{"name", "web is service shop/web.shop.svc.cluster.local, at 10.9.0.1"},
	  {"destination", "an address of service shop/web.shop.svc.cluster.local"},
	  {"endpoint", "shop/web1: fit, weight 1, port 8080; chosen here"},
	  {"endpoint", "shop/web2: not in rotation: it is not healthy"},
	  {"endpoint", "shop/web3: fit, weight 1, port 8080"}}},
	{"a service by its host name",
	 "src=client&dst=web.shop.svc.cluster.local&port=80",
	 "hbone",
	 "10.0.1.1:15008",
	 "carried",
	 "-",
	 "",
	 {{NULL}}},
	{"a service by a part of it",
	 "src=locked&dst=web.shop&port=80",
	 "hbone",
	 "10.0.1.1:15008",
	 "carried",
	 "-",
	 "",
	 {{NULL}}},
	{"a service by namespace and name",
	 "src=locked&dst=shop/web&port=80",
	 "hbone",
	 "10.0.1.1:15008",
	 "carried",
	 "-",
	 "",
	 {{NULL}}},
	{"a port that the service lacks",
	 "src=client&dst=web&port=81",
	 "refused",
	 "",
	 "refused",
	 "CONNECT",
	 "no healthy upstream",
	 {{"endpoint", "it has no port for this one"}, {"refused", "no healthy upstream"}}},
	{"a service without endpoints",
	 "src=client&dst=empty&port=80",
	 "refused",
	 "",
	 "refused",
	 "CONNECT",
	 "no healthy upstream",
	 {{"endpoint", "has 0 endpoints in rotation"}}},
	{"a pod that does not speak HBONE",
	 "src=client&dst=db&port=5432",
	 "plain",
	 "10.0.3.1:5432",
	 "carried",
	 "-",
	 "",
	 {{"protocol", "shop/db does not speak HBONE"}, {"policy", "none"}}},
	{"an address that nobody has",
	 "src=client&dst=203.0.113.9&port=443",
	 "plain",
	 "203.0.113.9:443",
	 "carried",
	 "-",
	 "",
	 {{"destination", "nothing in the mesh has the address 203.0.113.9"},
	  {"protocol", "plain TCP to 203.0.113.9:443"}}},
	{"a workload behind a waypoint",
	 "src=client&dst=behind&port=80",
	 "hbone",
	 "10.0.5.1:15008",
	 "carried",
	 "-",
	 "",
	 {{"waypoint", "the workload is behind waypoint 10.0.5.1, port 15008"}, {"policy", "the waypoint decides"}}},
	{"to the agent's own port",
	 "src=client&dst=10.0.0.1&port=15008",
	 "refused",
	 "",
	 "refused",
	 "CONNECT",
	 "attempted recursive call to ourselves",
	 {{NULL}}},
	{"to the agent's port elsewhere",
	 "src=client&dst=10.0.1.1&port=15006",
	 "hbone",
	 "10.0.1.1:15008",
	 "refused",
	 "CONNECT",
	 "attempted recursive call to ourselves",
	 {{"application", "refused with status 503"}}},
	{"a source by its address",
	 "src=10.0.0.1&dst=10.0.1.1&port=1",
	 "hbone",
	 "10.0.1.1:15008",
	 "carried",
	 "-",
	 "",
	 {{NULL}}},
	{"a source by its uid",
	 "src=twin2&dst=10.0.1.1&port=1",
	 "hbone",
	 "10.0.1.1:15008",
	 "carried",
	 "-",
	 "",
	 {{NULL}}},
};

static void test_rows(void **state)
{
	for (size_t i = 0; i < COUNT(rows); i++) {
		json_t *o = ask(rows[i].query, 200), *route = json_object_get(o, "route");
		char *all = json_dumps(o, JSON_INDENT(1));

		if (strcmp(text(o, "outcome"), rows[i].outcome) || strcmp(text(o, "flag"), rows[i].flag) ||
		    strcmp(text(o, "reason"), rows[i].reason) || strcmp(text(route, "kind"), rows[i].kind) ||
		    strcmp(text(route, "nextHop"), rows[i].hop))
			fail_msg("%s: %s", rows[i].name, all);
		for (unsigned k = 0; k < 5 && rows[i].step[k][0]; k++)
			if (!has_step(o, rows[i].step[k][0], rows[i].step[k][1]))
				fail_msg("%s: no \"%s\": %s", rows[i].name, rows[i].step[k][1], all);
		free(all);
		json_decref(o);
	}
}

static const struct {
	const char *name, *query, *error;
} wrong[] = {
	{"nothing", "", "usage"},
	{"no port", "src=client&dst=web", "usage"},
	{"port 0", "src=client&dst=web&port=0", "usage"},
	{"no number", "src=client&dst=web&port=http", "usage"},
	{"an empty source", "src=&dst=web&port=80", "usage"},
	{"an unknown source", "src=nobody&dst=web&port=80", "no pod, no workload is called nobody"},
	{"an address of nobody as the source", "src=203.0.113.1&dst=web&port=80", "no workload has the address"},
	{"two workloads of that name", "src=twin&dst=web&port=80", "several workloads"},
	{"two workloads of that name as the destination", "src=client&dst=twin&port=80", "several workloads"},
	{"an unknown name", "src=client&dst=nothing.example&port=80", "nothing in the mesh is called nothing.example"},
	{"a service without an address", "src=client&dst=headless&port=80", "has no address of its own"},
	{"a service of another namespace by its name alone", "src=locked&dst=web&port=80", "nothing in the mesh"},
};

static void test_wrong(void **state)
{
	for (size_t i = 0; i < COUNT(wrong); i++) {
		json_t *o = ask(wrong[i].query, 400);

		if (!strstr(text(o, "error"), wrong[i].error))
			fail_msg("%s: %s", wrong[i].name, text(o, "error"));
		json_decref(o);
	}
}

/* --- the certificate of a pod of this node ---------------------------------------------------------------------- */

#define CLIENT "spiffe://cluster.local/ns/shop/sa/client"
enum { TTL_S = 2, LOOK_US = 20000, PATIENCE_S = 20 };

static struct ca *short_lived;
static unsigned fetches;

/* The CA gives one certificate and no other. */
static struct ca_fetch *fetch_once(struct ca *c, const char *spiffe, ca_done *done, void *arg)
{
	return fetches++ ? NULL : short_lived->fetch(short_lived, spiffe, done, arg);
}

static void fetch_cancel(struct ca_fetch *f)
{
	short_lived->cancel(f);
}

static void free_certs(void *certs)
{
	certs_free(certs);
}

/* Asks until the certificate has the state. */
static json_t *ask_until(const char *state)
{
	for (unsigned n = 0; n < PATIENCE_S * 1000000u / LOOK_US; n++) {
		json_t *o = ask("src=client&dst=10.0.1.1&port=8080", 200);

		if (!strcmp(text(json_object_get(o, "certificate"), "state"), state))
			return o;
		json_decref(o);
		usleep(LOOK_US);
	}
	fail_msg("never %s", state);
	return NULL;
}

static const struct {
	const char *state, *outcome, *flag, *reason, *step;
	bool expires; /* it is told when */
} lives[] = {
	{"Absent", "carried", "-", "", "there is none yet", false},
	{"Available", "carried", "-", "", "there is one", true},
	{"Unavailable", "refused", "IDENTITY_ERROR", "out of memory", "cannot be had: out of memory", true},
};

static void test_certificate(void **state)
{
	struct certs *before = bed.admin.certs;
	struct ca once = {.fetch = fetch_once, .cancel = fetch_cancel};
	static struct pod pod = {.uid = "u1", .ns = "shop", .name = "client", .sa = "client"};
	char why[CA_WHY_MAX];

	short_lived = ca_embedded_new(bed.loop, &(struct ca_embedded_options){.ttl_s = TTL_S}, why);
	assert_non_null(short_lived);
	bed.admin.certs =
		certs_new(bed.loop, &(struct certs_options){.ca = &once, .refresh_min_ms = 100, .retry_ms = 100});
	list_add(&bed.admin.data->pods, &pod.link); /* nobody looks before he is asked */
	bed.admin.data->n_pods++;
	for (size_t i = 0; i < COUNT(lives); i++) {
		json_t *o = ask_until(lives[i].state), *cert = json_object_get(o, "certificate");
		char *all = json_dumps(o, JSON_INDENT(1));

		if (strcmp(text(o, "outcome"), lives[i].outcome) || strcmp(text(o, "flag"), lives[i].flag) ||
		    strcmp(text(o, "reason"), lives[i].reason) || !has_step(o, "certificate", lives[i].step) ||
		    !*text(cert, "expirationTime") == lives[i].expires)
			fail_msg("%s: %s", lives[i].state, all);
		free(all);
		json_decref(o);
		if (i == 0)
			certs_prefetch(bed.admin.certs, CLIENT, CERT_REALTIME);
	}
	list_del(&pod.link);
	bed.admin.data->n_pods--;
	assert_int_equal(http_call(bed.loop, free_certs, bed.admin.certs, NULL), 0);
	bed.admin.certs = before;
	ca_free(short_lived);
}

/* --- who is asked ------------------------------------------------------------------------------------------------- */

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static void wait_for_it(struct loop *l, struct msg *m)
{
	pthread_mutex_lock(&held);
	pthread_mutex_unlock(&held);
}

/* A worker that is busy carries its connections; no trace needs it. */
static void test_no_worker_is_asked(void **state)
{
	static struct msg busy;
	struct http_request rq = {.method = "GET", .path = "/trace", .query = "src=client&dst=10.0.1.1&port=8080"};
	struct http_response out = {.status = 200};

	pthread_mutex_lock(&held);
	loop_post(bed.admin.data->worker[0]->loop, &busy, wait_for_it);
	trace_serve(&bed.admin, &rq, &out);
	pthread_mutex_unlock(&held);
	assert_int_equal(out.status, 200);
	free(out.body);
}

/* A list of steps is bounded, and says what it left out. */
static void test_steps_are_bounded(void **state)
{
	struct why steps = {0}, *w = &steps;

	for (unsigned i = 0; i < WHY_STEPS_MAX + 7; i++)
		WHY(w, "t", "%0*u", 2 * WHY_TEXT_MAX, i);
	assert_int_equal(w->n, WHY_STEPS_MAX);
	assert_int_equal(w->left_out, 7);
	assert_int_equal(strlen(w->step[0].text), WHY_TEXT_MAX - 1);
	why_free(w);
	assert_int_equal(w->n, 0);
}

static int setup(void **state)
{
	log_set_filter("off");
	bed_open(&bed, mesh);
	return 0;
}

static int teardown(void **state)
{
	bed_close(&bed);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_certificate),
		cmocka_unit_test(test_no_worker_is_asked),
		cmocka_unit_test(test_steps_are_bounded),
	};

	return cmocka_run_group_tests_name("trace", tests, setup, teardown);
}
