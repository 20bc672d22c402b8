/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of net/ktls and of what net/record does only where the kernel carries it: the probe, the switch, reasons, ends
 * with a full socket, keys that cannot be changed, records without data. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "fds.h"
#include "net/ktls_internal.h"
#include "record_backends.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct record_pool *pool;
static const struct ktls_switch all = {.mode = KTLS_ON};

static bool kernel_has_tls(void)
{
	return access("/proc/net/tls_stat", R_OK) == 0;
}

static bool kernel_is_at_least(int major, int minor)
{
	struct utsname u;
	int a = 0, b = 0;

	uname(&u);
	sscanf(u.release, "%d.%d", &a, &b);
	return a > major || (a == major && b >= minor);
}

/* --- the switch and the probe --------------------------------------------------------------------------- */

static void test_switch(void **state)
{
	static const struct {
		const char *mode, *disable;
		int err;
		enum ktls_mode want;
		const char *disabled; /* a letter a feature */
	} rows[] = {
		{"off", "", 0, KTLS_OFF, "----"},
		{"tx", "", 0, KTLS_TX, "----"},
		{"on", "rekey", 0, KTLS_ON, "---x"},
		{"auto", "rx-no-pad,rekey", 0, KTLS_AUTO, "--xx"},
		{"auto", "tx,rx,", 0, KTLS_AUTO, "xx--"},
		{"", "", -EINVAL},
		{"ON", "", -EINVAL},
		{"on", "splice", -EINVAL},
		{"on", ",", -EINVAL},
		{"on", "rx ", -EINVAL},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct ktls_switch s = {.mode = KTLS_TX};

		if (ktls_switch_parse(&s, rows[i].mode, rows[i].disable) != rows[i].err)
			fail_msg("\"%s\" \"%s\": not %d", rows[i].mode, rows[i].disable, rows[i].err);
		for (unsigned f = 0; !rows[i].err && f < KTLS_FEATURES; f++)
			if (s.mode != rows[i].want || s.disabled[f] != (rows[i].disabled[f] == 'x'))
				fail_msg("\"%s\" \"%s\": %s", rows[i].mode, rows[i].disable, ktls_feature_name(f));
	}
}

/* What the switch forbids says so; what is missing has a reason; nothing is left open. */
static void test_probe(void **state)
{
	static const struct {
		const char *name;
		struct ktls_switch sw;
		const char *off; /* a letter a feature */
	} rows[] = {
		{"on", {KTLS_ON}, "----"},
		{"off", {KTLS_OFF}, "xxxx"},
		{"tx", {KTLS_TX}, "-xx-"},
		{"no tx", {KTLS_ON, {[KTLS_FEATURE_TX] = true}}, "x---"},
		{"no rx", {KTLS_ON, {[KTLS_FEATURE_RX] = true}}, "-x--"},
		{"no rekey", {KTLS_ON, {[KTLS_FEATURE_REKEY] = true}}, "---x"},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		unsigned before = fds_open();
		struct ktls_features f;

		ktls_probe(&rows[i].sw, &f);
		if (fds_open() != before)
			fail_msg("%s: leaves descriptors open", rows[i].name);
		for (unsigned k = 0; k < KTLS_FEATURES; k++) {
			if (f.off[k] != (rows[i].off[k] == 'x') || (f.off[k] && strcmp(f.why[k], "switched off")) ||
			    f.has[k] == !!f.why[k][0] || (f.off[k] && f.has[k]))
				fail_msg("%s: %s: %d %d \"%s\"", rows[i].name, ktls_feature_name(k), f.has[k], f.off[k],
					 f.why[k]);
		}
	}
}

/* Every kernel that we test on does all that its version has. */
static void test_probe_finds(void **state)
{
	if (!kernel_has_tls()) {
		printf("skip ktls/probe-finds: %s\n", backend_probed.why[KTLS_FEATURE_TX]);
		return;
	}
	for (unsigned f = KTLS_FEATURE_TX; f <= KTLS_FEATURE_RX_NO_PAD; f++)
		if (!backend_probed.has[f])
			fail_msg("%s: %s", ktls_feature_name(f), backend_probed.why[f]);
	if (backend_probed.has[KTLS_FEATURE_REKEY] != kernel_is_at_least(6, 14))
		fail_msg("rekey: %s", backend_probed.why[KTLS_FEATURE_REKEY]);
	assert_int_equal(backend_probed.ciphers[0] & 3, 3);
	assert_int_equal(backend_probed.ciphers[1] & 3, 3);
}

/* Measured on each kernel, the user back end is the cheaper one, so "auto" takes nothing. */
static void test_auto(void **state)
{
	static const struct ktls_switch automatic = {.mode = KTLS_AUTO};
	struct ktls_features f;

	ktls_probe(&automatic, &f);
	for (unsigned k = 0; k < KTLS_FEATURES; k++) {
		assert_false(f.has[k]);
		assert_true(f.off[k]);
		assert_string_equal(f.why[k], "the tunnel's own way costs less");
	}
}

static struct record *record_at(int fd, bool server)
{
	struct record_secrets s = {.cipher = RECORD_AES_128_GCM, .len = 32, .server = server};

	memset(s.tx, server ? 2 : 1, sizeof s.tx);
	memset(s.rx, server ? 1 : 2, sizeof s.rx);
	return record_new(fd, &s, pool);
}

/* Each direction that stays in userspace has one reason of a fixed set. */
static void test_reasons(void **state)
{
	static const struct {
		const char *name;
		struct ktls_features f;
		const char *tx, *rx;
	} rows[] = {
		{"nothing there", {.why = {""}}, "unavailable", "unavailable"},
		{"switched off", {.off = {true, true}}, "off", "off"},
		{"another cipher", {.has = {true, true}, .ciphers = {4, 2}}, "cipher", "cipher"},
		/* a socket pair has no kTLS */
		{"refused", {.has = {true, true}, .ciphers = {7, 7}}, "refused", "refused"},
		{"refused and off", {.has = {true}, .off = {false, true}, .ciphers = {7}}, "refused", "off"},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct record_offload o;
		struct record *r;
		int fd[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
		r = record_at(fd[0], false);
		record_offload_of(r, &o);
		assert_string_equal(o.tx_why, "off");
		record_offload(r, &rows[i].f);
		record_offload_of(r, &o);
		if (o.tx || o.rx || strcmp(o.tx_why, rows[i].tx) || strcmp(o.rx_why, rows[i].rx))
			fail_msg("%s: %s, %s", rows[i].name, o.tx_why, o.rx_why);
		record_free(r);
		close(fd[1]);
	}
}

/* --- over each back end --------------------------------------------------------------------------------- */

static void connect_records(struct record **client, struct record **server, bool rekey)
{
	bool had = backend_probed.has[KTLS_FEATURE_REKEY];
	int fd[2];

	backend_pair(fd);
	backend_probed.has[KTLS_FEATURE_REKEY] &= rekey;
	*client = backend_take(record_at(fd[0], false));
	*server = backend_take(record_at(fd[1], true));
	backend_probed.has[KTLS_FEATURE_REKEY] = had;
}

struct count {
	size_t n;
	bool wrong;
};

static int count_bytes(void *arg, uint8_t *p, size_t len)
{
	struct count *c = arg;

	for (size_t i = 0; i < len; i++)
		c->wrong |= p[i] != (uint8_t)((c->n + i) * 7);
	c->n += len;
	return 0;
}

static int drain(struct record *r, struct count *c)
{
	ssize_t n;

	while ((n = record_recv(r, count_bytes, c)) >= 0)
		;
	return (int)n;
}

/* A descriptor is closed once a flush behind close_notify says that all is in the socket: then the peer must get all of
 * it, however slowly it reads. Ends fall on every state of the socket's buffer. */
static void test_close_with_full_socket(void **state)
{
	enum { TOTAL = 400000 };
	static uint8_t text[TOTAL];

	for (size_t i = 0; i < TOTAL; i++)
		text[i] = (uint8_t)(i * 7);
	for (size_t piece = 3000; piece < 60000; piece += 3000) {
		struct record *a, *b;
		struct count got = {0};
		size_t at = 0;
		int err;

		connect_records(&a, &b, true);
		setsockopt(record_fd(a), SOL_SOCKET, SO_SNDBUF, &(int){10000}, sizeof(int));
		while (at < TOTAL || record_tx_pending(a)) {
			size_t n = TOTAL - at < piece ? TOTAL - at : piece;

			if (record_write(a, text + at, n) == 0)
				at += n;
			if (record_flush(a) == -EAGAIN)
				record_recv(b, count_bytes, &got);
		}
		record_close_notify(a);
		while ((err = record_flush(a)) == -EAGAIN) {
			assert_true(record_tx_pending(a));
			record_recv(b, count_bytes, &got);
		}
		assert_int_equal(err, 0);
		if (backend->tx) { /* TCP has as many bytes as we think, neither more nor less: else a flush would wait for ever */
			uint64_t queued;

			assert_int_equal(ktls_queued(record_fd(a), &queued), 0);
			assert_int_equal(queued, a->tx_wire);
		}
		record_free(a);
		while ((err = drain(b, &got)) == -EAGAIN)
			assert_int_equal(poll(&(struct pollfd){.fd = record_fd(b), .events = POLLIN}, 1, 5000), 1);
		if (err != -ENODATA || got.n != TOTAL || got.wrong)
			fail_msg("pieces of %zu: %d after %zu bytes", piece, err, got.n);
		record_free(b);
	}
}

/* Without a new key a connection retires when the peer changes its own. What came before arrives, what we send goes on;
 * what comes after ends it with a name. */
static void test_retire(void **state)
{
	static const uint8_t request[] = {24, 0, 0, 1, 1};
	struct record_key k = {.seals = true};
	uint8_t wire[256];
	struct record *r, *peer;
	struct count got = {0};
	int fd[2], n, end;

	backend_pair(fd);
	peer = record_at(fd[1], true);
	n = record_key_set(&k, pool, RECORD_AES_128_GCM, peer->tx.secret, 32);
	assert_int_equal(n, 0);
	{
		bool had = backend_probed.has[KTLS_FEATURE_REKEY];

		backend_probed.has[KTLS_FEATURE_REKEY] = false;
		r = backend_take(record_at(fd[0], false));
		backend_probed.has[KTLS_FEATURE_REKEY] = had;
	}
	memcpy(wire + RECORD_HEADER, "\0\7\16", 3);
	n = record_seal(&k, pool, wire, 3, RECORD_DATA);
	memcpy(wire + n + RECORD_HEADER, request, sizeof request);
	n += record_seal(&k, pool, wire + n, sizeof request, RECORD_HANDSHAKE);
	assert_int_equal(write(fd[1], wire, (size_t)n), n);
	backend_arrive(fd[1], fd[0]);
	assert_false(record_retiring(r));
	while (!record_retiring(r) && record_recv(r, count_bytes, &got) >= 0)
		;
	if (!backend_is_kernel()) { /* changes its keys, and goes on */
		assert_false(record_retiring(r));
		assert_true(record_tx_pending(r));
	} else {
		assert_true(record_retiring(r));
	}
	assert_int_equal(got.n, 3);
	assert_int_equal(record_write(r, "\0\7", 2), 0);
	assert_int_equal(record_flush(r), 0);
	backend_arrive(fd[0], fd[1]);
	got.n = 0;
	assert_int_equal(drain(peer, &got), -EAGAIN);
	assert_int_equal(got.n, 2);
	record_key_update(&k, pool);
	memcpy(wire + RECORD_HEADER, "\16\25", 2);
	n = record_seal(&k, pool, wire, 2, RECORD_DATA);
	assert_int_equal(write(fd[1], wire, (size_t)n), n);
	backend_arrive(fd[1], fd[0]);
	end = drain(r, &got);
	if (backend->rx) {
		assert_int_equal(end, -EPROTO);
		assert_string_equal(record_error(r), "the peer changed its key, which this kernel cannot follow");
		assert_int_equal(got.n, 2);
	} else {
		assert_int_equal(end, -EAGAIN);
		assert_int_equal(got.n, 4);
	}
	record_key_clear(&k);
	record_free(r);
	record_free(peer);
}

/* The kernel passes records without data over; many of them in a row end the connection all the same. */
static void test_records_without_data(void **state)
{
	struct record_key k = {.seals = true};
	struct record *r;
	struct count got = {0};
	uint8_t wire[64], secret[32];
	int fd[2], end = -EAGAIN, sent = 0;

	memset(secret, 2, sizeof secret);
	record_key_set(&k, pool, RECORD_AES_128_GCM, secret, sizeof secret);
	backend_pair(fd);
	r = backend_take(record_at(fd[0], false));
	for (; sent < 100 && end == -EAGAIN; sent++) {
		int n = record_seal(&k, pool, wire, 0, RECORD_DATA);

		assert_int_equal(write(fd[1], wire, (size_t)n), n);
		backend_arrive(fd[1], fd[0]);
		end = drain(r, &got);
	}
	assert_int_equal(end, -EPROTO);
	assert_string_equal(record_error(r), "too many records without data");
	assert_in_range(sent, RECORD_KEY_UPDATES_MAX, RECORD_KEY_UPDATES_MAX + 3);
	record_key_clear(&k);
	record_free(r);
	close(fd[1]);
}

/* A key that cannot be changed: retired at half of what it may do, and no record beyond that. */
static void test_used_up(void **state)
{
	static const struct {
		const char *name;
		uint64_t seq;
		bool retires;
		int err;
	} rows[] = {
		{"young", 1000, false, 0},
		{"half", 1 << 23, true, 0},
		{"nearly", 23726565, true, 0},
		{"used up", 23726566, true, -EKEYEXPIRED},
	};

	for (size_t i = 0; backend->tx && i < COUNT(rows); i++) {
		bool had = backend_probed.has[KTLS_FEATURE_REKEY];
		struct record *r;
		int fd[2], err;

		backend_pair(fd);
		r = record_at(fd[0], false);
		r->tx.seq = rows[i].seq;
		backend_probed.has[KTLS_FEATURE_REKEY] = false;
		backend_take(r);
		backend_probed.has[KTLS_FEATURE_REKEY] = had;
		assert_int_equal(record_write(r, "x", 1), 0);
		err = record_flush(r);
		if (err != rows[i].err || (!err && record_retiring(r) != rows[i].retires))
			fail_msg("%s: %d, retiring %d", rows[i].name, err, record_retiring(r));
		if (err)
			assert_string_equal(record_error(r), "the key is used up, and this kernel takes no other");
		record_free(r);
		close(fd[1]);
	}
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

int main(void)
{
	const struct CMUnitTest once[] = {
		cmocka_unit_test(test_switch), cmocka_unit_test(test_probe),   cmocka_unit_test(test_probe_finds),
		cmocka_unit_test(test_auto),   cmocka_unit_test(test_reasons),
	};
	const struct CMUnitTest each[] = {
		cmocka_unit_test(test_close_with_full_socket),
		cmocka_unit_test(test_retire),
		cmocka_unit_test(test_records_without_data),
		cmocka_unit_test(test_used_up),
	};
	int failed;

	ktls_probe(&all, &backend_probed);
	failed = cmocka_run_group_tests_name("ktls", once, setup, teardown);
	return failed + backends_run("ktls", each, COUNT(each), true, setup, teardown);
}
