/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of what the look through /proc makes of processes that cannot be read, with a /proc of files of their own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "node/kube_netns.h"

#define UID "490c5e26-eb2b-4a71-8a5f-0b8b6d7a9c11"

static char dir[] = "/tmp/kube_netns_test.XXXXXX";

static const char *at(const char *name)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void file_put(const char *name, const char *text, size_t blanks)
{
	FILE *f = fopen(at(name), "w");

	assert_non_null(f);
	assert_true(fprintf(f, "%s%*s", text, (int)blanks, "") >= 0);
	assert_int_equal(fclose(f), 0);
}

static const struct {
	const char *name, *cgroup; /* NULL: a folder, "": none */
	size_t blanks;
	bool lives, unsure;
} rows[] = {
	{"a process of the pod", "0::/kubepods/pod" UID "/a\n", 0, true, false},
	{"of another", "0::/system.slice/sshd.service\n", 0, false, false},
	{"one that ends meanwhile", "", 0, false, false},
	{"one whose groups are more than can be read", "0::/kubepods/pod" UID "/a\n", KUBE_CGROUP_BYTES, false, true},
	{"one whose groups cannot be read", NULL, 0, false, true},
};

static void test_rows(void **state)
{
	assert_int_equal(mkdir(at("7"), 0755) | mkdir(at("7/ns"), 0755), 0);
	file_put("7/ns/net", "", 0);
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kube_sought s = {.uid = UID};

		print_message("row: %s\n", rows[i].name);
		remove(at("7/cgroup"));
		if (!rows[i].cgroup)
			assert_int_equal(mkdir(at("7/cgroup"), 0755), 0);
		else if (rows[i].cgroup[0])
			file_put("7/cgroup", rows[i].cgroup, rows[i].blanks);
		assert_int_equal(kube_netns_find(dir, &s, 1), 0);
		assert_int_equal(s.lives, rows[i].lives);
		assert_int_equal(s.unsure, rows[i].unsure);
		assert_int_equal(s.cookie, 0);
	}
}

static int begin(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
	static const char *const all[] = {"7/cgroup", "7/ns/net", "7/ns", "7", ""};

	for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
		remove(at(all[i]));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows)};

	return cmocka_run_group_tests(tests, begin, end);
}
