/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of how namespaces are found whose names are gone: several at once, in namespaces that processes hold. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/netns.h"
#include "own_netns.h"

/* A process in a network namespace of its own. */
struct holder {
	pid_t pid;
	struct netns_id id;
};

static void hold(struct holder *h)
{
	int ready[2], fd;
	char path[64], c;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	h->pid = fork();
	if (!h->pid) {
		if (unshare(CLONE_NEWNET) == 0 && write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	snprintf(path, sizeof path, "/proc/%d/ns/net", (int)h->pid);
	fd = netns_open(path);
	assert_true(fd >= 0);
	assert_int_equal(netns_identify(fd, &h->id), 0);
	close(fd);
}

static void let_go(const struct holder *h)
{
	kill(h->pid, SIGKILL);
	waitpid(h->pid, NULL, 0);
}

enum who { FIRST, SECOND, GONE, HOLDERS, NOBODY = HOLDERS };

static const struct {
	const char *name;
	enum who who;
	bool inode, cookie, found;
} rows[] = {
	{"by inode", FIRST, true, false, true},
	{"by cookie", SECOND, false, true, true},
	{"by both", SECOND, true, true, true},
	{"the same once more", FIRST, true, false, true},
	{"gone, by inode", GONE, true, false, false},
	{"gone, by cookie", GONE, false, true, false},
	{"gone, and its inode used again", FIRST, true, true, false},
	{"nothing", NOBODY, false, false, false},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void test_seek(void **state)
{
	struct netns_sought sought[ROWS] = {{0}};
	struct holder h[HOLDERS + 1] = {{0}};

	(void)state;
	for (unsigned i = 0; i < HOLDERS; i++)
		hold(&h[i]);
	let_go(&h[GONE]);
	for (unsigned i = 0; i < ROWS; i++) {
		const struct netns_id *id = &h[rows[i].who].id;

		sought[i].inode = rows[i].inode ? id->inode : 0;
		sought[i].cookie = rows[i].cookie ? id->cookie : 0;
		if (rows[i].inode && rows[i].cookie && !rows[i].found)
			sought[i].cookie = h[GONE].id.cookie;
	}
	netns_seek(sought, ROWS);
	for (unsigned i = 0; i < ROWS; i++) {
		struct netns_id id = {0};

		if (rows[i].found ? sought[i].fd < 0 : sought[i].fd != -ENOENT)
			fail_msg("%s: %d", rows[i].name, sought[i].fd);
		if (!rows[i].found)
			continue;
		assert_int_equal(netns_identify(sought[i].fd, &id), 0);
		if (id.cookie != h[rows[i].who].id.cookie)
			fail_msg("%s: another one", rows[i].name);
		close(sought[i].fd);
	}
	let_go(&h[FIRST]);
	let_go(&h[SECOND]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_seek)};

	if (!own_netns("netns_test"))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
