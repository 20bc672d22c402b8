/* SPDX-License-Identifier: Apache-2.0 */
/* Measures net/record and net/tls on one core: GB/s of sealing and opening through a socketpair, the cost of
 * small records, CPU of a handshake (both ends), bytes of a connection at rest.  record_bench [SECONDS [openssl]] */
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/record_internal.h"
#include "net/tls.h"
#include "tls_mint.h"

enum { IDLE = 10000 };

static double seconds = 1;

static double cpu_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int count(void *arg, uint8_t *p, size_t len)
{
	*(uint64_t *)arg += len;
	return 0;
}

static void make_pair(int fd[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd))
		abort();
	for (int i = 0; i < 2; i++)
		setsockopt(fd[i], SOL_SOCKET, SO_SNDBUFFORCE, &(int){1 << 20}, sizeof(int));
}

static void make_records(struct record_pool *pool, enum record_cipher cipher, struct record *r[2])
{
	struct record_secrets s = {.cipher = cipher, .len = cipher == RECORD_AES_256_GCM ? 48 : 32};
	int fd[2];

	make_pair(fd);
	for (int i = 0; i < 2; i++) {
		memset(s.tx, i, sizeof s.tx);
		memset(s.rx, 1 - i, sizeof s.rx);
		r[i] = record_new(fd[i], &s, pool);
		if (!r[i])
			abort();
	}
}

static void bench_aead(struct record_pool *pool, const char *name, enum record_cipher cipher, size_t len)
{
	enum { BATCH = 32 };
	size_t stride = len + RECORD_OVERHEAD, secret_len = cipher == RECORD_AES_256_GCM ? 48 : 32;
	struct record_key tx = {.seals = true}, rx = {0};
	uint8_t secret[RECORD_SECRET_MAX] = {7}, *rec = calloc(BATCH, stride);
	double seal = 0, opened = 0, end = cpu_now() + seconds / 2;
	uint64_t n = 0;

	record_key_set(&tx, pool, cipher, secret, secret_len);
	record_key_set(&rx, pool, cipher, secret, secret_len);
	for (double t = cpu_now(), u; t < end; n += BATCH) {
		for (size_t i = 0; i < BATCH; i++)
			record_seal(&tx, pool, rec + i * stride, len, RECORD_DATA);
		seal += (u = cpu_now()) - t;
		for (size_t i = 0; i < BATCH; i++)
			if (record_open(&rx, pool, rec + i * stride, len + 1 + RECORD_TAG) < 0)
				abort();
		opened += (t = cpu_now()) - u;
	}
	printf("%-12s %6zu B: seal %6.0f ns, %5.2f GB/s   open %6.0f ns, %5.2f GB/s\n", name, len,
	       seal / (double)n * 1e9, (double)(n * len) / seal / 1e9, opened / (double)n * 1e9,
	       (double)(n * len) / opened / 1e9);
	record_key_clear(&tx);
	record_key_clear(&rx);
	free(rec);
}

static void bench_stream(struct record_pool *pool, const char *name, enum record_cipher cipher, size_t chunk)
{
	struct iovec iov[RECORD_SLOTS];
	uint64_t got = 0, sent = 0;
	double begin = cpu_now(), end = begin + seconds, now;
	struct record *r[2];

	make_records(pool, cipher, r);
	while ((now = cpu_now()) < end) {
		size_t left = chunk;
		int n = record_tx_room(r[0], iov, RECORD_SLOTS, 1);

		for (int i = 0; i < n && left; i++)
			left -= left < iov[i].iov_len ? left : iov[i].iov_len;
		record_tx_commit(r[0], chunk - left);
		sent++;
		while (record_flush(r[0]))
			record_recv(r[1], count, &got);
		while (record_recv(r[1], count, &got) > 0)
			;
	}
	printf("%-12s %6zu B a flush, seal + send + recv + open: %5.2f GB/s, %.2f us a flush\n", name, chunk,
	       (double)got / (now - begin) / 1e9, (now - begin) / (double)sent * 1e6);
	record_free(r[0]);
	record_free(r[1]);
}

static void bench_handshake(struct record_pool *pool)
{
	static const char *const expect[] = {"spiffe://cluster.local/ns/a/sa/b"};
	struct mint_ca ca = mint_ca("root", NULL);
	struct mint_pem pem = mint_leaf(&ca, &(struct mint_leaf){.san = "URI:spiffe://cluster.local/ns/a/sa/b"});
	char why[TLS_REASON_MAX];
	struct tls_id *id = tls_id_new(pem.key, pem.chain, ca.pem, false, why);
	double cpu[2] = {0}, end = cpu_now() + seconds;
	unsigned n = 0;

	while (cpu_now() < end) {
		struct tls_handshake *h[2];
		int fd[2], err[2] = {1, 1};
		uint32_t want;

		make_pair(fd);
		for (int i = 0; err[0] || err[1]; i ^= 1) {
			double t = cpu_now();

			if (err[i] == 1)
				h[i] = i ? tls_server(fd[1], id) : tls_client(fd[0], id, expect, 1);
			if (err[i])
				err[i] = tls_handshake_step(h[i], &want);
			cpu[i] += cpu_now() - t;
		}
		for (int i = 0; i < 2; i++) {
			double t = cpu_now();

			record_free(tls_handshake_finish(h[i], pool));
			tls_handshake_free(h[i]);
			cpu[i] += cpu_now() - t;
		}
		n++;
	}
	printf("handshake: client %.0f us, server %.0f us of CPU\n", cpu[0] / n * 1e6, cpu[1] / n * 1e6);
	tls_id_unref(id);
	mint_pem_free(&pem);
	mint_ca_free(&ca);
}

static void bench_idle(struct record_pool *pool)
{
	struct record_secrets s = {.cipher = RECORD_AES_128_GCM, .len = 32};
	static struct record *r[IDLE];
	size_t before = mallinfo2().uordblks;

	for (int i = 0; i < IDLE; i++)
		r[i] = record_new(-1, &s, pool);
	printf("at rest: %zu bytes a connection", (mallinfo2().uordblks - before) / IDLE);
	before = mallinfo2().uordblks;
	record_pool_aead(pool, &r[0]->tx);
	printf(", %zu a keyed cipher context\n", mallinfo2().uordblks - before);
	for (int i = 0; i < IDLE; i++)
		record_free(r[i]);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		enum record_cipher cipher;
	} ciphers[] = {{"AES-128-GCM", RECORD_AES_128_GCM},
		       {"AES-256-GCM", RECORD_AES_256_GCM},
		       {"CHACHA20", RECORD_CHACHA20}};
	struct record_pool *pool = record_pool_new(4);

	if (argc > 1)
		seconds = atof(argv[1]);
	if (argc > 2 && !strcmp(argv[2], "openssl"))
		record_pool_openssl_only(pool);
	bench_idle(pool);
	for (size_t i = 0; i < sizeof ciphers / sizeof *ciphers; i++) {
		bench_aead(pool, ciphers[i].name, ciphers[i].cipher, 64);
		bench_aead(pool, ciphers[i].name, ciphers[i].cipher, RECORD_PLAIN_MAX);
	}
	bench_stream(pool, "AES-128-GCM", RECORD_AES_128_GCM, 64);
	bench_stream(pool, "AES-128-GCM", RECORD_AES_128_GCM, RECORD_SLOTS * RECORD_PLAIN_MAX);
	bench_stream(pool, "AES-256-GCM", RECORD_AES_256_GCM, RECORD_SLOTS * RECORD_PLAIN_MAX);
	bench_handshake(pool);
	record_pool_free(pool);
	return 0;
}
