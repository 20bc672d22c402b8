/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what the probe asks of kTLS's receiving side: we seal, also what a peer may do but rarely does, the kernel opens. */
#include "net/ktls_trial.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* A NewSessionTicket, and text of so many bytes with padding behind it. */
static const struct piece {
	uint16_t bytes, pad;
	bool ticket;
} pieces[] = {
	{1},
	{1000},
	{.ticket = true},
	{RECORD_PLAIN_MAX},
	{100, 50},
	{4096},
	{RECORD_PLAIN_MAX - 300, 300},
	{RECORD_PLAIN_MAX},
	{.ticket = true},
	{5000},
};
enum { PIECES = sizeof pieces / sizeof *pieces, TICKET = 40 };

static size_t put_piece(struct trial *t, struct record_key *k, const struct piece *p, size_t *text, uint8_t *out)
{
	static const uint8_t ticket[TICKET] = {4, 0, 0, TICKET - 4};
	int n;

	if (p->ticket) {
		memcpy(out + RECORD_HEADER, ticket, TICKET);
		n = record_seal(k, t->probe->pool, out, TICKET, RECORD_HANDSHAKE);
	} else {
		memcpy(out + RECORD_HEADER, t->probe->text + *text, p->bytes);
		memset(out + RECORD_HEADER + p->bytes, 0, (size_t)p->pad + 1);
		out[RECORD_HEADER + p->bytes] = RECORD_DATA;
		n = record_seal(k, t->probe->pool, out, (size_t)p->bytes + p->pad, p->pad ? 0 : RECORD_DATA);
		*text += p->bytes;
	}
	return n < 0 ? 0 : (size_t)n;
}

/* Reads until `end` of the text is there, with buffers that cut records. Every ticket must come alone. */
static int recv_text(struct trial *t, size_t end)
{
	static const size_t rooms[] = {700, 40000, RECORD_PLAIN_MAX, 5000};

	for (unsigned i = 0; t->at < end; i++) {
		size_t room = rooms[i % 4];
		uint8_t type = 0;
		ssize_t n = ktls_recv(t->fd[0], t->probe->got, room, &type);

		if (n == -EAGAIN && trial_readable(t, t->fd[0]))
			continue;
		if (n < 0)
			return trial_fails(t, (int)n, "receiving: %s after %zu bytes", strerror((int)-n), t->at);
		if (type == RECORD_HANDSHAKE && n == TICKET && t->probe->got[0] == 4)
			continue;
		if (type != RECORD_DATA || t->at + (size_t)n > end ||
		    memcmp(t->probe->got, t->probe->text + t->at, (size_t)n) != 0)
			return trial_fails(t, 0, "receiving: wrong bytes after %zu", t->at);
		t->at += (size_t)n;
	}
	return 0;
}

static int write_wire(struct trial *t, const uint8_t *p, size_t len)
{
	if (send(t->fd[1], p, len, MSG_NOSIGNAL) == (ssize_t)len)
		return 0;
	return trial_fails(t, 0, "loopback: %s", strerror(errno));
}

/* All pieces; of the last one first a half, which must not be readable. */
static int recv_pieces(struct trial *t, struct record_key *ours)
{
	size_t text = 0, len = 0, last = 0, whole = 0, half;
	uint8_t type;
	int err;

	for (unsigned i = 0; i < PIECES; i++) {
		last = len;
		whole = text;
		len += put_piece(t, ours, &pieces[i], &text, t->probe->wire + len);
	}
	half = last + (len - last) / 2;
	err = write_wire(t, t->probe->wire, half);
	if (!err)
		err = recv_text(t, whole);
	/* The last ticket, or nothing */
	while (!err && ktls_recv(t->fd[0], t->probe->got, TRIAL_TEXT_MAX, &type) >= 0)
		if (type != RECORD_HANDSHAKE)
			err = trial_fails(t, 0, "receiving: half a record can be read");
	if (!err)
		err = write_wire(t, t->probe->wire + half, len - half);
	return err ? err : recv_text(t, text);
}

static int change_rx_key(struct trial *t, struct record_key *ours, struct record_key *k)
{
	uint8_t *w = t->probe->wire, type = 0;
	size_t text = t->at;
	ssize_t n;
	int err;

	memcpy(w + RECORD_HEADER, record_key_update_message, RECORD_KEY_UPDATE_BYTES);
	n = record_seal(ours, t->probe->pool, w, RECORD_KEY_UPDATE_BYTES, RECORD_HANDSHAKE);
	err = record_key_update(ours, t->probe->pool);
	if (n < 0 || err)
		return trial_fails(t, err, "out of memory");
	err = write_wire(t, w, (size_t)n + put_piece(t, ours, &(struct piece){4096}, &text, w + n));
	if (err)
		return err;
	while ((n = ktls_recv(t->fd[0], t->probe->got, TRIAL_TEXT_MAX, &type)) == -EAGAIN &&
	       trial_readable(t, t->fd[0]))
		;
	if (n != RECORD_KEY_UPDATE_BYTES || type != RECORD_HANDSHAKE)
		return trial_fails(t, 0, "a KeyUpdate is not seen as one");
	err = record_key_update(k, t->probe->pool);
	if (!err)
		err = ktls_install(t->fd[0], k);
	return err ? trial_fails(t, err, "TLS_RX a second time: %s", strerror(-err)) : recv_text(t, text);
}

int trial_rx(struct trial *t, bool no_pad, bool rekey)
{
	struct record_key ours = {.seals = true}, k = {.seals = false};
	int err = trial_key(t, &ours, true);

	if (!err)
		err = trial_key(t, &k, false);
	if (!err) {
		err = ktls_install(t->fd[0], &k);
		if (err)
			trial_fails(t, err, "TLS_RX: %s", strerror(-err));
	}
	if (!err && no_pad) {
		err = ktls_expect_no_pad(t->fd[0]);
		if (err)
			trial_fails(t, err, "TLS_RX_EXPECT_NO_PAD: %s", strerror(-err));
	}
	if (!err)
		err = recv_pieces(t, &ours);
	if (!err && rekey)
		err = change_rx_key(t, &ours, &k);
	record_key_clear(&ours);
	record_key_clear(&k);
	return err;
}
