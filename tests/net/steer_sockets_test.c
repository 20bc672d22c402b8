/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the agent's sockets in a pod, in a namespace of their own: two keepers that come for the same pod. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/file.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/netns.h"
#include "own_netns.h"
#include "steer/steer.h"

static const struct steer_sockets none = {{-1, -1, -1, -1, -1, -1, -1}};

static int own_ns(struct netns_id *id)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	assert_int_equal(netns_init_thread(), 0);
	assert_int_equal(netns_identify(fd, id), 0);
	return fd;
}

/* Two sockets that begin to listen in the same instant refuse each other: of two keepers, both would fail. So the
 * second is refused before it opens anything. */
static void test_two_at_once(void **state)
{
	struct steer_sockets s = none;
	char why[STEER_WHY_MAX];
	struct netns_id id;
	int ns = own_ns(&id), other = own_ns(&id);

	(void)state;
	assert_int_equal(flock(other, LOCK_EX), 0);
	assert_int_equal(steer_sockets_open(&s, &id, ns, true, why), -EBUSY);
	assert_string_equal(why, "another process has locked the network namespace (flock), to enrol it or to stay "
				 "out: Device or resource busy");
	assert_memory_equal(&s, &none, sizeof s);
	close(other);
	assert_int_equal(steer_sockets_open(&s, &id, ns, true, why), 0);
	steer_sockets_close(&s);
	close(ns);
}

/* Whoever comes later is refused while the sockets are there, and finds nothing locked once they are closed. */
static void test_one_after_the_other(void **state)
{
	struct steer_sockets first = none, second = none;
	char why[STEER_WHY_MAX];
	struct netns_id id;
	int ns = own_ns(&id), other = own_ns(&id);

	(void)state;
	assert_int_equal(steer_sockets_open(&first, &id, ns, true, why), 0);
	assert_int_equal(steer_sockets_open(&second, &id, other, true, why), -EADDRINUSE);
	assert_string_equal(why, "cannot open TCP port 15001 in the pod: Address already in use");
	assert_memory_equal(&second, &none, sizeof second);
	steer_sockets_close(&first);
	assert_int_equal(steer_sockets_open(&second, &id, other, true, why), 0);
	steer_sockets_close(&second);
	close(ns);
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_one_after_the_other),
	};

	if (!own_netns("steer_sockets_test"))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
