/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE identities as text: what reads as one, and that what is written reads back as the same parts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "state/identity.h"

static const struct {
	const char *name, *in;
	int want;
	const char *trust_domain, *ns, *sa;
} parses[] = {
	{"good", "spiffe://cluster.local/ns/shop/sa/web", 0, "cluster.local", "shop", "web"},
	{"dots and dashes", "spiffe://a.b-c/ns/d.e-f/sa/g.h-i", 0, "a.b-c", "d.e-f", "g.h-i"},
	{"empty namespace", "spiffe://td/ns//sa/web", 0, "td", "", "web"},
	{"empty service account", "spiffe://td/ns/shop/sa/", 0, "td", "shop", ""},
	{"no percent-decoding", "spiffe://td/ns/%2f/sa/%20", 0, "td", "%2f", "%20"},
	{"a namespace called sa", "spiffe://td/ns/sa/sa/sa", 0, "td", "sa", "sa"},
	{"empty", "", -EINVAL},
	{"scheme only", "spiffe://", -EINVAL},
	{"another scheme", "https://td/ns/shop/sa/web", -EINVAL},
	{"upper-case scheme", "SPIFFE://td/ns/shop/sa/web", -EINVAL},
	{"no trust domain", "spiffe:///ns/shop/sa/web", -EINVAL},
	{"four parts", "spiffe://td/ns/shop/sa", -EINVAL},
	{"six parts", "spiffe://td/ns/shop/sa/web/x", -EINVAL},
	{"slash at the end", "spiffe://td/ns/shop/sa/web/", -EINVAL},
	{"ns in upper case", "spiffe://td/NS/shop/sa/web", -EINVAL},
	{"sa in upper case", "spiffe://td/ns/shop/SA/web", -EINVAL},
	{"longer than ns", "spiffe://td/nsx/shop/sa/web", -EINVAL},
	{"shorter than sa", "spiffe://td/ns/shop/s/web", -EINVAL},
	{"sa before ns", "spiffe://td/sa/web/ns/shop", -EINVAL},
	{"blank before", " spiffe://td/ns/shop/sa/web", -EINVAL},
};

static bool part_is(const char *p, size_t len, const char *want)
{
	return strlen(want) == len && memcmp(p, want, len) == 0;
}

static void test_parse(void **state)
{
	for (size_t i = 0; i < sizeof parses / sizeof *parses; i++) {
		struct identity id = {.ns_len = 99};
		int got = identity_parse(&id, parses[i].in);
		char text[IDENTITY_MAX];

		if (got != parses[i].want)
			fail_msg("%s: %d", parses[i].name, got);
		if (got && id.ns_len != 99)
			fail_msg("%s: wrote to the result", parses[i].name);
		if (got)
			continue;
		if (!part_is(id.trust_domain, id.trust_domain_len, parses[i].trust_domain) ||
		    !part_is(id.ns, id.ns_len, parses[i].ns) || !part_is(id.sa, id.sa_len, parses[i].sa))
			fail_msg("%s: wrong parts", parses[i].name);
		assert_int_equal(identity_format(text, parses[i].trust_domain, parses[i].ns, parses[i].sa), 0);
		assert_string_equal(text, parses[i].in);
	}
}

static const struct {
	const char *name, *trust_domain, *ns, *sa;
	int want;
} formats[] = {
	{"good", "td", "shop", "web", 0},
	{"a namespace that would be another identity", "td", "shop/sa/admin", "web", -EINVAL},
	{"a service account with a slash", "td", "shop", "web/x", -EINVAL},
	{"a trust domain with a slash", "td/ns/x", "shop", "web", -EINVAL},
	{"no trust domain", "", "shop", "web", -EINVAL},
};

static void test_format(void **state)
{
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
		char text[IDENTITY_MAX];
		int got = identity_format(text, formats[i].trust_domain, formats[i].ns, formats[i].sa);

		if (got != formats[i].want)
			fail_msg("%s: %d", formats[i].name, got);
	}
}

/* The longest text that fits, and one more, both ways. */
static void test_length(void **state)
{
	enum { FIXED = sizeof "spiffe:///ns//sa/x" - 1 };
	char text[IDENTITY_MAX], td[IDENTITY_MAX], longer[IDENTITY_MAX + 1];
	struct identity id;

	memset(td, 'a', sizeof td);
	td[IDENTITY_MAX - 1 - FIXED] = 0;
	assert_int_equal(identity_format(text, td, "", "x"), 0);
	assert_int_equal(strlen(text), IDENTITY_MAX - 1);
	assert_int_equal(identity_parse(&id, text), 0);
	snprintf(longer, sizeof longer, "%sy", text);
	assert_int_equal(identity_parse(&id, longer), -ENAMETOOLONG);
	assert_int_equal(identity_format(text, td, "", "xy"), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_length),
	};
	return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
