/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the receiving side of a record in userspace: one read, every complete record opened where it lies.
 *
 * The large buffer is borrowed for the length of a call. A record of which only a part has come moves to a
 * small buffer of its own; the next read completes it there and continues into the large one, so that no byte
 * is copied twice. Connections at rest hold neither. */
#include "net/record_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* The length of the record whose header is at `p`, or an error. */
static int record_length(struct record *r, const uint8_t *p)
{
	unsigned body = (unsigned)p[3] << 8 | p[4];

	if (p[0] != RECORD_DATA)
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "unprotected record");
	if (body > RECORD_CIPHER_MAX)
		return record_fail(r, -EPROTO, ALERT_RECORD_OVERFLOW, "oversized record");
	if (body <= RECORD_TAG)
		return record_fail(r, -EPROTO, ALERT_DECODE_ERROR, "record too short");
	return (int)(RECORD_HEADER + body);
}

static int deliver(struct record *r, struct record_batch *d, uint8_t *p, size_t len)
{
	int err;

	if (r->hs_have || r->hs_skip)
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "data inside a handshake message");
	if (!len)
		return 0;
	r->rx_idle = 0;
	d->bytes += (ssize_t)len;
	err = d->data(d->arg, p, len);
	if (err)
		r->rx_end = err;
	return err;
}

int record_content(struct record *r, struct record_batch *d, uint8_t type, uint8_t *p, size_t len)
{
	if (r->rx_idle++ >= RECORD_KEY_UPDATES_MAX && (type != RECORD_DATA || !len))
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "too many records without data");
	switch (type) {
	case RECORD_DATA:
		return deliver(r, d, p, len);
	case RECORD_HANDSHAKE:
		return record_post_handshake(r, p, len);
	case RECORD_ALERT:
		return record_take_alert(r, p, len);
	default:
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "unexpected content type");
	}
}

static int take_record(struct record *r, struct record_batch *d, uint8_t *rec, size_t len)
{
	uint8_t *p = rec + RECORD_HEADER;
	int n = record_open(&r->rx, r->pool, rec, len - RECORD_HEADER);

	if (n == -EBADMSG)
		return record_fail(r, n, ALERT_BAD_RECORD_MAC, "record does not authenticate");
	if (n < 0)
		return record_fail(r, n, ALERT_INTERNAL_ERROR, "no memory for a cipher context");
	r->stats.rx_records++;
	if (n > RECORD_PLAIN_MAX + 1)
		return record_fail(r, -EPROTO, ALERT_RECORD_OVERFLOW, "oversized plaintext");
	while (n && !p[n - 1])
		n--;
	if (!n)
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "record without a content type");
	n--;
	return record_content(r, d, p[n], p, (size_t)n);
}

/* Opens the complete records of [p, end) and keeps what is left over. */
static int take_records(struct record *r, struct record_batch *d, uint8_t *p, uint8_t *end)
{
	while (end - p >= RECORD_HEADER) {
		int len = record_length(r, p), err;

		if (len < 0)
			return len;
		if (end - p < len)
			break;
		err = take_record(r, d, p, (size_t)len);
		if (err)
			return err;
		p += len;
	}
	if (p == end)
		return 0;
	r->part = record_pool_take(r->pool, RECORD_BUFFER_PART);
	if (!r->part)
		return record_fail(r, -ENOMEM, ALERT_INTERNAL_ERROR, "no memory for a partial record");
	r->part_have = (uint32_t)(end - p);
	memcpy(r->part, p, r->part_have);
	return 0;
}

static void part_drop(struct record *r)
{
	record_pool_give(r->pool, RECORD_BUFFER_PART, r->part);
	r->part = NULL;
	r->part_have = 0;
}

/* Reads into iov; bytes, or what record_recv() returns. */
static ssize_t read_once(struct record *r, struct iovec *iov, int n_iov)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n_iov};
	ssize_t n;

	do
		n = recvmsg(r->fd, &msg, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	r->rx_end = n ? -errno : -ECONNRESET;
	r->error = n ? NULL : "end of file without close_notify";
	return r->rx_end;
}

/* With less than a header the part is not worth its buffer: `buf` begins with it. Returns how much. */
static size_t part_to_buffer(struct record *r, uint8_t *buf)
{
	size_t have = r->part_have;

	memcpy(buf, r->part, have);
	part_drop(r);
	return have;
}

static ssize_t recv_into(struct record *r, struct record_batch *d, uint8_t *buf)
{
	struct iovec iov[2];
	size_t kept = 0, missing = 0, room;
	int n_iov = 0, len = 0, err;
	ssize_t n;

	if (r->part && r->part_have < RECORD_HEADER)
		kept = part_to_buffer(r, buf);
	room = RECORD_RX_BYTES - kept < r->rx_max ? RECORD_RX_BYTES - kept : r->rx_max;
	if (r->part) {
		len = record_length(r, r->part); /* has been judged when it was kept */
		missing = (size_t)len - r->part_have;
		iov[n_iov++] = (struct iovec){r->part + r->part_have, missing < room ? missing : room};
	}
	if (room > missing)
		iov[n_iov++] = (struct iovec){buf + kept, room - missing};
	n = read_once(r, iov, n_iov);
	if (n < 0 && n != -EAGAIN)
		return n;
	r->rx_more = n > 0 && (size_t)n == room;
	if (n < 0 || (size_t)n < missing) {
		/* Still no whole record: back to where it was. */
		if (kept)
			return take_records(r, d, buf, buf + kept) ?: -EAGAIN;
		r->part_have += n < 0 ? 0 : (uint32_t)n;
		return n < 0 ? n : 0;
	}
	if (r->part) {
		d->part = r->part; /* its plaintext is wanted until the batch is over */
		r->part = NULL;
		r->part_have = 0;
		err = take_record(r, d, d->part, (size_t)len);
		if (err)
			return err;
	}
	err = take_records(r, d, buf, buf + kept + ((size_t)n - missing));
	return err ? err : d->bytes;
}

ssize_t record_recv(struct record *r, record_data_fn *data, void *arg)
{
	struct record_batch d = {.data = data, .arg = arg};
	uint8_t *buf;
	ssize_t n;

	r->rx_more = false;
	if (r->rx_end)
		return r->rx_end;
	buf = record_pool_take(r->pool, RECORD_BUFFER_RX);
	if (!buf)
		return -ENOMEM;
	n = r->rx_kernel ? record_kernel_recv(r, &d, buf) : recv_into(r, &d, buf);
	if (d.bytes) {
		int err = data(arg, NULL, 0);

		if (err && !r->rx_end)
			n = r->rx_end = err;
	}
	if (d.part)
		record_pool_give(r->pool, RECORD_BUFFER_PART, d.part);
	record_pool_give(r->pool, RECORD_BUFFER_RX, buf);
	return n;
}

void record_read_max(struct record *r, size_t max)
{
	r->rx_max = (uint32_t)max;
}

bool record_more(const struct record *r)
{
	return r->rx_more;
}
