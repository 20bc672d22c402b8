/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of CRL_PATH: a file that comes, changes in each way in which files do, is wrong, and goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/metrics.h"
#include "control/crl_file.h"
#include "control/file_watch.h"
#include "tls_mint.h"

enum { SOON_MS = 4000, NOT_MS = 5 * CRL_FILE_SETTLE_MS };

static struct mint_ca ca;
static char folder[64], path[128], *lists[4], *wrong = "garbage";

static struct rig {
	struct loop *loop;
	struct crls *crls;
	struct crl_file *file;
	struct timer late;
	unsigned changes;
} g;

static void changed(void *arg)
{
	g.changes++;
	loop_stop(g.loop);
}

static void late(struct timer *t)
{
	loop_stop(g.loop);
}

/* Whether the file is read again within so long. A loop stops once, and goes on when it is run again. */
static bool changes(unsigned ms)
{
	unsigned before = g.changes;

	timer_set(g.loop, &g.late, ms, late);
	loop_run(g.loop);
	timer_cancel(&g.late);
	return g.changes > before;
}

static void count(void *arg, const struct crl_info *i)
{
	*(unsigned *)arg += i->entries;
}

static unsigned entries(void)
{
	unsigned n = 0;

	crls_each(g.crls, count, &n);
	return n;
}

static void put(const char *at, const char *text)
{
	FILE *f = fopen(at, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void by_rename(const char *text)
{
	char other[160];

	snprintf(other, sizeof other, "%s.new", path);
	put(other, text);
	assert_int_equal(rename(other, path), 0);
}

static void in_place(const char *text)
{
	put(path, text);
}

/* As Kubernetes does: PATH -> ..data/NAME, and ..data -> a folder of its own for each version. */
static void by_link(const char *text)
{
	static unsigned n;
	char version[160], name[192], data[160], other[160];

	snprintf(version, sizeof version, "%s/..%u", folder, n++);
	snprintf(name, sizeof name, "%s/crl.pem", version);
	snprintf(data, sizeof data, "%s/..data", folder);
	snprintf(other, sizeof other, "%s/..other", folder);
	assert_int_equal(mkdir(version, 0700), 0);
	put(name, text);
	assert_int_equal(symlink(version, other), 0);
	assert_int_equal(rename(other, data), 0);
	if (access(path, F_OK) == 0)
		return;
	snprintf(name, sizeof name, "%s/crl.pem", data);
	assert_int_equal(symlink(name, path), 0);
}

static void rig_new(void)
{
	g = (struct rig){.loop = loop_new(), .crls = crls_new()};
	g.file = crl_file_new(g.loop, g.crls, path, changed, NULL);
	assert_non_null(g.file);
}

static void rig_free(void)
{
	crl_file_free(g.file);
	crls_free(g.crls);
	loop_free(g.loop);
	metrics_reset();
}

static const char *trouble(void)
{
	static char text[CRL_FILE_WHY_MAX];

	crl_file_trouble(g.file, text);
	return text;
}

static void test_follow(void **state)
{
	static const struct {
		const char *name;
		void (*change)(const char *text);
	} ways[] = {{"by rename", by_rename}, {"in place", in_place}, {"by a swapped link", by_link}};

	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		unlink(path);
		ways[i].change(lists[1]);
		rig_new();
		assert_true(crl_file_usable(g.file));
		assert_int_equal(entries(), 1);
		ways[i].change(lists[2]);
		if (!changes(SOON_MS) || entries() != 2 || *trouble())
			fail_msg("%s: %u entries, %s", ways[i].name, entries(), trouble());
		ways[i].change(wrong);
		if (!changes(SOON_MS) || entries() != 2 || !crl_file_usable(g.file) || !strstr(trouble(), path))
			fail_msg("%s, wrong: %u entries, %s", ways[i].name, entries(), trouble());
		ways[i].change(lists[3]);
		if (!changes(SOON_MS) || entries() != 3 || *trouble())
			fail_msg("%s, mended: %u entries, %s", ways[i].name, entries(), trouble());
		rig_free();
	}
}

/* What comes in a burst is read once, at its end. */
static void test_settles(void **state)
{
	in_place(lists[1]);
	rig_new();
	for (unsigned i = 0; i < 5; i++)
		by_rename(i < 4 ? wrong : lists[2]);
	assert_true(changes(SOON_MS));
	assert_int_equal(entries(), 2);
	assert_string_equal(trouble(), "");
	assert_false(changes(NOT_MS));
	rig_free();
}

static void test_comes_later(void **state)
{
	unlink(path);
	rig_new();
	assert_true(crl_file_usable(g.file)); /* nothing there is no mistake */
	assert_int_equal(entries(), 0);
	assert_non_null(strstr(trouble(), "No such file"));
	by_link(lists[1]);
	assert_true(changes(SOON_MS));
	assert_int_equal(entries(), 1);
	rig_free();
}

/* Without a list before there is nothing to keep: not ready, until it can be read. */
static void test_wrong_at_first(void **state)
{
	unlink(path);
	by_rename(wrong);
	rig_new();
	assert_false(crl_file_usable(g.file));
	by_rename(lists[1]);
	assert_true(changes(SOON_MS));
	assert_true(crl_file_usable(g.file));
	assert_int_equal(entries(), 1);
	rig_free();
}

static void test_goes(void **state)
{
	char other[160];

	by_rename(wrong);
	rig_new();
	assert_false(crl_file_usable(g.file));
	unlink(path); /* found by the poll */
	assert_true(changes(FILE_WATCH_POLL_MS + SOON_MS));
	assert_true(crl_file_usable(g.file));
	by_rename(lists[1]);
	assert_true(changes(SOON_MS));
	unlink(path); /* a folder is no list either */
	snprintf(other, sizeof other, "%s.new", path);
	assert_int_equal(mkdir(other, 0700), 0);
	assert_int_equal(rename(other, path), 0);
	assert_true(changes(SOON_MS));
	assert_non_null(strstr(trouble(), "Is a directory"));
	assert_int_equal(entries(), 1);
	rmdir(path);
	rig_free();
}

static void mint_lists(void)
{
	struct mint_crl want = {0};
	char *leaf[3];

	for (unsigned i = 0; i < 3; i++) {
		struct mint_pem pem = mint_leaf(&ca, &(struct mint_leaf){0});

		lists[i] = mint_crl_pem(&ca, &want);
		want.revoked[i] = leaf[i] = pem.chain;
		free(pem.key);
	}
	lists[3] = mint_crl_pem(&ca, &want);
	for (unsigned i = 0; i < 3; i++)
		free(leaf[i]);
}

static int setup(void **state)
{
	log_set_filter("off");
	snprintf(folder, sizeof folder, "/tmp/culvert-crl-XXXXXX");
	ca = mint_ca("ca", NULL);
	mint_lists();
	snprintf(path, sizeof path, "%s/crl.pem", mkdtemp(folder));
	return 0;
}

static int teardown(void **state)
{
	char line[128];

	snprintf(line, sizeof line, "rm -rf %s", folder);
	for (unsigned i = 0; i < 4; i++)
		free(lists[i]);
	mint_ca_free(&ca);
	return system(line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follow),	    cmocka_unit_test(test_settles),
		cmocka_unit_test(test_comes_later), cmocka_unit_test(test_wrong_at_first),
		cmocka_unit_test(test_goes),
	};

	return cmocka_run_group_tests_name("crl_file", tests, setup, teardown);
}
