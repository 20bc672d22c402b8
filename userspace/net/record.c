/* SPDX-License-Identifier: Apache-2.0 */
/* Owns an established TLS 1.3 connection: its life, and what its records mean once they are open.
 *
 * record_tx.c fills and sends slots, record_rx.c cuts the stream into records, record_kernel.c does both where the kernel
 * carries a direction; all leave the meaning of alerts and of handshake messages to this file. A receiving side that has
 * ended (close_notify, error, truncation) stays so. */
#include "net/record_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum handshake_type { /* RFC 8446, B.3 */
		      HANDSHAKE_NEW_SESSION_TICKET = 4,
		      HANDSHAKE_KEY_UPDATE = 24,
};
enum { HANDSHAKE_HEADER = 4 };

struct record *record_new(int fd, const struct record_secrets *s, struct record_pool *pool)
{
	struct record *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->fd = -1;
	r->pool = pool;
	r->server = s->server;
	r->tx.seals = true;
	r->rx_max = RECORD_RX_BYTES;
	if (record_key_set(&r->tx, pool, s->cipher, s->tx, s->len) ||
	    record_key_set(&r->rx, pool, s->cipher, s->rx, s->len)) {
		record_free(r);
		return NULL;
	}
	r->fd = fd;
	return r;
}

void record_free(struct record *r)
{
	if (!r)
		return;
	if (r->tx_buf)
		record_pool_give(r->pool, RECORD_BUFFER_TX, r->tx_buf);
	if (r->part)
		record_pool_give(r->pool, RECORD_BUFFER_PART, r->part);
	record_key_clear(&r->tx);
	record_key_clear(&r->rx);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

int record_fd(const struct record *r)
{
	return r->fd;
}

const char *record_error(const struct record *r)
{
	return r->error ? r->error : "";
}

void record_stats(const struct record *r, struct record_stats *out)
{
	*out = r->stats;
}

const char *record_cipher_name(enum record_cipher c)
{
	return c == RECORD_AES_128_GCM	 ? "TLS_AES_128_GCM_SHA256"
	       : c == RECORD_AES_256_GCM ? "TLS_AES_256_GCM_SHA384"
					 : "TLS_CHACHA20_POLY1305_SHA256";
}

const char *record_alert_text(uint8_t description)
{
#define NAME(number, name) \
	case number:       \
		return "alert " name "(" #number ")"
	switch (description) {
		NAME(0, "close_notify");
		NAME(10, "unexpected_message");
		NAME(20, "bad_record_mac");
		NAME(22, "record_overflow");
		NAME(40, "handshake_failure");
		NAME(42, "bad_certificate");
		NAME(43, "unsupported_certificate");
		NAME(44, "certificate_revoked");
		NAME(45, "certificate_expired");
		NAME(46, "certificate_unknown");
		NAME(47, "illegal_parameter");
		NAME(48, "unknown_ca");
		NAME(49, "access_denied");
		NAME(50, "decode_error");
		NAME(51, "decrypt_error");
		NAME(70, "protocol_version");
		NAME(71, "insufficient_security");
		NAME(80, "internal_error");
		NAME(86, "inappropriate_fallback");
		NAME(90, "user_canceled");
		NAME(109, "missing_extension");
		NAME(110, "unsupported_extension");
		NAME(112, "unrecognized_name");
		NAME(113, "bad_certificate_status_response");
		NAME(115, "unknown_psk_identity");
		NAME(116, "certificate_required");
		NAME(120, "no_application_protocol");
	default:
		return "alert of an unknown kind";
	}
#undef NAME
}

int record_fail(struct record *r, int err, enum record_alert alert, const char *why)
{
	r->rx_end = err;
	r->error = why;
	record_alert(r, alert);
	record_flush(r); /* best effort: the owner learns of `err` either way */
	return err;
}

int record_take_alert(struct record *r, const uint8_t *p, size_t len)
{
	if (len != 2)
		return record_fail(r, -EPROTO, ALERT_DECODE_ERROR, "malformed alert");
	switch (p[1]) {
	case ALERT_CLOSE_NOTIFY:
		r->rx_end = -ENODATA;
		return r->rx_end;
	case ALERT_USER_CANCELED: /* announces a close_notify and ends nothing itself */
		return 0;
	default: /* in TLS 1.3 the level byte means nothing */
		r->error = record_alert_text(p[1]);
		r->rx_end = -EPROTO;
		return r->rx_end;
	}
}

static int key_update(struct record *r, uint8_t request)
{
	int err;

	if (request > 1)
		return record_fail(r, -EPROTO, ALERT_ILLEGAL_PARAMETER, "malformed KeyUpdate");
	err = record_key_update(&r->rx, r->pool);
	if (err)
		return record_fail(r, err, ALERT_INTERNAL_ERROR, "no memory for a new key");
	r->stats.rx_key_updates++;
	if (request && r->tx_kernel && !r->can_rekey)
		r->retiring = true; /* no answer, as it would need a new key */
	else if (request)
		r->tx_update_due = true;
	return r->rx_kernel ? record_kernel_rx_update(r) : 0;
}

/* Judges a message by its header: 0, or an error. */
static int message_begin(struct record *r)
{
	uint32_t len = (uint32_t)r->hs_head[1] << 16 | (uint32_t)r->hs_head[2] << 8 | r->hs_head[3];

	switch (r->hs_head[0]) {
	case HANDSHAKE_NEW_SESSION_TICKET:
		if (r->server)
			break;
		if (len > RECORD_TICKET_MAX)
			return record_fail(r, -EPROTO, ALERT_DECODE_ERROR, "oversized NewSessionTicket");
		r->hs_skip = len;
		r->hs_have = 0;
		return 0;
	case HANDSHAKE_KEY_UPDATE:
		if (len != 1)
			return record_fail(r, -EPROTO, ALERT_DECODE_ERROR, "malformed KeyUpdate");
		return 0;
	}
	return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "unexpected handshake message");
}

int record_post_handshake(struct record *r, const uint8_t *p, size_t len)
{
	const uint8_t *end = p + len;
	int err;

	if (!len)
		return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "empty handshake record");
	while (p < end) {
		if (r->hs_skip) {
			size_t n = (size_t)(end - p) < r->hs_skip ? (size_t)(end - p) : r->hs_skip;
			p += n;
			r->hs_skip -= (uint32_t)n;
			continue;
		}
		r->hs_head[r->hs_have++] = *p++;
		if (r->hs_have == HANDSHAKE_HEADER && (err = message_begin(r)))
			return err;
		if (r->hs_have <= HANDSHAKE_HEADER)
			continue;
		r->hs_have = 0;
		if (p < end) /* what follows would be under two keys */
			return record_fail(r, -EPROTO, ALERT_UNEXPECTED_MESSAGE, "KeyUpdate is not last in its record");
		return key_update(r, r->hs_head[HANDSHAKE_HEADER]);
	}
	return 0;
}
