/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the sending side of a record: slots that callers fill, sealed where they lie, one send.
 *
 * Records lie back to back in the buffer, so that all of them leave as one piece. A slot is opened only where
 * a whole one fits. Life of the buffer: borrowed when room is asked for, filled, sealed by record_flush(),
 * returned when the socket has taken the last byte. Where the kernel seals (record_kernel.c), slots have no room for
 * headers and tags: plaintext lies back to back, and the kernel cuts it into records anew. */
#include "net/record_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { TX_FIRST = RECORD_UPDATE_BYTES };

static uint32_t header_bytes(const struct record *r)
{
	return r->tx_kernel ? 0 : RECORD_HEADER;
}

static uint32_t overhead_bytes(const struct record *r)
{
	return r->tx_kernel ? 0 : RECORD_OVERHEAD;
}

static bool has_data(const struct record *r)
{
	return r->tx_buf && (r->tx_slot > TX_FIRST || r->tx_fill);
}

static int buffer_take(struct record *r)
{
	if (r->tx_buf)
		return 0;
	r->tx_buf = record_pool_take(r->pool, RECORD_BUFFER_TX);
	if (!r->tx_buf)
		return -ENOMEM;
	r->tx_slot = TX_FIRST;
	r->tx_fill = 0;
	return 0;
}

static void buffer_give(struct record *r)
{
	if (r->tx_buf)
		record_pool_give(r->pool, RECORD_BUFFER_TX, r->tx_buf);
	r->tx_buf = NULL;
	r->tx_end = 0;
}

static uint8_t *slot_free(const struct record *r)
{
	return r->tx_buf + r->tx_slot + header_bytes(r) + r->tx_fill;
}

/* Whether the socket must take something before there is room, or nothing more may be written. */
static bool is_shut(const struct record *r)
{
	return r->tx_end || r->tx_closed || r->tx_error;
}

int record_tx_room(struct record *r, struct iovec *iov, int max, size_t min_first)
{
	uint32_t slot = RECORD_PLAIN_MAX + overhead_bytes(r), limit = TX_FIRST + RECORD_SLOTS * slot, at;
	int n = 0, err;

	if (is_shut(r) || max <= 0)
		return 0;
	err = buffer_take(r);
	if (err)
		return err;
	if (r->tx_fill && RECORD_PLAIN_MAX - r->tx_fill < min_first)
		record_tx_close(r);
	at = r->tx_slot;
	if (r->tx_fill) {
		iov[n++] = (struct iovec){slot_free(r), RECORD_PLAIN_MAX - r->tx_fill};
		at += slot;
	}
	for (; n < max && at + slot <= limit; at += slot)
		iov[n++] = (struct iovec){r->tx_buf + at + header_bytes(r), RECORD_PLAIN_MAX};
	return n;
}

void record_tx_close(struct record *r)
{
	uint8_t *head;

	if (!r->tx_buf || !r->tx_fill)
		return;
	if (!r->tx_kernel) {
		head = r->tx_buf + r->tx_slot; /* the length waits here until the record is sealed */
		head[3] = (uint8_t)(r->tx_fill >> 8);
		head[4] = (uint8_t)r->tx_fill;
	}
	r->tx_slot += r->tx_fill + overhead_bytes(r);
	r->tx_fill = 0;
}

void record_tx_commit(struct record *r, size_t len)
{
	while (len) {
		size_t n = RECORD_PLAIN_MAX - r->tx_fill;

		n = len < n ? len : n;
		r->tx_fill += (uint32_t)n;
		len -= n;
		if (r->tx_fill == RECORD_PLAIN_MAX)
			record_tx_close(r);
	}
	if (!r->tx_end && !has_data(r))
		buffer_give(r);
}

int record_write(struct record *r, const void *p, size_t len)
{
	struct iovec iov[RECORD_SLOTS];
	const uint8_t *from = p;
	size_t room = 0, left = len;
	int n;

	if (r->tx_closed)
		return -EPIPE;
	if (r->tx_error)
		return r->tx_error;
	n = record_tx_room(r, iov, RECORD_SLOTS, 1);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++)
		room += iov[i].iov_len;
	if (room < len) {
		record_tx_commit(r, 0);
		return -EAGAIN;
	}
	for (int i = 0; left; i++) {
		size_t take = left < iov[i].iov_len ? left : iov[i].iov_len;

		memcpy(iov[i].iov_base, from, take);
		from += take;
		left -= take;
	}
	record_tx_commit(r, len);
	return 0;
}

const uint8_t record_key_update_message[RECORD_KEY_UPDATE_BYTES] = {24, 0, 0, 1, 0};

void record_alert_message(const struct record *r, uint8_t out[2])
{
	out[0] = r->tx_alert == ALERT_CLOSE_NOTIFY ? 1 : 2; /* warning, fatal */
	out[1] = r->tx_alert;
}

static int seal_update(struct record *r)
{
	int n, err;

	memcpy(r->tx_buf + RECORD_HEADER, record_key_update_message, RECORD_KEY_UPDATE_BYTES);
	n = record_seal(&r->tx, r->pool, r->tx_buf, RECORD_KEY_UPDATE_BYTES, RECORD_HANDSHAKE);
	if (n < 0)
		return n;
	err = record_key_update(&r->tx, r->pool);
	if (err)
		return err;
	r->tx_update_due = false;
	r->tx_sent = 0; /* the room in front is used */
	r->stats.tx_records++;
	r->stats.tx_key_updates++;
	return 0;
}

static int seal_slots(struct record *r)
{
	uint32_t at = TX_FIRST;

	record_tx_close(r);
	while (at < r->tx_slot) {
		uint8_t *rec = r->tx_buf + at;
		int n = record_seal(&r->tx, r->pool, rec, (size_t)rec[3] << 8 | rec[4], RECORD_DATA);

		if (n < 0)
			return n;
		at += (uint32_t)n;
		r->stats.tx_records++;
	}
	return 0;
}

static int seal_alert(struct record *r)
{
	uint8_t *rec = r->tx_buf + r->tx_slot;
	int n;

	record_alert_message(r, rec + RECORD_HEADER);
	n = record_seal(&r->tx, r->pool, rec, 2, RECORD_ALERT);
	if (n < 0)
		return n;
	r->tx_slot += (uint32_t)n;
	r->tx_alert_due = false;
	r->stats.tx_records++;
	return 0;
}

/* Everything that is due becomes one piece of ciphertext: KeyUpdate, data, alert. */
static int seal_all(struct record *r)
{
	int err = buffer_take(r);

	if (err)
		return err; /* nothing has happened yet: may be tried again */
	r->tx_sent = TX_FIRST;
	if (r->tx_update_due || r->tx.seq + RECORD_TX_RECORDS >= RECORD_LIMIT)
		err = seal_update(r);
	if (!err)
		err = seal_slots(r);
	if (!err && r->tx_alert_due)
		err = seal_alert(r);
	if (err) {
		r->tx_error = err; /* half of the buffer is ciphertext: this direction is lost */
		return err;
	}
	r->tx_end = r->tx_slot;
	return 0;
}

bool record_tx_pending(const struct record *r)
{
	return r->tx_end || has_data(r) || r->tx_alert_due || (r->tx_update_due && !r->tx_closed);
}

size_t record_tx_unsent(const struct record *r)
{
	return r->tx_end ? r->tx_end - r->tx_sent : 0;
}

/* Seals what is due and sends it. */
static int user_send(struct record *r)
{
	int err = r->tx_end ? 0 : seal_all(r);
	ssize_t n;

	if (err)
		return err;
	do
		n = send(r->fd, r->tx_buf + r->tx_sent, r->tx_end - r->tx_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (n < 0)
		return r->tx_error = -errno;
	r->tx_sent += (uint32_t)n;
	return r->tx_sent < r->tx_end ? -EAGAIN : 0;
}

/* The same where the kernel seals. */
static int kernel_send(struct record *r)
{
	int err;

	if (!r->tx_end) {
		record_tx_close(r);
		r->tx_sent = TX_FIRST;
		r->tx_end = r->tx_buf ? r->tx_slot : TX_FIRST;
	}
	err = record_kernel_send(r, r->tx_sent == TX_FIRST);
	if (err && err != -EAGAIN)
		r->tx_error = err;
	return err;
}

int record_flush(struct record *r)
{
	while (!r->tx_error && record_tx_pending(r)) {
		int err = r->tx_kernel ? kernel_send(r) : user_send(r);

		if (err)
			return err;
		buffer_give(r);
	}
	if (!r->tx_end)
		buffer_give(r);
	return r->tx_error;
}

void record_alert(struct record *r, uint8_t description)
{
	if (r->tx_closed)
		return;
	r->tx_closed = true;
	r->tx_alert_due = true;
	r->tx_alert = description;
}

void record_close_notify(struct record *r)
{
	record_alert(r, ALERT_CLOSE_NOTIFY);
}
