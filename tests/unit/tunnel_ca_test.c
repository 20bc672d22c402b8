/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of what the tunnel's configuration makes of its CA: which one, what goes with each call, and what is refused before
 * the first one. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tunnel_ca.c"
#include "tunnel_istiod.c"

#include "fake/ca_service.h"

#define ALICE "spiffe://cluster.local/ns/shop/sa/alice"

static struct ca_service service;
static struct server_request seen;
static int64_t seen_ttl;
static bool seen_identity;
static char address[64];

static void serve(void *arg, const struct server_request *rq, struct server_reply *out)
{
	Istio__V1__Auth__IstioCertificateRequest *r =
		istio__v1__auth__istio_certificate_request__unpack(NULL, rq->len - GRPC_PREFIX, rq->body + GRPC_PREFIX);

	seen = *rq;
	seen_ttl = r->validity_duration;
	seen_identity = ca_service_identity(r);
	istio__v1__auth__istio_certificate_request__free_unpacked(r, NULL);
	ca_service_serve(arg, rq, out);
}

static struct tunnel_config config(void)
{
	return (struct tunnel_config){.ca_address = address,
				      .ca_root = ca_root_pem(service.root),
				      .alt_ca_hostname = "",
				      .auth_token = "",
				      .cluster_id = "Kubernetes",
				      .compliance = "",
				      .ca_cert = "",
				      .ca_key = "",
				      .secret_ttl_s = 3600};
}

struct one {
	struct loop *loop;
	bool good;
	char why[CA_WHY_MAX];
};

static void done(void *arg, struct ca_cert *cert, const char *why)
{
	struct one *o = arg;

	o->good = cert;
	snprintf(o->why, sizeof o->why, "%s", why ? why : "");
	loop_stop(o->loop);
}

static void fetch(const struct tunnel_config *c)
{
	struct one o = {.loop = loop_new()};
	char why[CONFIG_WHY_MAX] = "";
	struct ca *ca = tunnel_ca_new(o.loop, c, why);

	if (!ca)
		fail_msg("%s", why);
	memset(&seen, 0, sizeof seen);
	assert_non_null(ca->fetch(ca, ALICE, done, &o));
	loop_run(o.loop);
	if (!o.good)
		fail_msg("%s", o.why);
	ca_free(ca);
	loop_free(o.loop);
}

static void test_headers(void **state)
{
	struct tunnel_config c = config();

	setenv("CA_HEADER_X-Team", "Data Plane=1", 1);
	setenv("CA_HEADER_MESH_ID", "m", 1);
	c.auth_token = "a-token";
	setenv("AUTH_TOKEN", c.auth_token, 1);
	fetch(&c);
	assert_string_equal(server_header(&seen, "x-team"), "Data Plane=1");
	assert_string_equal(server_header(&seen, "mesh_id"), "m");
	assert_string_equal(server_header(&seen, "clusterid"), "Kubernetes");
	assert_string_equal(server_header(&seen, "authorization"), "Bearer a-token");
	assert_int_equal(seen_ttl, 3600);
	assert_true(seen_identity);
	unsetenv("CA_HEADER_X-Team");
	unsetenv("CA_HEADER_MESH_ID");
	unsetenv("AUTH_TOKEN");
}

/* A default that is not there is no token; and who is one workload impersonates nobody. */
static void test_alone(void **state)
{
	struct tunnel_config c = config();

	c.auth_token = "./var/run/secrets/tokens/istio-token";
	c.dedicated = true;
	fetch(&c);
	assert_null(server_header(&seen, "authorization"));
	assert_false(seen_identity);
}

static const struct {
	const char *name, *address, *root, *alt;
	unsigned headers;
	const char *header; /* one more, NAME */
	const char *why;
} wrong[] = {
	{"plaintext", "http://istiod:15010", NULL, "", 0, NULL, "only https is taken"},
	{"bad address", "istiod:0", NULL, "", 0, NULL, "CA_ADDRESS: https://istiod:0: bad port"},
	{"no root", NULL, "/nowhere/root-cert.pem", "", 0, NULL, "is not a readable file, nor SYSTEM"},
	{"as many headers as there may be", NULL, NULL, "", CA_HEADERS_MAX, NULL, NULL},
	{"one more", NULL, NULL, "", CA_HEADERS_MAX + 1, NULL, "at most 16 headers"},
	{"without a name", NULL, NULL, "", 0, "", "at most 16 headers with names of 63 bytes"},
	{"a long name", NULL, NULL, "", 0, "A123456789012345678901234567890123456789012345678901234567890123",
	 "names of 63 bytes"},
};

static void set_headers(unsigned n, bool on)
{
	for (unsigned i = 0; i < n; i++) {
		char name[32];

		snprintf(name, sizeof name, "CA_HEADER_N%u", i);
		if (on)
			setenv(name, "v", 1);
		else
			unsetenv(name);
	}
}

static void test_wrong(void **state)
{
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct tunnel_config c = config();
		char why[CONFIG_WHY_MAX] = "", name[128];
		struct loop *l = loop_new();
		struct ca *ca;

		if (wrong[i].address)
			c.ca_address = wrong[i].address;
		if (wrong[i].root)
			c.ca_root = wrong[i].root;
		set_headers(wrong[i].headers, true);
		snprintf(name, sizeof name, "CA_HEADER_%s", wrong[i].header ? wrong[i].header : "");
		if (wrong[i].header)
			setenv(name, "v", 1);
		ca = tunnel_ca_new(l, &c, why);
		if (!ca != !!wrong[i].why || (wrong[i].why && !strstr(why, wrong[i].why)))
			fail_msg("%s: %s", wrong[i].name, ca ? "taken" : why);
		ca_free(ca);
		loop_free(l);
		set_headers(wrong[i].headers, false);
		if (wrong[i].header)
			unsetenv(name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_wrong),
	};
	static const char *const names[] = {"127.0.0.1"};
	char why[CA_WHY_MAX];
	struct ca_cert own;
	struct server *s;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	service.root = ca_root_new(NULL, NULL, why);
	if (!service.root || ca_root_server(service.root, names, 1, &own))
		return 1;
	s = server_start(&(struct server_options){
		.host = "127.0.0.1", .serve = serve, .arg = &service, .key_pem = own.key, .chain_pem = own.chain});
	if (!s)
		return 1;
	snprintf(address, sizeof address, "https://127.0.0.1:%u", s->port);
	failed = cmocka_run_group_tests_name("tunnel_ca", tests, NULL, NULL);
	server_stop(s);
	ca_cert_clear(&own);
	ca_root_free(service.root);
	return failed;
}
