/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the directions of a record that the kernel carries: moving them there, sending, receiving, changing keys.
 *
 * What records mean is judged by the same code as in userspace (record_content()); here is what the kernel does otherwise:
 *
 * - It reads several data records in one go but a record of another kind always alone; records without data it passes
 *   over in silence, so those are counted by sequence numbers.
 * - It cannot say what was wrong with a record beyond one of three error numbers.
 * - It takes plaintext that TCP has no room for yet, and drops that when the socket is closed. So after the last
 *   record, and only then, a flush waits until TCP has every byte (settled()).
 * - Before 6.14 a key cannot be changed. Such a connection is retired at half of what a key may do, in either direction.
 *   If the peer changes its key all the same, what it has sent until then arrives and what we send goes on, but its next
 *   record ends the connection with an error. */
#include "net/ktls_internal.h"

#include <errno.h>
#include <sys/socket.h>

enum { COUNT_EVERY = 1 << 22 /* bytes and reads between two looks at the receiving sequence number */ };

/* Without a new key: no new streams from here on, and nothing more beyond what RFC 8446, 5.5 allows (2^24.5). */
#define RECORD_RETIRE (RECORD_LIMIT / 2)
#define RECORD_END    23726566ull

/* --- moving there --------------------------------------------------------------------------------------- */

static const char *why_not(const struct ktls_features *f, enum ktls_feature direction, enum record_cipher cipher)
{
	if (!f->has[direction])
		return f->off[direction] ? "off" : "unavailable";
	return f->ciphers[direction] & 1u << (cipher - RECORD_AES_128_GCM) ? NULL : "cipher";
}

static bool move(struct record *r, const struct record_key *k, const char **why)
{
	if (!*why && ktls_install(r->fd, k) < 0)
		*why = "refused";
	return !*why;
}

void record_offload(struct record *r, const struct ktls_features *f)
{
	r->tx_why = why_not(f, KTLS_FEATURE_TX, r->tx.cipher);
	r->rx_why = why_not(f, KTLS_FEATURE_RX, r->rx.cipher);
	if (r->tx_why && r->rx_why)
		return;
	if (ktls_attach(r->fd) < 0) {
		r->tx_why = r->tx_why ? r->tx_why : "refused";
		r->rx_why = r->rx_why ? r->rx_why : "refused";
		return;
	}
	r->can_rekey = f->has[KTLS_FEATURE_REKEY];
	r->tx_kernel = move(r, &r->tx, &r->tx_why);
	r->rx_kernel = move(r, &r->rx, &r->rx_why);
	r->rx_no_pad = r->rx_kernel && f->has[KTLS_FEATURE_RX_NO_PAD] && ktls_expect_no_pad(r->fd) == 0;
	if (r->tx_kernel && ktls_queued(r->fd, &r->tx_wire) < 0)
		r->tx_wire = UINT64_MAX; /* then nobody waits for it */
	r->tx_key_seq = r->tx.seq;
}

void record_offload_of(const struct record *r, struct record_offload *out)
{
	*out = (struct record_offload){
		.tx = r->tx_kernel,
		.rx = r->rx_kernel,
		.rx_no_pad = r->rx_no_pad,
		.cipher = r->tx.cipher,
		.tx_why = r->tx_kernel ? ""
			  : r->tx_why  ? r->tx_why
				       : "off",
		.rx_why = r->rx_kernel ? ""
			  : r->rx_why  ? r->rx_why
				       : "off",
	};
}

bool record_retiring(const struct record *r)
{
	return r->retiring;
}

/* --- sending -------------------------------------------------------------------------------------------- */

static bool counts_wire(const struct record *r)
{
	return r->tx_wire != UINT64_MAX;
}

/* Adds the headers and tags of the records that the kernel has made under the key so far. */
static void count_wire(struct record *r)
{
	uint64_t seq;

	if (!counts_wire(r))
		return;
	if (ktls_sequence(r->fd, &r->tx, &seq) < 0) {
		r->tx_wire = UINT64_MAX;
		return;
	}
	r->tx_wire += (seq - r->tx_key_seq) * RECORD_OVERHEAD;
	r->tx_key_seq = seq;
}

/* 0: TCP has all that was sent, so that closing the descriptor loses nothing; -EAGAIN. */
static int settled(struct record *r)
{
	uint64_t queued;

	count_wire(r);
	if (!counts_wire(r) || ktls_queued(r->fd, &queued) < 0)
		return 0;
	return queued < r->tx_wire ? -EAGAIN : 0;
}

/* One piece; bytes or -errno. Counts records as the kernel makes them: at least one a call. */
static ssize_t send_piece(struct record *r, const void *p, size_t len, uint8_t type)
{
	ssize_t n;

	if (r->tx.seq >= RECORD_END && type == RECORD_DATA) {
		r->error = "the key is used up, and this kernel takes no other";
		return -EKEYEXPIRED;
	}
	n = ktls_send(r->fd, p, len, type);
	if (n <= 0)
		return n;
	r->tx.seq += ((uint64_t)n + RECORD_PLAIN_MAX - 1) / RECORD_PLAIN_MAX;
	if (counts_wire(r))
		r->tx_wire += (uint64_t)n;
	if (!r->can_rekey && r->tx.seq >= RECORD_RETIRE)
		r->retiring = true;
	return n;
}

/* Short enough to leave whole or not at all. */
static int send_control(struct record *r, const uint8_t *p, size_t len, uint8_t type)
{
	ssize_t n = send_piece(r, p, len, type);

	return n < 0 ? (int)n : n == (ssize_t)len ? 0 : -EIO;
}

static int send_update(struct record *r)
{
	int err = send_control(r, record_key_update_message, RECORD_KEY_UPDATE_BYTES, RECORD_HANDSHAKE);

	if (err)
		return err;
	count_wire(r);
	err = record_key_update(&r->tx, r->pool);
	if (!err)
		err = ktls_install(r->fd, &r->tx);
	if (err)
		return err;
	r->tx_key_seq = 0;
	r->tx_update_due = false;
	r->stats.tx_key_updates++;
	return 0;
}

static int send_data(struct record *r)
{
	while (r->tx_sent < r->tx_end) {
		ssize_t n = send_piece(r, r->tx_buf + r->tx_sent, r->tx_end - r->tx_sent, RECORD_DATA);

		if (n <= 0)
			return n ? (int)n : -EAGAIN;
		r->tx_sent += (uint32_t)n;
	}
	return 0;
}

static int send_alert(struct record *r)
{
	uint8_t text[2];
	int err;

	record_alert_message(r, text);
	err = send_control(r, text, sizeof text, RECORD_ALERT);
	if (!err)
		r->tx_alert_due = false;
	return err;
}

int record_kernel_send(struct record *r, bool begins)
{
	int err = 0;

	if (begins && (!r->tx_closed || r->tx_alert_due) &&
	    (r->tx_update_due || (r->can_rekey && r->tx.seq + RECORD_TX_RECORDS >= RECORD_LIMIT)))
		err = send_update(r);
	if (!err)
		err = send_data(r);
	if (!err && r->tx_alert_due)
		err = send_alert(r);
	if (!err && r->tx_closed)
		err = settled(r);
	return err;
}

/* --- receiving ------------------------------------------------------------------------------------------ */

int record_kernel_rx_update(struct record *r)
{
	int err;

	if (!r->can_rekey) {
		r->retiring = r->rx_stale = true;
		return 0;
	}
	err = ktls_install(r->fd, &r->rx);
	return err ? record_fail(r, err, ALERT_INTERNAL_ERROR, "the kernel does not take the new key") : 0;
}

/* What a failed read means. The kernel keeps its error for the next call too, which would be our alert: taking it
 * (SO_ERROR) lets that go out. */
static int judge(struct record *r, int err)
{
	getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &(int){0}, &(socklen_t){sizeof(int)});
	if (r->rx_stale && (err == -EBADMSG || err == -EKEYEXPIRED))
		return record_fail(r, -EPROTO, ALERT_INTERNAL_ERROR,
				   "the peer changed its key, which this kernel cannot follow");
	switch (err) {
	case -EBADMSG:
		return record_fail(r, err, ALERT_BAD_RECORD_MAC, "record does not authenticate");
	case -EMSGSIZE:
		return record_fail(r, -EPROTO, ALERT_RECORD_OVERFLOW, "oversized record");
	case -EINVAL:
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "unprotected record");
	case -EKEYEXPIRED: /* the kernel saw the type and stopped, we have not all of it */
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "KeyUpdate in pieces");
	default:
		r->rx_end = err;
		return err;
	}
}

/* The peer, too, changes its key by 2^24 records: where the kernel cannot follow, it should not come to that. */
static void count_records(struct record *r, size_t n)
{
	uint64_t seq;

	if (r->can_rekey || r->retiring)
		return;
	r->rx_uncounted += (uint32_t)n + 1;
	if (r->rx_uncounted < COUNT_EVERY)
		return;
	r->rx_uncounted = 0;
	if (ktls_sequence(r->fd, &r->rx, &seq) == 0 && seq >= RECORD_RETIRE)
		r->retiring = true;
}

/* Nothing to read, though the socket seemed readable: part of a record, or records without content. */
static int read_nothing(struct record *r)
{
	uint64_t seq;

	if (ktls_sequence(r->fd, &r->rx, &seq) < 0)
		return -EAGAIN;
	if (r->rx_quiet && seq - r->rx.seq > (uint64_t)(RECORD_KEY_UPDATES_MAX - r->rx_idle))
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "too many records without data");
	if (r->rx_quiet)
		r->rx_idle += (uint8_t)(seq - r->rx.seq);
	r->rx_quiet = true;
	r->rx.seq = seq;
	return -EAGAIN;
}

ssize_t record_kernel_recv(struct record *r, struct record_batch *b, uint8_t *buf)
{
	uint8_t type = 0;
	ssize_t n = ktls_recv(r->fd, buf, r->rx_max, &type);
	int err;

	if (n == -EAGAIN)
		return read_nothing(r);
	if (n < 0)
		return judge(r, (int)n);
	if (!type) {
		r->rx_end = -ECONNRESET;
		r->error = "end of file without close_notify";
		return r->rx_end;
	}
	if (r->rx_stale) /* under the key that the peer gave up */
		return record_fail(r, -EBADMSG, ALERT_BAD_RECORD_MAC, "record does not authenticate");
	r->rx_quiet = false;
	r->rx_more = type != RECORD_DATA || n == r->rx_max;
	count_records(r, (size_t)n);
	err = record_content(r, b, type, buf, (size_t)n);
	return err ? err : b->bytes;
}
