/* SPDX-License-Identifier: Apache-2.0 */
/* An established TLS 1.3 connection as a plain descriptor, two keys and two sequence numbers (RFC 8446, section 5).
 * Records are sealed and opened in place with EVP. Nothing here waits or knows of the loop: calls return -EAGAIN and
 * the owner watches the fd.
 *
 * Sending. The caller writes plaintext straight into record slots:
 *     n = record_tx_room(r, iov, max)    free space: the open slot first, then fresh ones
 *     ... fill iov[0], then iov[1], ... ...
 *     record_tx_commit(r, len)           per iov in order; a full slot is closed, record_tx_close() closes early
 *     record_flush(r)                    seals what is committed and sends it with one call
 * A record is sealed once, at record_flush(); between flushes small writes share a slot. While a flush has returned
 * -EAGAIN there is no room: the caller stops reading from its sources.
 *
 * Receiving. record_recv() reads once, opens every complete record in place and hands the plaintext to `data`
 * in order, record by record. The pointers stay good until the batch is over, which a last call of `data` with length 0
 * announces whenever there was any data in it, also before an error is returned. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
	RECORD_PLAIN_MAX = 16384,     /* RFC 8446, 5.1 */
	RECORD_OVERHEAD = 5 + 1 + 16, /* header, inner type, tag */
	RECORD_SLOTS = 8,	      /* slots in one TX buffer */
	RECORD_SLOT_BYTES = RECORD_PLAIN_MAX + RECORD_OVERHEAD,
	RECORD_RX_BYTES = 16 * (RECORD_PLAIN_MAX + 256), /* one receive buffer */
	RECORD_SECRET_MAX = 48,
	RECORD_KEY_UPDATES_MAX = 32, /* in a row without data: then the connection ends */
};

/* Confidentiality limit of AES-GCM with a margin (RFC 8446, 5.5: 2^24.5 records): we update our key before it. */
#define RECORD_LIMIT (1ull << 24)

enum record_cipher { /* TLS cipher suite numbers, RFC 8446, B.4 */
		     RECORD_AES_128_GCM = 0x1301,
		     RECORD_AES_256_GCM = 0x1302,
		     RECORD_CHACHA20 = 0x1303,
};

struct record_secrets { /* application traffic secrets: SHA-384 for AES-256, else SHA-256 */
	enum record_cipher cipher;
	uint8_t tx[RECORD_SECRET_MAX], rx[RECORD_SECRET_MAX];
	size_t len;
	bool server; /* we were the server: the peer may not send tickets */
};

/* Buffers shared by the connections of one thread: last in, first out, so that they stay in the cache. Keeps at most
 * `keep` of each kind when they come back. */
struct record_pool;
struct record_pool *record_pool_new(unsigned keep);
void record_pool_free(struct record_pool *p);
/* Before its first record: encryption by OpenSSL alone (net/aead.h). */
void record_pool_openssl_only(struct record_pool *p);

struct record;

/* Takes `fd` over (closes it in record_free) and copies the secrets. `pool` outlives the record. NULL: no memory or
 * an unknown cipher; fd stays the caller's then. */
struct record *record_new(int fd, const struct record_secrets *s, struct record_pool *pool);
void record_free(struct record *r);
int record_fd(const struct record *r);

/* Fills up to `max` entries with free plaintext space and returns how many; 0 while a flush is pending and after
 * close_notify; -ENOMEM. The first is the rest of the open slot when at least `min_first` bytes are left in it (else
 * that slot is closed). Room is held until it is committed: record_tx_commit(r, 0) gives unused room back. */
int record_tx_room(struct record *r, struct iovec *iov, int max, size_t min_first);
void record_tx_commit(struct record *r, size_t len);
void record_tx_close(struct record *r);
/* Copies; for control frames. -EAGAIN when a flush is pending or all slots are taken, and nothing was taken then. */
int record_write(struct record *r, const void *p, size_t len);
/* 0: everything is in the socket. -EAGAIN: wait until the fd is writable, then call again. Else -errno. */
int record_flush(struct record *r);
bool record_tx_pending(const struct record *r);
/* After -EAGAIN: bytes of that flush which are not in the socket yet. */
size_t record_tx_unsent(const struct record *r);

/* Reads once. `data(arg, p, len)` gets application data; if it returns non-zero the call ends with that value and the
 * connection is unusable. Returns bytes of plaintext (0 is possible), or
 *   -EAGAIN     nothing to read now
 *   -ENODATA    close_notify: the peer's clean end
 *   -ECONNRESET FIN without close_notify, or a reset: a truncation
 *   -EPROTO     the peer sent an alert, or broke the protocol; record_error() says what
 *   -EBADMSG    a record that does not authenticate */
typedef int record_data_fn(void *arg, uint8_t *p, size_t len);
ssize_t record_recv(struct record *r, record_data_fn *data, void *arg);
/* How many bytes record_recv() reads at the most, from now on: RECORD_RX_BYTES or fewer. */
void record_read_max(struct record *r, size_t max);
/* Was the last record_recv() cut short by its buffer, so that more may wait in the socket? */
bool record_more(const struct record *r);
/* A word for the log about the last -EPROTO, -EBADMSG or FIN, e.g. "alert unknown_ca(48)", or "": the error says it all;
 * static storage. */
const char *record_error(const struct record *r);

/* Queues a close_notify alert behind what is committed; flush sends it. Nothing may be written after it. */
void record_close_notify(struct record *r);
/* Queues an alert (RFC 8446, 6.2) in place of close_notify. */
void record_alert(struct record *r, uint8_t description);

struct record_stats {
	uint64_t tx_records, rx_records, tx_key_updates, rx_key_updates; /* records: of the user back end only */
};
void record_stats(const struct record *r, struct record_stats *out);

/* The kernel back end (net/ktls.h). Moves each direction that `f` allows into the kernel, before the first byte is sent or
 * read; what the kernel refuses stays in userspace, and record_offload_of() says why. All calls above mean the same
 * afterwards, bytes and errors alike. */
struct ktls_features;
void record_offload(struct record *r, const struct ktls_features *f);

struct record_offload {
	bool tx, rx, rx_no_pad;
	enum record_cipher cipher;
	const char *tx_why, *rx_why; /* why not, or ""; static storage, one of a fixed set (they are metric labels) */
};
void record_offload_of(const struct record *r, struct record_offload *out);
/* As IANA has it, e.g. "TLS_AES_128_GCM_SHA256". */
const char *record_cipher_name(enum record_cipher c);
/* The kernel cannot change a key that must change soon (KeyUpdate of the peer, or our own limit): no new streams, the
 * connection ends when its streams have. */
bool record_retiring(const struct record *r);
