/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of net/record share: the connection, one direction's key, and the pool they borrow from. */
#pragma once
#include "base/list.h"
#include "net/aead.h"
#include "net/record.h"

enum {
	RECORD_HEADER = 5,
	RECORD_TAG = AEAD_TAG,
	RECORD_IV = AEAD_NONCE,
	RECORD_CIPHER_MAX = RECORD_PLAIN_MAX + 256, /* body of a received record (RFC 8446, 5.2) */
	RECORD_UPDATE_BYTES = RECORD_OVERHEAD + 5,  /* a KeyUpdate, kept free in front of the slots */
	RECORD_ALERT_BYTES = RECORD_OVERHEAD + 2,   /* an alert, kept free behind them */
	RECORD_TX_BYTES = RECORD_UPDATE_BYTES + RECORD_SLOTS * RECORD_SLOT_BYTES + RECORD_ALERT_BYTES,
	RECORD_TX_RECORDS = RECORD_TX_BYTES / (RECORD_OVERHEAD + 1), /* never more in one buffer */
	RECORD_PART_BYTES = RECORD_HEADER + RECORD_CIPHER_MAX,
	RECORD_TICKET_MAX = 256 * 1024, /* a NewSessionTicket that is skipped */
	RECORD_CONTEXTS = 64,		/* keyed cipher contexts of one pool */
};

enum record_type { /* RFC 8446, B.1 */
		   RECORD_CHANGE_CIPHER_SPEC = 20,
		   RECORD_ALERT = 21,
		   RECORD_HANDSHAKE = 22,
		   RECORD_DATA = 23,
};

enum record_alert { /* RFC 8446, B.2 */
		    ALERT_CLOSE_NOTIFY = 0,
		    ALERT_UNEXPECTED_MESSAGE = 10,
		    ALERT_BAD_RECORD_MAC = 20,
		    ALERT_RECORD_OVERFLOW = 22,
		    ALERT_ILLEGAL_PARAMETER = 47,
		    ALERT_DECODE_ERROR = 50,
		    ALERT_INTERNAL_ERROR = 80,
		    ALERT_USER_CANCELED = 90,
};

/* "alert NAME(NUMBER)"; static storage. */
const char *record_alert_text(uint8_t description);

/* --- the key of one direction (record_keys.c) ----------------------------------------------------------- */

struct record_context;

struct record_key {
	enum record_cipher cipher;
	bool seals;
	uint8_t secret_len;
	uint8_t iv[RECORD_IV];
	uint8_t secret[RECORD_SECRET_MAX], key[32];
	uint64_t seq;
	struct record_context *context; /* ours only while its owner says so */
};

/* Derives key and IV from `secret` and starts at sequence 0. -EINVAL: unknown cipher or wrong length. */
int record_key_set(struct record_key *k, struct record_pool *p, enum record_cipher cipher, const uint8_t *secret,
		   size_t len);
/* The next generation (RFC 8446, 7.2). */
int record_key_update(struct record_key *k, struct record_pool *p);
void record_key_clear(struct record_key *k);

/* Seals the record at `rec`: `len` bytes of plaintext lie behind RECORD_HEADER bytes; header, inner type and
 * tag are written here. Returns the record's length or -errno. */
int record_seal(struct record_key *k, struct record_pool *p, uint8_t *rec, size_t len, enum record_type type);
/* Opens the record at `rec`, whose header announces `body` bytes. Returns the length of what lies behind the
 * header then, inner type and padding included; -EBADMSG. */
int record_open(struct record_key *k, struct record_pool *p, uint8_t *rec, size_t body);

/* --- the pool (record_pool.c) --------------------------------------------------------------------------- */

enum record_buffer {
	RECORD_BUFFER_TX,
	RECORD_BUFFER_RX,
	RECORD_BUFFER_PART,
	RECORD_BUFFERS,
};

uint8_t *record_pool_take(struct record_pool *p, enum record_buffer kind);
void record_pool_give(struct record_pool *p, enum record_buffer kind, uint8_t *buf);
/* A context with the key of `k`, which another key may take over when this one rests. NULL: no memory. */
struct aead *record_pool_aead(struct record_pool *p, struct record_key *k);
/* Gives up the context of `k`, if it has one. */
void record_pool_disown(struct record_key *k);
/* HMAC with the hash of `cipher`: `out` gets as many bytes as the hash has. */
int record_pool_hmac(struct record_pool *p, enum record_cipher cipher, const uint8_t *key, size_t key_len,
		     const uint8_t *data, size_t len, uint8_t out[RECORD_SECRET_MAX]);

/* --- the connection ------------------------------------------------------------------------------------- */

struct record {
	int fd;
	bool server;
	struct record_pool *pool;
	struct record_key tx, rx;

	/* Sending: [room for a KeyUpdate][records, back to back][room for an alert]. Before sealing `tx_slot`
	 * is where the open record starts and `tx_fill` its plaintext so far; a closed one has its plaintext
	 * length in its header. After sealing [tx_sent, tx_end) waits for the socket. Where the kernel seals,
	 * plaintext lies without gaps. */
	uint8_t *tx_buf;
	uint32_t tx_slot, tx_fill;
	uint32_t tx_sent, tx_end; /* tx_end 0: nothing is sealed */
	int tx_error;
	bool tx_update_due; /* the peer asked for a KeyUpdate */
	bool tx_alert_due, tx_closed;
	uint8_t tx_alert;

	/* Receiving: a record that has not arrived whole waits in `part`. */
	uint8_t *part;
	uint32_t part_have;
	uint32_t rx_max; /* bytes a read */
	int rx_end;	 /* what every further record_recv() returns */
	bool rx_more;
	uint8_t rx_idle;    /* records in a row without data */
	uint8_t hs_have;    /* bytes of a handshake message in hs_head */
	uint8_t hs_head[5]; /* its header, and the body of a KeyUpdate */
	uint32_t hs_skip;   /* bytes of a NewSessionTicket still to come */
	const char *error;

	/* What the kernel carries (record_kernel.c). `tx.seq` counts its records as well as we can; `rx.seq` is where the
	 * kernel was when a read last found nothing, and `rx_quiet` that no other came since. */
	bool tx_kernel, rx_kernel, rx_no_pad, can_rekey, retiring;
	bool rx_quiet;
	bool rx_stale; /* the peer has a new key and the kernel does not */
	uint32_t rx_uncounted;
	uint64_t tx_wire;    /* bytes for TCP; UINT64_MAX: not known. Overhead only of records below */
	uint64_t tx_key_seq; /* this sequence number */
	const char *tx_why, *rx_why;

	struct record_stats stats;
};

/* Ends the receiving side with `err`, tells the peer why as far as its socket takes it, and returns `err`. */
int record_fail(struct record *r, int err, enum record_alert alert, const char *why);
/* A decrypted handshake record: tickets are skipped, KeyUpdates obeyed (record.c). */
int record_post_handshake(struct record *r, const uint8_t *p, size_t len);
/* A decrypted alert record. */
int record_take_alert(struct record *r, const uint8_t *p, size_t len);

/* One call of record_recv(). */
struct record_batch {
	record_data_fn *data;
	void *arg;
	ssize_t bytes;
	uint8_t *part; /* the buffer of a record that began in an earlier read */
};
/* What the content of a record, or of several data records, leads to (record_rx.c). */
int record_content(struct record *r, struct record_batch *b, uint8_t type, uint8_t *p, size_t len);

enum { RECORD_KEY_UPDATE_BYTES = 5 };
extern const uint8_t record_key_update_message[RECORD_KEY_UPDATE_BYTES]; /* update_not_requested */
void record_alert_message(const struct record *r, uint8_t out[2]);

/* --- the kernel back end (record_kernel.c) -------------------------------------------------------------- */

/* Sends what is due: KeyUpdate (where a buffer `begins`), [tx_sent, tx_end), alert. 0, -EAGAIN or -errno. */
int record_kernel_send(struct record *r, bool begins);
/* Reads once into `buf`, of RECORD_RX_BYTES. As record_recv(). */
ssize_t record_kernel_recv(struct record *r, struct record_batch *b, uint8_t *buf);
/* The peer has changed its key: gives the kernel `rx`, the new one. */
int record_kernel_rx_update(struct record *r);
