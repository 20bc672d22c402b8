/* SPDX-License-Identifier: Apache-2.0 */
/* The comparison of `make vmbench`: a proxy as one would write it with OpenSSL's SSL_read and SSL_write, one frame header per
 * TLS record as in HTTP/2. Prints the CPU time of its two ends; under QEMU's -icount a nanosecond is a guest instruction.
 *
 *	source --plain TCP--> tx: recv, header, SSL_write --TLS 1.3--> rx: SSL_read, send --plain TCP--> sink
 *
 * openssl_bench bytes MIB     "tx NS rx NS" for that many bytes
 * openssl_bench connect N     "tx NS rx NS" for N connections with certificates on both sides (tx is the client) */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls_mint.h"

enum { HEADER = 9, PAYLOAD = 16384 - HEADER, CHUNK = 1 << 16 };

struct end { /* a thread's work and what it cost */
	SSL_CTX *ctx;
	int in, out, count;
	uint64_t bytes, cpu_ns;
	pthread_t thread;
};

#define MUST(x)                                                                                \
	do {                                                                                   \
		if (!(x)) {                                                                    \
			fprintf(stderr, "openssl_bench: %s failed (line %d)\n", #x, __LINE__); \
			exit(1);                                                               \
		}                                                                              \
	} while (0)

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void tcp_pair(int fd[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	MUST(!bind(listener, (struct sockaddr *)&a, sizeof a) && !listen(listener, 1));
	MUST(!getsockname(listener, (struct sockaddr *)&a, &(socklen_t){sizeof a}));
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	MUST(!connect(fd[0], (struct sockaddr *)&a, sizeof a));
	fd[1] = accept(listener, NULL, NULL);
	MUST(fd[1] >= 0);
	close(listener);
	for (int i = 0; i < 2; i++)
		setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

static SSL_CTX *context(const struct mint_ca *ca, const char *eku)
{
	struct mint_pem pem = mint_leaf(ca, &(struct mint_leaf){.san = "URI:spiffe://td/ns/a/sa/b", .eku = eku});
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	BIO *b = BIO_new_mem_buf(pem.chain, -1);
	X509 *cert = PEM_read_bio_X509(b, NULL, NULL, NULL);
	EVP_PKEY *key;

	BIO_free(b);
	b = BIO_new_mem_buf(pem.key, -1);
	key = PEM_read_bio_PrivateKey(b, NULL, NULL, NULL);
	BIO_free(b);
	MUST(SSL_CTX_use_certificate(ctx, cert) && SSL_CTX_use_PrivateKey(ctx, key));
	MUST(SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION));
	MUST(SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256"));
	MUST(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca->cert));
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	X509_free(cert);
	EVP_PKEY_free(key);
	mint_pem_free(&pem);
	return ctx;
}

static SSL *handshake(SSL_CTX *ctx, int fd, bool server)
{
	SSL *ssl = SSL_new(ctx);

	SSL_set_fd(ssl, fd);
	MUST((server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1);
	return ssl;
}

static void *source(void *arg)
{
	struct end *e = arg;
	static char buf[CHUNK];

	for (uint64_t left = e->bytes; left;) {
		ssize_t n = send(e->out, buf, left < CHUNK ? left : CHUNK, 0);

		MUST(n > 0);
		left -= (uint64_t)n;
	}
	shutdown(e->out, SHUT_WR);
	return NULL;
}

/* Reads as much as fits four records, sends one record for each frame. */
static void *proxy_tx(void *arg)
{
	struct end *e = arg;
	SSL *ssl = handshake(e->ctx, e->out, false);
	uint64_t begin = thread_ns();
	static uint8_t in[4 * PAYLOAD], frame[HEADER + PAYLOAD];
	ssize_t n;

	while ((n = recv(e->in, in, sizeof in, 0)) > 0) {
		for (ssize_t at = 0, len; at < n; at += len) {
			len = n - at < PAYLOAD ? n - at : PAYLOAD;
			memcpy(frame, (uint8_t[HEADER]){(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len},
			       HEADER);
			memcpy(frame + HEADER, in + at, (size_t)len);
			MUST(SSL_write(ssl, frame, HEADER + (int)len) > 0);
		}
	}
	e->cpu_ns = thread_ns() - begin;
	SSL_shutdown(ssl);
	shutdown(e->out, SHUT_WR);
	SSL_free(ssl);
	return NULL;
}

static void *proxy_rx(void *arg)
{
	struct end *e = arg;
	SSL *ssl = handshake(e->ctx, e->in, true);
	uint64_t begin = thread_ns();
	static uint8_t frame[HEADER + PAYLOAD];
	int n;

	while ((n = SSL_read(ssl, frame, sizeof frame)) > 0) {
		int len = frame[0] << 16 | frame[1] << 8 | frame[2];

		MUST(n == HEADER + len);
		MUST(send(e->out, frame + HEADER, (size_t)len, 0) == len);
	}
	e->cpu_ns = thread_ns() - begin;
	shutdown(e->out, SHUT_WR);
	SSL_free(ssl);
	return NULL;
}

static void *dial(void *arg)
{
	struct end *e = arg;
	uint64_t begin = thread_ns();

	SSL_free(handshake(e->ctx, e->out, false));
	e->cpu_ns += thread_ns() - begin;
	return NULL;
}

static void answer(struct end *e)
{
	uint64_t begin = thread_ns();

	SSL_free(handshake(e->ctx, e->in, true));
	e->cpu_ns += thread_ns() - begin;
}

static void move_bytes(struct end *tx, struct end *rx, uint64_t bytes)
{
	struct end from = {.bytes = bytes};
	int app[2], mesh[2], peer[2];
	static uint8_t buf[CHUNK];
	uint64_t got = 0;
	ssize_t n;

	tcp_pair(app);
	tcp_pair(mesh);
	tcp_pair(peer);
	from.out = app[0];
	tx->in = app[1];
	tx->out = mesh[0];
	rx->in = mesh[1];
	rx->out = peer[0];
	pthread_create(&from.thread, NULL, source, &from);
	pthread_create(&tx->thread, NULL, proxy_tx, tx);
	pthread_create(&rx->thread, NULL, proxy_rx, rx);
	while ((n = recv(peer[1], buf, sizeof buf, 0)) > 0)
		got += (uint64_t)n;
	pthread_join(from.thread, NULL);
	pthread_join(tx->thread, NULL);
	pthread_join(rx->thread, NULL);
	MUST(got == bytes);
}

static void connect_often(struct end *tx, struct end *rx, int count)
{
	for (int i = 0; i < count; i++) {
		int fd[2];

		tcp_pair(fd);
		tx->out = fd[0];
		rx->in = fd[1];
		pthread_create(&tx->thread, NULL, dial, tx);
		answer(rx);
		pthread_join(tx->thread, NULL);
		close(fd[0]);
		close(fd[1]);
	}
}

int main(int argc, char **argv)
{
	struct mint_ca ca = mint_ca("bench", NULL);
	struct end tx = {.ctx = context(&ca, "clientAuth")}, rx = {.ctx = context(&ca, "serverAuth")};
	int n = argc == 3 ? atoi(argv[2]) : 0;

	if (n > 0 && !strcmp(argv[1], "bytes")) {
		move_bytes(&tx, &rx, (uint64_t)n << 20);
	} else if (n > 0 && !strcmp(argv[1], "connect")) {
		connect_often(&tx, &rx, n);
	} else {
		fputs("usage: openssl_bench bytes MIB | connect COUNT\n", stderr);
		return 2;
	}
	printf("tx %llu rx %llu\n", (unsigned long long)tx.cpu_ns, (unsigned long long)rx.cpu_ns);
	SSL_CTX_free(tx.ctx);
	SSL_CTX_free(rx.ctx);
	mint_ca_free(&ca);
	return 0;
}
