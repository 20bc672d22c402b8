/* SPDX-License-Identifier: Apache-2.0 */
/* SOCKS5's messages: how far each is read, what it says, what is wrong with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "data/socks.h"

#define COUNT(a)  (sizeof(a) / sizeof *(a))
#define BYTES(s)  s, sizeof(s) - 1
#define X16	  "xxxxxxxxxxxxxxxx"
#define X240	  X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16
#define VERSION_5 "SOCKS: only version 5 is served"

/* Reads a message as the server does: as much as it is said to lack, never more. How much was read. */
static size_t read_up(const char *in, size_t len, uint8_t *buf, size_t (*lack)(const uint8_t *p, size_t n),
		      size_t *short_by)
{
	size_t n = 0, more;

	while ((more = lack(buf, n)) && n + more <= len) {
		memcpy(buf + n, in + n, more);
		n += more;
	}
	*short_by = more;
	return n;
}

static const struct {
	const char *name, *in;
	size_t len, short_by, read;
	const char *wrong;
} methods[] = {
	{"one method", BYTES("\5\1\0"), 0, 3, NULL},
	{"several", BYTES("\5\3\2\1\0"), 0, 5, NULL},
	{"the request behind it stays", BYTES("\5\1\0\5\1\0\1"), 0, 3, NULL},
	{"only with a password", BYTES("\5\1\2"), 0, 3, "SOCKS: the client wants to authenticate itself"},
	{"none at all", BYTES("\5\0"), 0, 2, "SOCKS: the client wants to authenticate itself"},
	{"255 of them", BYTES("\5\xff" X240 "xxxxxxxxxxxxxx\0"), 0, 257, NULL},
	{"nothing yet", BYTES(""), 2, 0, NULL},
	{"cut", BYTES("\5\2\0"), 2, 2, NULL},
	{"version 4", BYTES("\4\1\0\120\1\2\3\4\0"), 0, 2, VERSION_5},
	{"HTTP", BYTES("GET / HTTP/1.1\r\n\r\n"), 0, 2, VERSION_5},
};

static void test_methods(void **state)
{
	for (size_t i = 0; i < COUNT(methods); i++) {
		uint8_t *buf = malloc(SOCKS_MESSAGE_MAX);
		size_t short_by, n = read_up(methods[i].in, methods[i].len, buf, socks_methods_lack, &short_by);
		const char *wrong = short_by ? NULL : socks_methods_read(buf);

		if (n != methods[i].read || short_by != methods[i].short_by)
			fail_msg("%s: read %zu, lacks %zu", methods[i].name, n, short_by);
		if (!wrong != !methods[i].wrong || (wrong && strcmp(wrong, methods[i].wrong)))
			fail_msg("%s: %s", methods[i].name, wrong ? wrong : "nothing is wrong");
		free(buf);
	}
}

static const struct {
	const char *name, *in;
	size_t len, short_by;
	const char *wrong, *to, *host;
} requests[] = {
	{"IPv4", BYTES("\5\1\0\1\12\0\0\1\0\120"), 0, NULL, "10.0.0.1:80", ""},
	{"IPv6", BYTES("\5\1\0\4\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\377\377"), 0, NULL, "[fd00::1]:65535", ""},
	{"name", BYTES("\5\1\0\3\7web.dot\1\xbb"), 0, NULL, "0.0.0.0:443", "web.dot"},
	{"name of an address",
	 BYTES("\5\1\0\3\10"
	       "10.0.0.1\0\120"),
	 0, NULL, "10.0.0.1:80", ""},
	{"name of an IPv6 address", BYTES("\5\1\0\3\7fd00::1\0\120"), 0, NULL, "[fd00::1]:80", ""},
	{"the longest name", BYTES("\5\1\0\3\377" X240 "yyyyyyyyyyyyyyy\0\1"), 0, NULL, "0.0.0.0:1",
	 X240 "yyyyyyyyyyyyyyy"},
	{"the reserved byte means nothing", BYTES("\5\1\7\1\12\0\0\1\0\120"), 0, NULL, "10.0.0.1:80", ""},
	{"data behind it stays", BYTES("\5\1\0\1\12\0\0\1\0\120hello"), 0, NULL, "10.0.0.1:80", ""},
	{"port 0", BYTES("\5\1\0\1\12\0\0\1\0\0"), 0, NULL, "10.0.0.1:0", ""},
	{"version 4", BYTES("\4\1\0\1\12\0\0\1\0\120"), 0, VERSION_5, NULL, NULL},
	{"BIND", BYTES("\5\2\0\1\12\0\0\1\0\120"), 0, "SOCKS: only CONNECT is served", NULL, NULL},
	{"UDP ASSOCIATE", BYTES("\5\3\0\1\12\0\0\1\0\120"), 0, "SOCKS: only CONNECT is served", NULL, NULL},
	{"another kind of address", BYTES("\5\1\0\2\12\0\0\1\0\120"), 0, "SOCKS: unknown kind of address", NULL, NULL},
	{"empty name", BYTES("\5\1\0\3\0\0\120"), 0, "SOCKS: bad host name", NULL, NULL},
	{"name with a zero", BYTES("\5\1\0\3\3a\0b\0\120"), 0, "SOCKS: bad host name", NULL, NULL},
	{"name with a blank", BYTES("\5\1\0\3\3a b\0\120"), 0, "SOCKS: bad host name", NULL, NULL},
	{"name that is not ASCII", BYTES("\5\1\0\3\3w\xc3\xa4\0\120"), 0, "SOCKS: bad host name", NULL, NULL},
	{"nothing yet", BYTES(""), 4, NULL, NULL, NULL},
	{"head alone", BYTES("\5\1\0\1"), 6, NULL, NULL, NULL},
	{"head of a name", BYTES("\5\1\0\3"), 1, NULL, NULL, NULL},
	{"a name's length", BYTES("\5\1\0\3\5"), 7, NULL, NULL, NULL},
};

static void test_requests(void **state)
{
	for (size_t i = 0; i < COUNT(requests); i++) {
		uint8_t *buf = malloc(SOCKS_MESSAGE_MAX);
		struct endpoint to;
		char host[SOCKS_HOST_MAX], at[ENDPOINT_STRLEN] = "";
		const char *wrong = NULL;
		size_t short_by;

		read_up(requests[i].in, requests[i].len, buf, socks_request_lack, &short_by);
		if (!short_by)
			wrong = socks_request_read(buf, &to, host);
		if (short_by != requests[i].short_by)
			fail_msg("%s: lacks %zu", requests[i].name, short_by);
		if (!wrong != !requests[i].wrong || (wrong && strcmp(wrong, requests[i].wrong)))
			fail_msg("%s: %s", requests[i].name, wrong ? wrong : "nothing is wrong");
		if (requests[i].to && (strcmp(endpoint_str(&to, at), requests[i].to) || strcmp(host, requests[i].host)))
			fail_msg("%s: %s \"%s\"", requests[i].name, at, host);
		free(buf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_methods), cmocka_unit_test(test_requests)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
