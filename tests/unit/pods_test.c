/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of pod records and of pods' names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "node/pods.h"

static const struct pod_record good = {
	.uid = "11111111-2222-4333-8444-555555555555",
	.identity = {"shop", "web-0", "web"},
	.netns = "/run/netns/web",
	.cookie = UINT64_MAX / 2 - 7,
	.boot = "b00t",
	.abi = 3,
	.mode = STEER_IPTABLES,
	.foreign = true,
};

/* --- names ---------------------------------------------------------------------------------------------- */

#define X10 "xxxxxxxxxx"
#define X60 X10 X10 X10 X10 X10 X10

static const struct {
	const char *text;
	bool good;
} identities[] = {
	{"default/web/sa", true},
	{"a/b/c", true},
	{"a1/b-2/c3", true},
	{"ns/web.example.org/sa.x", true},
	{X60 "xxx/p/s", true},
	{X60 "xxxx/p/s", false},
	{"n/" X60 X60 X60 X60 X10 "xxx/s", true},
	{"n/" X60 X60 X60 X60 X10 "xxxx/s", false},
	{"", false},
	{"x", false},
	{"a/b", false},
	{"a/b/c/d", false},
	{"a/b/c/", false},
	{"/b/c", false},
	{"a//c", false},
	{"a/b/", false},
	{"//", false},
	{"A/b/c", false},
	{"a/B/c", false},
	{"a b/c/d", false},
	{"-a/b/c", false},
	{"a-/b/c", false},
	{"a.b/c/d", false}, /* a namespace is a label */
	{"a/.b/c", false},
	{"a/b./c", false},
	{"a/b..c/d", false},
	{"a/b.-c/d", false},
	{"a/b-.c/d", false},
	{"a/b/c\n", false},
	{"a/../c", false},
	{"a/\xc3\xbc/c", false},
};

static void test_identity(void **state)
{
	for (unsigned i = 0; i < sizeof identities / sizeof *identities; i++) {
		struct pod_identity id = {"before", "", ""};
		char why[POD_WHY_MAX] = "";
		int e = pod_identity_parse(&id, identities[i].text, why);

		print_message("identity: \"%.40s\"\n", identities[i].text);
		assert_int_equal(e, identities[i].good ? 0 : -EINVAL);
		assert_int_equal(why[0] == '\0', identities[i].good);
		assert_int_equal(strcmp(id.ns, "before") == 0, !identities[i].good);
	}
}

static void test_uid(void **state)
{
	char a[POD_UID_MAX], b[POD_UID_MAX], again[POD_UID_MAX];

	pod_uid_make(a, 7);
	pod_uid_make(b, 8);
	pod_uid_make(again, 7);
	assert_string_equal(a, again);
	assert_string_not_equal(a, b);
	assert_int_equal(strlen(a), 36);
	assert_int_equal(a[14], '5');
	assert_true(pod_uid_valid(a));
	assert_false(pod_uid_valid(""));
	assert_false(pod_uid_valid("../../etc/passwd"));
	assert_false(pod_uid_valid(".hidden"));
	assert_false(pod_uid_valid("a b"));
	assert_false(pod_uid_valid(X60 "xxxx"));
	assert_true(pod_uid_valid(X60 "xxx"));
}

/* --- records -------------------------------------------------------------------------------------------- */

static char run_dir[64];
static struct pods *pods;

static int setup(void **state)
{
	char why[POD_WHY_MAX];

	strcpy(run_dir, "/tmp/pods-XXXXXX");
	assert_non_null(mkdtemp(run_dir));
	assert_int_equal(pods_open(&pods, run_dir, why), 0);
	return 0;
}

static void file_path(char out[256], const char *name)
{
	snprintf(out, 256, "%s/pods/%s", run_dir, name);
}

static int teardown(void **state)
{
	char path[600];
	DIR *d;

	pods_close(pods);
	snprintf(path, sizeof path, "%s/pods", run_dir);
	d = opendir(path);
	for (struct dirent *f = readdir(d); f; f = readdir(d)) {
		snprintf(path, sizeof path, "%s/pods/%s", run_dir, f->d_name);
		if (f->d_name[0] != '.')
			remove(path);
	}
	closedir(d);
	snprintf(path, sizeof path, "%s/pods", run_dir);
	rmdir(path);
	return rmdir(run_dir);
}

struct loaded {
	unsigned n;
	struct pod_record last;
};

static void take(void *arg, const struct pod_record *r)
{
	struct loaded *l = arg;

	l->n++;
	l->last = *r;
}

static struct loaded load(void)
{
	struct loaded l = {.n = 0};
	char why[POD_WHY_MAX];

	assert_int_equal(pods_load(pods, take, &l, why), 0);
	return l;
}

static bool exists(const char *name)
{
	char path[256];
	struct stat st;

	file_path(path, name);
	return lstat(path, &st) == 0;
}

static void write_file(const char *name, const char *text, size_t len)
{
	char path[256];
	int fd;

	file_path(path, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static char *read_good(void)
{
	static char text[POD_RECORD_BYTES];
	char path[256], name[96];
	int fd;
	ssize_t n;

	snprintf(name, sizeof name, "%s.json", good.uid);
	file_path(path, name);
	fd = open(path, O_RDONLY);
	n = read(fd, text, sizeof text - 1);
	close(fd);
	assert_true(n > 0);
	text[n] = '\0';
	return text;
}

/* By CNI, with everything that annotations may ask for. */
static struct pod_record attached(void)
{
	struct pod_record r = good;

	r.attachment = (struct pod_attachment){"c0ffee", "eth0", "k8s-pod-network"};
	r.overlay.dns_capture = POD_NO;
	r.overlay.bypass_inbound = true;
	strcpy(r.overlay.virtual_ifaces[0], "kvm0");
	strcpy(r.overlay.virtual_ifaces[1], "kvm1");
	assert_int_equal(prefix_parse(&r.overlay.exclude_outbound[0], "10.0.0.0/8"), 0);
	assert_int_equal(prefix_parse(&r.overlay.exclude_outbound[1], "fd00::/16"), 0);
	r.overlay.n_exclude_outbound = 2;
	r.overlay.exclude_outbound_ports[0] = 1;
	r.overlay.exclude_inbound_ports[0] = 65535;
	r.overlay.probe_ports[0] = 8080;
	return r;
}

static void test_more(void **state)
{
	const struct pod_record r = attached();
	char why[POD_WHY_MAX];
	struct loaded l;

	assert_int_equal(pods_save(pods, &r, why), 0);
	l = load();
	assert_int_equal(l.n, 1);
	assert_string_equal(l.last.attachment.container_id, "c0ffee");
	assert_string_equal(l.last.attachment.ifname, "eth0");
	assert_string_equal(l.last.attachment.network, "k8s-pod-network");
	assert_memory_equal(&l.last.overlay, &r.overlay, sizeof r.overlay);
}

static void test_overlay(void **state)
{
	const struct pod_overlay none = {.dns_capture = POD_AS_NODE};
	const struct pod_record r = attached();
	struct steer_config c = {.dns_capture = true, .reset_existing = true}, same = c;

	pod_overlay_apply(&c, &none);
	assert_memory_equal(&c, &same, sizeof c);
	pod_overlay_apply(&c, &r.overlay);
	assert_true(!c.dns_capture && c.bypass_inbound && c.reset_existing);
	assert_string_equal(c.virtual_ifaces[1], "kvm1");
	assert_int_equal(c.n_exclude_outbound, 2);
	assert_int_equal(c.exclude_outbound_ports[0], 1);
	assert_int_equal(c.exclude_inbound_ports[0], 65535);
	assert_int_equal(c.probe_ports[0], 8080);
}

static void test_round_trip(void **state)
{
	char why[POD_WHY_MAX];
	struct pod_record r = good, second = good;
	struct loaded l;

	assert_int_equal(load().n, 0);
	assert_int_equal(pods_save(pods, &r, why), 0);
	l = load();
	assert_int_equal(l.n, 1);
	assert_memory_equal(&l.last, &good, sizeof good);
	r.mode = STEER_BPF;
	r.foreign = false;
	assert_int_equal(pods_save(pods, &r, why), 0);
	l = load();
	assert_int_equal(l.n, 1);
	assert_memory_equal(&l.last, &r, sizeof r);
	strcpy(second.uid, "second");
	assert_int_equal(pods_save(pods, &second, why), 0);
	assert_int_equal(load().n, 2);
	assert_int_equal(pods_remove(pods, good.uid), 0);
	assert_int_equal(pods_remove(pods, good.uid), 0);
	l = load();
	assert_int_equal(l.n, 1);
	assert_string_equal(l.last.uid, "second");
	assert_true(strlen(pods_boot(pods)) == 36);
}

/* Changes of a good file, by search and replacement. */
static const struct {
	const char *name, *find, *put;
} damages[] = {
	{"version unknown", "\"version\": 1", "\"version\": 2"},
	{"no version", "\"version\": 1", "\"nothing\": 1"},
	{"no uid", "\"uid\"", "\"vid\""},
	{"another uid", "\"uid\": \"1", "\"uid\": \"2"},
	{"bad namespace", "\"shop\"", "\"Shop\""},
	{"identity with a slash", "\"web-0\"", "\"web/0\""},
	{"empty service account", "\"web\"", "\"\""},
	{"no netns", "\"/run/netns/web\"", "\"\""},
	{"netns of a wrong type", "\"/run/netns/web\"", "17"},
	{"no cookie", "\"netnsCookie\": ", "\"netnsCookie\": 0, \"x\": "},
	{"no boot", "\"b00t\"", "\"\""},
	{"unknown steering", "\"iptables\"", "\"magic\""},
	{"abi of a wrong type", "\"abi\": 3", "\"abi\": \"3\""},
	{"not JSON", "{", "["},
	{"cut off", "}", ""},
	{"two uids", "\"uid\"", "\"uid\": \"1\", \"uid\""},
	{"a container of a wrong type", "\"abi\": 3", "\"abi\": 3, \"containerId\": 1"},
	{"an interface that is too long", "\"abi\": 3", "\"abi\": 3, \"interface\": \"abcdefghijklmnop\""},
	{"an overlay of a wrong type", "\"abi\": 3", "\"abi\": 3, \"overlay\": []"},
	{"a port out of range", "\"abi\": 3", "\"abi\": 3, \"overlay\": {\"probePorts\": [65536]}"},
	{"too many ports", "\"abi\": 3",
	 "\"abi\": 3, \"overlay\": {\"probePorts\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}"},
	{"an exclusion that is none", "\"abi\": 3", "\"abi\": 3, \"overlay\": {\"excludeOutbound\": [\"10/8\"]}"},
	{"DNS capture as a text", "\"abi\": 3", "\"abi\": 3, \"overlay\": {\"dnsCapture\": \"yes\"}"},
};

static void set_aside(const char *what)
{
	print_message("record: %s\n", what);
	assert_int_equal(load().n, 0);
	assert_false(exists("11111111-2222-4333-8444-555555555555.json"));
	assert_true(exists("11111111-2222-4333-8444-555555555555.json.bad"));
	assert_int_equal(load().n, 0);
}

static void test_bad_records(void **state)
{
	char why[POD_WHY_MAX], name[96], path[256], other[256];
	static char big[POD_RECORD_BYTES];

	log_set_filter("off");
	snprintf(name, sizeof name, "%s.json", good.uid);
	for (unsigned i = 0; i < sizeof damages / sizeof *damages; i++) {
		char text[2 * POD_RECORD_BYTES], *whole, *at;

		assert_int_equal(pods_save(pods, &good, why), 0);
		whole = read_good();
		at = strstr(whole, damages[i].find);
		assert_non_null(at);
		snprintf(text, sizeof text, "%.*s%s%s", (int)(at - whole), whole, damages[i].put,
			 at + strlen(damages[i].find));
		write_file(name, text, strlen(text));
		set_aside(damages[i].name);
	}
	write_file(name, "", 0);
	set_aside("empty");
	memset(big, ' ', sizeof big);
	write_file(name, big, sizeof big);
	set_aside("too big");
	write_file(name, "\0\0\0", 3);
	set_aside("zeros");
	file_path(path, name);
	assert_int_equal(pods_save(pods, &good, why), 0);
	snprintf(other, sizeof other, "%s/elsewhere", run_dir);
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(symlink(other, path), 0);
	set_aside("a link, though to a good one");
	unlink(other);
	assert_int_equal(mkfifo(path, 0600), 0);
	set_aside("a pipe");
	log_set_filter("info");
}

static void test_unfinished(void **state)
{
	char why[POD_WHY_MAX];

	assert_int_equal(pods_save(pods, &good, why), 0);
	write_file("unfinished.tmp", "{", 1);
	write_file("README", "x", 1);
	assert_int_equal(load().n, 1);
	assert_false(exists("unfinished.tmp"));
	assert_true(exists("README"));
}

static void test_no_folder(void **state)
{
	struct pods *p = NULL;
	char why[POD_WHY_MAX] = "";

	assert_int_equal(pods_open(&p, "/nonexistent/run", why), -ENOENT);
	assert_non_null(strstr(why, "/nonexistent/run/pods"));
	assert_null(p);
}

/* The disk is full, or the folder is gone: nothing is left but the line. */
static void test_save_fails(void **state)
{
	char why[POD_WHY_MAX] = "", path[256];

	file_path(path, "");
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(pods_save(pods, &good, why), -ENOENT);
	assert_non_null(strstr(why, good.uid));
	assert_int_equal(mkdir(path, 0700), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_uid),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_more, setup, teardown),
		cmocka_unit_test(test_overlay),
		cmocka_unit_test_setup_teardown(test_bad_records, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unfinished, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_fails, setup, teardown),
		cmocka_unit_test(test_no_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
