/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of both CAs: what the embedded one signs, and the client of Istio's against a server of the same root. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "control/ca_client.h"
#include "control/ca_embedded.h"
#include "control/certs.h"
#include "fake/ca_service.h"
#include "net/tls.h"

#define ALICE "spiffe://cluster.local/ns/shop/sa/alice"

static const struct {
	const char *name, *spiffe;
	long ttl;
	bool good;
} identities[] = {
	{"plain", ALICE, 3600, true},
	{"comma stays in the name", "spiffe://td/ns/a/sa/b,URI:spiffe://td/ns/root/sa/root", 3600, true},
	{"empty", "", 3600, false},
	{"no scheme", "cluster.local/ns/a/sa/b", 3600, false},
	{"only the scheme", "spiffe://", 3600, false},
	{"control character", "spiffe://td/ns/a\n/sa/b", 3600, false},
	{"not ASCII", "spiffe://td/ns/\303\244/sa/b", 3600, false},
	{"no lifetime", ALICE, 0, false},
};

static void test_sign(void **state)
{
	char why[CA_WHY_MAX];
	struct ca_root *root = ca_root_new(NULL, NULL, why);

	for (size_t i = 0; i < sizeof identities / sizeof *identities; i++) {
		char *key, *csr, *leaf, reason[TLS_REASON_MAX];
		struct tls_id *id;

		assert_int_equal(csr_new(ALICE, &key, &csr), 0);
		leaf = ca_root_sign(root, csr, identities[i].spiffe, identities[i].ttl, why);
		if (!!leaf != identities[i].good)
			fail_msg("%s: %s", identities[i].name, leaf ? "signed" : why);
		id = leaf ? tls_id_new(key, leaf, ca_root_pem(root), false, reason) : NULL;
		if (leaf && (!id || strcmp(tls_id_spiffe(id), identities[i].spiffe) ||
			     tls_id_not_after(id) - time(NULL) > identities[i].ttl))
			fail_msg("%s: %s", identities[i].name, id ? tls_id_spiffe(id) : reason);
		tls_id_unref(id);
		free(leaf);
		free(csr);
		pem_key_free(key);
	}
	ca_root_free(root);
}

static void test_csr(void **state)
{
	char why[CA_WHY_MAX], *key, *csr, *uri, *at;
	struct ca_root *root = ca_root_new(NULL, NULL, why);

	assert_int_equal(csr_new(ALICE, &key, &csr), 0);
	uri = csr_identity(csr);
	assert_string_equal(uri, ALICE);
	assert_non_null(strstr(key, "BEGIN PRIVATE KEY"));
	assert_null(csr_identity("nonsense"));
	assert_null(ca_root_sign(root, "nonsense", ALICE, 60, why));
	at = strstr(csr, "\n") + 90; /* the signature no longer fits */
	*at = *at == 'A' ? 'B' : 'A';
	assert_null(ca_root_sign(root, csr, ALICE, 60, why));
	free(uri);
	free(csr);
	pem_key_free(key);
	ca_root_free(root);
}

static void test_root_from_files(void **state)
{
	char dir[] = "/tmp/culvert-ca-XXXXXX", cert[64], key[64], other[64], why[CA_WHY_MAX];
	struct ca_root *a = ca_root_new(NULL, NULL, why), *b;

	assert_non_null(mkdtemp(dir));
	snprintf(cert, sizeof cert, "%s/cert", dir);
	snprintf(key, sizeof key, "%s/key", dir);
	snprintf(other, sizeof other, "%s/other", dir);
	assert_int_equal(ca_root_save(a, cert, key), 0);
	b = ca_root_new(cert, key, why);
	assert_string_equal(ca_root_pem(a), ca_root_pem(b));
	ca_root_free(b);
	b = ca_root_new(NULL, NULL, why);
	assert_int_equal(ca_root_save(b, other, "/dev/null"), 0);
	assert_null(ca_root_new(other, key, why));
	assert_non_null(strstr(why, "not the key of"));
	assert_null(ca_root_new(key, key, why));
	assert_null(ca_root_new(cert, NULL, why));
	assert_null(ca_root_new("/nonexistent", key, why));
	ca_root_free(a);
	ca_root_free(b);
	unlink(cert);
	unlink(key);
	unlink(other);
	rmdir(dir);
}

/* --- the client ----------------------------------------------------------------------------------------- */

static struct ca_service service;
static struct server_request seen;
static struct server_reply first; /* what the first `refuse` requests get */
static unsigned requests, refuse;
static int64_t seen_ttl;
static char seen_identity[256];

static void serve(void *arg, const struct server_request *rq, struct server_reply *out)
{
	Istio__V1__Auth__IstioCertificateRequest *r =
		istio__v1__auth__istio_certificate_request__unpack(NULL, rq->len - GRPC_PREFIX, rq->body + GRPC_PREFIX);

	seen = *rq;
	seen_ttl = r->validity_duration;
	snprintf(seen_identity, sizeof seen_identity, "%s", ca_service_identity(r) ? ca_service_identity(r) : "");
	istio__v1__auth__istio_certificate_request__free_unpacked(r, NULL);
	if (requests++ >= refuse) {
		ca_service_serve(arg, rq, out);
		return;
	}
	*out = first;
	if (out->body) {
		out->body = malloc(out->len);
		memcpy(out->body, first.body, out->len);
	}
}

struct wait {
	struct loop *loop;
	struct timer late;
	struct cert_request r;
	bool good;
	char why[CERT_WHY_MAX];
};

static void waited(struct cert_request *r)
{
	struct wait *w = container_of(r, struct wait, r);

	w->good = r->id;
	snprintf(w->why, sizeof w->why, "%s", r->why);
	tls_id_unref(r->id);
	loop_stop(w->loop);
}

static void wait_late(struct timer *t)
{
	loop_stop(container_of(t, struct wait, late)->loop);
}

static void fetch(struct wait *w, const struct ca_client_options *o)
{
	char why[CA_WHY_MAX];
	struct ca *ca;
	struct certs *certs;

	memset(w, 0, sizeof *w);
	w->loop = loop_new();
	ca = ca_client_new(w->loop, o, why);
	assert_non_null(ca);
	certs = certs_new(w->loop, &(struct certs_options){.ca = ca});
	w->r.loop = w->loop;
	w->r.done = waited;
	strcpy(w->r.spiffe, ALICE);
	certs->ops->request(certs, &w->r, CERT_REALTIME);
	timer_set(w->loop, &w->late, 12000, wait_late);
	loop_run(w->loop);
	timer_cancel(&w->late);
	certs_free(certs);
	ca_free(ca);
	loop_free(w->loop);
}

static const struct {
	const char *name;
	const char *token; /* of the client; the server wants "good" */
	struct server_reply first;
	unsigned refuse, requests;
	bool impersonate, good;
	const char *why;
} fetches[] = {
	{"impersonated", "good", {0}, 0, 1, true, true, ""},
	{"by the request alone", "good", {0}, 0, 1, false, true, ""},
	{"bad token", "bad", {0}, 0, 1, true, false, "UNAUTHENTICATED: bad token"},
	{"no token", NULL, {0}, 0, 1, true, false, "UNAUTHENTICATED"},
	{"token that cannot be sent", "a b", {0}, 0, 0, true, false, "token: Invalid argument"},
	{"not ready at first", "good", {.status = 14}, 2, 3, true, true, ""},
	{"dropped at first", "good", {.drop = true}, 1, 2, true, true, ""},
	{"never ready", "good", {.status = 14, .message = "later"}, 99, CA_TRIES, true, false, "UNAVAILABLE: later"},
	{"refused for good", "good", {.status = 7, .message = "no"}, 99, 1, true, false, "PERMISSION_DENIED: no"},
	{"no message", "good", {.status = 0}, 1, 1, true, false, "empty"},
	{"not protobuf", "good", {.body = (uint8_t *)"\377\377", .len = 2}, 1, 1, true, false, "decoded"},
	{"no certificates", "good", {.body = (uint8_t *)"", .len = 0}, 1, 1, true, false, "0 certificates"},
	{"no root", "good", {.body = (uint8_t *)"\n\1x", .len = 3}, 1, 1, true, false, "1 certificates"},
	{"nonsense for certificates", "good", {.body = (uint8_t *)"\n\1x\n\1y", .len = 6}, 1, 1, true, false, ""},
};

static void test_client(void **state)
{
	char why[CA_WHY_MAX], address[64], file[] = "/tmp/culvert-token-XXXXXX";
	static const char *const names[] = {"127.0.0.1"};
	static const struct grpc_header extra[] = {{"x-extra", "more"}};
	struct ca_cert own;
	struct server *s;
	int fd = mkstemp(file);

	assert_int_equal(write(fd, "good\n", 5), 5);
	close(fd);
	service = (struct ca_service){.root = ca_root_new(NULL, NULL, why), .token = "good"};
	assert_int_equal(ca_root_server(service.root, names, 1, &own), 0);
	s = server_start(&(struct server_options){
		.host = "127.0.0.1", .serve = serve, .arg = &service, .key_pem = own.key, .chain_pem = own.chain});
	snprintf(address, sizeof address, "https://127.0.0.1:%u", s->port);
	for (size_t i = 0; i < sizeof fetches / sizeof *fetches; i++) {
		bool from_file = fetches[i].token && !strcmp(fetches[i].token, "good");
		struct wait w;

		requests = 0;
		refuse = fetches[i].refuse;
		first = fetches[i].first;
		fetch(&w, &(struct ca_client_options){.server = {.address = address, .root = ca_root_pem(service.root)},
						      .token = from_file ? file : fetches[i].token,
						      .cluster_id = "one",
						      .ttl_s = 1234,
						      .impersonate = fetches[i].impersonate,
						      .headers = extra,
						      .n_headers = 1});
		if (w.good != fetches[i].good || !strstr(w.why, fetches[i].why) || requests != fetches[i].requests ||
		    (!w.good && !w.why[0]))
			fail_msg("%s: %s, %s, %u requests", fetches[i].name, w.good ? "good" : "bad", w.why, requests);
		if (!w.good)
			continue;
		assert_string_equal(seen_identity, fetches[i].impersonate ? ALICE : "");
		assert_int_equal(seen_ttl, 1234);
		assert_string_equal(server_header(&seen, "clusterid"), "one");
		assert_string_equal(server_header(&seen, "authorization"), "Bearer good");
		assert_string_equal(server_header(&seen, "x-extra"), "more");
		assert_string_equal(server_header(&seen, "content-type"), "application/grpc");
	}
	server_stop(s);
	ca_cert_clear(&own);
	ca_root_free(service.root);
	unlink(file);
}

/* --- files that change under a channel that is in use ------------------------------------------------------ */

static struct {
	struct loop *loop;
	bool good;
	char why[CA_WHY_MAX];
} one;

static void one_done(void *arg, struct ca_cert *cert, const char *why)
{
	one.good = cert;
	snprintf(one.why, sizeof one.why, "%s", why ? why : "");
	loop_stop(one.loop);
}

static void one_fetch(struct ca *ca)
{
	assert_non_null(ca->fetch(ca, ALICE, one_done, NULL));
	loop_run(one.loop);
}

static void replace(const char *path, const char *text)
{
	char other[96];
	FILE *f;

	snprintf(other, sizeof other, "%s.new", path);
	f = fopen(other, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(rename(other, path), 0);
}

static void test_follows_files(void **state)
{
	static const char *const names[] = {"127.0.0.1"};
	char dir[] = "/tmp/culvert-ca-XXXXXX", root[64], token[64], address[64], why[CA_WHY_MAX];
	struct ca_root *stranger = ca_root_new(NULL, NULL, why), *mine = ca_root_new(NULL, NULL, why);
	const struct {
		const char *name, *root, *token; /* what is put into the files before the fetch */
		const char *why;		 /* "": it succeeds */
	} rows[] = {
		{"at first", NULL, NULL, ""},
		{"the same connection", NULL, NULL, ""},
		{"a token that is out of date", NULL, "old", "bad token"},
		{"the next token", NULL, "good\n", ""},
		{"another root: the server has to prove itself again", ca_root_pem(stranger), NULL, "certificate"},
		{"the root that it had", ca_root_pem(mine), NULL, ""},
		{"a root that is half there", "-----BEGIN CERTIFICATE-----\nMIIB", NULL, ""},
	};
	struct ca_cert own;
	struct server *s;
	struct ca *ca;

	assert_non_null(mkdtemp(dir));
	snprintf(root, sizeof root, "%s/root", dir);
	snprintf(token, sizeof token, "%s/token", dir);
	service = (struct ca_service){.root = mine, .token = "good"};
	replace(root, ca_root_pem(service.root));
	replace(token, "good");
	assert_int_equal(ca_root_server(service.root, names, 1, &own), 0);
	s = server_start(&(struct server_options){.host = "127.0.0.1",
						  .serve = ca_service_serve,
						  .arg = &service,
						  .key_pem = own.key,
						  .chain_pem = own.chain});
	snprintf(address, sizeof address, "https://127.0.0.1:%u", s->port);
	one.loop = loop_new();
	ca = ca_client_new(one.loop,
			   &(struct ca_client_options){.server = {.address = address, .root = root},
						       .token = token,
						       .cluster_id = "one",
						       .ttl_s = 60,
						       .impersonate = true},
			   why);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (rows[i].root)
			replace(root, rows[i].root);
		if (rows[i].token)
			replace(token, rows[i].token);
		one_fetch(ca);
		if (one.good != !*rows[i].why || !strstr(one.why, rows[i].why))
			fail_msg("%s: %s", rows[i].name, one.good ? "good" : one.why);
	}
	ca_free(ca);
	loop_free(one.loop);
	server_stop(s);
	ca_cert_clear(&own);
	ca_root_free(mine);
	ca_root_free(stranger);
	unlink(root);
	unlink(token);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sign),
		cmocka_unit_test(test_csr),
		cmocka_unit_test(test_root_from_files),
		cmocka_unit_test(test_client),
		cmocka_unit_test(test_follows_files),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("ca", tests, NULL, NULL);
}
