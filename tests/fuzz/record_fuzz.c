/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes net/record from both sides. The input is a script, two bytes an instruction (what, how much), that
 * makes a peer send records of any type, padding and damage, whole or in pieces, and makes our side write and
 * flush between them. What our side delivers must be a prefix of the data that the peer sealed, in order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/record_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

enum { WIRE_MAX = 1 << 17, DATA_MAX = 1 << 16 };

enum op {
	OP_DATA,
	OP_PADDED,
	OP_HANDSHAKE,
	OP_TYPE,
	OP_UPDATE,
	OP_DAMAGE,
	OP_RAW,
	OP_DELIVER, /* a piece of what has been sealed goes into the socket */
	OP_WRITE,
	OP_ROOM,
	OP_FLUSH,
	OP_CLOSE,
	OPS,
};

struct peer {
	struct record_key tx;
	int fd;
	size_t wire_at, wire_len, data_len, got;
	uint8_t wire[WIRE_MAX], data[DATA_MAX];
};

static struct record_pool *pool;
static struct peer peer;

static int compare(void *arg, uint8_t *p, size_t len)
{
	if (!len) /* the end of a batch */
		return 0;
	if (len > peer.data_len - peer.got || memcmp(peer.data + peer.got, p, len))
		abort();
	peer.got += len;
	return 0;
}

/* A type of 0 reads as padding: then the last byte that is not zero is the type of what precedes it. */
static size_t content(const uint8_t *p, size_t len, uint8_t *type)
{
	while (len && !*type)
		*type = p[--len];
	return len;
}

/* Seals `len` bytes of the script; app data is noted for compare(). */
static void peer_seal(const uint8_t *p, size_t len, size_t pad, uint8_t type)
{
	uint8_t *rec = peer.wire + peer.wire_len, *body = rec + RECORD_HEADER;

	if (WIRE_MAX - peer.wire_len < len + pad + RECORD_OVERHEAD + 1 || DATA_MAX - peer.data_len < len)
		return;
	memcpy(body, p, len);
	memset(body + len, 0, pad + 1);
	if (pad)
		body[len] = type;
	peer.wire_len += (size_t)record_seal(&peer.tx, pool, rec, len + pad, pad ? 0 : type);
	len = content(p, len, &type);
	if (type == RECORD_DATA) {
		memcpy(peer.data + peer.data_len, p, len);
		peer.data_len += len;
	}
}

static void peer_update(bool answer)
{
	static const uint8_t message[] = {24, 0, 0, 1, 0, 24, 0, 0, 1, 1};

	peer_seal(message + (answer ? 5 : 0), 5, 0, RECORD_HANDSHAKE);
	record_key_update(&peer.tx, pool);
}

static void deliver(struct record *r, size_t n)
{
	static uint8_t away[65536];

	n = n < peer.wire_len - peer.wire_at ? n : peer.wire_len - peer.wire_at;
	if (n && write(peer.fd, peer.wire + peer.wire_at, n) == (ssize_t)n)
		peer.wire_at += n;
	while (record_recv(r, compare, NULL) >= 0)
		;
	while (recv(peer.fd, away, sizeof away, MSG_DONTWAIT) > 0)
		;
}

static void take_room(struct record *r, size_t n)
{
	struct iovec iov[RECORD_SLOTS];
	int slots = record_tx_room(r, iov, (int)(n % RECORD_SLOTS) + 1, n);
	size_t room = 0;

	if (slots <= 0)
		return;
	for (int i = 0; i < slots; i++) {
		memset(iov[i].iov_base, 'x', iov[i].iov_len);
		room += iov[i].iov_len;
	}
	record_tx_commit(r, n * 300 < room ? n * 300 : room);
}

/* Returns how many bytes behind the instruction it has used. */
static size_t perform(struct record *r, const uint8_t *op, const uint8_t *p, size_t left)
{
	size_t n = op[1] < left ? op[1] : left;

	switch (op[0] % OPS) {
	case OP_DATA:
		peer_seal(p, n, 0, RECORD_DATA);
		return n;
	case OP_PADDED:
		peer_seal(p, n / 2, n * 64, RECORD_DATA);
		return n / 2;
	case OP_HANDSHAKE:
		peer_seal(p, n, 0, RECORD_HANDSHAKE);
		return n;
	case OP_TYPE:
		if (n)
			peer_seal(p + 1, n - 1, 0, p[0]);
		return n;
	case OP_UPDATE:
		peer_update(op[1] & 1);
		return 0;
	case OP_DAMAGE:
		if (peer.wire_at < peer.wire_len)
			peer.wire[peer.wire_at + op[1] % (peer.wire_len - peer.wire_at)] ^= 1 << (op[1] & 7);
		return 0;
	case OP_RAW:
		if (n < WIRE_MAX - peer.wire_len) {
			memcpy(peer.wire + peer.wire_len, p, n);
			peer.wire_len += n;
		}
		return n;
	case OP_DELIVER:
		deliver(r, op[1] < 128 ? op[1] : WIRE_MAX);
		return 0;
	case OP_WRITE:
		record_write(r, p, n);
		return n;
	case OP_ROOM:
		take_room(r, op[1]);
		return 0;
	case OP_FLUSH:
		record_flush(r);
		return 0;
	default:
		if (op[1] & 1)
			record_tx_close(r);
		else if (op[1] & 2)
			record_alert(r, op[1]);
		else
			record_close_notify(r);
		return 0;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static const enum record_cipher ciphers[] = {RECORD_AES_128_GCM, RECORD_AES_256_GCM, RECORD_CHACHA20};
	struct record_secrets s = {0};
	struct record *r;
	int fd[2];

	if (!pool)
		pool = record_pool_new(2);
	if (!len || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd))
		return 0;
	s.cipher = ciphers[p[0] % 3];
	s.server = p[0] & 0x80;
	s.len = s.cipher == RECORD_AES_256_GCM ? 48 : 32;
	peer.wire_at = peer.wire_len = peer.data_len = peer.got = 0;
	peer.fd = fd[1];
	peer.tx = (struct record_key){.seals = true};
	record_key_set(&peer.tx, pool, s.cipher, s.rx, s.len);
	r = record_new(fd[0], &s, pool);
	p++;
	len--;
	while (len >= 2) {
		size_t used = 2 + perform(r, p, p + 2, len - 2);

		p += used;
		len -= used;
	}
	deliver(r, WIRE_MAX);
	record_flush(r);
	record_free(r);
	record_key_clear(&peer.tx);
	close(fd[1]);
	return 0;
}
