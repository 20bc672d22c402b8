/* SPDX-License-Identifier: Apache-2.0 */
/* Table tests of base/addr: what parses, what does not, and how it is written back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/addr.h"

static const struct {
	const char *name, *in, *out; /* out NULL: refused */
} endpoints[] = {
	{"v4", "10.0.0.1:80", "10.0.0.1:80"},
	{"v6", "[fd00::1]:15008", "[fd00::1]:15008"},
	{"port with zeros", "10.0.0.1:08000", "10.0.0.1:8000"},
	{"v6 compressed on output", "[fd00:0:0:0:0:0:0:1]:1", "[fd00::1]:1"},
	{"no port", "10.0.0.1", NULL},
	{"empty port", "10.0.0.1:", NULL},
	{"signed port", "10.0.0.1:+80", NULL},
	{"port too large", "10.0.0.1:65536", NULL},
	{"six digits", "10.0.0.1:000080", NULL},
	{"v4 in brackets", "[10.0.0.1]:80", NULL},
	{"v6 without brackets", "fd00::1:80", NULL},
	{"octal v4", "010.010.010.010:80", NULL},
	{"decimal v4", "167772161:80", NULL},
	{"host name", "web.shop:80", NULL},
	{"user info", "u@10.0.0.1:80", NULL},
	{"empty", "", NULL},
	{"only colon", ":8000", NULL},
	{"open bracket", "[fd00::1:80", NULL},
	{"zone", "[fe80::1%eth0]:80", NULL},
};

static void test_endpoints(void **state)
{
	for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
		struct endpoint e;
		char text[ENDPOINT_STRLEN];
		int err = endpoint_parse(&e, endpoints[i].in);

		if (err != (endpoints[i].out ? 0 : -EINVAL))
			fail_msg("%s: %s gave %d", endpoints[i].name, endpoints[i].in, err);
		if (!err && strcmp(endpoint_str(&e, text), endpoints[i].out))
			fail_msg("%s: wrote %s", endpoints[i].name, text);
	}
}

static const struct {
	const char *name, *prefix, *ip;
	int want; /* 1 contains, 0 does not, -1 the prefix is refused */
} prefixes[] = {
	{"v4 inside", "10.1.0.0/16", "10.1.2.3", 1},
	{"v4 outside", "10.1.0.0/16", "10.2.0.0", 0},
	{"v4 odd length", "10.1.2.0/23", "10.1.3.255", 1},
	{"v4 odd length, next", "10.1.2.0/23", "10.1.4.0", 0},
	{"host bits are cleared", "10.1.2.3/8", "10.255.0.1", 1},
	{"all v4", "0.0.0.0/0", "192.0.2.1", 1},
	{"all v4 holds no v6", "0.0.0.0/0", "fd00::1", 0},
	{"all v6 holds no v4", "::/0", "192.0.2.1", 0},
	{"v6 host", "fd00::1/128", "fd00::1", 1},
	{"v6 host, other", "fd00::1/128", "fd00::2", 0},
	{"v4 too long", "10.0.0.0/33", "10.0.0.0", -1},
	{"v6 too long", "fd00::/129", "fd00::", -1},
	{"no length", "10.0.0.1", "10.0.0.1", -1},
	{"empty length", "10.0.0.0/", "10.0.0.0", -1},
	{"negative", "10.0.0.0/-1", "10.0.0.0", -1},
};

static void test_prefixes(void **state)
{
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
		struct prefix p;
		struct addr a;
		int err = prefix_parse(&p, prefixes[i].prefix), got;

		assert_int_equal(addr_parse(&a, prefixes[i].ip), 0);
		got = err ? -1 : prefix_contains(&p, &a);
		if (got != prefixes[i].want)
			fail_msg("%s: %s / %s gave %d", prefixes[i].name, prefixes[i].prefix, prefixes[i].ip, got);
	}
}

static void test_sockaddr_round_trip(void **state)
{
	static const char *const texts[] = {"192.0.2.7:443", "[2001:db8::7]:443", "[::1]:0", "127.0.0.1:1"};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct sockaddr_storage ss;
		struct endpoint a, b;

		assert_int_equal(endpoint_parse(&a, texts[i]), 0);
		endpoint_to_sockaddr(&a, &ss);
		assert_int_equal(ss.ss_family, texts[i][0] == '[' ? AF_INET6 : AF_INET);
		assert_int_equal(endpoint_from_sockaddr(&b, &ss), 0);
		assert_true(endpoint_eq(&a, &b));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_sockaddr_round_trip),
	};
	return cmocka_run_group_tests_name("addr", tests, NULL, NULL);
}
