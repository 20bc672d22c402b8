/* SPDX-License-Identifier: Apache-2.0 */
/* Taps and the ring of failures, without sockets: whom a tap means, what it tells, and that neither grows nor waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <cmocka.h>

#include "data/failures.h"
#include "data/plane.h"
#include "data/tap.h"
#include "data/tap_hooks.h"
#include "one_turn.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct data_plane plane;
static struct worker worker;
static struct pod pod = {.uid = "u1", .ns = "shop", .name = "client", .sa = "sa"};
static struct workload client = {.ns = "shop", .name = "client"}, web = {.ns = "shop", .name = "web"};
static struct service service = {.ns = "shop", .name = "web", .hostname = "web.example"};
static struct tap_record record;

static struct endpoint at(const char *text)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(&e, text), 0);
	return e;
}

static struct conn conn_new(void)
{
	struct conn c = {.w = &worker, .pod = &pod, .id = 7, .hbone = true};

	c.src = at("10.0.0.1:4000");
	c.original = at("10.9.0.1:80");
	c.dst = at("10.0.1.1:15008");
	c.source = &client;
	c.destination = &web;
	c.service = &service;
	c.src_identity = rstr_new("spiffe://td/ns/shop/sa/client");
	c.dst_identity = rstr_new("spiffe://td/ns/shop/sa/web");
	return c;
}

static void conn_end(struct conn *c)
{
	rstr_unref(c->src_identity);
	rstr_unref(c->dst_identity);
}

static struct tap *tap_on(const char *uid, const char *peer)
{
	struct tap_filter f = {.uid = ""};
	struct tap *t;

	snprintf(f.uid, sizeof f.uid, "%s", uid);
	snprintf(f.peer, sizeof f.peer, "%s", peer);
	t = tap_new(&plane, &f);
	assert_non_null(t);
	one_turn(worker.loop);
	return t;
}

static void tap_off(struct tap *t)
{
	tap_free(t);
	one_turn(worker.loop);
}

/* --- whom it means ---------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *uid, *peer;
	bool inbound, meant;
} meant[] = {
	{"the pod", "u1", "", false, true},
	{"another pod", "u2", "", false, false},
	{"the service's address", "u1", "10.9.0.1", false, true},
	{"the next hop's address", "u1", "10.0.1.1", false, true},
	{"another address", "u1", "10.9.0.2", false, false},
	{"its own address is no peer", "u1", "10.0.0.1", false, false},
	{"the peer's name", "u1", "web", false, true},
	{"its namespace and name", "u1", "shop/web", false, true},
	{"its name in another namespace", "u1", "shopx/web", false, false},
	{"a part of its namespace", "u1", "sho/web", false, false},
	{"the host name", "u1", "web.example", false, true},
	{"the identity", "u1", "spiffe://td/ns/shop/sa/web", false, true},
	{"its own identity is no peer's", "u1", "spiffe://td/ns/shop/sa/client", false, false},
	{"inbound, the client's address", "u1", "10.0.0.1", true, true},
	{"inbound, the client's identity", "u1", "spiffe://td/ns/shop/sa/client", true, true},
	{"inbound, the client's name", "u1", "client", true, true},
	{"inbound, the server is no peer", "u1", "web", true, false},
	{"inbound, its own address is no peer", "u1", "10.9.0.1", true, false},
};

static void test_meant(void **state)
{
	for (size_t i = 0; i < COUNT(meant); i++) {
		struct tap *t = tap_on(meant[i].uid, meant[i].peer);
		struct conn c = conn_new();

		c.inbound = meant[i].inbound;
		tap_opened(&c);
		if (tap_next(t, &record) != meant[i].meant)
			fail_msg("%s", meant[i].name);
		conn_end(&c);
		tap_off(t);
		assert_false(tap_wanted(&worker));
	}
}

/* A connection of which nothing is known yet. */
static void test_bare(void **state)
{
	struct tap *t = tap_on("u1", ""), *other = tap_on("u1", "web");
	struct conn c = {.w = &worker, .pod = &pod};

	tap_closed(&c, "no route");
	assert_true(tap_next(t, &record));
	assert_int_equal(record.head.event, TAP_CLOSED);
	assert_string_equal(record.text[TAP_ERROR], "no route");
	assert_string_equal(record.text[TAP_CLIENT_ID], "");
	assert_string_equal(record.text[TAP_CLIENT], "shop/client");
	assert_false(tap_next(other, &record));
	tap_off(t);
	tap_off(other);
}

/* --- what it tells ---------------------------------------------------------------------------------------------- */

static void pass(struct conn *c, bool received, const char *const *parts, unsigned n)
{
	struct iovec iov[8];
	size_t total = 0;

	for (unsigned i = 0; i < n; i++) {
		iov[i] = (struct iovec){(void *)parts[i], strlen(parts[i])};
		total += iov[i].iov_len;
	}
	tap_bytes(c, received, iov, total);
	*(received ? &c->received : &c->sent) += total;
}

static void test_bytes(void **state)
{
	struct tap *t = tap_on("u1", "");
	struct conn c = conn_new();

	pass(&c, true, (const char *const[]){"GET ", "/", " HTTP"}, 3);
	pass(&c, false, (const char *const[]){"200"}, 1);
	pass(&c, true, (const char *const[]){"more"}, 1);
	assert_true(tap_next(t, &record));
	assert_int_equal(record.head.data_len, 10);
	assert_memory_equal(record.data, "GET / HTTP", 10);
	assert_true(record.head.to_server && record.head.hbone && !record.head.inbound);
	assert_int_equal(record.head.conn, 7);
	assert_string_equal(record.text[TAP_CLIENT_ID], "spiffe://td/ns/shop/sa/client");
	assert_string_equal(record.text[TAP_SERVER_ID], "spiffe://td/ns/shop/sa/web");
	assert_string_equal(record.text[TAP_SERVER], "shop/web");
	assert_string_equal(record.text[TAP_SERVICE], "web.example");
	assert_true(endpoint_eq(&record.head.client, &c.src) && endpoint_eq(&record.head.server, &c.original));
	assert_true(tap_next(t, &record));
	assert_false(record.head.to_server);
	assert_int_equal(record.head.offset, 0);
	assert_int_equal(record.head.other, 10);
	assert_true(tap_next(t, &record));
	assert_int_equal(record.head.offset, 10);
	assert_int_equal(record.head.other, 3);
	assert_false(tap_next(t, &record));
	conn_end(&c);
	tap_off(t);
}

/* One large piece in several places is cut into records that follow each other; round the ring's end as well. */
static void test_large(void **state)
{
	enum { SIZE = 200000, ROUNDS = 30 };
	struct tap *t = tap_on("u1", "");
	struct conn c = conn_new();
	uint8_t *data = malloc(SIZE);
	uint64_t next = 0;

	for (unsigned i = 0; i < SIZE; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct iovec iov[4] = {{data, 1}, {data + 1, 16384}, {data + 16385, 0}, {data + 16385, SIZE}};
		unsigned got = 0;

		tap_bytes(&c, true, iov, SIZE); /* the last is not full */
		c.received += SIZE;
		while (tap_next(t, &record)) {
			assert_int_equal(record.head.offset, next);
			assert_in_range(record.head.data_len, 1, TAP_PIECE_MAX);
			assert_memory_equal(record.data, data + got, record.head.data_len);
			got += record.head.data_len;
			next += record.head.data_len;
		}
		assert_int_equal(got, SIZE);
	}
	free(data);
	conn_end(&c);
	tap_off(t);
}

/* Nobody reads: what does not fit is counted, and the tap goes on where it can. */
static void test_full(void **state)
{
	enum { PIECE = 10000, PIECES = 1000 };
	static uint8_t data[PIECE];
	struct tap *t = tap_on("u1", "");
	struct conn c = conn_new();
	struct iovec iov = {data, PIECE};
	struct tap_lost lost;
	unsigned got = 0;

	for (unsigned i = 0; i < PIECES; i++)
		tap_bytes(&c, true, &iov, PIECE);
	while (tap_next(t, &record))
		got++;
	tap_lost(t, &lost);
	assert_int_equal(got + lost.records, PIECES);
	assert_int_equal(lost.bytes, lost.records * PIECE);
	assert_in_range(got, TAP_RING_BYTES / PIECE * 9 / 10, TAP_RING_BYTES / PIECE);
	tap_bytes(&c, true, &iov, PIECE);
	assert_true(tap_next(t, &record));
	conn_end(&c);
	tap_off(t);
}

/* --- failures ----------------------------------------------------------------------------------------------------- */

static void test_failures(void **state)
{
	enum { ROOM = 8, ADDED = 21 };
	struct failures *f = failures_new(ROOM);
	struct failure one = {.flag = FLAG_DENY}, *all;
	uint64_t seen = 0;
	unsigned n;

	assert_non_null(f);
	assert_int_equal(failures_copy(f, &all, &n, &seen), 0);
	assert_int_equal(n + seen, 0);
	free(all);
	for (unsigned i = 0; i < ADDED; i++) {
		snprintf(one.why, sizeof one.why, "%u", i);
		failures_add(f, &one);
	}
	assert_int_equal(failures_copy(f, &all, &n, &seen), 0);
	assert_int_equal(n, ROOM);
	assert_int_equal(seen, ADDED);
	for (unsigned i = 0; i < ROOM; i++)
		assert_int_equal(atoi(all[i].why), ADDED - ROOM + (int)i);
	free(all);
	failures_free(f);
}

static int setup(void **state)
{
	worker.loop = loop_new();
	list_init(&worker.taps);
	plane.o.workers = 1;
	plane.worker[0] = &worker;
	return worker.loop ? 0 : -1;
}

static int teardown(void **state)
{
	loop_free(worker.loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_meant), cmocka_unit_test(test_bare), cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_large), cmocka_unit_test(test_full), cmocka_unit_test(test_failures),
	};

	return cmocka_run_group_tests_name("tap", tests, setup, teardown);
}
