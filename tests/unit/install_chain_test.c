/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the installer's work on a folder of CNI configurations: which file is taken, what is in it afterwards, and that
 * nothing is left of it at the end. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "node/install_internal.h"

enum { FILES = 4 };

static char dir[] = "/tmp/install_chain_test.XXXXXX";

#define OURS	"{\"type\": \"istio-cni\", \"k\": \"v\"}"
#define LIST(x) "{\"cniVersion\": \"1.0.0\", \"name\": \"n\", \"plugins\": [" x "]}"
#define X	"{\"type\": \"x\"}"
#define COPY(f) "{\"type\": \"istio-cni\", \"k\": \"v\", \"copied_file\": \"" f "\"}"
#define ALONE	"{\n  \"cniVersion\": \"0.3.1\",\n  \"type\": \"istio-cni\",\n  \"k\": \"v\"\n}"
#define WRAP(f, x)                                                                                              \
	"{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"k8s-pod-network\",\n  \"plugins\": [" x ", {\"type\": " \
	"\"istio-cni\", \"k\": \"v\", \"wrapped_file\": \"" f "\"}]\n}\n"

struct file {
	const char *name, *text;
};

static const struct row {
	const char *name;
	const char *conf_name, *owned;
	bool alone;
	struct file before[FILES], after[FILES]; /* in order of names; NULL ends; no `after`: as before */
	const char *path;			 /* whose entry counts; NULL: none */
	int err;
	const char *why; /* part of it; NULL: "" */
} rows[] = {
	{"a list",
	 NULL,
	 NULL,
	 false,
	 {{"a.conflist", LIST(X)}},
	 {{"a.conflist", LIST(X "," OURS)}},
	 "a.conflist",
	 0,
	 NULL},
	{"ours twice becomes once",
	 NULL,
	 NULL,
	 false,
	 {{"a.conflist", LIST(OURS "," X "," OURS)}},
	 {{"a.conflist", LIST(X "," OURS)}},
	 "a.conflist",
	 0,
	 NULL},
	{"one plugin", NULL, NULL, false, {{"a.conf", X}}, {{"a.conflist", WRAP("a.conf", X)}}, "a.conflist", 0, NULL},
	{"one plugin in .json, which runtimes take",
	 NULL,
	 NULL,
	 false,
	 {{"a.json", X}, {"b.conflist", LIST(X)}},
	 {{"a.conflist", WRAP("a.json", X)}, {"b.conflist", LIST(X)}},
	 "a.conflist",
	 0,
	 NULL},
	{"the first by name",
	 NULL,
	 NULL,
	 false,
	 {{"10-a.conflist", LIST(X)}, {"9-b.conflist", LIST(X)}},
	 {{"10-a.conflist", LIST(X "," OURS)}, {"9-b.conflist", LIST(X)}},
	 "10-a.conflist",
	 0,
	 NULL},
	{"capitals come first, and dots",
	 NULL,
	 NULL,
	 false,
	 {{".z.conflist", LIST(X)}, {"B.conflist", LIST(X)}, {"a.conflist", LIST(X)}},
	 {{".z.conflist", LIST(X "," OURS)}, {"B.conflist", LIST(X)}, {"a.conflist", LIST(X)}},
	 ".z.conflist",
	 0,
	 NULL},
	{"the one that runtimes passed over is passed over",
	 NULL,
	 NULL,
	 false,
	 {{"a.conf", LIST(X)}, {"b.conflist", X}, {"c.conflist", "{"}, {"d.conflist", LIST(X)}},
	 {{"a.conf", LIST(X)}, {"b.conflist", X}, {"c.conflist", "{"}, {"d.conflist", LIST(X "," OURS)}},
	 "d.conflist",
	 0,
	 "a.conf: one plugin is expected"},
	{"files of other names are none",
	 NULL,
	 NULL,
	 false,
	 {{"a.conflist.bak", LIST(X)}, {"b.yaml", LIST(X)}},
	 {{NULL}},
	 NULL,
	 -EAGAIN,
	 "no CNI configuration yet"},
	{"nothing there", NULL, NULL, false, {{NULL}}, {{NULL}}, NULL, -EAGAIN, "no CNI configuration yet"},
	{"an empty file", NULL, NULL, false, {{"a.conflist", ""}}, {{NULL}}, NULL, -EAGAIN, "a.conflist: not JSON"},
	{"one that cannot be edited, though the next one could",
	 NULL,
	 NULL,
	 false,
	 {{"a.conflist", "{\"cniVersion\": \"9\", \"name\": \"n\", \"plugins\": [" X "]}"}, {"b.conflist", LIST(X)}},
	 {{NULL}},
	 NULL,
	 -ENOTSUP,
	 "a.conflist: its cniVersion is \"9\""},
	{"a list that is there in place of ours",
	 NULL,
	 NULL,
	 false,
	 {{"a.conf", X}, {"a.conflist", LIST(X)}},
	 {{NULL}},
	 NULL,
	 -EEXIST,
	 "a.conf cannot become a.conflist"},
	{"the plugin's owner has written it anew",
	 NULL,
	 NULL,
	 false,
	 {{"a.conf", "{\"type\": \"y\"}"}, {"a.conflist", WRAP("a.conf", X)}},
	 {{"a.conflist", WRAP("a.conf", "{\"type\": \"y\"}")}},
	 "a.conflist",
	 0,
	 NULL},
	{"a new first one; the old one keeps ours",
	 NULL,
	 NULL,
	 false,
	 {{"05-new.conflist", LIST(X)}, {"a.conflist", LIST(X "," OURS)}},
	 {{"05-new.conflist", LIST(X "," OURS)}, {"a.conflist", LIST(X "," OURS)}},
	 "05-new.conflist",
	 0,
	 NULL},
	{"one that was asked for",
	 "b.conflist",
	 NULL,
	 false,
	 {{"b.conflist", LIST(X)}, {"c.conflist", LIST(X)}},
	 {{"b.conflist", LIST(X "," OURS)}, {"c.conflist", LIST(X)}},
	 "b.conflist",
	 0,
	 NULL},
	{"another comes before it",
	 "b.conflist",
	 NULL,
	 false,
	 {{"a.conflist", LIST(X)}, {"b.conflist", LIST(X)}},
	 {{"a.conflist", LIST(X)}, {"b.conflist", LIST(X "," OURS)}},
	 "b.conflist",
	 0,
	 "a.conflist comes before b.conflist"},
	{"its twin",
	 "b.conflist",
	 NULL,
	 false,
	 {{"a.conflist.x", ""}, {"b.conf", X}},
	 {{"a.conflist.x", ""}, {"b.conflist", WRAP("b.conf", X)}},
	 "b.conflist",
	 0,
	 NULL},
	{"its other twin",
	 "b.conf",
	 NULL,
	 false,
	 {{"b.conflist", LIST(X)}},
	 {{"b.conflist", LIST(X "," OURS)}},
	 "b.conflist",
	 0,
	 NULL},
	{"it is not there",
	 "b.conflist",
	 NULL,
	 false,
	 {{"a.conflist", LIST(X)}},
	 {{NULL}},
	 NULL,
	 -EAGAIN,
	 "there is no b.conflist yet"},
	{"it cannot be read",
	 "b.conflist",
	 NULL,
	 false,
	 {{"b.conflist", "{"}},
	 {{NULL}},
	 NULL,
	 -EBADMSG,
	 "b.conflist: not JSON"},

	{"owned: a copy with ours",
	 NULL,
	 "02-o.conflist",
	 false,
	 {{"a.conflist", LIST(X)}},
	 {{"02-o.conflist", LIST(X "," COPY("a.conflist"))}, {"a.conflist", LIST(X)}},
	 "02-o.conflist",
	 0,
	 NULL},
	{"owned: of one plugin",
	 NULL,
	 "02-o.conflist",
	 false,
	 {{"a.conf", X}},
	 {{"02-o.conflist", "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"k8s-pod-network\",\n  \"plugins\": [" X
			    ", " COPY("a.conf") "]\n}\n"},
	  {"a.conf", X}},
	 "02-o.conflist",
	 0,
	 NULL},
	{"owned: what changes in the original is followed",
	 NULL,
	 "02-o.conflist",
	 false,
	 {{"02-o.conflist", LIST("{\"type\": \"x\", \"mtu\": 1500}," COPY("a.conflist"))},
	  {"a.conflist", LIST("{\"type\": \"x\", \"mtu\": 9000}")}},
	 {{"02-o.conflist", LIST("{\"type\": \"x\", \"mtu\": 9000}," COPY("a.conflist"))},
	  {"a.conflist", LIST("{\"type\": \"x\", \"mtu\": 9000}")}},
	 "02-o.conflist",
	 0,
	 NULL},
	{"owned: another original",
	 NULL,
	 "02-o.conflist",
	 false,
	 {{"02-o.conflist", LIST(X "," COPY("b.conflist"))}, {"a.conflist", LIST(X)}},
	 {{"02-o.conflist", LIST(X "," COPY("a.conflist"))}, {"a.conflist", LIST(X)}},
	 "02-o.conflist",
	 0,
	 NULL},
	{"owned: the original is gone, the copy stays",
	 NULL,
	 "02-o.conflist",
	 false,
	 {{"02-o.conflist", LIST(X "," COPY("a.conflist"))}},
	 {{NULL}},
	 NULL,
	 -EAGAIN,
	 "no CNI configuration yet"},
	{"owned: it would not come first",
	 NULL,
	 "02-o.conflist",
	 false,
	 {{"01-a.conflist", LIST(X)}},
	 {{NULL}},
	 NULL,
	 -EINVAL,
	 "does not come before it"},
	{"owned: the one that was asked for",
	 "b.conflist",
	 "02-o.conflist",
	 false,
	 {{"a.conflist", LIST(X)}, {"b.conflist", LIST("{\"type\": \"y\"}")}},
	 {{"02-o.conflist", LIST("{\"type\": \"y\"}," COPY("b.conflist"))},
	  {"a.conflist", LIST(X)},
	  {"b.conflist", LIST("{\"type\": \"y\"}")}},
	 "02-o.conflist",
	 0,
	 NULL},
	{"not owned any more",
	 NULL,
	 NULL,
	 false,
	 {{"02-o.conflist", LIST(X "," COPY("a.conflist"))}, {"a.conflist", LIST(X)}},
	 {{"a.conflist", LIST(X "," OURS)}},
	 "a.conflist",
	 0,
	 NULL},

	{"alone",
	 NULL,
	 NULL,
	 true,
	 {{"a.conflist", LIST(X)}},
	 {{"YYY-istio-cni.conf", ALONE}, {"a.conflist", LIST(X)}},
	 "YYY-istio-cni.conf",
	 0,
	 NULL},
	{"alone: by name",
	 "istio-cni.conf",
	 NULL,
	 true,
	 {{NULL}},
	 {{"istio-cni.conf", ALONE}},
	 "istio-cni.conf",
	 0,
	 NULL},
	{"alone: written anew",
	 "istio-cni.conf",
	 NULL,
	 true,
	 {{"istio-cni.conf", "{\"type\": \"other\"}"}},
	 {{"istio-cni.conf", ALONE}},
	 "istio-cni.conf",
	 0,
	 NULL},
	{"not alone any more",
	 NULL,
	 NULL,
	 false,
	 {{"YYY-istio-cni.conf", ALONE}, {"a.conflist", LIST(X)}},
	 {{"a.conflist", LIST(X "," OURS)}},
	 "a.conflist",
	 0,
	 NULL},
};

/* --- the folder ----------------------------------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void file_put(const char *name, const char *text)
{
	FILE *f = fopen(path_of(name), "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0 && fclose(f) == 0);
}

static void folder_clear(void)
{
	DIR *d = opendir(dir);

	for (struct dirent *f = readdir(d); f; f = readdir(d))
		if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0)
			unlink(path_of(f->d_name));
	closedir(d);
}

static void folder_is(const struct file *files)
{
	unsigned want = 0, is = 0;
	DIR *d = opendir(dir);

	while (want < FILES && files[want].name) {
		char *text = NULL;
		size_t len;

		assert_int_equal(install_file_read(path_of(files[want].name), &text, &len, INSTALL_LIST_MAX, NULL), 0);
		assert_string_equal(text, files[want].text);
		free(text);
		want++;
	}
	for (struct dirent *f = readdir(d); f; f = readdir(d))
		is += strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0;
	closedir(d);
	assert_int_equal(is, want);
}

static struct install *installer(const struct row *r)
{
	struct install *in = calloc(1, sizeof *in);

	assert_non_null(in);
	in->o = (struct install_options){
		.conf_dir = dir, .conf_name = r->conf_name, .owned = r->owned, .chained = !r->alone, .conf_mode = 0600};
	in->entry = json_pack("{ss ss}", "type", INSTALL_TYPE, "k", "v");
	return in;
}

static void installer_free(struct install *in)
{
	json_decref(in->entry);
	free(in);
}

static const struct file *after_of(const struct row *r)
{
	return r->after[0].name ? r->after : r->before;
}

static void test_rows(void **state)
{
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		const struct row *r = &rows[i];
		struct install *in = installer(r);
		char why[POD_WHY_MAX] = "";
		bool changed = false;

		print_message("row: %s\n", r->name);
		folder_clear();
		for (unsigned j = 0; j < FILES && r->before[j].name; j++)
			file_put(r->before[j].name, r->before[j].text);
		assert_int_equal(install_chain(in, &changed, why), r->err);
		if (r->why)
			assert_non_null(strstr(why, r->why));
		else
			assert_string_equal(why, "");
		assert_null(strchr(why, '\n'));
		assert_string_equal(in->status.path, r->path ? path_of(r->path) : "");
		folder_is(after_of(r));
		if (r->err == 0) { /* once more: nothing is written again */
			changed = false;
			assert_int_equal(install_chain(in, &changed, why), 0);
			assert_false(changed);
			folder_is(after_of(r));
		}
		installer_free(in);
	}
}

static const struct row *row_find(const char *name)
{
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	fail_msg("no row %s", name);
	return NULL;
}

/* Whatever it was set to: what was there before it came is there when it is gone. */
static void test_removal(void **state)
{
	static const char *const names[] = {"a list",
					    "one plugin",
					    "one plugin in .json, which runtimes take",
					    "one that was asked for",
					    "owned: a copy with ours",
					    "owned: of one plugin",
					    "alone"};

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		const struct row *r = row_find(names[i]);
		struct install *in = installer(r);
		char why[POD_WHY_MAX] = "";
		bool changed = false;

		print_message("row: %s\n", r->name);
		folder_clear();
		for (unsigned j = 0; j < FILES && r->before[j].name; j++) {
			file_put(r->before[j].name, r->before[j].text);
			assert_null(strstr(r->before[j].text, INSTALL_TYPE));
		}
		assert_int_equal(install_chain(in, &changed, why), 0);
		assert_true(changed);
		install_chain_remove(in);
		folder_is(r->before);
		installer_free(in);
	}
}

/* --- files ---------------------------------------------------------------------------------------------------- */

static void test_mode_and_link(void **state)
{
	struct install *in = installer(&rows[0]);
	char why[POD_WHY_MAX] = "";
	bool changed = false;
	struct stat st;

	folder_clear();
	file_put("real", LIST(X));
	assert_int_equal(chmod(path_of("real"), 0640), 0);
	assert_int_equal(symlink("real", path_of("a.conflist")), 0);
	assert_int_equal(install_chain(in, &changed, why), 0);
	assert_int_equal(lstat(path_of("a.conflist"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(stat(path_of("real"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	folder_is((const struct file[FILES]){{"a.conflist", LIST(X "," OURS)}, {"real", LIST(X "," OURS)}});
	unlink(path_of("real"));
	assert_int_equal(install_chain(in, &changed, why), -ELOOP);
	assert_non_null(strstr(why, "symbolic link to what is not there"));
	installer_free(in);
}

static void test_not_a_file(void **state)
{
	struct install *in = installer(&rows[0]);
	char why[POD_WHY_MAX] = "";
	bool changed = false;

	folder_clear();
	assert_int_equal(mkfifo(path_of("a.conflist"), 0600), 0);
	file_put("b.conflist", LIST(X));
	assert_int_equal(install_chain(in, &changed, why), 0);
	assert_non_null(strstr(why, "a.conflist: not a regular file"));
	assert_string_equal(in->status.path, path_of("b.conflist"));
	installer_free(in);
}

/* Not every file system can. */
static bool tells_writers(const char *path)
{
	int fd = open(path, O_RDONLY);
	bool tells = fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;

	close(fd);
	return tells;
}

/* Who writes a file in place is waited for: half of it may well be JSON. */
static void test_being_written(void **state)
{
	struct install *in;
	char why[POD_WHY_MAX] = "";
	bool changed = false;
	int fd;

	folder_clear();
	file_put("a.conflist", LIST(X));
	file_put("b.conflist", LIST(X));
	fd = open(path_of("a.conflist"), O_WRONLY);
	assert_true(fd >= 0);
	if (!tells_writers(path_of("a.conflist")))
		skip();
	in = installer(&rows[0]);
	assert_int_equal(install_chain(in, &changed, why), -EAGAIN);
	assert_non_null(strstr(why, "a.conflist is being written"));
	assert_int_equal(ftruncate(fd, 20), 0);
	assert_int_equal(install_chain(in, &changed, why), -EAGAIN);
	assert_false(changed);
	close(fd);
	assert_int_equal(install_chain(in, &changed, why), 0);
	assert_string_equal(in->status.path, path_of("b.conflist"));
	installer_free(in);
}

static void test_limits(void **state)
{
	struct install *in = installer(&rows[0]);
	char why[POD_WHY_MAX] = "", name[64], *big = malloc(INSTALL_LIST_MAX + 2);
	bool changed = false;

	folder_clear();
	memset(big, ' ', INSTALL_LIST_MAX + 1);
	memcpy(big, LIST(X), sizeof LIST(X) - 1);
	big[INSTALL_LIST_MAX + 1] = '\0';
	file_put("a.conflist", big);
	assert_int_equal(install_chain(in, &changed, why), -EFBIG);
	assert_non_null(strstr(why, "has more than 1048576 bytes"));
	big[INSTALL_LIST_MAX] = '\0';
	file_put("a.conflist", big); /* there is no room for ours */
	assert_int_equal(install_chain(in, &changed, why), -EFBIG);
	assert_non_null(strstr(why, "would have more than 1048576 bytes"));
	big[INSTALL_LIST_MAX - 128] = '\0';
	file_put("a.conflist", big);
	assert_int_equal(install_chain(in, &changed, why), 0);
	free(big);
	for (unsigned i = 0; i < INSTALL_FILES_MAX; i++) {
		snprintf(name, sizeof name, "%03u.conf", i);
		file_put(name, "");
	}
	assert_int_equal(install_chain(in, &changed, why), -E2BIG);
	assert_non_null(strstr(why, "more than 256 configurations"));
	installer_free(in);
}

/* The label of a container's file would keep the host's programs out. */
static void test_label(void **state)
{
	static const char label[] = "system_u:object_r:container_file_t:s0";
	char why[POD_WHY_MAX] = "", got[64] = "";

	folder_clear();
	file_put("other", "");
	if (setxattr(path_of("other"), "security.selinux", label, sizeof label, 0) < 0)
		skip();
	assert_int_equal(install_file_write(path_of("new"), "x", 1, 0600, why), 0);
	assert_int_equal(getxattr(path_of("new"), "security.selinux", got, sizeof got), sizeof label);
	assert_string_equal(got, label);
	assert_int_equal(setxattr(path_of("new"), "security.selinux", "t:t:t:s0", 9, 0), 0);
	assert_int_equal(install_file_write(path_of("new"), "y", 1, 0600, why), 0);
	assert_int_equal(getxattr(path_of("new"), "security.selinux", got, sizeof got), 9);
	assert_string_equal(got, "t:t:t:s0");
}

/* Somebody's change between the reading and the rename is not lost. */
static void test_rewrite(void **state)
{
	char why[POD_WHY_MAX] = "", path[PATH_MAX], other[PATH_MAX], *text;
	struct stat st;
	size_t len;

	folder_clear();
	snprintf(path, sizeof path, "%s", path_of("list"));
	snprintf(other, sizeof other, "%s", path_of("other"));
	file_put("list", "first");
	assert_int_equal(install_file_read(path, &text, &len, 100, &st), 0);
	free(text);
	assert_int_equal(install_file_rewrite(path, &st, "ours", 4, why), 0);
	file_put("other", "other");
	assert_int_equal(rename(other, path), 0);
	assert_int_equal(install_file_rewrite(path, &st, "ours", 4, why), -EAGAIN);
	assert_non_null(strstr(why, "is being written"));
	assert_int_equal(install_file_read(path, &text, &len, 100, &st), 0);
	assert_string_equal(text, "other");
	free(text);
	assert_int_not_equal(access(path_of("list" INSTALL_UNFINISHED), F_OK), 0);
}

static void test_copy(void **state)
{
	char why[POD_WHY_MAX] = "", from[PATH_MAX], to[PATH_MAX];
	struct stat st;

	folder_clear();
	file_put("from", "program");
	file_put("to" INSTALL_UNFINISHED, "of one who died");
	snprintf(from, sizeof from, "%s", path_of("from"));
	snprintf(to, sizeof to, "%s", path_of("to"));
	assert_int_equal(install_file_equal(from, to), 0);
	assert_int_equal(install_file_copy(from, to, 0755, why), 0);
	assert_int_equal(install_file_equal(from, to), 1);
	assert_int_equal(stat(to, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	folder_is((const struct file[FILES]){{"from", "program"}, {"to", "program"}});
	assert_int_equal(unlink(to), 0);
	file_put("many", "programs in one");
	assert_int_equal(symlink("many", to), 0);
	assert_int_equal(install_file_copy(from, to, 0755, why), 0);
	folder_is((const struct file[FILES]){{"from", "program"}, {"many", "programs in one"}, {"to", "program"}});
	file_put("to", "program2");
	assert_int_equal(install_file_equal(from, to), 0);
	unlink(from);
	assert_int_equal(install_file_equal(from, to), -ENOENT);
	assert_int_equal(install_file_copy(from, to, 0755, why), -ENOENT);
	assert_int_equal(install_file_copy(to, "/proc/nowhere/to", 0755, why), -ENOENT);
	assert_non_null(strstr(why, "/proc/nowhere/to"));
}

static int begin(void **state)
{
	log_set_filter("off");
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
	folder_clear();
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),	      cmocka_unit_test(test_removal),
		cmocka_unit_test(test_mode_and_link), cmocka_unit_test(test_not_a_file),
		cmocka_unit_test(test_limits),	      cmocka_unit_test(test_label),
		cmocka_unit_test(test_being_written), cmocka_unit_test(test_rewrite),
		cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
