/* SPDX-License-Identifier: Apache-2.0 */
/* net/tls and net/record against the programs `openssl s_server` and `openssl s_client`, over a Unix socket:
 *
 *   this test --- handshake, records --- openssl --- pipes --- this test
 *
 * Bulk data both ways at once, key updates that the peer asks for, both ciphers, refusals. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/evp.h>

#include "net/tls.h"
#include "tls_mint.h"

#define GOOD "spiffe://cluster.local/ns/shop/sa/web"

enum { PATIENCE_MS = 20000 };

static char dir[] = "/tmp/tls_peers.XXXXXX";
static struct record_pool *pool;
static struct tls_id *id;

static void write_file(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

struct child {
	pid_t pid;
	int in, out; /* its stdin and stdout */
};

static struct child spawn(const char *options)
{
	struct child c = {0};
	char command[1024];
	int in[2], out[2];

	snprintf(command, sizeof command, "cd %s && exec openssl %s 2>stderr", dir, options);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	c.pid = fork();
	if (!c.pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	c.in = in[1];
	c.out = out[0];
	fcntl(c.in, F_SETFL, O_NONBLOCK);
	fcntl(c.out, F_SETFL, O_NONBLOCK);
	return c;
}

static void child_end(struct child *c)
{
	if (c->in >= 0)
		close(c->in);
	if (c->out >= 0)
		close(c->out);
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

static struct sockaddr_un socket_path(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof a.sun_path, "%s/sock", dir);
	return a;
}

static int dial(void)
{
	struct sockaddr_un a = socket_path();
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	for (int i = 0; connect(fd, (struct sockaddr *)&a, sizeof a); i++) {
		assert_true(i < PATIENCE_MS / 10);
		usleep(10000);
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static int listen_here(void)
{
	struct sockaddr_un a = socket_path();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(a.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static int accept_one(int listener)
{
	struct pollfd p = {listener, POLLIN, 0};
	int fd;

	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int handshake(struct tls_handshake *h, int fd)
{
	uint32_t want = 0;
	int err;

	while ((err = tls_handshake_step(h, &want)) == -EAGAIN) {
		struct pollfd p = {fd, want == EPOLLIN ? POLLIN : POLLOUT, 0};

		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	}
	return err;
}

/* A stream of digits, so that openssl takes none for a command. */
struct stream {
	size_t left;
	uint32_t x;
	EVP_MD_CTX *md;
};

static struct stream stream_new(size_t size, uint32_t seed)
{
	struct stream s = {size, seed, EVP_MD_CTX_new()};

	EVP_DigestInit(s.md, EVP_sha256());
	return s;
}

static size_t stream_fill(struct stream *s, uint8_t *p, size_t len)
{
	len = len < s->left ? len : s->left;
	for (size_t i = 0; i < len; i++) {
		s->x = s->x * 1664525 + 1013904223;
		p[i] = (uint8_t)('0' + (s->x >> 24) % 10);
	}
	EVP_DigestUpdate(s->md, p, len);
	s->left -= len;
	return len;
}

static int stream_take(void *arg, uint8_t *p, size_t len)
{
	struct stream *s = arg;

	assert_true(len <= s->left);
	s->left -= len;
	EVP_DigestUpdate(s->md, p, len);
	return 0;
}

static void same_digest(struct stream *a, struct stream *b)
{
	uint8_t x[32], y[32];

	EVP_DigestFinal(a->md, x, NULL);
	EVP_DigestFinal(b->md, y, NULL);
	EVP_MD_CTX_free(a->md);
	EVP_MD_CTX_free(b->md);
	assert_memory_equal(x, y, sizeof x);
}

static void send_some(struct record *r, struct stream *s)
{
	struct iovec iov[RECORD_SLOTS];
	int n = record_tx_room(r, iov, RECORD_SLOTS, 1), err;
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += stream_fill(s, iov[i].iov_base, iov[i].iov_len);
	if (n)
		record_tx_commit(r, len);
	err = record_flush(r);
	assert_true(!err || err == -EAGAIN);
}

/* Sends `size` bytes through the record to openssl's stdout and as many from its stdin through the record. */
static void transfer(struct record *r, struct child *c, size_t size)
{
	struct stream out = stream_new(size, 1), out_seen = stream_new(size, 0);
	struct stream in = stream_new(size, 2), in_seen = stream_new(size, 0);
	static uint8_t buf[65536], waiting[65536];
	size_t at = 0, have = 0;

	while (out_seen.left || in_seen.left || record_tx_pending(r)) {
		struct pollfd p[] = {
			{record_fd(r), (short)(POLLIN | (out.left || record_tx_pending(r) ? POLLOUT : 0)), 0},
			{in.left || at < have ? c->in : -1, POLLOUT, 0},
			{c->out, POLLIN, 0},
		};
		ssize_t n;

		assert_true(poll(p, 3, PATIENCE_MS) > 0);
		if (p[0].revents & POLLOUT)
			send_some(r, &out);
		if (p[0].revents & POLLIN) {
			n = record_recv(r, stream_take, &in_seen);
			assert_true(n >= 0 || n == -EAGAIN);
		}
		if (at == have) {
			have = stream_fill(&in, waiting, sizeof waiting);
			at = 0;
		}
		if (p[1].revents && at < have) {
			n = write(c->in, waiting + at, have - at);
			assert_true(n > 0 || errno == EAGAIN);
			at += n > 0 ? (size_t)n : 0;
		}
		if (p[2].revents) {
			n = read(c->out, buf, sizeof buf);
			assert_true(n > 0);
			stream_take(&out_seen, buf, (size_t)n);
		}
	}
	same_digest(&out, &out_seen);
	same_digest(&in, &in_seen);
}

static int drain(struct record *r)
{
	struct stream none = stream_new(0, 0);
	ssize_t n;

	do {
		struct pollfd p = {record_fd(r), POLLIN, 0};

		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
		n = record_recv(r, stream_take, &none);
	} while (n >= 0 || n == -EAGAIN);
	EVP_MD_CTX_free(none.md);
	return (int)n;
}

#define CREDENTIALS " -unix sock -cert leaf.pem -key key.pem -CAfile root.pem -verify_return_error "

static const struct {
	const char *name, *options;
	size_t size;
	bool server; /* openssl is */
	enum record_cipher cipher;
	unsigned key_updates; /* asked for on its stdin */
} transfers[] = {
	{"s_server", "-quiet -alpn h2 -naccept 1", 64 << 20, true, RECORD_AES_128_GCM},
	{"s_server, AES-256", "-quiet -ciphersuites TLS_AES_256_GCM_SHA384 -naccept 1", 8 << 20, true,
	 RECORD_AES_256_GCM},
	{"s_server, P-384", "-quiet -groups P-384 -naccept 1", 1000, true, RECORD_AES_128_GCM},
	{"s_server, small records", "-quiet -max_send_frag 512 -naccept 1", 1 << 20, true, RECORD_AES_128_GCM},
	{"s_server, padding", "-quiet -record_padding 4096 -naccept 1", 1 << 20, true, RECORD_AES_128_GCM},
	{"s_client", "-quiet -nocommands -alpn h2", 64 << 20, false, RECORD_AES_256_GCM},
	{"s_client, AES-128", "-quiet -nocommands -ciphersuites TLS_AES_128_GCM_SHA256", 8 << 20, false,
	 RECORD_AES_128_GCM},
	{"s_client, key updates", "-brief", 4 << 20, false, RECORD_AES_256_GCM, 5},
};

static void test_transfers(void **state)
{
	static const char *const expect[] = {GOOD};

	for (size_t i = 0; i < sizeof transfers / sizeof *transfers; i++) {
		struct tls_handshake *h;
		struct record_stats stats;
		struct record *r;
		struct child c;
		char options[512];
		int listener = transfers[i].server ? -1 : listen_here(), fd;

		snprintf(options, sizeof options, "%s" CREDENTIALS "%s",
			 transfers[i].server ? "s_server -Verify 1" : "s_client", transfers[i].options);
		if (transfers[i].server) {
			struct sockaddr_un a = socket_path();

			unlink(a.sun_path);
		}
		c = spawn(options);
		fd = transfers[i].server ? dial() : accept_one(listener);
		h = transfers[i].server ? tls_client(fd, id, expect, 1) : tls_server(fd, id);
		if (handshake(h, fd))
			fail_msg("%s: %s", transfers[i].name, tls_reason(h));
		assert_string_equal(tls_peer(h), GOOD);
		r = tls_handshake_finish(h, pool);
		tls_handshake_free(h);
		for (unsigned k = 0; k < transfers[i].key_updates; k++) {
			struct timespec pause = {0, 50000000}; /* one command per read of its terminal */

			assert_int_equal(write(c.in, "K\n", 2), 2);
			nanosleep(&pause, NULL);
		}
		transfer(r, &c, transfers[i].size);
		record_stats(r, &stats);
		if (stats.rx_key_updates != transfers[i].key_updates || (stats.rx_key_updates && !stats.tx_key_updates))
			fail_msg("%s: %lu and %lu updates", transfers[i].name, (unsigned long)stats.rx_key_updates,
				 (unsigned long)stats.tx_key_updates);
		record_close_notify(r);
		assert_int_equal(record_flush(r), 0);
		if (drain(r) != -ENODATA)
			fail_msg("%s: no close_notify, %s", transfers[i].name, record_error(r));
		record_free(r);
		child_end(&c);
		if (listener >= 0)
			close(listener);
	}
}

static const struct {
	const char *name, *options;
	bool server;
	int err;
	const char *says;
} refusals[] = {
	{"s_server, TLS 1.2", "-tls1_2", true, -EPROTO, "protocol_version"},
	{"s_server, http/1.1", "-alpn http/1.1", true, -EPROTO, "no_application_protocol"},
	{"s_client, TLS 1.2", "-tls1_2", false, -EPROTO, "protocol_version"},
	{"s_client, http/1.1", "-alpn http/1.1", false, -EPROTO, "no_application_protocol"},
};

static void test_refusals(void **state)
{
	static const char *const expect[] = {GOOD};

	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		int listener = refusals[i].server ? -1 : listen_here(), fd, err;
		struct sockaddr_un a = socket_path();
		struct tls_handshake *h;
		char options[512];
		struct child c;

		snprintf(options, sizeof options, "%s" CREDENTIALS "-quiet %s",
			 refusals[i].server ? "s_server" : "s_client", refusals[i].options);
		if (refusals[i].server)
			unlink(a.sun_path);
		c = spawn(options);
		fd = refusals[i].server ? dial() : accept_one(listener);
		h = refusals[i].server ? tls_client(fd, id, expect, 1) : tls_server(fd, id);
		err = handshake(h, fd);
		if (err != refusals[i].err || !strstr(tls_reason(h), refusals[i].says))
			fail_msg("%s: %d %s", refusals[i].name, err, tls_reason(h));
		tls_handshake_free(h);
		close(fd);
		child_end(&c);
		if (listener >= 0)
			close(listener);
	}
}

static int setup(void **state)
{
	struct mint_ca ca = mint_ca("root", NULL);
	struct mint_pem pem = mint_leaf(&ca, &(struct mint_leaf){.san = "URI:" GOOD});
	char why[TLS_REASON_MAX] = "";

	signal(SIGPIPE, SIG_IGN); /* of the pipes; the sockets do not need it */
	if (!mkdtemp(dir))
		return -1;
	write_file("leaf.pem", pem.chain);
	write_file("key.pem", pem.key);
	write_file("root.pem", ca.pem);
	id = tls_id_new(pem.key, pem.chain, ca.pem, false, why);
	pool = record_pool_new(4);
	mint_pem_free(&pem);
	mint_ca_free(&ca);
	return !id || !pool;
}

static int teardown(void **state)
{
	static const char *const names[] = {"leaf.pem", "key.pem", "root.pem", "sock", "stderr"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[128];

		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
	tls_id_unref(id);
	record_pool_free(pool);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests_name("tls_peers", tests, setup, teardown);
}
