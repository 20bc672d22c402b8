/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of net/h2 against frames by hand: what other implementations send, and what hostile ones do. */
#include "h2_wire.h"
#include "net/sock.h"

static struct wire w;
static struct end e;

/* --- as a server: every split --------------------------------------------------------------------------- */

/* A short conversation of a client, with a stream in it and END_STREAM. */
static size_t conversation(uint8_t *to)
{
	uint8_t block[256];
	size_t n = 24;

	memcpy(to, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
	n += frame_write(to + n, F_SETTINGS, 0, 0, NULL, 0);
	n += frame_write(to + n, F_HEADERS, 4, 1, block, connect_block(block, "10.0.0.1:80"));
	n += frame_write(to + n, F_DATA, 0, 1, "hello ", 6);
	n += frame_write(to + n, F_DATA, 0, 1, "", 0);
	n += frame_write(to + n, F_DATA, 1, 1, "world", 5);
	return n;
}

static void test_splits(void **state)
{
	uint8_t talk[1024];
	size_t len = conversation(talk);

	for (size_t cut = 1; cut <= len; cut++) {
		wire_open(&w, &e, false);
		wire_raw(&w, talk, cut);
		run_turns(1); /* without an answer to its SETTINGS in between */
		wire_raw(&w, talk + cut, len - cut);
		wire_settle(&w);
		if (e.n_apps != 1 || e.app[0]->n_got != 11 || memcmp(e.app[0]->got, "hello world", 11) ||
		    e.app[0]->ends != 1 || w.s[1].status != 200)
			fail_msg("cut at %zu: %u streams, status %d, %s", cut, e.n_apps, w.s[1].status, e.why);
		wire_close(&w, &e);
	}
	for (size_t step = 1; step < 40; step++) {
		wire_open(&w, &e, false);
		for (size_t at = 0; at < len; at += step)
			wire_raw(&w, talk + at, len - at < step ? len - at : step);
		wire_settle(&w);
		if (e.n_apps != 1 || e.app[0]->n_got != 11 || e.app[0]->ends != 1)
			fail_msg("in steps of %zu", step);
		wire_close(&w, &e);
	}
}

/* --- endings as peers send them ------------------------------------------------------------------------- */

enum ending { END = 1, LATE_DATA = 2, RST = 4 };

static const struct {
	const char *name;
	bool server; /* we are */
	unsigned does;
	uint32_t code;
	unsigned ends, resets;
	size_t got;
	unsigned closed;
} endings[] = {
	{"END_STREAM", true, END, 0, 1, 0, 5},
	{"END_STREAM from a server", false, END, 0, 1, 0, 5},
	{"END_STREAM, RST(NO_ERROR): a clean end of one direction", false, END | RST, 0, 1, 1, 5},
	{"the same from a client", true, END | RST, 0, 1, 1, 5},
	{"RST(NO_ERROR) alone", false, RST, 0, 0, 1, 5},
	{"RST(CANCEL)", true, RST, 8, 0, 1, 5},
	{"RST(INTERNAL_ERROR)", false, RST, 2, 0, 1, 5},
	{"END_STREAM, RST(INTERNAL_ERROR)", false, END | RST, 2, 0, 1, 5},
	{"END_STREAM, then data: the connection's end", true, END | LATE_DATA, NGHTTP2_CONNECT_ERROR, 1, 1, 5, 1},
};

static void open_stream(bool server)
{
	wire_open(&w, &e, !server);
	wire_hello(&w);
	if (server) {
		wire_connect(&w, 1, "10.0.0.1:80");
	} else {
		end_connect(&e, "10.0.0.1:80");
		wire_settle(&w);
		wire_status(&w, 1, "200", false);
	}
	wire_settle(&w);
	assert_int_equal(e.n_apps, 1);
	assert_true(e.app[0]->live);
}

static void test_endings(void **state)
{
	for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
		uint8_t bytes[256], code[4];
		size_t n = 0;
		struct app *a;

		open_stream(endings[i].server);
		a = e.app[0];
		u32(code, endings[i].code);
		/* All in one record: the end is known when the data is handed out. */
		n += frame_write(bytes + n, F_DATA, endings[i].does & END ? 1 : 0, 1, "12345", 5);
		if (endings[i].does & LATE_DATA)
			n += frame_write(bytes + n, F_DATA, 0, 1, "6", 1);
		if (endings[i].does & RST)
			n += frame_write(bytes + n, F_RST, 0, 1, code, 4);
		wire_raw(&w, bytes, n);
		wire_settle(&w);
		if (a->ends != endings[i].ends || a->resets != endings[i].resets || a->n_got != endings[i].got ||
		    (a->resets && a->code != endings[i].code) || e.closed != endings[i].closed)
			fail_msg("%s: %u ends, %u resets (%u), %zu bytes, %u closed", endings[i].name, a->ends,
				 a->resets, a->code, a->n_got, e.closed);
		wire_close(&w, &e);
	}
}

/* What the application has not taken yet is delivered before the end of a direction that ended cleanly. */
static void test_held_before_end(void **state)
{
	open_stream(false);
	e.app[0]->cap = 3;
	wire_data(&w, 1, 1000, 1000);
	wire_frame(&w, F_DATA, 1, 1, NULL, 0);
	wire_u32(&w, F_RST, 1, 0);
	wire_settle(&w);
	assert_int_equal(e.app[0]->ends + e.app[0]->resets, 0);
	assert_int_equal(h2_stream_held(&e.app[0]->s), 997);
	e.app[0]->cap = SIZE_MAX;
	h2_stream_resume(&e.app[0]->s);
	wire_settle(&w);
	assert_int_equal(e.app[0]->n_got, 1000);
	assert_int_equal(e.app[0]->ends, 1);
	assert_int_equal(e.app[0]->resets, 1); /* our direction is dead */
	assert_int_equal(e.app[0]->code, NGHTTP2_NO_ERROR);
	wire_close(&w, &e);
}

/* A stream that we reset is answered with the peer's own reset, or with data that was on its way: neither hurts. */
static void test_late_frames(void **state)
{
	open_stream(false);
	app_drop(e.app[0], NGHTTP2_CANCEL);
	wire_settle(&w);
	assert_true(w.s[1].reset);
	for (unsigned i = 0; i < 3; i++) {
		wire_data(&w, 1, 1000, 100);
		wire_u32(&w, F_RST, 1, 5);
		wire_u32(&w, F_WINDOW, 1, 100);
	}
	wire_frame(&w, F_DATA, 1, 1, NULL, 0);
	wire_settle(&w);
	assert_int_equal(e.closed, 0);
	assert_int_equal(w.goaways, 0);
	wire_close(&w, &e);
}

static void test_refused_stream(void **state)
{
	wire_open(&w, &e, true);
	wire_hello(&w);
	end_connect(&e, "10.0.0.1:80");
	wire_settle(&w);
	wire_u32(&w, F_RST, 1, NGHTTP2_REFUSED_STREAM);
	wire_settle(&w);
	assert_int_equal(e.app[0]->resets, 1);
	assert_true(e.app[0]->refused);
	assert_int_equal(e.closed, 0);
	wire_close(&w, &e);
}

/* GOAWAY: streams above its id were not seen, those below go on. */
static void test_goaway(void **state)
{
	uint8_t b[8] = {0, 0, 0, 1};

	wire_open(&w, &e, true);
	wire_hello(&w);
	for (unsigned i = 0; i < 3; i++)
		end_connect(&e, "10.0.0.1:80");
	wire_settle(&w);
	wire_status(&w, 1, "200", false);
	wire_frame(&w, F_GOAWAY, 0, 0, b, 8);
	wire_settle(&w);
	assert_int_equal(e.leaving, 1);
	assert_false(h2_open_for_streams(e.h2, 100));
	assert_int_equal(e.app[0]->resets, 0);
	assert_true(e.app[1]->resets && e.app[1]->refused);
	assert_true(e.app[2]->resets && e.app[2]->refused);
	wire_data(&w, 1, 1000, 1000);
	wire_settle(&w);
	assert_int_equal(e.app[0]->n_got, 1000);
	assert_int_equal(e.closed, 0);
	app_drop(e.app[0], NGHTTP2_CANCEL);
	wire_settle(&w);
	assert_int_equal(e.closed, 1);
	assert_true(w.closed);
	wire_close(&w, &e);
}

/* Requests that wait for a free stream when GOAWAY comes were not seen either. */
static void test_goaway_before_requests(void **state)
{
	uint8_t b[8] = {0, 0, 0, 1};

	wire_open(&w, &e, true);
	wire_setting(&w, 3, 1); /* MAX_CONCURRENT_STREAMS */
	wire_settle(&w);
	for (unsigned i = 0; i < 3; i++)
		end_connect(&e, "10.0.0.1:80");
	wire_settle(&w);
	wire_status(&w, 1, "200", false);
	wire_frame(&w, F_GOAWAY, 0, 0, b, 8);
	wire_settle(&w);
	assert_int_equal(e.app[0]->resets, 0);
	app_drop(e.app[0], NGHTTP2_CANCEL); /* would make room for the next one */
	wire_settle(&w);
	assert_true(e.app[1]->resets && e.app[1]->refused);
	assert_true(e.app[2]->resets && e.app[2]->refused);
	assert_int_equal(e.closed, 1);
	wire_close(&w, &e);
}

/* --- windows -------------------------------------------------------------------------------------------- */

/* Bytes of streams that end in every way: the connection's window comes back to the last one. */
static void test_accounting(void **state)
{
	uint64_t total = 0;
	uint32_t id = 1;

	wire_open(&w, &e, false);
	wire_hello(&w);
	for (unsigned round = 0; round < 180; round++, id += 2) {
		struct app *a;
		size_t want = H2_STREAM_START - 1 - round;

		wire_connect(&w, id, round % 9 == 8 ? "refuse-503:1" : "10.0.0.1:80");
		if (round % 9 != 8) /* data behind a request that is refused */
			wire_settle(&w);
		a = round % 9 == 8 ? NULL : e.app[e.n_apps - 1];
		if (a && round % 3 == 0)
			a->cap = 1000; /* the rest is held */
		total += wire_data(&w, id, want, 1 + round * 97 % 16384);
		switch (a ? round % 6 : 0) {
		case 0:
			wire_u32(&w, F_RST, id, 8);
			break;
		case 1:
			wire_frame(&w, F_DATA, 1, id, NULL, 0);
			break;
		case 2:
			app_drop(a, NGHTTP2_CANCEL); /* data is on its way */
			break;
		case 3:
			wire_settle(&w);
			app_drop(a, NGHTTP2_CANCEL); /* data is held */
			break;
		case 4:
			a->fail = -EPIPE;
			total += wire_data(&w, id, 10000, 1000);
			wire_settle(&w);
			app_drop(a, NGHTTP2_CANCEL);
			break;
		case 5:
			wire_settle(&w);
			a->cap = SIZE_MAX;
			h2_stream_resume(&a->s);
			break;
		}
		wire_settle(&w);
		if (w.closed || w.s[0].window < (int64_t)(e.h2->window / 2))
			fail_msg("round %u: window %lld after %llu bytes", round, (long long)w.s[0].window,
				 (unsigned long long)total);
		if (e.n_apps > 100) { /* room for more */
			for (unsigned i = 0; i < e.n_apps; i++)
				app_free(e.app[i]);
			e.n_apps = 0;
			wire_settle(&w);
		}
	}
	assert_true(total > 4ull * H2_CONN_WINDOW);
	assert_int_equal(e.h2->share->held, 0);
	wire_close(&w, &e);
}

static const struct {
	const char *name;
	uint32_t stream, connection;
	unsigned stalls;
} peers[] = {
	{"RFC 9113's defaults", 65535, 65535, 1},
	{"RFC 9113's defaults, 3", 65535, 65535, 3},
	{"Go's server", 1 << 20, 1 << 20, 1},
	{"Go's server, 2", 1 << 20, 1 << 20, 2},
	{"ztunnel", 4 << 20, 16 << 20, 4},
	{"ztunnel, 16", 4 << 20, 16 << 20, 16},
	{"Envoy", 16 << 20, 24 << 20, 1},
	{"Envoy, 8", 16 << 20, 24 << 20, 8},
	{"a stream's window is the connection's", 1 << 24, 1 << 24, 4},
};

static void write_all(struct app *a, size_t n)
{
	static const uint8_t bytes[65536];

	while (n) {
		ssize_t k = write(a->fd[1], bytes, n < sizeof bytes ? n : sizeof bytes);

		if (k < 0)
			return;
		n -= (size_t)k;
	}
}

/* Streams whose window is never given back take all they are allowed; the last part of the connection's stays free. */
static void test_last_part(void **state)
{
	for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
		uint64_t all = 0;

		wire_open(&w, &e, true);
		w.no_credit = true;
		wire_setting(&w, 4, peers[i].stream);
		if (peers[i].connection > 65535)
			wire_u32(&w, F_WINDOW, 0, peers[i].connection - 65535);
		wire_settle(&w);
		for (unsigned k = 0; k <= peers[i].stalls; k++) {
			struct app *a = end_connect(&e, "10.0.0.1:80");
			uint64_t before;

			wire_settle(&w);
			wire_status(&w, 1 + 2 * k, "200", false);
			wire_settle(&w);
			if (k == peers[i].stalls) { /* the one that must still be served */
				write_all(a, 1000);
				wire_settle(&w);
				if (w.s[1 + 2 * k].data != 1000)
					fail_msg("%s: %llu bytes beside %u stalled, %d left", peers[i].name,
						 (unsigned long long)w.s[1 + 2 * k].data, k, h2_window(e.h2));
				break;
			}
			do {
				before = w.s[1 + 2 * k].data;
				write_all(a, 1 << 20);
				wire_settle(&w);
			} while (w.s[1 + 2 * k].data > before);
			all += before;
		}
		assert_true(all <= peers[i].connection);
		wire_close(&w, &e);
	}
}

/* A peer that gives window back when half of it is used, as most do, beside stalled streams. */
static void test_lazy_credit(void **state)
{
	enum { STREAM = 4 << 20, CONNECTION = 16 << 20, TOTAL = 64 << 20 };
	uint64_t s_credited = 0, c_credited = 0, seen = 0;
	struct app *a;

	wire_open(&w, &e, true);
	w.no_credit = true;
	wire_setting(&w, 4, STREAM);
	wire_u32(&w, F_WINDOW, 0, CONNECTION - 65535);
	wire_settle(&w);
	for (unsigned k = 0; k < 2; k++) {
		uint64_t before;

		a = end_connect(&e, "10.0.0.1:80");
		wire_settle(&w);
		wire_status(&w, 1 + 2 * k, "200", false);
		wire_settle(&w);
		do {
			before = w.s[1 + 2 * k].data;
			write_all(a, 1 << 20);
			wire_settle(&w);
		} while (k == 0 && w.s[1].data > before);
	}
	for (unsigned quiet = 0; seen < TOTAL && quiet < 20;) {
		uint64_t before = seen;

		write_all(a, 1 << 20);
		wire_settle(&w);
		seen = w.s[3].data;
		if (seen - s_credited >= STREAM / 2) {
			wire_u32(&w, F_WINDOW, 3, (uint32_t)(seen - s_credited));
			s_credited = seen;
		}
		if (seen - c_credited >= CONNECTION / 2) {
			wire_u32(&w, F_WINDOW, 0, (uint32_t)(seen - c_credited));
			c_credited = seen;
		}
		quiet = seen == before ? quiet + 1 : 0;
	}
	assert_true(seen >= TOTAL);
	wire_close(&w, &e);
}

/* The pool opens another connection when stalled streams hold this one, but not because it is busy or small. */
static void test_exhausted(void **state)
{
	struct app *a;

	wire_open(&w, &e, true);
	w.no_credit = true;
	wire_hello(&w);
	assert_true(h2_open_for_streams(e.h2, 100));
	for (unsigned k = 0; k < 16; k++) {
		a = end_connect(&e, "10.0.0.1:80");
		wire_settle(&w);
		wire_status(&w, 1 + 2 * k, "200", false);
		write_all(a, 60000);
		wire_settle(&w);
		write_all(a, 60000);
		wire_settle(&w);
	}
	clock_forward(H2_EXHAUSTED_MS + 10);
	assert_false(h2_open_for_streams(e.h2, 100));
	wire_u32(&w, F_WINDOW, 0, 60000);
	wire_settle(&w);
	clock_forward(H2_EXHAUSTED_MS + 10);
	assert_int_equal(e.closed, 0);
	wire_close(&w, &e);
}

/* --- hostile clients ------------------------------------------------------------------------------------ */

/* One-byte frames to an application that reads nothing: bytes of memory are what counts. */
static void test_tiny_frames(void **state)
{
	static uint8_t block[16380];
	size_t n = 0;

	open_stream(true);
	e.app[0]->cap = 0;
	while (n + 10 <= sizeof block)
		n += frame_write(block + n, F_DATA, 0, 1, "x", 1);
	for (unsigned i = 0; i < 600 && w.s[1].window > 2000; i++) {
		wire_raw(&w, block, n);
		w.s[1].window -= (int64_t)(n / 10);
		wire_settle(&w);
	}
	assert_true(e.app[0]->s.held_cap <= H2_STREAM_START);
	assert_true(e.app[0]->s.in_cap <= H2_TAKE_MAX);
	assert_true(h2_stream_held(&e.app[0]->s) > H2_STREAM_START - 4000);
	assert_int_equal(e.closed, 0);
	wire_close(&w, &e);
}

/* They reach an application that reads in large pieces. */
static void test_tiny_frames_join(void **state)
{
	static uint8_t block[16380];
	uint64_t sum = 0, want = 0;
	size_t n = 0;

	open_stream(true);
	for (uint8_t c = 1; n + 9 + 3 <= sizeof block; c = (uint8_t)(c % 250 + 1)) {
		size_t len = c % 3 + 1u;

		n += frame_write(block + n, F_DATA, 0, 1, (uint8_t[]){c, c, c}, len);
		want += (uint64_t)c * len;
	}
	wire_raw(&w, block, n);
	wire_settle(&w);
	for (size_t i = 0; i < e.app[0]->n_got; i++)
		sum += e.app[0]->got[i];
	assert_true(sum == want);
	assert_true(e.app[0]->takes <= 2);
	wire_close(&w, &e);
}

/* A connection with two streams, 1 and 3. */
static void open_two(void)
{
	open_stream(true);
	wire_connect(&w, 3, "10.0.0.1:80");
	wire_settle(&w);
	assert_int_equal(e.n_apps, 2);
}

/* Small and large, padded and empty, on two streams, in records that are cut anywhere: every byte arrives in order. */
static void test_frames_cut_anywhere(void **state)
{
	static const uint16_t sizes[] = {0, 1, 1, 1, 2, 5, 511, 512, 513, 1500};
	static uint8_t block[100000];
	uint8_t payload[1 + 1500 + 4] = {4};
	uint32_t random = 1, stream = 1;
	size_t n = 0, sent[2] = {0};

	open_two();
	while (n + sizeof payload + 9 < sizeof block) {
		random = random * 1103515245 + 12345;
		size_t len = sizes[(random >> 16) % 10], pad = (random >> 20) % 16 ? 0 : 1;
		size_t *at = &sent[stream == 3];

		for (size_t i = 0; i < len; i++)
			payload[1 + i] = (uint8_t)(*at + i);
		memset(payload + 1 + len, 0, 4);
		*at += len;
		n += frame_write(block + n, F_DATA, pad ? 8 : 0, stream, payload + !pad, len + 5 * pad);
		stream = (random >> 24) % 8 ? stream : 4 - stream;
	}
	for (size_t at = 0, len; at < n; at += len) {
		random = random * 1103515245 + 12345;
		len = 1 + (random >> 16) % 3000 < n - at ? 1 + (random >> 16) % 3000 : n - at;
		wire_raw(&w, block + at, len);
		if (random >> 31)
			wire_settle(&w);
	}
	wire_settle(&w);
	for (unsigned k = 0; k < 2; k++) {
		assert_int_equal(e.app[k]->n_got, sent[k]);
		for (size_t i = 0; i < sent[k]; i++)
			assert_int_equal(e.app[k]->got[i], (uint8_t)i);
	}
	assert_int_equal(e.closed + w.goaways, 0);
	wire_close(&w, &e);
}

/* Fills the socket with `block`, in records of their own, while nobody reads. */
static void fill(const uint8_t *block, size_t n)
{
	while (record_flush(w.record) == 0) {
		assert_int_equal(record_write(w.record, block, n), 0);
		record_tx_close(w.record);
	}
}

/* Frames that cannot be put together: a read full of them is followed by small ones, which leave turns to others. */
static void test_dense_reads(void **state)
{
	static uint8_t block[16380];
	const size_t small = 4 * sizeof block / 10; /* in run_turns(1), which are two turns */
	size_t n = 0, got[3] = {0};
	uint64_t again = 0;

	clock_hold(true);
	open_two();
	for (uint32_t id = 1; n + 10 <= sizeof block; id = 4 - id)
		n += frame_write(block + n, F_DATA, 0, id, "x", 1);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t before = e.app[0]->n_got + e.app[1]->n_got;

		if (i == 2) {
			run_turns(40);
			clock_forward(H2_DENSE_MS);
			before = e.app[0]->n_got + e.app[1]->n_got;
		}
		if (i == 1)
			clock_forward(H2_DENSE_MS / 2);
		fill(block, n);
		run_turns(1);
		if (i == 1)
			again = e.h2->share->dense_until - loop_now(rig_loop);
		got[i] = e.app[0]->n_got + e.app[1]->n_got - before;
	}
	assert_true(got[0] > small);
	assert_in_range(got[1], sizeof block / 10, small);
	assert_true(again > H2_DENSE_MS / 2); /* small reads full of them prolong it */
	assert_true(got[2] > small);
	wire_settle(&w);
	assert_int_equal(e.closed + w.goaways, 0);
	clock_hold(false);
	wire_close(&w, &e);
}

static const struct {
	const char *name;
	enum wire_type type;
	uint8_t flags;
	uint32_t id;
	size_t len;
	uint8_t last; /* byte of the payload */
} floods[] = {
	{"PING", F_PING, 0, 0, 8, 0},
	{"PING acknowledgements", F_PING, 1, 0, 8, 0},
	{"SETTINGS", F_SETTINGS, 0, 0, 0, 0},
	{"PRIORITY", F_PRIORITY, 0, 1, 5, 0},
	{"WINDOW_UPDATE", F_WINDOW, 0, 0, 4, 1},
	{"WINDOW_UPDATE of a stream", F_WINDOW, 0, 1, 4, 1},
	{"unknown frames", (enum wire_type)0xbb, 0, 0, 0, 0},
	{"empty DATA", F_DATA, 0, 1, 0, 0},
	{"RST_STREAM of a closed stream", F_RST, 0, 3, 4, 8},
};

static void test_floods(void **state)
{
	for (size_t i = 0; i < sizeof floods / sizeof *floods; i++) {
		static uint8_t block[16384];
		uint8_t payload[8] = {0};
		size_t n = 0;

		open_stream(true);
		wire_connect(&w, 3, "10.0.0.1:80");
		wire_u32(&w, F_RST, 3, 8);
		wire_settle(&w);
		if (floods[i].len)
			payload[floods[i].len - 1] = floods[i].last;
		while (n + 17 < sizeof block)
			n += frame_write(block + n, floods[i].type, floods[i].flags, floods[i].id, payload,
					 floods[i].len);
		for (unsigned k = 0; k < 100 && !w.closed && !w.goaways && !e.closed; k++) {
			wire_raw(&w, block, n);
			wire_recv(&w);
		}
		wire_settle(&w);
		if (!w.closed && !w.goaways && !e.closed)
			fail_msg("%s: no end", floods[i].name);
		if (e.limited[H2_LIMIT_CONTROL] + e.limited[H2_LIMIT_RESETS] != 1)
			fail_msg("%s: not counted once", floods[i].name);
		wire_close(&w, &e);
	}
}

/* An application with something to say in the same turn does not get in the way of GOAWAY. */
static void test_flood_beside_data(void **state)
{
	open_stream(true);
	clock_hold(true);
	run_turns(1);
	e.h2->control.left = 1;
	e.h2->control.at = loop_now(rig_loop);
	for (unsigned i = 0; i < 3; i++)
		wire_frame(&w, F_PING, 0, 0, (uint8_t[8]){0}, 8);
	assert_int_equal(write(e.app[0]->fd[1], "12345", 5), 5);
	wire_settle(&w);
	assert_int_equal(w.goaways, 1);
	assert_int_equal(w.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
	assert_int_equal(e.closed, 1);
	assert_string_equal(e.why, h2_too_many_frames);
	clock_hold(false);
	wire_close(&w, &e);
}

/* The same frames at a pace that happens. */
static void test_no_flood(void **state)
{
	open_stream(true);
	for (unsigned i = 0; i < 30; i++) {
		for (unsigned k = 0; k < 1000; k++)
			wire_frame(&w, F_WINDOW, 0, 0, (uint8_t[]){0, 0, 0, 1}, 4);
		clock_forward(1000);
		wire_settle(&w);
	}
	assert_int_equal(w.goaways + e.closed, 0);
	wire_close(&w, &e);
}

/* A peer that reads little at a time updates windows all the time: the bytes that we send allow it. */
static void test_updates_of_small_reads(void **state)
{
	open_stream(false);
	for (unsigned i = 0; i < 600; i++) {
		uint64_t before = w.s[1].data;

		write_all(e.app[0], 65536);
		w.no_credit = true;
		wire_settle(&w);
		for (uint64_t n = w.s[1].data - before; n; n -= n < 2000 ? n : 2000) {
			wire_u32(&w, F_WINDOW, 0, n < 2000 ? (uint32_t)n : 2000);
			wire_u32(&w, F_WINDOW, 1, n < 2000 ? (uint32_t)n : 2000);
		}
	}
	assert_true(w.s[1].data > 20 << 20);
	assert_int_equal(w.goaways + e.closed, 0);
	wire_close(&w, &e);
}

static void test_rapid_reset(void **state)
{
	clock_hold(true);
	wire_open(&w, &e, false);
	wire_hello(&w);
	e.keep_waiting = true;
	for (uint32_t id = 1; id < WIRE_IDS - 2 && !w.closed && !w.goaways; id += 2) {
		wire_connect(&w, id, id % 32 == 31 ? "10.0.0.1:80" : "refuse-503:1");
		wire_u32(&w, F_RST, id, 8);
		if (id % 64 == 63)
			wire_settle(&w);
	}
	wire_settle(&w);
	assert_true(w.closed || w.goaways);
	wire_close(&w, &e);
	clock_hold(false);
}

/* What makes us reset a stream, instead of the client (CVE-2025-8671). */
static const struct {
	const char *name, *field, *value; /* of the request */
	bool trailers, overflow;	  /* then */
	uint32_t code;
} made_resets[] = {
	{"a :path", ":path", "/", .code = NGHTTP2_PROTOCOL_ERROR},
	{"a field's name with a capital", "Baggage", "k=v", .code = NGHTTP2_PROTOCOL_ERROR},
	{"a field of the connection", "connection", "close", .code = NGHTTP2_PROTOCOL_ERROR},
	{"trailers that are no end", "x-a", "b", .trailers = true, .code = NGHTTP2_PROTOCOL_ERROR},
	{"a window that overflows", "x-a", "b", .overflow = true, .code = NGHTTP2_FLOW_CONTROL_ERROR},
};

static void made_reset(uint32_t id, size_t row)
{
	uint8_t block[256];
	size_t n = 0;

	if (made_resets[row].field[0] == ':')
		n += field(block, made_resets[row].field, made_resets[row].value, strlen(made_resets[row].value));
	n += connect_block(block + n, "10.0.0.1:80");
	if (made_resets[row].field[0] != ':')
		n += field(block + n, made_resets[row].field, made_resets[row].value, strlen(made_resets[row].value));
	wire_frame(&w, F_HEADERS, 4, id, block, n);
	if (made_resets[row].trailers)
		wire_frame(&w, F_HEADERS, 4, id, block, field(block, "x-a", "b", 1));
	if (made_resets[row].overflow)
		wire_u32(&w, F_WINDOW, id, 0x7fffffff);
}

static void test_made_resets(void **state)
{
	for (size_t i = 0; i < sizeof made_resets / sizeof *made_resets; i++) {
		clock_hold(true);
		wire_open(&w, &e, false);
		wire_hello(&w);
		for (uint32_t id = 1; id < WIRE_IDS - 2 && !w.closed && !w.goaways; id += 2) {
			made_reset(id, i);
			if (id % 64 != 63)
				continue;
			wire_settle(&w);
			for (unsigned k = 0; k < e.n_apps; k++)
				app_free(e.app[k]);
			e.n_apps = 0;
		}
		wire_settle(&w);
		if (!w.goaways || e.limited[H2_LIMIT_RESETS] != 1 || w.s[1].code != made_resets[i].code)
			fail_msg("%s: %u GOAWAYs, told %u times, the first stream's end %u", made_resets[i].name,
				 w.goaways, e.limited[H2_LIMIT_RESETS], w.s[1].code);
		wire_close(&w, &e);
		clock_hold(false);
	}
}

/* Clients that reset streams after their answer are no attack, at the rate that applications do. */
static void test_resets_after_answers(void **state)
{
	wire_open(&w, &e, false);
	wire_hello(&w);
	for (uint32_t id = 1; id < 3001; id += 2) {
		wire_connect(&w, id, "10.0.0.1:80");
		wire_settle(&w);
		wire_u32(&w, F_RST, id, 8);
		wire_settle(&w);
		app_free(e.app[0]);
		e.n_apps = 0;
	}
	assert_int_equal(w.goaways + e.closed, 0);
	wire_close(&w, &e);
}

static void test_continuation_flood(void **state)
{
	uint8_t block[1200], x[1000];
	size_t n = connect_block(block, "10.0.0.1:80");

	memset(x, 'x', sizeof x);
	wire_open(&w, &e, false);
	wire_hello(&w);
	wire_frame(&w, F_HEADERS, 0, 1, block, n);
	n = field(block, "x-a", (char *)x, sizeof x);
	for (unsigned i = 0; i < 10000 && !w.closed && !w.goaways; i++) {
		wire_frame(&w, F_CONTINUATION, 0, 1, block, n);
		wire_recv(&w);
	}
	wire_settle(&w);
	assert_true(e.closed || w.goaways);
	assert_int_equal(e.requests, 0);
	assert_int_equal(e.limited[H2_LIMIT_BLOCK], 1);
	wire_close(&w, &e);
}

/* A large field in the decoder's table, named by single bytes. */
static void test_header_bomb(void **state)
{
	static uint8_t block[16384];
	static char v[4000];
	size_t at = connect_block(block, "10.0.0.1:80"), n;

	memset(v, 'v', sizeof v);
	n = at + field(block + at, "x-a", v, sizeof v);
	block[at] = 0x40; /* with indexing */
	memset(block + n, 0x80 | 62, sizeof block - n);
	wire_open(&w, &e, false);
	wire_hello(&w);
	wire_frame(&w, F_HEADERS, 4, 1, block, sizeof block);
	wire_settle(&w);
	assert_int_equal(e.requests, 0);
	assert_int_equal(e.closed, 1);
	assert_string_equal(e.why, "a header block without end");
	assert_int_equal(e.limited[H2_LIMIT_BLOCK], 1);
	assert_int_equal(e.limited[H2_LIMIT_PROTOCOL], 0);
	wire_close(&w, &e);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void test_header_limits(void **state)
{
	static const struct {
		const char *name;
		size_t value, count;
		int status; /* 0: a reset or the connection's end will do */
		size_t baggage;
	} rows[] = {
		{"short", 10, 1, 200, 10},
		{"at the limit", H2_HEADER_VALUE_MAX, 1, 200, H2_HEADER_VALUE_MAX},
		{"a value over the limit is left out", H2_HEADER_VALUE_MAX + 1, 1, 200, 0},
		{"repeated fields are joined", 100, 3, 200, 302},
		{"joined as far as they fit", 2000, 3, 200, 4001},
		{"a list over the limit", 15000, 5, 431, 0},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		static uint8_t block[200000];
		static char v[16384];
		size_t n = connect_block(block, "10.0.0.1:80"), at = 0;

		memset(v, 'v', sizeof v);
		for (size_t k = 0; k < rows[i].count; k++)
			n += field(block + n, "baggage", v, rows[i].value);
		wire_open(&w, &e, false);
		wire_hello(&w);
		while (at < n) {
			size_t k = n - at < 16384 ? n - at : 16384;

			wire_frame(&w, at ? F_CONTINUATION : F_HEADERS, at + k == n ? 4 : 0, 1, block + at, k);
			at += k;
		}
		wire_settle(&w);
		if (w.s[1].status != rows[i].status || (e.n_apps && strlen(e.app[0]->baggage) != rows[i].baggage))
			fail_msg("%s: status %d, %zu of baggage", rows[i].name, w.s[1].status,
				 e.n_apps ? strlen(e.app[0]->baggage) : 0);
		wire_close(&w, &e);
	}
}

/* A client that cannot know the limit yet is refused what is beyond it; one that can breaks the protocol. */
static void test_stream_limit(void **state)
{
	for (int knows = 0; knows < 2; knows++) {
		wire_open(&w, &e, false);
		w.deaf = !knows;
		if (knows)
			wire_hello(&w);
		else
			wire_raw(&w, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
		for (uint32_t i = 0; i < H2_STREAMS_MAX + 10; i++)
			wire_connect(&w, 1 + 2 * i, "10.0.0.1:80");
		run_turns(10);
		w.deaf = false;
		wire_settle(&w);
		assert_int_equal(e.requests, H2_STREAMS_MAX);
		assert_int_equal(e.closed, knows);
		for (uint32_t i = 0; i < 10 && !knows; i++) {
			assert_true(w.s[1 + 2 * (H2_STREAMS_MAX + i)].reset);
			assert_int_equal(w.s[1 + 2 * (H2_STREAMS_MAX + i)].code, NGHTTP2_REFUSED_STREAM);
		}
		if (!knows)
			assert_int_equal(w.s[2 * H2_STREAMS_MAX - 1].status, 200);
		wire_close(&w, &e);
	}
}

/* A request, or data, on the number of a stream that is no more, or that never was. */
static void test_old_numbers(void **state)
{
	static const struct {
		const char *name;
		uint32_t id, again;
		bool end, reset, ours, late, data;
		uint32_t code; /* 0: it is passed over */
	} rows[] = {
		{"a stream that both have ended", 1, 1, .end = true, .code = NGHTTP2_STREAM_CLOSED},
		{"one that the client has reset", 1, 1, .reset = true, .code = NGHTTP2_STREAM_CLOSED},
		{"one that we have reset", 1, 1, .ours = true},
		{"a lower number than the last", 5, 3, .code = NGHTTP2_PROTOCOL_ERROR},
		{"a higher one", 5, 7},
		{"data where both have ended", 1, 1, .end = true, .data = true, .code = NGHTTP2_STREAM_CLOSED},
		{"data where the client has reset", 1, 1, .reset = true, .data = true, .code = NGHTTP2_STREAM_CLOSED},
		{"data where we have reset", 1, 1, .ours = true, .data = true},
		{"data where the client has reset after us", 1, 1, .ours = true, .late = true, .data = true,
		 .code = NGHTTP2_STREAM_CLOSED},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		wire_open(&w, &e, false);
		wire_hello(&w);
		wire_connect(&w, rows[i].id, "10.0.0.1:80");
		wire_settle(&w);
		if (rows[i].end) {
			wire_frame(&w, F_DATA, 1, rows[i].id, NULL, 0);
			close(e.app[0]->fd[1]);
			e.app[0]->fd[1] = -1;
		}
		if (rows[i].reset)
			wire_u32(&w, F_RST, rows[i].id, 8);
		if (rows[i].ours)
			app_drop(e.app[0], NGHTTP2_CANCEL);
		wire_settle(&w);
		if (rows[i].late)
			wire_u32(&w, F_RST, rows[i].id, 8);
		if (rows[i].data)
			for (unsigned k = 0; k < 3; k++)
				wire_frame(&w, F_DATA, 0, rows[i].again, "some data", 9);
		else
			wire_connect(&w, rows[i].again, "10.0.0.1:80");
		wire_settle(&w);
		if ((rows[i].code != 0) != (w.goaways != 0) || w.goaway_code != rows[i].code)
			fail_msg("%s: %u GOAWAYs, code %u", rows[i].name, w.goaways, w.goaway_code);
		wire_close(&w, &e);
	}
}

/* A client that breaks the protocol is not waited for, whoever leaves: what it has open is told at once. */
static void test_who_breaks_it_while_one_leaves(void **state)
{
	static const struct {
		const char *name;
		bool we, ours; /* who leaves; who sees that the protocol is broken, we or nghttp2 */
	} rows[] = {
		{"we leave, data on a stream that was reset", true, true},
		{"we leave, a window update of nothing", true, false},
		{"the client leaves, data on a stream that was reset", false, true},
		{"the client leaves, a window update of nothing", false, false},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		wire_open(&w, &e, false);
		wire_hello(&w);
		wire_connect(&w, 1, "10.0.0.1:80");
		wire_connect(&w, 3, "10.0.0.1:80");
		wire_u32(&w, F_RST, 1, NGHTTP2_CANCEL);
		wire_settle(&w);
		if (rows[i].we)
			h2_shutdown(e.h2, false);
		else
			wire_frame(&w, F_GOAWAY, 0, 0, (uint8_t[8]){0}, 8);
		wire_settle(&w);
		assert_int_equal(e.closed, 0);
		w.deaf = true; /* and it does not close */
		if (rows[i].ours)
			wire_frame(&w, F_DATA, 0, 1, "some data", 9);
		else
			wire_u32(&w, F_WINDOW, 0, 0);
		run_turns(10);
		if (e.closed != 1 || e.app[1]->resets != 1)
			fail_msg("%s: %u closed, %u resets", rows[i].name, e.closed, e.app[1]->resets);
		wire_close(&w, &e);
	}
}

static void test_refusal_order(void **state)
{
	wire_open(&w, &e, false);
	wire_hello(&w);
	wire_connect(&w, 1, "refuse-401:1");
	wire_settle(&w);
	assert_int_equal(w.s[1].status, 401);
	assert_true(w.s[1].ended && w.s[1].reset);
	assert_int_equal(w.s[1].code, NGHTTP2_NO_ERROR);
	wire_close(&w, &e);
}

/* --- windows that stay shut ----------------------------------------------------------------------------- */

/* A client that is there, but gives a stream no window: nothing is read from the application meanwhile. */
static void test_stalls(void **state)
{
	static const struct {
		const char *name;
		uint32_t minutes; /* between bytes that it gives; 0: none */
		unsigned resets;
	} rows[] = {{"no window for an hour", 0, 1}, {"a byte each half an hour", 30, 0}};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		wire_open(&w, &e, false);
		wire_hello(&w);
		wire_setting(&w, 4, 0);
		wire_connect(&w, 1, "10.0.0.1:80");
		wire_settle(&w);
		write_all(e.app[0], 1000);
		for (uint32_t at = 0; at <= H2_STALL_MS / 60000; at++) {
			for (unsigned k = 0; k < 12; k++) {
				clock_forward(5000);
				wire_frame(&w, F_PING, 0, 0, (uint8_t[8]){0}, 8);
				wire_step(&w);
			}
			if (rows[i].minutes && at % rows[i].minutes == rows[i].minutes - 1)
				wire_u32(&w, F_WINDOW, 1, 1);
		}
		wire_settle(&w);
		if (e.closed || e.app[0]->resets != rows[i].resets || e.limited[H2_LIMIT_STALLED] != rows[i].resets ||
		    (rows[i].resets && w.s[1].code != NGHTTP2_CANCEL))
			fail_msg("%s: %u resets, told %u times, %s", rows[i].name, e.app[0]->resets,
				 e.limited[H2_LIMIT_STALLED], e.why);
		wire_close(&w, &e);
	}
}

/* --- deadlines ------------------------------------------------------------------------------------------ */

static void test_preface_deadline(void **state)
{
	static const struct {
		const char *name, *say;
		size_t len;
		uint64_t after; /* ms of silence */
		bool server;	/* we are */
	} rows[] = {
		{"half a preface", "PRI * HTTP/2.0\r\n", 16, 0, true},
		{"half a preface, late", "PRI * HTTP/2.0\r\n", 16, H2_SILENT_MS - 500, true},
		{"a preface without SETTINGS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, 0, true},
		{"a client that says nothing", "", 0, H2_SILENT_MS - H2_PREFACE_MS, true},
		{"a server that says nothing", "", 0, 0, false},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		wire_open(&w, &e, !rows[i].server);
		clock_forward(rows[i].after);
		if (rows[i].len)
			wire_raw(&w, rows[i].say, rows[i].len);
		run_turns(3);
		clock_forward(H2_PREFACE_MS - 500);
		if (e.closed)
			fail_msg("%s: ended too early", rows[i].name);
		clock_forward(1000);
		if (!e.closed || strcmp(e.why, "no HTTP/2 preface in time"))
			fail_msg("%s: %s", rows[i].name, e.closed ? e.why : "still open");
		wire_close(&w, &e);
	}
}

/* Of a client that says nothing a server keeps no session; what it has to say comes all the same. */
static void test_silent_client(void **state)
{
	enum what { SPEAKS, SHUT, SHUT_GRACEFULLY, CUT };
	static const struct {
		const char *name;
		enum what what;
	} rows[] = {
		{"it speaks after all", SPEAKS},
		{"we leave", SHUT},
		{"we leave in two steps", SHUT_GRACEFULLY},
		{"it is cut", CUT},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		wire_open(&w, &e, false);
		wire_settle(&w);
		if (e.h2->session || w.frames)
			fail_msg("%s: a session before the client's preface, %u frames", rows[i].name, w.frames);
		if (rows[i].what == SPEAKS)
			wire_hello(&w);
		else if (rows[i].what == CUT)
			h2_cut(e.h2);
		else
			h2_shutdown(e.h2, rows[i].what == SHUT_GRACEFULLY);
		wire_settle(&w);
		if (w.settings != 1 || w.goaways != (rows[i].what != SPEAKS))
			fail_msg("%s: %u SETTINGS, %u GOAWAY", rows[i].name, w.settings, w.goaways);
		wire_close(&w, &e);
	}
}

/* How a connection ended that nobody said goodbye on. */
static void test_lost(void **state)
{
	static const struct {
		const char *name, *why;
		bool reset;
	} rows[] = {
		{"an end without close_notify", "end of file without close_notify", false},
		{"a reset", "Connection reset by peer", true},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		open_stream(true);
		if (rows[i].reset) {
			wire_frame(&w, F_PING, 0, 0, (uint8_t[8]){0}, 8);
			run_turns(3); /* what it answers stays unread */
			sock_reset_on_close(record_fd(w.record));
			record_free(w.record);
			w.record = NULL;
		} else {
			shutdown(record_fd(w.record), SHUT_WR);
		}
		run_turns(10);
		if (e.closed != 1 || strcmp(e.why, rows[i].why))
			fail_msg("%s: %s", rows[i].name, e.closed ? e.why : "still open");
		wire_close(&w, &e);
	}
}

/* What ends a connection, in words, and counted once. */
static void test_bad_bytes(void **state)
{
#define PREFACE	 "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS "\0\0\0\4\0\0\0\0\0"
#define ROW(x)	 x, sizeof(x) - 1
	static const struct {
		const char *name, *say;
		size_t len;
		const char *why;
	} rows[] = {
		{"HTTP/1.1", ROW("GET / HTTP/1.1\r\nHost: a\r\n\r\n      "), "Received bad client magic byte string"},
		{"nearly a preface", ROW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r\n"),
		 "Received bad client magic byte string"},
		{"a PING before SETTINGS",
		 ROW(PREFACE "\0\0\10\6\0\0\0\0\0"
			     "12345678"),
		 "PROTOCOL_ERROR"},
		{"SETTINGS of seven bytes",
		 ROW(PREFACE SETTINGS "\0\0\7\4\0\0\0\0\0"
				      "1234567"),
		 "FRAME_SIZE_ERROR"},
		{"SETTINGS on a stream", ROW(PREFACE SETTINGS "\0\0\0\4\0\0\0\0\1"), "PROTOCOL_ERROR"},
		{"a field that is not in the table", ROW(PREFACE SETTINGS "\0\0\2\1\4\0\0\0\1\xff\x7f"),
		 "COMPRESSION_ERROR"},
		{"DATA on no stream", ROW(PREFACE SETTINGS "\0\0\1\0\0\0\0\0\0x"), "PROTOCOL_ERROR"},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		wire_open(&w, &e, false);
		wire_raw(&w, rows[i].say, rows[i].len);
		run_turns(10);
		wire_recv(&w);
		if (e.closed != 1 || strcmp(e.why, rows[i].why) || e.limited[H2_LIMIT_PROTOCOL] != 1)
			fail_msg("%s: closed %u: %s; limit %u", rows[i].name, e.closed, e.why,
				 e.limited[H2_LIMIT_PROTOCOL]);
		wire_close(&w, &e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_splits),
		cmocka_unit_test(test_endings),
		cmocka_unit_test(test_held_before_end),
		cmocka_unit_test(test_late_frames),
		cmocka_unit_test(test_refused_stream),
		cmocka_unit_test(test_goaway),
		cmocka_unit_test(test_goaway_before_requests),
		cmocka_unit_test(test_accounting),
		cmocka_unit_test(test_last_part),
		cmocka_unit_test(test_lazy_credit),
		cmocka_unit_test(test_exhausted),
		cmocka_unit_test(test_tiny_frames),
		cmocka_unit_test(test_tiny_frames_join),
		cmocka_unit_test(test_frames_cut_anywhere),
		cmocka_unit_test(test_dense_reads),
		cmocka_unit_test(test_floods),
		cmocka_unit_test(test_flood_beside_data),
		cmocka_unit_test(test_no_flood),
		cmocka_unit_test(test_updates_of_small_reads),
		cmocka_unit_test(test_rapid_reset),
		cmocka_unit_test(test_made_resets),
		cmocka_unit_test(test_resets_after_answers),
		cmocka_unit_test(test_continuation_flood),
		cmocka_unit_test(test_header_bomb),
		cmocka_unit_test(test_header_limits),
		cmocka_unit_test(test_stream_limit),
		cmocka_unit_test(test_old_numbers),
		cmocka_unit_test(test_who_breaks_it_while_one_leaves),
		cmocka_unit_test(test_refusal_order),
		cmocka_unit_test(test_stalls),
		cmocka_unit_test(test_preface_deadline),
		cmocka_unit_test(test_silent_client),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_bad_bytes),
	};

	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
