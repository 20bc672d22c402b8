/* SPDX-License-Identifier: Apache-2.0 */
/* Handshakes of net/tls against itself and against plain OpenSSL: who is accepted, who is refused and in which words,
 * and that each back end of the record layer loses nothing of what follows the handshake. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "net/tls.h"
#include "record_backends.h"
#include "tls_mint.h"

#define GOOD   "spiffe://cluster.local/ns/shop/sa/web"
#define OTHER  "spiffe://cluster.local/ns/shop/sa/db"
#define SAN(x) "URI:" x

static struct mint_ca root, stranger, middle;
static struct record_pool *pool;

static struct tls_id *make_id(const struct mint_ca *ca, const struct mint_leaf *leaf, const char *trust)
{
	char why[TLS_REASON_MAX] = "";
	struct mint_pem pem = mint_leaf(ca, leaf);
	struct tls_id *id;

	if (ca == &middle)
		pem.chain = mint_join(pem.chain, middle.pem);
	id = tls_id_new(pem.key, pem.chain, trust, false, why);
	if (!id)
		fail_msg("tls_id_new: %s", why);
	mint_pem_free(&pem);
	return id;
}

static struct tls_id *good_id(const char *san)
{
	return make_id(&root, &(struct mint_leaf){.san = san}, root.pem);
}

/* Drives both ends until neither moves; results as of tls_handshake_step(). */
static void run(struct tls_handshake *c, struct tls_handshake *s, int *c_err, int *s_err)
{
	uint32_t want;

	*c_err = *s_err = -EAGAIN;
	for (int i = 0; i < 20; i++) {
		if (*c_err == -EAGAIN)
			*c_err = tls_handshake_step(c, &want);
		if (*s_err == -EAGAIN)
			*s_err = tls_handshake_step(s, &want);
	}
}

struct sink {
	size_t n;
	char text[64];
};

static int keep(void *arg, uint8_t *p, size_t len)
{
	struct sink *s = arg;

	for (size_t i = 0; i < len && s->n < sizeof s->text - 1; i++)
		s->text[s->n++] = (char)p[i];
	return 0;
}

static const struct handshake_row {
	const char *name;
	struct mint_leaf client, server;
	const char *expect[3];
	int client_ca, server_ca; /* 0 root, 1 a stranger, 2 an intermediate of root */
	int client_err, server_err;
	const char *client_says, *server_says; /* parts of the reason */
} handshakes[] = {
	{"good", {SAN(GOOD)}, {SAN(OTHER)}, {OTHER}},
	{"any of the expected", {SAN(GOOD)}, {SAN(OTHER)}, {GOOD, "spiffe://a/ns/b/sa/c", OTHER}},
	{"intermediates", {SAN(GOOD)}, {SAN(OTHER)}, {OTHER}, 2, 2},
	{"RSA leaves", {SAN(GOOD), .key = "RSA"}, {SAN(OTHER), .key = "RSA"}, {OTHER}},
	{"P-384 leaf", {SAN(GOOD), .key = "P-384"}, {SAN(OTHER)}, {OTHER}},
	{"EKU that fits", {SAN(GOOD), "clientAuth"}, {SAN(OTHER), "serverAuth"}, {OTHER}},
	{"DNS name beside the URI", {SAN(GOOD) ",DNS:a.b"}, {SAN(OTHER) ",DNS:a.b"}, {OTHER}},
	{"server of another identity",
	 {SAN(GOOD)},
	 {SAN(OTHER)},
	 {GOOD},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 OTHER " is not an expected identity (sent alert certificate_unknown(46))",
	 "certificate_unknown"},
	{"expected is only a prefix",
	 {SAN(GOOD)},
	 {SAN(OTHER "2")},
	 {OTHER},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 "not an expected",
	 "certificate_unknown"},
	{"nobody expected",
	 {SAN(GOOD)},
	 {SAN(OTHER)},
	 {NULL},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 "not an expected",
	 "certificate_unknown"},
	{"server of a stranger's root",
	 {SAN(GOOD)},
	 {SAN(OTHER)},
	 {OTHER},
	 0,
	 1,
	 -EACCES,
	 -EPROTO,
	 "unknown_ca(48)",
	 "the peer sent alert unknown_ca(48)"},
	{"server expired",
	 {SAN(GOOD)},
	 {SAN(OTHER), .from = -100, .to = -50},
	 {OTHER},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 "certificate has expired (sent alert certificate_expired(45))",
	 "certificate_expired"},
	{"server without SPIFFE",
	 {SAN(GOOD)},
	 {"DNS:a.b"},
	 {OTHER},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 "no SPIFFE identity",
	 "certificate_unknown"},
	{"server with client EKU",
	 {SAN(GOOD)},
	 {SAN(OTHER), "clientAuth"},
	 {OTHER},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 "unsupported_certificate(43)",
	 "unsupported_certificate"},
	{"server, not yet valid",
	 {SAN(GOOD)},
	 {SAN(OTHER), .from = 60},
	 {OTHER},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 "not yet valid (sent alert certificate_expired(45))",
	 "certificate_expired"},
	/* The client is done before the server judges it; the alert comes in its record layer. */
	{"client of a stranger's root",
	 {SAN(GOOD)},
	 {SAN(OTHER)},
	 {OTHER},
	 1,
	 0,
	 0,
	 -EACCES,
	 "alert unknown_ca(48)",
	 "unknown_ca(48)"},
	{"client of another trust domain",
	 {SAN("spiffe://cluster.locals/ns/shop/sa/web")},
	 {SAN(OTHER)},
	 {OTHER},
	 0,
	 0,
	 0,
	 -EACCES,
	 "alert certificate_unknown(46)",
	 "not of our trust domain (sent alert certificate_unknown(46))"},
	{"client of a shorter trust domain",
	 {SAN("spiffe://cluster/ns/shop/sa/web")},
	 {SAN(OTHER)},
	 {OTHER},
	 0,
	 0,
	 0,
	 -EACCES,
	 "certificate_unknown",
	 "not of our trust domain"},
	{"client expired",
	 {SAN(GOOD), .from = -100, .to = -50},
	 {SAN(OTHER)},
	 {OTHER},
	 0,
	 0,
	 0,
	 -EACCES,
	 "alert certificate_expired(45)",
	 "certificate has expired"},
	{"client with server EKU",
	 {SAN(GOOD), "serverAuth"},
	 {SAN(OTHER)},
	 {OTHER},
	 0,
	 0,
	 0,
	 -EACCES,
	 "alert unsupported_certificate(43)",
	 "unsupported_certificate"},
	{"client without SPIFFE",
	 {NULL},
	 {SAN(OTHER)},
	 {OTHER},
	 0,
	 0,
	 0,
	 -EACCES,
	 "alert certificate_unknown(46)",
	 "no SPIFFE identity"},
	{"client with another scheme",
	 {"URI:https://cluster.local/ns/shop/sa/web"},
	 {SAN(OTHER)},
	 {OTHER},
	 0,
	 0,
	 0,
	 -EACCES,
	 "certificate_unknown",
	 "no SPIFFE identity"},
	{"own server certificate without SPIFFE",
	 {SAN(GOOD)},
	 {NULL},
	 {OTHER},
	 0,
	 0,
	 -EACCES,
	 -EPROTO,
	 "no SPIFFE",
	 "certificate_unknown"},
};

static const char *const roots[] = {"root", "stranger", "middle"};

static void test_handshakes(void **state)
{
	struct mint_ca *const cas[] = {&root, &stranger, &middle};

	for (size_t i = 0; i < sizeof handshakes / sizeof *handshakes; i++) {
		const struct handshake_row *row = &handshakes[i];
		struct tls_id *ci = make_id(cas[row->client_ca], &row->client, root.pem);
		struct tls_id *si = make_id(cas[row->server_ca], &row->server, root.pem);
		unsigned n = 0;
		int fd[2], ce, se;
		const char *client_says;
		struct record *r = NULL;
		struct tls_handshake *c, *s;

		while (n < 3 && row->expect[n])
			n++;
		backend_pair(fd);
		c = tls_client(fd[0], ci, row->expect, n);
		s = tls_server(fd[1], si);
		run(c, s, &ce, &se);
		if (ce != row->client_err || se != row->server_err)
			fail_msg("%s (%s, %s): client %d %s; server %d %s", row->name, roots[row->client_ca],
				 roots[row->server_ca], ce, tls_reason(c), se, tls_reason(s));
		client_says = tls_reason(c);
		if (!ce && se) {
			r = backend_take(tls_handshake_finish(c, pool));
			assert_non_null(r);
			assert_int_equal(record_recv(r, keep, &(struct sink){0}), -EPROTO);
			client_says = record_error(r);
		}
		if (row->client_says && !strstr(client_says, row->client_says))
			fail_msg("%s: client says: %s", row->name, client_says);
		if (row->server_says && !strstr(tls_reason(s), row->server_says))
			fail_msg("%s: server says: %s", row->name, tls_reason(s));
		if (!ce && !se) {
			assert_string_equal(tls_peer(s), GOOD);
			assert_string_equal(tls_peer(c), OTHER);
		} else if (se) {
			assert_string_equal(tls_peer(s), "");
			assert_null(tls_handshake_finish(s, pool));
		}
		tls_handshake_free(c);
		tls_handshake_free(s);
		if (!r)
			close(fd[0]);
		record_free(r);
		close(fd[1]);
		tls_id_unref(ci);
		tls_id_unref(si);
	}
}

/* Certificates that tls_id_new() itself would not load, so that only a peer can present them. */
static const struct {
	const char *name, *san, *says;
} odd_clients[] = {
	{"two identities, ours first", SAN(GOOD) "," SAN(OTHER), "exactly one"},
	{"two identities, ours last", SAN("spiffe://evil/ns/a/sa/b") "," SAN(GOOD), "exactly one"},
	{"another URI beside the identity", SAN(GOOD) ",URI:https://a.b/c", "exactly one"},
	{"no path", "URI:spiffe://cluster.local", "well-formed"},
	{"no trust domain", "URI:spiffe:///ns/shop/sa/web", "well-formed"},
	{"query", SAN(GOOD) "?x", "well-formed"},
	{"percent", "URI:spiffe://cluster.local/ns/shop/sa/%77eb", "well-formed"},
	{"port", "URI:spiffe://cluster.local:80/ns/shop/sa/web", "well-formed"},
	{"user", "URI:spiffe://a@cluster.local/ns/shop/sa/web", "well-formed"},
	{"upper-case scheme", "URI:SPIFFE://cluster.local/ns/shop/sa/web", "no SPIFFE"},
};

/* --- a plain OpenSSL peer over the other end of the pair ------------------------------------------------ */

struct plain {
	SSL_CTX *ctx;
	SSL *ssl;
};

static struct plain plain_new(int fd, bool server, const char *san, bool with_cert)
{
	struct plain p = {SSL_CTX_new(TLS_method()), NULL};
	struct mint_pem pem = mint_leaf(&root, &(struct mint_leaf){.san = san});
	BIO *key = BIO_new_mem_buf(pem.key, -1), *cert = BIO_new_mem_buf(pem.chain, -1);
	X509 *x = PEM_read_bio_X509(cert, NULL, NULL, NULL);
	EVP_PKEY *k = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);

	if (with_cert) {
		SSL_CTX_use_certificate(p.ctx, x);
		SSL_CTX_use_PrivateKey(p.ctx, k);
	}
	X509_free(x);
	EVP_PKEY_free(k);
	BIO_free(key);
	BIO_free(cert);
	mint_pem_free(&pem);
	p.ssl = SSL_new(p.ctx);
	SSL_set_fd(p.ssl, fd);
	if (server)
		SSL_set_accept_state(p.ssl);
	else
		SSL_set_connect_state(p.ssl);
	return p;
}

static void plain_free(struct plain *p)
{
	SSL_free(p->ssl);
	SSL_CTX_free(p->ctx);
	ERR_clear_error();
}

static int run_plain(struct tls_handshake *h, struct plain *p, bool *plain_done)
{
	int err = -EAGAIN;
	uint32_t want;

	*plain_done = false;
	for (int i = 0; i < 20; i++) {
		if (!*plain_done) {
			ERR_clear_error();
			*plain_done = SSL_do_handshake(p->ssl) == 1;
		}
		if (err == -EAGAIN)
			err = tls_handshake_step(h, &want);
	}
	return err;
}

static void test_odd_clients(void **state)
{
	struct tls_id *id = good_id(SAN(GOOD));

	for (size_t i = 0; i < sizeof odd_clients / sizeof *odd_clients; i++) {
		struct tls_handshake *s;
		struct plain p;
		bool done;
		int fd[2];

		backend_pair(fd);
		p = plain_new(fd[0], false, odd_clients[i].san, true);
		s = tls_server(fd[1], id);
		if (run_plain(s, &p, &done) != -EACCES || !strstr(tls_reason(s), odd_clients[i].says))
			fail_msg("%s: %s", odd_clients[i].name, tls_reason(s));
		tls_handshake_free(s);
		plain_free(&p);
		close(fd[0]);
		close(fd[1]);
	}
	tls_id_unref(id);
}

static const struct {
	const char *name;
	const char *alpn; /* wire form */
	bool no_cert;
	int max_version;
	const char *groups;
	int err;
	const char *says;
} plain_clients[] = {
	{"h2", "\2h2", .err = 0},
	{"no ALPN at all", NULL, .err = 0},
	{"h2 among others", "\10http/1.1\2h2", .err = 0},
	{"P-384 only", "\2h2", .groups = "P-384", .err = 0},
	{"P-256 only", "\2h2", .groups = "P-256", .err = 0},
	{"http/1.1 only", "\10http/1.1", .err = -EPROTO, .says = "no_application_protocol(120)"},
	{"h2c is not h2", "\3h2c", .err = -EPROTO, .says = "no_application_protocol(120)"},
	{"no certificate", "\2h2", .no_cert = true, .err = -EACCES,
	 .says = "the client has no certificate (sent alert certificate_required(116))"},
	{"TLS 1.2", "\2h2", .max_version = TLS1_2_VERSION, .err = -EPROTO, .says = "protocol_version(70)"},
	{"X448 only", "\2h2", .groups = "X448", .err = -EPROTO, .says = "handshake_failure(40)"},
};

static void test_plain_clients(void **state)
{
	struct tls_id *id = good_id(SAN(GOOD));

	for (size_t i = 0; i < sizeof plain_clients / sizeof *plain_clients; i++) {
		struct tls_handshake *s;
		struct plain p;
		bool done;
		int fd[2], err;

		backend_pair(fd);
		p = plain_new(fd[0], false, SAN(OTHER), !plain_clients[i].no_cert);
		if (plain_clients[i].alpn)
			SSL_set_alpn_protos(p.ssl, (const unsigned char *)plain_clients[i].alpn,
					    (unsigned)strlen(plain_clients[i].alpn));
		if (plain_clients[i].max_version)
			SSL_set_max_proto_version(p.ssl, plain_clients[i].max_version);
		if (plain_clients[i].groups)
			assert_int_equal(SSL_set1_groups_list(p.ssl, plain_clients[i].groups), 1);
		s = tls_server(fd[1], id);
		err = run_plain(s, &p, &done);
		if (err != plain_clients[i].err)
			fail_msg("%s: %d %s", plain_clients[i].name, err, tls_reason(s));
		if (plain_clients[i].says && !strstr(tls_reason(s), plain_clients[i].says))
			fail_msg("%s: %s", plain_clients[i].name, tls_reason(s));
		if (!err)
			assert_string_equal(tls_peer(s), OTHER);
		tls_handshake_free(s);
		plain_free(&p);
		close(fd[0]);
		close(fd[1]);
	}
	tls_id_unref(id);
}

static int accept_any(int ok, X509_STORE_CTX *store)
{
	return 1;
}

/* A server that does not speak as we do: TLS 1.2, tickets, early data. */
static void test_plain_server(void **state)
{
	static const char *const expect[] = {OTHER};
	struct tls_id *id = good_id(SAN(GOOD));
	struct tls_handshake *c;
	struct record *r;
	struct sink got = {0};
	struct plain p;
	uint32_t want;
	bool done;
	int fd[2];

	backend_pair(fd);
	p = plain_new(fd[0], true, SAN(OTHER), true);
	SSL_set_max_proto_version(p.ssl, TLS1_2_VERSION);
	c = tls_client(fd[1], id, expect, 1);
	assert_int_equal(run_plain(c, &p, &done), -EPROTO);
	assert_non_null(strstr(tls_reason(c), "protocol_version(70)"));
	assert_int_equal(tls_handshake_step(c, &want), -EPROTO); /* it stays so */
	tls_handshake_free(c);
	plain_free(&p);
	close(fd[0]);
	close(fd[1]);

	/* Two tickets and data come before the client has looked once. */
	backend_pair(fd);
	p = plain_new(fd[0], true, SAN(OTHER), true);
	SSL_set_verify(p.ssl, SSL_VERIFY_PEER, accept_any);
	SSL_set_num_tickets(p.ssl, 2);
	c = tls_client(fd[1], id, expect, 1);
	assert_int_equal(run_plain(c, &p, &done), 0);
	assert_true(done);
	assert_int_equal(SSL_write(p.ssl, "hello", 5), 5);
	r = backend_take(tls_handshake_finish(c, pool));
	tls_handshake_free(c);
	while (!got.n) /* the kernel hands out tickets one by one */
		assert_true(record_recv(r, keep, &got) >= 0);
	assert_string_equal(got.text, "hello");
	assert_int_equal(record_write(r, "world", 5), 0);
	assert_int_equal(record_flush(r), 0);
	assert_int_equal(SSL_read(p.ssl, got.text, sizeof got.text), 5);
	assert_memory_equal(got.text, "world", 5);
	SSL_shutdown(p.ssl);
	backend_arrive(fd[0], fd[1]);
	assert_int_equal(record_recv(r, keep, &got), -ENODATA);
	record_free(r);
	plain_free(&p);
	close(fd[0]);
	tls_id_unref(id);
}

/* The client's Finished and its first data reach the server in one piece, cut at `cut` bytes before the end. */
static void early_data_cut(struct tls_id *id, int cut)
{
	static const char *const expect[] = {GOOD};
	struct tls_handshake *c, *s;
	struct record *cr, *sr;
	struct sink got = {0};
	uint8_t glued[16384];
	int front[2], back[2];
	uint32_t want;
	ssize_t n;

	backend_pair(front);
	backend_pair(back);
	c = tls_client(front[0], id, expect, 1);
	s = tls_server(back[1], id);
	assert_int_equal(tls_handshake_step(c, &want), -EAGAIN);
	backend_arrive(front[0], front[1]);
	n = read(front[1], glued, sizeof glued);
	assert_int_equal(write(back[0], glued, (size_t)n), n);
	backend_arrive(back[0], back[1]);
	assert_int_equal(tls_handshake_step(s, &want), -EAGAIN);
	assert_int_equal(want, EPOLLIN);
	backend_arrive(back[1], back[0]);
	n = read(back[0], glued, sizeof glued);
	assert_int_equal(write(front[1], glued, (size_t)n), n);
	backend_arrive(front[1], front[0]);
	assert_int_equal(tls_handshake_step(c, &want), 0);
	cr = backend_take(tls_handshake_finish(c, pool));
	assert_int_equal(record_write(cr, "PRI * HTTP/2.0", 14), 0);
	assert_int_equal(record_flush(cr), 0);
	assert_int_equal(record_write(cr, " and more", 9), 0);
	assert_int_equal(record_flush(cr), 0);
	backend_arrive(front[0], front[1]);
	n = read(front[1], glued, sizeof glued);
	if (cut > n)
		cut = (int)n;
	assert_int_equal(write(back[0], glued, (size_t)(n - cut)), n - cut);
	backend_arrive(back[0], back[1]);
	if (tls_handshake_step(s, &want))
		n = -n; /* the cut is inside the handshake */
	assert_int_equal(write(back[0], glued + (n < 0 ? -n : n) - cut, (size_t)cut), cut);
	backend_arrive(back[0], back[1]);
	assert_int_equal(tls_handshake_step(s, &want), 0);
	sr = backend_take(tls_handshake_finish(s, pool));
	while (record_recv(sr, keep, &got) >= 0)
		;
	assert_string_equal(got.text, "PRI * HTTP/2.0 and more");
	assert_string_equal(tls_peer(s), GOOD);
	tls_handshake_free(c);
	tls_handshake_free(s);
	record_free(cr);
	record_free(sr);
	close(front[1]);
	close(back[0]);
}

static void test_early_data(void **state)
{
	struct tls_id *id = good_id(SAN(GOOD));

	for (int cut = 0; cut < 140; cut += backend_stride())
		early_data_cut(id, cut);
	tls_id_unref(id);
}

static void test_peer_goes_away(void **state)
{
	struct tls_id *id = good_id(SAN(GOOD));
	struct tls_handshake *s;
	uint32_t want = 0;
	int fd[2];

	backend_pair(fd);
	s = tls_server(fd[1], id);
	assert_int_equal(tls_handshake_step(s, &want), -EAGAIN);
	assert_int_equal(want, EPOLLIN);
	close(fd[0]);
	assert_int_equal(tls_handshake_step(s, &want), -ECONNRESET);
	assert_non_null(strstr(tls_reason(s), "hung up"));
	tls_handshake_free(s);
	close(fd[1]);

	backend_pair(fd);
	s = tls_server(fd[1], id);
	assert_int_equal(write(fd[0], "GET / HTTP/1.1\r\n\r\n", 18), 18);
	assert_int_equal(tls_handshake_step(s, &want), -EPROTO);
	assert_true(tls_reason(s)[0]);
	tls_handshake_free(s);
	close(fd[0]);
	close(fd[1]);

	/* A write to a closed peer is an error, not a signal. */
	backend_pair(fd);
	close(fd[0]);
	s = tls_client(fd[1], id, NULL, 0);
	assert_int_equal(tls_handshake_step(s, &want), -ECONNRESET);
	tls_handshake_free(s);
	close(fd[1]);
	tls_id_unref(id);
}

static void test_hello_size(void **state)
{
	static const struct {
		const char *name, *sent;
		size_t len;
		uint32_t size;
	} rows[] = {
		{"nothing", "", 0, 0},
		{"its first byte", "\x16", 1, 5},
		{"a byte less than its header", "\x16\x03\x01\x02", 4, 5},
		{"its header", "\x16\x03\x01\x02\x01", 5, 5 + 0x201},
		{"more than that", "\x16\x03\x01\x02\x01\x01\x00", 7, 5 + 0x201},
		{"the longest", "\x16\x03\x01\x40\x00", 5, 5 + 16384},
		{"too long", "\x16\x03\x01\x40\x01", 5, 0},
		{"an alert", "\x15\x03\x01\x00\x02", 5, 0},
		{"no TLS", "GET / HTTP/1.1", 14, 0},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint8_t all[16] = {0};
		int fd[2];

		backend_pair(fd);
		assert_int_equal(write(fd[0], rows[i].sent, rows[i].len), rows[i].len);
		for (int again = 0; again < 2; again++) /* it only looks */
			if (tls_hello_size(fd[1]) != rows[i].size)
				fail_msg("%s: %u", rows[i].name, tls_hello_size(fd[1]));
		assert_int_equal(rows[i].len ? read(fd[1], all, sizeof all) : 0, rows[i].len);
		close(fd[0]);
		assert_int_equal(tls_hello_size(fd[1]), 0);
		close(fd[1]);
	}
	assert_int_equal(tls_hello_size(-1), 0);
}

static void test_id(void **state)
{
	struct mint_pem pem = mint_leaf(&root, &(struct mint_leaf){.san = SAN(GOOD), .from = -10, .to = 100});
	struct mint_pem other = mint_leaf(&root, &(struct mint_leaf){.san = SAN(GOOD)});
	struct mint_pem twice = mint_leaf(&root, &(struct mint_leaf){.san = SAN(GOOD) "," SAN(OTHER)});
	char *cut = mint_join(strdup(pem.chain), "-----BEGIN CERTIFICATE-----\nMIIB\n");
	char *both = mint_join(strdup(stranger.pem), root.pem);
	const struct {
		const char *name, *key, *chain, *roots;
		bool ok;
	} rows[] = {
		{"good", pem.key, pem.chain, root.pem, true},
		{"two roots", pem.key, pem.chain, both, true},
		{"key of another leaf", other.key, pem.chain, root.pem, false},
		{"no key", "", pem.chain, root.pem, false},
		{"no chain", pem.key, "", root.pem, false},
		{"no roots", pem.key, pem.chain, "", false},
		{"text for roots", pem.key, pem.chain, "hello", false},
		{"cut chain", pem.key, cut, root.pem, false},
		{"cut roots", pem.key, pem.chain, cut, false},
		{"two identities", twice.key, twice.chain, root.pem, false},
	};
	char why[TLS_REASON_MAX];

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct tls_id *id;

		why[0] = '\0';
		id = tls_id_new(rows[i].key, rows[i].chain, rows[i].roots, false, why);
		if (!!id != rows[i].ok || !id != !!why[0])
			fail_msg("%s: %p %s", rows[i].name, (void *)id, why);
		if (id) {
			assert_string_equal(tls_id_spiffe(id), GOOD);
			assert_string_equal(tls_id_chain(id), rows[i].chain);
			assert_string_equal(tls_id_roots(id), rows[i].roots);
			assert_in_range(tls_id_not_after(id) - tls_id_not_before(id), 109, 111);
			assert_ptr_equal(tls_id_ref(id), id);
			tls_id_unref(id);
		}
		tls_id_unref(id);
	}
	/* Where OpenSSL has no ML-KEM, a policy that demands it must fail, not fall back. */
	why[0] = '\0';
	tls_id_unref(tls_id_new(pem.key, pem.chain, root.pem, true, why));
	assert_true(OPENSSL_VERSION_NUMBER >= 0x30500000L || strstr(why, "X25519MLKEM768"));
	free(cut);
	free(both);
	mint_pem_free(&pem);
	mint_pem_free(&other);
	mint_pem_free(&twice);
}

/* --- revocation lists ---------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	bool of_client; /* whose certificate is at stake; the other side has the lists */
	bool above;	/* the intermediate is revoked, not the leaf */
	bool later;	/* between the handshake and its end */
} revoked[] = {
	{"client", true, false, false},		  {"server", false, false, false},
	{"client's issuer", true, true, false},	  {"server's issuer", false, true, false},
	{"client, meanwhile", true, false, true}, {"server, meanwhile", false, false, true},
};

static void load_revoked(struct crls *lists, const struct tls_id *whose, bool above)
{
	char *list = above ? mint_crl_pem(&root, &(struct mint_crl){.revoked = {middle.pem}})
			   : mint_crl_pem(&middle, &(struct mint_crl){.revoked = {tls_id_chain(whose)}});
	char why[CRL_WHY_MAX];

	assert_int_equal(crls_load(lists, list, strlen(list), why), 0);
	free(list);
}

static void test_revoked(void **state)
{
	static const char *const expect[] = {OTHER};

	for (size_t i = 0; i < sizeof revoked / sizeof *revoked; i++) {
		struct tls_id *ci = make_id(&middle, &(struct mint_leaf){.san = SAN(GOOD)}, root.pem);
		struct tls_id *si = make_id(&middle, &(struct mint_leaf){.san = SAN(OTHER)}, root.pem);
		bool of_client = revoked[i].of_client;
		struct crls *lists = crls_new();
		struct tls_handshake *c, *s, *judge;
		struct crl_path *path;
		int fd[2], ce, se, err;

		tls_id_use_lists(of_client ? si : ci, lists);
		if (!revoked[i].later)
			load_revoked(lists, of_client ? ci : si, revoked[i].above);
		backend_pair(fd);
		c = tls_client(fd[0], ci, expect, 1);
		s = tls_server(fd[1], si);
		run(c, s, &ce, &se);
		judge = of_client ? s : c;
		err = of_client ? se : ce;
		if (revoked[i].later)
			load_revoked(lists, of_client ? ci : si, revoked[i].above);
		path = tls_take_path(judge);
		if (err != (revoked[i].later ? 0 : -EACCES) || crl_path_revoked(path) != revoked[i].later ||
		    tls_verdict(judge) != (revoked[i].later ? CRL_GOOD : CRL_REVOKED) ||
		    (err && !strstr(tls_reason(judge), "certificate revoked (sent alert certificate_revoked(44))")))
			fail_msg("%s: %d %s, verdict %d", revoked[i].name, err, tls_reason(judge), tls_verdict(judge));
		assert_int_equal(tls_verdict(of_client ? c : s), CRL_UNCHECKED);
		assert_null(tls_take_path(of_client ? c : s));
		assert_null(tls_take_path(judge)); /* it is handed out once */
		crl_path_free(path);
		tls_handshake_free(c);
		tls_handshake_free(s);
		close(fd[0]);
		close(fd[1]);
		tls_id_unref(ci);
		tls_id_unref(si);
		crls_free(lists);
	}
}

/* --- the key exchange of a policy ---------------------------------------------------------------------------- */

/* With the policy on both sides they agree; a peer without it has nothing to offer. */
static void test_pqc(void **state)
{
	static const char *const expect[] = {OTHER};
	struct mint_pem a = mint_leaf(&root, &(struct mint_leaf){.san = SAN(GOOD)});
	struct mint_pem b = mint_leaf(&root, &(struct mint_leaf){.san = SAN(OTHER)});
	struct tls_id *ci, *si;
	struct tls_handshake *c, *s;
	char why[TLS_REASON_MAX];
	struct plain p;
	int fd[2], ce, se;
	bool done;

	if (!tls_has_pqc()) {
		print_message("skip tls/pqc: this OpenSSL has no X25519MLKEM768 (3.5 and later)\n");
		goto out;
	}
	ci = tls_id_new(a.key, a.chain, root.pem, true, why);
	si = tls_id_new(b.key, b.chain, root.pem, true, why);
	assert_non_null(ci);
	assert_non_null(si);
	backend_pair(fd);
	c = tls_client(fd[0], ci, expect, 1);
	s = tls_server(fd[1], si);
	run(c, s, &ce, &se);
	assert_int_equal(ce, 0);
	assert_int_equal(se, 0);
	tls_handshake_free(c);
	tls_handshake_free(s);
	close(fd[0]);
	close(fd[1]);
	backend_pair(fd);
	p = plain_new(fd[0], false, SAN(GOOD), true);
	assert_int_equal(SSL_set1_groups_list(p.ssl, "X25519:P-256"), 1);
	s = tls_server(fd[1], si);
	assert_int_equal(run_plain(s, &p, &done), -EPROTO);
	tls_handshake_free(s);
	plain_free(&p);
	close(fd[0]);
	close(fd[1]);
	tls_id_unref(ci);
	tls_id_unref(si);
out:
	mint_pem_free(&a);
	mint_pem_free(&b);
}

static int setup(void **state)
{
	root = mint_ca("root", NULL);
	stranger = mint_ca("stranger", NULL);
	middle = mint_ca("middle", &root);
	pool = record_pool_new(4);
	return !pool;
}

static int teardown(void **state)
{
	mint_ca_free(&root);
	mint_ca_free(&stranger);
	mint_ca_free(&middle);
	record_pool_free(pool);
	return 0;
}

int main(void)
{
	const struct CMUnitTest once[] = {
		cmocka_unit_test(test_handshakes),    cmocka_unit_test(test_odd_clients),
		cmocka_unit_test(test_plain_clients), cmocka_unit_test(test_peer_goes_away),
		cmocka_unit_test(test_hello_size),    cmocka_unit_test(test_id),
		cmocka_unit_test(test_revoked),	      cmocka_unit_test(test_pqc),
	};
	/* What goes on behind the handshake. */
	const struct CMUnitTest each[] = {
		cmocka_unit_test(test_plain_server),
		cmocka_unit_test(test_early_data),
	};
	int failed = cmocka_run_group_tests_name("tls", once, setup, teardown);

	return failed + backends_run("tls", each, sizeof each / sizeof *each, true, setup, teardown);
}
