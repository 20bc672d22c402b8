/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the start-up probe: what this kernel's kTLS does right, tried on loopback connections whose other end is the user
 * back end. A kernel that loses or mixes up a byte does not have the feature. */
#include "net/ktls_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_MAX = 96 * 1024 };

struct probe {
	struct record_pool *pool;
	int left_ms; /* that may still be waited */
	uint8_t text[TEXT_MAX], wire[TEXT_MAX], got[TEXT_MAX];
};

/* One connection: [0] is the kernel's end, [1] ours. */
struct trial {
	struct probe *probe;
	enum record_cipher cipher;
	int fd[2];
	size_t at; /* bytes of the text that are through */
	char *why;
};

static int __attribute__((format(printf, 3, 4))) fails(struct trial *t, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->why, KTLS_WHY_MAX, fmt, ap);
	va_end(ap);
	return err ? err : -EIO;
}

/* --- the connection ------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool wait_readable(struct probe *p, int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	int64_t began = now_ms();
	bool ready = p->left_ms > 0 && poll(&pfd, 1, p->left_ms) == 1;

	p->left_ms -= (int)(now_ms() - began);
	return ready;
}

/* The other end may be there a moment after connect(2): a busy machine has the handshake's packets wait. */
static int pair_open(struct probe *p, int fd[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;

	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	fd[1] = -1;
	if (l < 0 || fd[0] < 0 || bind(l, (void *)&at, len) < 0 || listen(l, 1) < 0 ||
	    getsockname(l, (void *)&at, &len) < 0 || (connect(fd[0], (void *)&at, len) < 0 && errno != EINPROGRESS))
		err = -errno;
	else if (!wait_readable(p, l))
		err = -ETIMEDOUT;
	else if ((fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) < 0)
		err = -errno;
	if (l >= 0)
		close(l);
	return err;
}

static void pair_close(int fd[2])
{
	for (int i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

/* Keys of the text's way: the kernel's when `seals`, or ours to it. */
static int make_key(struct trial *t, struct record_key *k, bool seals)
{
	static const uint8_t secret[RECORD_SECRET_MAX] = "probe";

	*k = (struct record_key){.seals = seals};
	return record_key_set(k, t->probe->pool, t->cipher, secret, t->cipher == RECORD_AES_256_GCM ? 48 : 32);
}

/* --- sending -------------------------------------------------------------------------------------------- */

static int compare(void *arg, uint8_t *p, size_t len)
{
	struct trial *t = arg;

	if (len && (t->at + len > TEXT_MAX || memcmp(t->probe->text + t->at, p, len) != 0))
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
			return fails(t, (int)done, "sending: %s", strerror((int)-done));
		sent += done > 0 ? (size_t)done : 0;
		got = record_recv(peer, compare, t);
		if (got < 0 && got != -EAGAIN)
			return fails(t, 0, "sending: wrong bytes after %zu", t->at);
		if (got < 0 && sent == end && !wait_readable(t->probe, t->fd[1]))
			return fails(t, 0, "sending: bytes are missing after %zu", t->at);
	}
	return 0;
}

static int change_tx_key(struct trial *t, struct record_key *k)
{
	int err = (int)ktls_send(t->fd[0], record_key_update_message, RECORD_KEY_UPDATE_BYTES, RECORD_HANDSHAKE);

	if (err != RECORD_KEY_UPDATE_BYTES)
		return fails(t, err < 0 ? err : 0, "a KeyUpdate cannot be sent");
	err = record_key_update(k, t->probe->pool);
	if (!err)
		err = ktls_install(t->fd[0], k);
	return err ? fails(t, err, "TLS_TX a second time: %s", strerror(-err)) : 0;
}

static int send_end(struct trial *t, struct record *peer)
{
	ssize_t n;

	if (ktls_send(t->fd[0], "\1\0", 2, RECORD_ALERT) != 2)
		return fails(t, 0, "an alert cannot be sent");
	while ((n = record_recv(peer, compare, t)) >= 0 || (n == -EAGAIN && wait_readable(t->probe, t->fd[1])))
		;
	return n == -ENODATA ? 0 : fails(t, 0, "an alert is not seen as one");
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

static int try_tx(struct trial *t, bool rekey)
{
	struct record_secrets s = {.cipher = t->cipher, .server = true};
	struct record_key k = {.seals = true};
	struct record *peer = NULL;
	int err = make_key(t, &k, true);

	s.len = k.secret_len;
	memcpy(s.rx, k.secret, s.len);
	if (!err) {
		err = ktls_install(t->fd[0], &k);
		if (err)
			fails(t, err, "TLS_TX: %s", strerror(-err));
	}
	if (!err && !(peer = record_new(t->fd[1], &s, t->probe->pool)))
		err = fails(t, -ENOMEM, "out of memory");
	if (!err)
		err = send_all(t, peer, &k, rekey);
	if (peer)
		t->fd[1] = -1; /* was the record's */
	record_free(peer);
	record_key_clear(&k);
	return err;
}

/* --- receiving ------------------------------------------------------------------------------------------ */

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

		if (n == -EAGAIN && wait_readable(t->probe, t->fd[0]))
			continue;
		if (n < 0)
			return fails(t, (int)n, "receiving: %s after %zu bytes", strerror((int)-n), t->at);
		if (type == RECORD_HANDSHAKE && n == TICKET && t->probe->got[0] == 4)
			continue;
		if (type != RECORD_DATA || t->at + (size_t)n > end ||
		    memcmp(t->probe->got, t->probe->text + t->at, (size_t)n) != 0)
			return fails(t, 0, "receiving: wrong bytes after %zu", t->at);
		t->at += (size_t)n;
	}
	return 0;
}

static int write_wire(struct trial *t, const uint8_t *p, size_t len)
{
	return send(t->fd[1], p, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : fails(t, 0, "loopback: %s", strerror(errno));
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
	while (!err && ktls_recv(t->fd[0], t->probe->got, TEXT_MAX, &type) >= 0)
		if (type != RECORD_HANDSHAKE)
			err = fails(t, 0, "receiving: half a record can be read");
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
		return fails(t, err, "out of memory");
	err = write_wire(t, w, (size_t)n + put_piece(t, ours, &(struct piece){4096}, &text, w + n));
	if (err)
		return err;
	while ((n = ktls_recv(t->fd[0], t->probe->got, TEXT_MAX, &type)) == -EAGAIN &&
	       wait_readable(t->probe, t->fd[0]))
		;
	if (n != RECORD_KEY_UPDATE_BYTES || type != RECORD_HANDSHAKE)
		return fails(t, 0, "a KeyUpdate is not seen as one");
	err = record_key_update(k, t->probe->pool);
	if (!err)
		err = ktls_install(t->fd[0], k);
	return err ? fails(t, err, "TLS_RX a second time: %s", strerror(-err)) : recv_text(t, text);
}

static int try_rx(struct trial *t, bool no_pad, bool rekey)
{
	struct record_key ours = {.seals = true}, k = {.seals = false};
	int err = make_key(t, &ours, true);

	if (!err)
		err = make_key(t, &k, false);
	if (!err) {
		err = ktls_install(t->fd[0], &k);
		if (err)
			fails(t, err, "TLS_RX: %s", strerror(-err));
	}
	if (!err && no_pad) {
		err = ktls_expect_no_pad(t->fd[0]);
		if (err)
			fails(t, err, "TLS_RX_EXPECT_NO_PAD: %s", strerror(-err));
	}
	if (!err)
		err = recv_pieces(t, &ours);
	if (!err && rekey)
		err = change_rx_key(t, &ours, &k);
	record_key_clear(&ours);
	record_key_clear(&k);
	return err;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

enum attempt { TRY_TX, TRY_TX_REKEY, TRY_RX, TRY_NO_PAD, TRY_RX_REKEY };

static bool attempt(struct probe *p, enum attempt what, enum record_cipher cipher, char why[KTLS_WHY_MAX])
{
	struct trial t = {.probe = p, .cipher = cipher, .why = why};
	int err = pair_open(p, t.fd);

	if (err) {
		fails(&t, err, "no loopback: %s", strerror(-err));
	} else {
		err = ktls_attach(t.fd[0]);
		if (err)
			fails(&t, err, "%s",
			      err == -ENOENT ? "this kernel has no kTLS (CONFIG_TLS, module tls)" : strerror(-err));
	}
	if (!err && what <= TRY_TX_REKEY)
		err = try_tx(&t, what == TRY_TX_REKEY);
	else if (!err)
		err = try_rx(&t, what == TRY_NO_PAD, what == TRY_RX_REKEY);
	pair_close(t.fd);
	return !err;
}

/* Works with at least one cipher: those go to `ciphers`. */
static bool direction(struct probe *p, enum attempt what, uint8_t *ciphers, char why[KTLS_WHY_MAX])
{
	for (enum record_cipher c = RECORD_AES_128_GCM; c <= RECORD_CHACHA20; c++)
		if (attempt(p, what, c, why))
			*ciphers |= (uint8_t)(1u << (c - RECORD_AES_128_GCM));
	return *ciphers;
}

static bool all_of(struct probe *p, enum attempt what, uint8_t ciphers, char why[KTLS_WHY_MAX])
{
	for (enum record_cipher c = RECORD_AES_128_GCM; c <= RECORD_CHACHA20; c++)
		if (ciphers & 1u << (c - RECORD_AES_128_GCM) && !attempt(p, what, c, why))
			return false;
	return true;
}

static bool allowed(const struct ktls_switch *sw, enum ktls_feature f)
{
	bool receives = f == KTLS_FEATURE_RX || f == KTLS_FEATURE_RX_NO_PAD;

	return (sw->mode == KTLS_ON || (sw->mode == KTLS_TX && !receives)) && !sw->disabled[f];
}

static void forbid(struct ktls_features *f, enum ktls_feature which, const char *why)
{
	f->has[which] = false;
	f->off[which] = true;
	snprintf(f->why[which], KTLS_WHY_MAX, "%s", why);
}

static void try_all(struct probe *p, const struct ktls_switch *sw, struct ktls_features *f)
{
	bool *has = f->has;

	p->left_ms = KTLS_PROBE_MS;
	for (size_t i = 0; i < TEXT_MAX; i++)
		p->text[i] = (uint8_t)(i * 31 + (i >> 8));
	if (allowed(sw, KTLS_FEATURE_TX))
		has[KTLS_FEATURE_TX] = direction(p, TRY_TX, &f->ciphers[0], f->why[KTLS_FEATURE_TX]);
	if (allowed(sw, KTLS_FEATURE_RX))
		has[KTLS_FEATURE_RX] = direction(p, TRY_RX, &f->ciphers[1], f->why[KTLS_FEATURE_RX]);
	if (allowed(sw, KTLS_FEATURE_RX_NO_PAD) && has[KTLS_FEATURE_RX])
		has[KTLS_FEATURE_RX_NO_PAD] = all_of(p, TRY_NO_PAD, f->ciphers[1], f->why[KTLS_FEATURE_RX_NO_PAD]);
	if (allowed(sw, KTLS_FEATURE_REKEY) && (has[KTLS_FEATURE_TX] || has[KTLS_FEATURE_RX]))
		has[KTLS_FEATURE_REKEY] = all_of(p, TRY_TX_REKEY, f->ciphers[0], f->why[KTLS_FEATURE_REKEY]) &&
					  all_of(p, TRY_RX_REKEY, f->ciphers[1], f->why[KTLS_FEATURE_REKEY]);
}

static void probe_run(const struct ktls_switch *sw, struct ktls_features *f)
{
	struct probe *p = calloc(1, sizeof *p);

	if (p)
		p->pool = record_pool_new(2);
	if (p && p->pool)
		try_all(p, sw, f);
	else
		snprintf(f->why[KTLS_FEATURE_TX], KTLS_WHY_MAX, "out of memory");
	record_pool_free(p ? p->pool : NULL);
	free(p);
}

void ktls_probe(const struct ktls_switch *sw, struct ktls_features *f)
{
	memset(f, 0, sizeof *f);
	if (sw->mode == KTLS_TX || sw->mode == KTLS_ON)
		probe_run(sw, f);
	for (unsigned i = 0; i < KTLS_FEATURES; i++) {
		if (!allowed(sw, i))
			forbid(f, i, sw->mode == KTLS_AUTO ? "the tunnel's own way costs less" : "switched off");
		else if (!f->has[i] && !*f->why[i]) /* not tried: what it needs is not there */
			memcpy(f->why[i], f->why[i == KTLS_FEATURE_RX_NO_PAD ? KTLS_FEATURE_RX : KTLS_FEATURE_TX],
			       KTLS_WHY_MAX);
		else if (f->has[i])
			*f->why[i] = '\0';
	}
}
