/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of net/record over each of its back ends: the vectors of RFC 8448, what each kind of received record does, every
 * split of the stream, slots and partial sends, key updates, the ends of a connection. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/ktls_internal.h"
#include "record_backends.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct record_pool *pool;

static const struct {
	const char *name;
	enum record_cipher cipher;
	size_t len;
} ciphers[] = {
	{"AES-128-GCM", RECORD_AES_128_GCM, 32},
	{"AES-256-GCM", RECORD_AES_256_GCM, 48},
	{"CHACHA20", RECORD_CHACHA20, 32},
};

/* Secrets of the end that is not `server`; the other end has them the other way round. */
static struct record_secrets secrets(unsigned cipher, bool server)
{
	struct record_secrets s = {.cipher = ciphers[cipher].cipher, .len = ciphers[cipher].len, .server = server};

	memset(s.tx, server ? 2 : 1, sizeof s.tx);
	memset(s.rx, server ? 1 : 2, sizeof s.rx);
	return s;
}

/* The client's records start at sequence number `seq`. */
static void connect_records_at(unsigned cipher, uint64_t seq, struct record **client, struct record **server)
{
	struct record_secrets c = secrets(cipher, false), s = secrets(cipher, true);
	int fd[2];

	backend_pair(fd);
	*client = record_new(fd[0], &c, pool);
	*server = record_new(fd[1], &s, pool);
	assert_non_null(*client);
	assert_non_null(*server);
	(*client)->tx.seq = (*server)->rx.seq = seq;
	backend_take(*client);
	backend_take(*server);
}

static void connect_records(unsigned cipher, struct record **client, struct record **server)
{
	connect_records_at(cipher, 0, client, server);
}

struct sink {
	uint8_t *p;
	size_t n, room;
	int stop, stop_late;	     /* what the callback returns: for data, at the end of a batch */
	const uint8_t *piece[20000]; /* of the batch that is not over */
	size_t piece_len[20000], pieces, batches;
};

static int keep(void *arg, uint8_t *p, size_t len)
{
	struct sink *s = arg;

	if (!len) { /* the batch is over: only now may its pointers go stale */
		size_t n = s->n;

		assert_true(s->pieces > 0);
		while (s->pieces--) {
			n -= s->piece_len[s->pieces];
			assert_memory_equal(s->p + n, s->piece[s->pieces], s->piece_len[s->pieces]);
		}
		s->pieces = 0;
		s->batches++;
		return s->stop_late;
	}
	assert_true(s->n + len <= s->room);
	memcpy(s->p + s->n, p, len);
	s->n += len;
	assert_true(s->pieces < COUNT(s->piece));
	s->piece[s->pieces] = p;
	s->piece_len[s->pieces++] = len;
	return s->stop;
}

static size_t unhex(uint8_t *out, const char *text)
{
	size_t n = 0;

	for (unsigned byte; sscanf(text, " %2x", &byte) == 1; n++) {
		out[n] = (uint8_t)byte;
		text += strspn(text, " ") + 2;
	}
	return n;
}

/* Reads until it ends or nothing more is there. */
static int drain(struct record *r, struct sink *sink)
{
	ssize_t n;

	do
		n = record_recv(r, keep, sink);
	while (n >= 0);
	return (int)n;
}

/* Flushes `a` while `b` reads, until all of `n` bytes is there. */
static void pass(struct record *a, struct record *b, struct sink *sink, size_t n)
{
	int err;

	while ((err = record_flush(a)) == -EAGAIN || sink->n < n) {
		assert_true(err == 0 || err == -EAGAIN);
		assert_int_equal(drain(b, sink), -EAGAIN);
	}
	assert_int_equal(err, 0);
	backend_arrive(record_fd(a), record_fd(b));
}

/* --- RFC 8448, section 3: the simple 1-RTT handshake ---------------------------------------------------- */

#define CLIENT_SECRET "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"
#define SERVER_SECRET "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"
#define CLIENT_DATA                                                                                          \
	"1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62" \
	"974e"                                                                                               \
	"1f5a6292a2977014bd1e3deae63aeebb21694915e4"
#define SERVER_DATA                                                                                          \
	"17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fc" \
	"c49c"                                                                                               \
	"4bf2e5f0a21c0047c2abf332540dd032e167c2955d"
#define CLIENT_CLOSE "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3"
#define SERVER_CLOSE "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9"

static void test_rfc8448_keys(void **state)
{
	static const struct {
		const char *name, *secret, *key, *iv;
	} rows[] = {
		{"client", CLIENT_SECRET, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"},
		{"server", SERVER_SECRET, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"},
	};
	uint8_t secret[48], key[32], iv[12];

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct record_key k = {0};

		unhex(secret, rows[i].secret);
		unhex(key, rows[i].key);
		unhex(iv, rows[i].iv);
		assert_int_equal(record_key_set(&k, pool, RECORD_AES_128_GCM, secret, 32), 0);
		if (memcmp(k.key, key, 16) || memcmp(k.iv, iv, 12))
			fail_msg("%s: other keys", rows[i].name);
		record_key_clear(&k);
	}
}

/* Either side's record of 50 bytes and its close_notify, sealed and opened. */
static void test_rfc8448_records(void **state)
{
	static const struct {
		const char *name, *secret, *data, *close;
		uint64_t seq; /* the server has sent a ticket before */
	} rows[] = {
		{"client", CLIENT_SECRET, CLIENT_DATA, CLIENT_CLOSE, 0},
		{"server", SERVER_SECRET, SERVER_DATA, SERVER_CLOSE, 1},
	};
	uint8_t want[256], got[256], plain[50];
	size_t n;

	for (unsigned i = 0; i < sizeof plain; i++)
		plain[i] = (uint8_t)i;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct record_secrets s = {.cipher = RECORD_AES_128_GCM, .len = 32};
		struct sink sink = {.p = got, .room = sizeof got};
		struct record *a, *b;
		int fd[2];

		unhex(s.tx, rows[i].secret);
		unhex(s.rx, rows[i].secret);
		n = unhex(want, rows[i].data);
		n += unhex(want + n, rows[i].close);
		backend_pair(fd);
		a = record_new(fd[0], &s, pool);
		b = record_new(dup(fd[1]), &s, pool);
		a->tx.seq = b->rx.seq = rows[i].seq;
		backend_take(a);
		assert_int_equal(record_write(a, plain, sizeof plain), 0);
		record_close_notify(a);
		assert_int_equal(record_flush(a), 0);
		assert_int_equal(recv(fd[1], got, sizeof got, MSG_PEEK), n);
		if (memcmp(got, want, n))
			fail_msg("%s: sealed otherwise", rows[i].name);
		backend_take(b);
		assert_int_equal(drain(b, &sink), -ENODATA);
		assert_int_equal(sink.n, sizeof plain);
		assert_memory_equal(got, plain, sizeof plain);
		record_free(a);
		record_free(b);
		close(fd[1]);
	}
}

/* --- what a received record does ------------------------------------------------------------------------ */

struct sent { /* one record of the peer */
	enum record_type type;
	const char *text; /* escapes: its bytes are `len`, or strlen when 0 */
	int len;	  /* -1: empty */
	int pad;
	int times;  /* 0: once */
	int damage; /* 1: a flipped bit; 2: the outer type becomes CCS; 3: half of it */
	bool rekey; /* the peer uses its next key from then on */
	bool zeros; /* all zeros: no content type at all; `pad` is the length */
	int outer;  /* length field, when it shall lie */
};

#define UPDATE	       "\x18\0\0\1\0"
#define UPDATE_REQUEST "\x18\0\0\1\1"
#define TICKET	       "\4\0\0\5abcde"

#define KERNEL(...)                        \
	.kernel = &(const struct recv_row) \
	{                                  \
		.data = __VA_ARGS__        \
	}
#define STALE(before)                                                                                                 \
	.stale = &(const struct recv_row)                                                                             \
	{                                                                                                             \
		.data = before, .end = -EPROTO, .error = "the peer changed its key, which this kernel cannot follow", \
		.alert = 80, .updates = 1,                                                                            \
	}
#define NOT_AUTHENTIC(before) KERNEL(before, .end = -EBADMSG, .error = "record does not authenticate", .alert = 20)

static const struct recv_row {
	const char *name;
	struct sent sent[6];
	const char *data; /* what arrives */
	int end;	  /* what recv returns in the end; -EAGAIN: open */
	const char *error;
	int alert;	/* the alert that the peer gets, or 0 for none */
	bool as_server; /* the receiver was the server */
	unsigned updates;
	/* What else the kernel makes of it when it receives; `stale`: one that takes no second key. */
	const struct recv_row *kernel, *stale;
	bool whole; /* the kernel does otherwise when it comes in pieces */
} rows[] = {
	{"data", {{RECORD_DATA, "abc"}, {RECORD_DATA, "def"}}, "abcdef", -EAGAIN},
	{"padding", {{RECORD_DATA, "abc", .pad = 100}, {RECORD_DATA, "d", .pad = 1}}, "abcd", -EAGAIN},
	{"empty record", {{RECORD_DATA, "", -1}, {RECORD_DATA, "a"}}, "a", -EAGAIN},
	{"close_notify", {{RECORD_DATA, "a"}, {RECORD_ALERT, "\1\0", 2}}, "a", -ENODATA},
	{"close_notify at fatal level", {{RECORD_ALERT, "\2\0", 2}}, "", -ENODATA},
	{"data after close_notify is ignored", {{RECORD_ALERT, "\1\0", 2}, {RECORD_DATA, "a"}}, "", -ENODATA},
	{"user_canceled goes before close_notify",
	 {{RECORD_ALERT, "\1\x5a", 2}, {RECORD_ALERT, "\1\0", 2}},
	 "",
	 -ENODATA},
	{"alert", {{RECORD_DATA, "a"}, {RECORD_ALERT, "\2\x30", 2}}, "a", -EPROTO, "alert unknown_ca(48)"},
	{"alert at warning level", {{RECORD_ALERT, "\1\x74", 2}}, "", -EPROTO, "alert certificate_required(116)"},
	{"alert nobody knows", {{RECORD_ALERT, "\2\xc8", 2}}, "", -EPROTO, "alert of an unknown kind"},
	{"two alerts in a record", {{RECORD_ALERT, "\1\x5a\1\0", 4}}, "", -EPROTO, "malformed alert", 50},
	{"half an alert", {{RECORD_ALERT, "\2", 1}}, "", -EPROTO, "malformed alert", 50},
	{"empty alert", {{RECORD_ALERT, "", -1}}, "", -EPROTO, "malformed alert", 50},
	{"ticket", {{RECORD_HANDSHAKE, TICKET, 9}, {RECORD_DATA, "a"}}, "a", -EAGAIN},
	{"two tickets in a record", {{RECORD_HANDSHAKE, TICKET TICKET, 18}, {RECORD_DATA, "a"}}, "a", -EAGAIN},
	{"ticket in three records",
	 {{RECORD_HANDSHAKE, "\4\0", 2},
	  {RECORD_HANDSHAKE, "\0\5ab", 4},
	  {RECORD_HANDSHAKE, "cde", 3},
	  {RECORD_DATA, "a"}},
	 "a",
	 -EAGAIN},
	{"empty ticket", {{RECORD_HANDSHAKE, "\4\0\0\0", 4}, {RECORD_DATA, "a"}}, "a", -EAGAIN},
	{"data inside a ticket",
	 {{RECORD_HANDSHAKE, TICKET, 7}, {RECORD_DATA, "a"}},
	 "",
	 -EPROTO,
	 "data inside a handshake message",
	 10},
	{"data inside a header",
	 {{RECORD_HANDSHAKE, "\4", 1}, {RECORD_DATA, "a"}},
	 "",
	 -EPROTO,
	 "data inside a handshake message",
	 10},
	{"ticket that never ends",
	 {{RECORD_HANDSHAKE, "\4\xff\xff\xff", 4}},
	 "",
	 -EPROTO,
	 "oversized NewSessionTicket",
	 50},
	{"ticket to a server",
	 {{RECORD_HANDSHAKE, TICKET, 9}},
	 "",
	 -EPROTO,
	 "unexpected handshake message",
	 10,
	 .as_server = true},
	{"second ClientHello",
	 {{RECORD_HANDSHAKE, "\1\0\0\1a", 5}},
	 "",
	 -EPROTO,
	 "unexpected handshake message",
	 10,
	 .as_server = true},
	{"late CertificateRequest",
	 {{RECORD_HANDSHAKE, "\xd\0\0\1a", 5}},
	 "",
	 -EPROTO,
	 "unexpected handshake message",
	 10},
	{"empty handshake record", {{RECORD_HANDSHAKE, "", -1}}, "", -EPROTO, "empty handshake record", 10},
	{"KeyUpdate",
	 {{RECORD_DATA, "a"}, {RECORD_HANDSHAKE, UPDATE, 5, .rekey = true}, {RECORD_DATA, "b"}},
	 "ab",
	 -EAGAIN,
	 .updates = 1,
	 STALE("a")},
	{"KeyUpdate, answer wanted",
	 {{RECORD_HANDSHAKE, UPDATE_REQUEST, 5, .rekey = true}, {RECORD_DATA, "b"}},
	 "b",
	 -EAGAIN,
	 .updates = 1,
	 STALE("")},
	{"KeyUpdate in two records",
	 {{RECORD_HANDSHAKE, UPDATE, 2}, {RECORD_HANDSHAKE, "\0\1\0", 3, .rekey = true}, {RECORD_DATA, "b"}},
	 "b",
	 -EAGAIN,
	 .updates = 1,
	 KERNEL("", .end = -EPROTO, .error = "KeyUpdate in pieces", .alert = 10),
	 STALE("")},
	{"KeyUpdate behind a ticket",
	 {{RECORD_HANDSHAKE, TICKET UPDATE, 14, .rekey = true}, {RECORD_DATA, "b"}},
	 "b",
	 -EAGAIN,
	 .updates = 1,
	 STALE("")},
	{"KeyUpdate and no new key",
	 {{RECORD_HANDSHAKE, UPDATE, 5}, {RECORD_DATA, "b"}},
	 "",
	 -EBADMSG,
	 "record does not authenticate",
	 20,
	 .updates = 1},
	{"ticket behind a KeyUpdate",
	 {{RECORD_HANDSHAKE, UPDATE TICKET, 14}},
	 "",
	 -EPROTO,
	 "KeyUpdate is not last in its record",
	 10},
	{"KeyUpdate asks for 2", {{RECORD_HANDSHAKE, "\x18\0\0\1\2", 5}}, "", -EPROTO, "malformed KeyUpdate", 47},
	{"KeyUpdate of two bytes", {{RECORD_HANDSHAKE, "\x18\0\0\2\0\0", 6}}, "", -EPROTO, "malformed KeyUpdate", 50},
	{"32 KeyUpdates",
	 {{RECORD_HANDSHAKE, UPDATE, 5, .times = 32, .rekey = true}, {RECORD_DATA, "b"}},
	 "b",
	 -EAGAIN,
	 .updates = 32,
	 STALE("")},
	{"data makes room for 32 more",
	 {{RECORD_HANDSHAKE, UPDATE, 5, .times = 32, .rekey = true},
	  {RECORD_DATA, "b"},
	  {RECORD_HANDSHAKE, UPDATE, 5, .times = 32, .rekey = true}},
	 "b",
	 -EAGAIN,
	 .updates = 64,
	 STALE("")},
	{"33 KeyUpdates",
	 {{RECORD_HANDSHAKE, UPDATE, 5, .times = 33, .rekey = true}},
	 "",
	 -EPROTO,
	 "too many records without data",
	 10,
	 .updates = 32,
	 STALE("")},
	{"33 empty records",
	 {{RECORD_DATA, "", -1, .times = 33}},
	 "",
	 -EPROTO,
	 "too many records without data",
	 10,
	 KERNEL("", .end = -EAGAIN),
	 .whole = true},
	{"ChangeCipherSpec inside", {{RECORD_CHANGE_CIPHER_SPEC, "\1"}}, "", -EPROTO, "unexpected content type", 10},
	{"heartbeat", {{24, "a"}}, "", -EPROTO, "unexpected content type", 10},
	{"no content type",
	 {{RECORD_DATA, "", .pad = 40, .zeros = true}},
	 "",
	 -EPROTO,
	 "record without a content type",
	 10,
	 NOT_AUTHENTIC("")},
	{"a byte with no content type",
	 {{RECORD_DATA, "", .pad = 1, .zeros = true}},
	 "",
	 -EPROTO,
	 "record without a content type",
	 10,
	 NOT_AUTHENTIC("")},
	{"damaged",
	 {{RECORD_DATA, "a"}, {RECORD_DATA, "b", .damage = 1}},
	 "a",
	 -EBADMSG,
	 "record does not authenticate",
	 20},
	{"unprotected ChangeCipherSpec",
	 {{RECORD_DATA, "b", .damage = 2}},
	 "",
	 -EPROTO,
	 "unprotected record",
	 10,
	 KERNEL("b", .end = -EAGAIN)},
	{"length too large", {{RECORD_DATA, "a", .outer = 16641}}, "", -EPROTO, "oversized record", 22},
	{"length without content",
	 {{RECORD_DATA, "a", .outer = 16}},
	 "",
	 -EPROTO,
	 "record too short",
	 50,
	 NOT_AUTHENTIC("")},
	{"length 0", {{RECORD_DATA, "a", .outer = 0x10000}}, "", -EPROTO, "record too short", 50, NOT_AUTHENTIC("")},
};

/* Writes the peer's records one after the other; returns how many bytes. */
static size_t peer_records(struct record_key *k, const struct sent *sent, size_t n, uint8_t *out)
{
	uint8_t *p = out;

	for (size_t i = 0; i < n && sent[i].type; i++)
		for (int t = 0; t < (sent[i].times ? sent[i].times : 1); t++) {
			const struct sent *s = &sent[i];
			size_t text = s->len < 0 ? 0 : s->len ? (size_t)s->len : strlen(s->text);
			size_t len = text + (size_t)s->pad;
			int sealed;

			memset(p + RECORD_HEADER, 0, len + 1);
			memcpy(p + RECORD_HEADER, s->text, text);
			if (s->zeros) /* record_seal() appends one more byte, its type */
				sealed = record_seal(k, pool, p, len - 1, 0);
			else if (s->pad) {
				p[RECORD_HEADER + text] = s->type;
				sealed = record_seal(k, pool, p, len, 0);
			} else {
				sealed = record_seal(k, pool, p, len, s->type);
			}
			assert_true(sealed > 0);
			if (s->damage == 1)
				p[RECORD_HEADER] ^= 1;
			if (s->damage == 2)
				p[0] = RECORD_CHANGE_CIPHER_SPEC;
			if (s->outer) {
				p[3] = (uint8_t)(s->outer >> 8);
				p[4] = (uint8_t)s->outer;
			}
			if (s->rekey)
				record_key_update(k, pool);
			p += sealed;
		}
	return (size_t)(p - out);
}

/* The first alert or, without one, 0 that `r` has sent to `fd`. */
static int alert_at(int fd, const struct record_secrets *s)
{
	uint8_t wire[1024];
	struct record_key k = {0};
	int alert = 0;
	ssize_t n = recv(fd, wire, sizeof wire, 0);

	record_key_set(&k, pool, s->cipher, s->tx, s->len);
	for (uint8_t *p = wire; n > 0 && p < wire + n && !alert;) {
		size_t body = (size_t)p[3] << 8 | p[4];
		int inner = record_open(&k, pool, p, body);

		assert_true(inner > 0);
		if (p[RECORD_HEADER + inner - 1] == RECORD_ALERT)
			alert = p[RECORD_HEADER + 1];
		else
			record_key_update(&k, pool); /* KeyUpdate is all else that may come */
		p += RECORD_HEADER + body;
	}
	record_key_clear(&k);
	return alert;
}

static const struct recv_row *expected(const struct recv_row *row)
{
	if (backend->rx && row->stale && !backend_rekeys())
		return row->stale;
	return backend->rx && row->kernel ? row->kernel : row;
}

/* Sends the row in pieces of `step` bytes, 0: at once. */
static void run_row(const struct recv_row *row, unsigned cipher, size_t step)
{
	const struct recv_row *want = expected(row);
	struct record_secrets ours = secrets(cipher, row->as_server), theirs = secrets(cipher, !row->as_server);
	uint8_t wire[8192], text[4096];
	struct sink sink = {.p = text, .room = sizeof text};
	struct record_key k = {.seals = true};
	struct record_stats stats;
	struct record *r;
	int fd[2], end = -EAGAIN, alert;
	size_t n, at = 0;

	record_key_set(&k, pool, theirs.cipher, theirs.tx, theirs.len);
	n = peer_records(&k, row->sent, COUNT(row->sent), wire);
	backend_pair(fd);
	r = backend_take(record_new(fd[0], &ours, pool));
	while (at < n && end == -EAGAIN) {
		size_t piece = step && step < n - at ? step : n - at;

		assert_int_equal(write(fd[1], wire + at, piece), piece);
		at += piece;
		if (at == n)
			backend_arrive(fd[1], fd[0]);
		end = drain(r, &sink);
	}
	record_stats(r, &stats);
	if (end != want->end || sink.n != strlen(want->data) || memcmp(text, want->data, sink.n))
		fail_msg("%s, %s, step %zu: %d, %zu bytes", row->name, ciphers[cipher].name, step, end, sink.n);
	if (strcmp(record_error(r), want->error ? want->error : ""))
		fail_msg("%s: says %s", row->name, record_error(r));
	if (stats.rx_key_updates != want->updates)
		fail_msg("%s: %lu updates", row->name, (unsigned long)stats.rx_key_updates);
	if (end != -EAGAIN)
		assert_int_equal(record_recv(r, keep, &sink), end); /* an end stays */
	if (want->alert)
		backend_arrive(fd[0], fd[1]);
	alert = alert_at(fd[1], &ours);
	if (alert != want->alert)
		fail_msg("%s: sent alert %d", row->name, alert);
	record_key_clear(&k);
	record_free(r);
	close(fd[1]);
}

static void test_received(void **state)
{
	for (unsigned c = 0; c < COUNT(ciphers); c++)
		for (size_t i = 0; i < COUNT(rows) && backend_takes(ciphers[c].cipher); i++)
			run_row(&rows[i], c, 0);
}

static void test_split_everywhere(void **state)
{
	/* All cuts over a socket pair, some over TCP, where each piece takes a while, and in guests. */
	size_t factor = backend_is_kernel() || backend_stride() > 1 ? 3 : 1;

	for (size_t i = 0; i < COUNT(rows); i++)
		for (size_t step = 1; step < 64; step = step * factor + (factor == 1))
			if (!rows[i].whole || !backend->rx)
				run_row(&rows[i], 0, step);
}

/* A plaintext of 16384 passes, one byte more does not, padding counts. */
static void test_largest_record(void **state)
{
	static const struct {
		const char *name;
		size_t len; /* with the content type */
		int end;
	} sizes[] = {
		{"largest", RECORD_PLAIN_MAX + 1, -EAGAIN},
		{"one more", RECORD_PLAIN_MAX + 2, -EPROTO},
		{"largest ciphertext", RECORD_CIPHER_MAX - RECORD_TAG, -EPROTO},
	};
	static uint8_t rec[RECORD_PART_BYTES + 64], text[2 * RECORD_PLAIN_MAX];

	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct record_secrets ours = secrets(0, false), theirs = secrets(0, true);
		struct sink sink = {.p = text, .room = sizeof text};
		struct record_key k = {.seals = true};
		struct record *r;
		int fd[2], n;

		record_key_set(&k, pool, theirs.cipher, theirs.tx, theirs.len);
		memset(rec, 0, sizeof rec);
		rec[RECORD_HEADER] = 'x';
		rec[RECORD_HEADER + 1] = RECORD_DATA; /* all else is padding */
		n = record_seal(&k, pool, rec, sizes[i].len - 1, 0);
		backend_pair(fd);
		r = backend_take(record_new(fd[0], &ours, pool));
		assert_int_equal(write(fd[1], rec, (size_t)n), n);
		backend_arrive(fd[1], fd[0]);
		if (drain(r, &sink) != sizes[i].end || sink.n != (sizes[i].end == -EAGAIN))
			fail_msg("%s: %zu bytes, %s", sizes[i].name, sink.n, record_error(r));
		record_key_clear(&k);
		record_free(r);
		close(fd[1]);
	}
}

/* --- the ends of a connection --------------------------------------------------------------------------- */

static void test_truncation(void **state)
{
	static const struct {
		const char *name;
		size_t cut; /* bytes of the last record that are missing */
	} cuts[] = {{"between records", 0}, {"in the tag", 1}, {"in the header", 20}};
	uint8_t wire[256], text[64];

	for (size_t i = 0; i < COUNT(cuts); i++) {
		struct record_secrets ours = secrets(0, false), theirs = secrets(0, true);
		struct record_key k = {.seals = true};
		struct sink sink = {.p = text, .room = sizeof text};
		struct record *r;
		size_t n;
		int fd[2];

		record_key_set(&k, pool, theirs.cipher, theirs.tx, theirs.len);
		n = peer_records(&k, (struct sent[]){{RECORD_DATA, "ab"}, {RECORD_DATA, "c"}}, 2, wire);
		backend_pair(fd);
		r = backend_take(record_new(fd[0], &ours, pool));
		assert_int_equal(write(fd[1], wire, n - cuts[i].cut), n - cuts[i].cut);
		close(fd[1]);
		if (drain(r, &sink) != -ECONNRESET || sink.n != (cuts[i].cut ? 2 : 3))
			fail_msg("%s: %zu bytes", cuts[i].name, sink.n);
		record_key_clear(&k);
		record_free(r);
	}
}

static void test_callback_ends(void **state)
{
	uint8_t text[64];
	struct sink sink = {.p = text, .room = sizeof text, .stop = -ENOSPC};
	struct record *a, *b;

	connect_records(0, &a, &b);
	assert_int_equal(record_write(a, "ab", 2), 0);
	record_tx_close(a);
	assert_int_equal(record_write(a, "cd", 2), 0);
	assert_int_equal(record_flush(a), 0);
	backend_arrive(record_fd(a), record_fd(b));
	assert_int_equal(record_recv(b, keep, &sink), -ENOSPC);
	assert_int_equal(sink.n,
			 backend_is_kernel() ? 4 : 2); /* the kernel makes one record of two, reads two as one */
	assert_int_equal(sink.batches, 1);
	assert_int_equal(record_recv(b, keep, &sink), -ENOSPC);
	assert_int_equal(sink.batches, 1);
	record_free(a);
	record_free(b);

	connect_records(0, &a, &b);
	sink = (struct sink){.p = text, .room = sizeof text, .stop_late = -ENOSPC};
	assert_int_equal(record_write(a, "ab", 2), 0);
	assert_int_equal(record_flush(a), 0);
	backend_arrive(record_fd(a), record_fd(b));
	assert_int_equal(record_recv(b, keep, &sink), -ENOSPC);
	assert_int_equal(record_recv(b, keep, &sink), -ENOSPC);
	assert_int_equal(sink.n, 2);
	record_free(a);
	record_free(b);
}

/* Reads that are cut short take no more than they may, and lose nothing. */
static void test_read_max(void **state)
{
	enum { RECORDS = 3 /* they fit a receive buffer */ };
	static uint8_t text[RECORDS * RECORD_PLAIN_MAX], got[sizeof text];
	static const size_t max[] = {1, 3, 1000, RECORD_SLOT_BYTES};

	for (size_t i = 0; i < sizeof text; i++)
		text[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t i = 0; i < COUNT(max); i++) {
		struct sink sink = {.p = got, .room = sizeof got};
		size_t len = max[i] < 1000 ? 1000 : sizeof text, before = 0;
		struct record *a, *b;

		connect_records(0, &a, &b);
		record_read_max(b, max[i]);
		for (size_t at = 0; at < len; at += RECORD_PLAIN_MAX)
			assert_int_equal(
				record_write(a, text + at, len - at < RECORD_PLAIN_MAX ? len - at : RECORD_PLAIN_MAX),
				0);
		assert_int_equal(record_flush(a), 0);
		backend_arrive(record_fd(a), record_fd(b));
		for (; sink.n < len; before = sink.n) {
			assert_true(record_recv(b, keep, &sink) >= 0);
			assert_true(sink.n - before <= (backend->rx ? max[i] : RECORD_PLAIN_MAX));
		}
		assert_memory_equal(got, text, len);
		record_read_max(b, RECORD_RX_BYTES);
		record_free(a);
		record_free(b);
	}
}

static void test_close_notify(void **state)
{
	uint8_t text[64];
	struct sink sink = {.p = text, .room = sizeof text};
	struct iovec iov[1];
	struct record *a, *b;
	int err;

	connect_records(0, &a, &b);
	assert_int_equal(record_write(a, "bye", 3), 0);
	record_close_notify(a);
	assert_true(record_tx_pending(a));
	assert_int_equal(record_write(a, "more", 4), -EPIPE);
	assert_int_equal(record_tx_room(a, iov, 1, 1), 0);
	record_alert(a, 80); /* too late */
	assert_int_equal(record_flush(a), 0);
	assert_false(record_tx_pending(a));
	assert_int_equal(record_flush(a), 0);
	backend_arrive(record_fd(a), record_fd(b));
	assert_int_equal(drain(b, &sink), -ENODATA);
	assert_int_equal(sink.n, 3);
	/* The other direction lives on. */
	assert_int_equal(record_write(b, "ok", 2), 0);
	assert_int_equal(record_flush(b), 0);
	backend_arrive(record_fd(b), record_fd(a));
	assert_int_equal(record_recv(a, keep, &sink), 2);
	record_free(b);
	assert_int_equal(record_recv(a, keep, &sink), -ECONNRESET);
	record_free(a);

	connect_records(0, &a, &b);
	record_free(b);
	do /* TCP learns of it by an answer */
		err = record_write(a, "x", 1);
	while (!err && !(err = record_flush(a)));
	assert_true(err == -EPIPE || err == -ECONNRESET); /* an error, not a signal */
	assert_int_equal(record_write(a, "x", 1), err);
	record_free(a);
}

static void test_new_refuses(void **state)
{
	struct record_secrets s = secrets(0, false);

	s.cipher = 0x1304;
	assert_null(record_new(-1, &s, pool));
	s.cipher = RECORD_AES_256_GCM; /* wants 48 bytes */
	assert_null(record_new(-1, &s, pool));
	record_free(NULL);
	record_pool_free(NULL);
}

/* --- sending -------------------------------------------------------------------------------------------- */

static void test_room(void **state)
{
	struct iovec iov[RECORD_SLOTS + 2];
	struct record *a, *b;

	connect_records(0, &a, &b);
	assert_int_equal(record_tx_room(a, iov, RECORD_SLOTS + 2, 1), RECORD_SLOTS);
	for (int i = 0; i < RECORD_SLOTS; i++)
		assert_int_equal(iov[i].iov_len, RECORD_PLAIN_MAX);
	assert_false(record_tx_pending(a));
	record_tx_commit(a, 100);
	assert_true(record_tx_pending(a));
	assert_int_equal(record_tx_room(a, iov, 2, 9), 2);
	assert_int_equal(iov[0].iov_len, RECORD_PLAIN_MAX - 100);
	assert_int_equal(iov[1].iov_len, RECORD_PLAIN_MAX);
	/* Too little is left for what the caller wants to begin: a fresh slot. */
	assert_int_equal(record_tx_room(a, iov, 2, RECORD_PLAIN_MAX - 99), 2);
	assert_int_equal(iov[0].iov_len, RECORD_PLAIN_MAX);
	/* One slot's worth is gone, the rest is 7. */
	assert_int_equal(record_tx_room(a, iov, RECORD_SLOTS, 1), RECORD_SLOTS - 1);
	record_tx_commit(a, (RECORD_SLOTS - 1) * RECORD_PLAIN_MAX);
	assert_int_equal(record_tx_room(a, iov, RECORD_SLOTS, 1), 0);
	assert_int_equal(record_write(a, "x", 1), -EAGAIN);
	record_free(a);
	record_free(b);
}

/* Data of every shape against a socket that takes little at a time; what arrives is what was committed. */
static void test_stream(void **state)
{
	enum { TOTAL = 3 << 20 };
	uint8_t *sent = malloc(TOTAL), *got = malloc(TOTAL);

	for (unsigned c = 0; c < COUNT(ciphers); c++) {
		struct sink sink = {.p = got, .room = TOTAL};
		struct record *a, *b;
		struct record_stats stats;
		size_t at = 0;
		unsigned seed = 7, stuck = 0;

		if (!backend_takes(ciphers[c].cipher))
			continue;
		connect_records(c, &a, &b);
		setsockopt(record_fd(a), SOL_SOCKET, SO_SNDBUF, &(int){20000}, sizeof(int));
		for (size_t i = 0; i < TOTAL; i++)
			sent[i] = (uint8_t)(i * 31 + (i >> 9));
		while (at < TOTAL || record_tx_pending(a)) {
			struct iovec iov[RECORD_SLOTS];
			size_t want = (size_t)rand_r(&seed) % (rand_r(&seed) % 4 ? 300 : 100000), n = 0;
			int slots = record_tx_room(a, iov, 1 + rand_r(&seed) % RECORD_SLOTS,
						   1 + (size_t)rand_r(&seed) % 50);

			want = want < TOTAL - at ? want : TOTAL - at;
			for (int i = 0; i < slots && n < want; i++) {
				size_t take = iov[i].iov_len < want - n ? iov[i].iov_len : want - n;

				memcpy(iov[i].iov_base, sent + at + n, take);
				n += take;
			}
			if (slots)
				record_tx_commit(a, n);
			at += n;
			if (rand_r(&seed) % 8 == 0)
				record_tx_close(a);
			if (rand_r(&seed) % 4 == 0 || !slots)
				stuck += record_flush(a) == -EAGAIN;
			if (rand_r(&seed) % 4 == 0 || !slots)
				assert_int_equal(drain(b, &sink), -EAGAIN);
		}
		pass(a, b, &sink, TOTAL);
		assert_true(stuck > 10);
		assert_int_equal(sink.n, TOTAL);
		assert_memory_equal(sent, got, TOTAL);
		record_stats(a, &stats);
		if (backend->tx) { /* its keys last as long as we think */
			uint64_t seq;

			assert_int_equal(ktls_sequence(record_fd(a), &a->tx, &seq), 0);
			assert_int_equal(a->tx.seq, seq);
		} else {
			assert_int_equal(stats.tx_records, a->tx.seq);
		}
		assert_null(a->tx_buf);
		assert_null(b->part);
		record_free(a);
		record_free(b);
	}
	free(sent);
	free(got);
}

/* `r` announces a new key, and wants one of its peer. */
static void request_update(struct record *r)
{
	uint8_t rec[64];
	int n;

	if (r->tx_kernel) {
		assert_int_equal(ktls_send(record_fd(r), UPDATE_REQUEST, 5, RECORD_HANDSHAKE), 5);
		record_key_update(&r->tx, pool);
		assert_int_equal(ktls_install(record_fd(r), &r->tx), 0);
		return;
	}
	memcpy(rec + RECORD_HEADER, UPDATE_REQUEST, 5);
	n = record_seal(&r->tx, pool, rec, 5, RECORD_HANDSHAKE);
	assert_int_equal(write(record_fd(r), rec, (size_t)n), n);
	record_key_update(&r->tx, pool);
}

/* Our own key is changed before the limit, and in answer to a request, also while a flush is pending. Where the kernel
 * takes no other, the connection retires. */
static void test_own_key_updates(void **state)
{
	static uint8_t big[8 * RECORD_PLAIN_MAX], out[4 * sizeof big];
	bool new_key = !backend->tx || backend_rekeys();
	struct sink sink = {.p = out, .room = sizeof out};
	struct record_stats stats;
	struct record *a, *b;
	uint8_t text[256] = {0};
	size_t total = 0;

	if (backend->rx && !backend->tx && !backend_rekeys()) {
		printf("skip own key updates to %s: this kernel takes no new key\n", backend->name);
		return;
	}
	connect_records_at(1, RECORD_LIMIT - 8000, &a, &b);
	for (int i = 0; i < 8000; i++) {
		snprintf((char *)text, sizeof text, "%d", i);
		sink.n = 0;
		assert_int_equal(record_write(a, text, 8), 0);
		pass(a, b, &sink, 8);
		assert_memory_equal(out, text, 8);
	}
	record_stats(a, &stats);
	assert_int_equal(stats.tx_key_updates, new_key);
	assert_int_equal(record_retiring(a), !new_key);
	record_stats(b, &stats);
	assert_int_equal(stats.rx_key_updates, new_key);
	assert_false(record_tx_pending(b)); /* ours did not ask */
	if (!backend_rekeys()) {
		record_free(a);
		record_free(b);
		return;
	}

	/* A request comes while a's own flush is stuck: the answer goes out after it, under the old key. */
	setsockopt(record_fd(a), SOL_SOCKET, SO_SNDBUF, &(int){20000}, sizeof(int));
	sink.n = 0;
	for (size_t more = 0; more < 2; more++)
		if (record_write(a, big, sizeof big) == 0 && record_flush(a) == 0)
			total += sizeof big;
	total += sizeof big;
	assert_true(record_tx_pending(a));
	request_update(b);
	backend_arrive(record_fd(b), record_fd(a));
	assert_int_equal(drain(a, &sink), -EAGAIN);
	pass(a, b, &sink, total);
	assert_int_equal(record_write(a, "end", 3), 0);
	pass(a, b, &sink, total + 3);
	assert_memory_equal(out + total, "end", 3);
	record_stats(a, &stats);
	assert_int_equal(stats.tx_key_updates, 2);
	assert_int_equal(stats.rx_key_updates, 1);
	record_free(a);
	record_free(b);
}

/* More connections than cipher contexts: they take turns and none loses its place. */
static void test_contexts_are_shared(void **state)
{
	enum { PAIRS = RECORD_CONTEXTS + 9 };
	struct record *a[PAIRS], *b[PAIRS];
	uint8_t text[64];

	for (unsigned i = 0; i < PAIRS; i++)
		connect_records(i % COUNT(ciphers), &a[i], &b[i]);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned j = 0; j < PAIRS; j++) {
			unsigned i = (j * (round + 1)) % PAIRS;
			struct sink sink = {.p = text, .room = sizeof text};

			assert_int_equal(record_write(a[i], "ping", 4), 0);
			assert_int_equal(record_flush(a[i]), 0);
			assert_int_equal(record_recv(b[i], keep, &sink), 4);
			assert_int_equal(record_write(b[i], "pong", 4), 0);
			assert_int_equal(record_flush(b[i]), 0);
			assert_int_equal(record_recv(a[i], keep, &sink), 4);
			assert_memory_equal(text, "pingpong", 8);
		}
		record_free(a[round]);
		record_free(b[round]);
		connect_records(0, &a[round], &b[round]);
	}
	for (unsigned i = 0; i < PAIRS; i++) {
		record_free(a[i]);
		record_free(b[i]);
	}
}

/* A long read stops at the buffer's end and says that there is more. */
static void test_more(void **state)
{
	static uint8_t zeros[RECORD_SLOTS * RECORD_PLAIN_MAX], out[4 * sizeof zeros];
	struct sink sink = {.p = out, .room = sizeof out};
	struct record *a, *b;

	connect_records(0, &a, &b);
	setsockopt(record_fd(a), SOL_SOCKET, SO_SNDBUFFORCE, &(int){4 << 20}, sizeof(int));
	setsockopt(record_fd(b), SOL_SOCKET, SO_RCVBUFFORCE, &(int){4 << 20}, sizeof(int));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(record_write(a, zeros, sizeof zeros), 0);
		assert_int_equal(record_flush(a), 0);
	}
	backend_arrive(record_fd(a), record_fd(b));
	assert_true(record_recv(b, keep, &sink) > 0);
	assert_true(record_more(b));
	assert_true(record_recv(b, keep, &sink) > 0);
	assert_false(record_more(b));
	assert_int_equal(sink.n, 3 * sizeof zeros);
	record_free(a);
	record_free(b);
}

static int setup(void **state)
{
	pool = record_pool_new(4);
	return !pool;
}

static int teardown(void **state)
{
	record_pool_free(pool);
	return 0;
}

int main(int argc, char **argv)
{
	/* Nothing of a connection, or more of them than is worth the kernel's while. */
	const struct CMUnitTest once[] = {
		cmocka_unit_test(test_rfc8448_keys),
		cmocka_unit_test(test_new_refuses),
		cmocka_unit_test(test_contexts_are_shared),
	};
	const struct CMUnitTest each[] = {
		cmocka_unit_test(test_rfc8448_records),
		cmocka_unit_test(test_received),
		cmocka_unit_test(test_split_everywhere),
		cmocka_unit_test(test_largest_record),
		cmocka_unit_test(test_truncation),
		cmocka_unit_test(test_callback_ends),
		cmocka_unit_test(test_read_max),
		cmocka_unit_test(test_close_notify),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_own_key_updates),
		cmocka_unit_test(test_more),
	};
	int failed;

	if (argc > 1) /* a pattern for names of tests */
		cmocka_set_test_filter(argv[1]);
	failed = cmocka_run_group_tests_name("record", once, setup, teardown);

	return failed + backends_run("record", each, COUNT(each), true, setup, teardown);
}
