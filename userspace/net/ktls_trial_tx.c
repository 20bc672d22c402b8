/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what the probe asks of kTLS's sending side: the kernel seals, the user back end opens and compares. */
#include "net/ktls_trial.h"

#include <errno.h>
#include <string.h>

static int compare(void *arg, uint8_t *p, size_t len)
{
	struct trial *t = arg;

	if (len && (t->at + len > TRIAL_TEXT_MAX || memcmp(t->probe->text + t->at, p, len) != 0))
		return -EILSEQ;
	t->at += len;
	return 0;
}

/* The kernel sends text up to `end`, in pieces of `piece` bytes; `peer` reads it. */
static int send_text(struct trial *t, struct record *peer, size_t end, size_t piece)
{
	size_t sent = t->at;

	while (t->at < end) {
		size_t n = end - sent < piece ? end - sent : piece;
		ssize_t done = n ? ktls_send(t->fd[0], t->probe->text + sent, n, RECORD_DATA) : 0, got;

		if (done < 0 && done != -EAGAIN)
			return trial_fails(t, (int)done, "sending: %s", strerror((int)-done));
		sent += done > 0 ? (size_t)done : 0;
		got = record_recv(peer, compare, t);
		if (got < 0 && got != -EAGAIN)
			return trial_fails(t, 0, "sending: wrong bytes after %zu", t->at);
		if (got < 0 && sent == end && !trial_readable(t, t->fd[1]))
			return trial_fails(t, 0, "sending: bytes are missing after %zu", t->at);
	}
	return 0;
}

static int change_tx_key(struct trial *t, struct record_key *k)
{
	int err = (int)ktls_send(t->fd[0], record_key_update_message, RECORD_KEY_UPDATE_BYTES, RECORD_HANDSHAKE);

	if (err != RECORD_KEY_UPDATE_BYTES)
		return trial_fails(t, err < 0 ? err : 0, "a KeyUpdate cannot be sent");
	err = record_key_update(k, t->probe->pool);
	if (!err)
		err = ktls_install(t->fd[0], k);
	return err ? trial_fails(t, err, "TLS_TX a second time: %s", strerror(-err)) : 0;
}

static int send_end(struct trial *t, struct record *peer)
{
	ssize_t n;

	if (ktls_send(t->fd[0], "\1\0", 2, RECORD_ALERT) != 2)
		return trial_fails(t, 0, "an alert cannot be sent");
	while ((n = record_recv(peer, compare, t)) >= 0 || (n == -EAGAIN && trial_readable(t, t->fd[1])))
		;
	return n == -ENODATA ? 0 : trial_fails(t, 0, "an alert is not seen as one");
}

static int send_all(struct trial *t, struct record *peer, struct record_key *k, bool rekey)
{
	static const struct {
		size_t bytes, piece;
	} parts[] = {{1, 1}, {100, 9}, {RECORD_PLAIN_MAX, RECORD_PLAIN_MAX}, {3 * RECORD_PLAIN_MAX + 5, SIZE_MAX}};
	int err = 0;

	for (size_t i = 0; !err && i < sizeof parts / sizeof *parts; i++)
		err = send_text(t, peer, t->at + parts[i].bytes, parts[i].piece);
	if (!err && rekey)
		err = change_tx_key(t, k);
	if (!err && rekey)
		err = send_text(t, peer, t->at + 1000, SIZE_MAX);
	return err ? err : send_end(t, peer);
}

int trial_tx(struct trial *t, bool rekey)
{
	struct record_secrets s = {.cipher = t->cipher, .server = true};
	struct record_key k = {.seals = true};
	struct record *peer = NULL;
	int err = trial_key(t, &k, true);

	s.len = k.secret_len;
	memcpy(s.rx, k.secret, s.len);
	if (!err) {
		err = ktls_install(t->fd[0], &k);
		if (err)
			trial_fails(t, err, "TLS_TX: %s", strerror(-err));
	}
	if (!err && !(peer = record_new(t->fd[1], &s, t->probe->pool)))
		err = trial_fails(t, -ENOMEM, "out of memory");
	if (!err)
		err = send_all(t, peer, &k, rekey);
	if (peer)
		t->fd[1] = -1; /* was the record's */
	record_free(peer);
	record_key_clear(&k);
	return err;
}
