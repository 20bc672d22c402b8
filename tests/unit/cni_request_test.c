/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of what the keeper takes from CNI plugins. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "node/cni_log.h"
#include "node/cni_request.h"

#define POD "\"Netns\":\"/run/netns/x\",\"PodName\":\"web-0\",\"PodNamespace\":\"shop\""

static const struct {
	const char *claim;
	enum cni_kind kind;
	const char *text;
	bool good;
} bodies[] = {
	{"Istio's plugin", CNI_POD,
	 "{" POD
	 ",\"IPs\":[{\"Interface\":2,\"Address\":{\"IP\":\"10.1.2.3\",\"Mask\":\"/////w==\"},\"Gateway\":\"\"}]}",
	 true},
	{"without addresses", CNI_POD, "{" POD ",\"IPs\":null}", true},
	{"ours", CNI_POD,
	 "{" POD ",\"PodUID\":\"u-1\",\"ContainerID\":\"c\",\"IfName\":\"eth0\",\"Network\":\"n\",\"Decide\":true}",
	 true},
	{"keys in any case", CNI_POD, "{\"netns\":\"/run/netns/x\",\"PODNAME\":\"web-0\",\"podNamespace\":\"shop\"}",
	 true},
	{"unknown keys", CNI_POD, "{" POD ",\"x\":[{}]}", true},
	{"nothing is needed here", CNI_POD, "{}", true},
	{"a number for a name", CNI_POD, "{\"PodName\":1}", false},
	{"a relative path", CNI_POD, "{\"Netns\":\"run\"}", false},
	{"a newline in a name", CNI_POD, "{\"PodName\":\"a\\nb\"}", false},
	{"a zero byte in a name", CNI_POD, "{\"PodName\":\"a\\u0000b\"}", false},
	{"a path for a uid", CNI_POD, "{\"PodUID\":\"../x\"}", false},
	{"an interface that is too long", CNI_POD, "{\"IfName\":\"abcdefghijklmnop\"}", false},
	{"a decision that is a text", CNI_POD, "{\"Decide\":\"yes\"}", false},
	{"an address that is none", CNI_POD, "{\"IPs\":[{\"Address\":{\"IP\":\"10.1.2\"}}]}", false},
	{"addresses that are a text", CNI_POD, "{\"IPs\":\"10.1.2.3\"}", false},
	{"more addresses than a pod has", CNI_POD, "{\"IPs\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", false},
	{"a key twice", CNI_POD, "{\"PodName\":\"a\",\"PodName\":\"b\"}", false},
	{"an array", CNI_POD, "[]", false},
	{"no JSON", CNI_POD, "PodName=a", false},
	{"valid attachments", CNI_LIST,
	 "{\"Network\":\"n\",\"Attachments\":[{\"ContainerID\":\"c\",\"IfName\":\"eth0\"}]}", true},
	{"none", CNI_LIST, "{\"Network\":\"n\",\"Attachments\":[]}", true},
	{"no list is not an empty one", CNI_LIST, "{\"Network\":\"n\"}", false},
	{"null is not an empty one", CNI_LIST, "{\"Network\":\"n\",\"Attachments\":null}", false},
	{"no network", CNI_LIST, "{\"Attachments\":[]}", false},
	{"an attachment without an interface", CNI_LIST,
	 "{\"Network\":\"n\",\"Attachments\":[{\"ContainerID\":\"c\"}]}", false},
	{"an attachment that is a text", CNI_LIST, "{\"Network\":\"n\",\"Attachments\":[\"c\"]}", false},
	{"nothing", CNI_NOTHING, "{}", true},
	{"nothing at all", CNI_NOTHING, "", false},
};

static void test_bodies(void **state)
{
	for (unsigned i = 0; i < sizeof bodies / sizeof *bodies; i++) {
		char why[POD_WHY_MAX] = "";
		struct cni_request r;
		int e = cni_request_parse(&r, bodies[i].kind, bodies[i].text, strlen(bodies[i].text), why);

		print_message("body: %s: %s\n", bodies[i].claim, why);
		assert_int_equal(e, bodies[i].good ? 0 : -EINVAL);
		assert_int_equal(why[0] != '\0', !bodies[i].good);
		assert_null(strchr(why, '\n'));
		cni_request_free(&r);
	}
}

static void test_fields(void **state)
{
	static const char text[] =
		"{" POD ",\"PodUID\":\"u-1\",\"ContainerID\":\"c\",\"IfName\":\"eth0\",\"Network\":\"n\","
		"\"Decide\":true,\"IPs\":[{\"Address\":{\"IP\":\"fd00::3\"}}]}";
	char why[POD_WHY_MAX];
	struct cni_request r;
	struct addr ip;

	addr_parse(&ip, "fd00::3");
	assert_int_equal(cni_request_parse(&r, CNI_POD, text, strlen(text), why), 0);
	assert_string_equal(r.netns, "/run/netns/x");
	assert_string_equal(r.name, "web-0");
	assert_string_equal(r.ns, "shop");
	assert_string_equal(r.uid, "u-1");
	assert_string_equal(r.attachment.container_id, "c");
	assert_string_equal(r.attachment.ifname, "eth0");
	assert_string_equal(r.attachment.network, "n");
	assert_true(r.decide && r.n_ips == 1 && addr_eq(&r.ip[0], &ip));
	cni_request_free(&r);
}

static void test_list(void **state)
{
	static const char text[] = "{\"Network\":\"n\",\"Attachments\":[{\"ContainerID\":\"c\",\"IfName\":\"eth0\"},"
				   "{\"ContainerID\":\"c\",\"IfName\":\"net1\"}]}";
	const struct pod_attachment in = {"c", "net1", "n"}, out = {"c", "net2", "n"}, none = {"", "", ""};
	char why[POD_WHY_MAX];
	struct cni_request r;

	assert_int_equal(cni_request_parse(&r, CNI_LIST, text, strlen(text), why), 0);
	assert_true(cni_request_lists(&r, &in));
	assert_false(cni_request_lists(&r, &out));
	assert_false(cni_request_lists(&r, &none));
	cni_request_free(&r);
}

static const struct {
	const char *claim, *text;
	unsigned lines;
} logs[] = {
	{"a line", "[\"{\\\"msg\\\":\\\"m\\\",\\\"level\\\":\\\"warn\\\",\\\"time\\\":\\\"t\\\",\\\"a\\\":1}\"]", 1},
	{"no level", "[\"{\\\"msg\\\":\\\"m\\\",\\\"time\\\":\\\"t\\\"}\"]", 0},
	{"no time", "[\"{\\\"msg\\\":\\\"m\\\",\\\"level\\\":\\\"warn\\\"}\"]", 0},
	{"Istio's worst level", "[\"{\\\"msg\\\":\\\"m\\\",\\\"level\\\":\\\"fatal\\\",\\\"time\\\":\\\"t\\\"}\"]", 1},
	{"another level", "[\"{\\\"msg\\\":\\\"m\\\",\\\"level\\\":\\\"loud\\\",\\\"time\\\":\\\"t\\\"}\"]", 0},
	{"objects instead of texts", "[{}]", 0},
	{"texts that are none", "[\"x\", 1, null]", 0},
	{"no list", "{}", 0},
	{"nothing", "", 0},
};

static void test_log(void **state)
{
	log_set_filter("off");
	for (unsigned i = 0; i < sizeof logs / sizeof *logs; i++) {
		print_message("log: %s\n", logs[i].claim);
		assert_int_equal(cni_log_take(logs[i].text, strlen(logs[i].text)), logs[i].lines);
	}
	log_set_filter("info");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
