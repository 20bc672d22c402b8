/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of packets with descriptors: paths, limits, and that no descriptor is ever lost. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "fds.h"
#include "net/seqpacket.h"

static char folder[64], path[96];

static int setup(void **state)
{
	strcpy(folder, "/tmp/seqpacket-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/s", folder);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(folder);
}

/* --- paths ---------------------------------------------------------------------------------------------- */

static void nothing(void)
{
}

static void regular_file(void)
{
	close(open(path, O_CREAT | O_WRONLY, 0600));
}

static void folder_there(void)
{
	mkdir(path, 0700);
}

static void stale_socket(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	assert_int_equal(listen(fd, 1), 0);
	close(fd);
}

static int living;

static void living_of(int type)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	living = socket(AF_UNIX, type, 0);
	strcpy(un.sun_path, path);
	assert_int_equal(bind(living, (struct sockaddr *)&un, sizeof un), 0);
	assert_int_equal(listen(living, 1), 0);
}

static void living_socket(void)
{
	living_of(SOCK_SEQPACKET);
}

static void living_stream(void)
{
	living_of(SOCK_STREAM);
}

static const struct {
	const char *name;
	void (*before)(void);
	int want; /* 0: a listener */
} places[] = {
	{"free", nothing, 0},
	{"a stale socket is replaced", stale_socket, 0},
	{"a living socket is not", living_socket, -EADDRINUSE},
	{"a living socket of another type is not", living_stream, -EADDRINUSE},
	{"a file is not", regular_file, -EADDRINUSE},
	{"a folder is not", folder_there, -EADDRINUSE},
};

static void test_listen(void **state)
{
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
		struct stat st;
		int fd;

		living = -1;
		places[i].before();
		fd = seqpacket_listen(path, 0600);
		print_message("listen: %s\n", places[i].name);
		assert_int_equal(fd < 0 ? fd : 0, places[i].want);
		assert_int_equal(lstat(path, &st), 0);
		if (fd >= 0) {
			assert_int_equal(st.st_mode, S_IFSOCK | 0600);
			close(fd);
		}
		if (living >= 0)
			close(living);
		if (S_ISDIR(st.st_mode))
			rmdir(path);
		else
			unlink(path);
	}
}

static void test_bad_paths(void **state)
{
	char longer[200];

	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	assert_int_equal(seqpacket_listen(longer, 0600), -ENAMETOOLONG);
	assert_int_equal(seqpacket_listen("", 0600), -ENAMETOOLONG);
	assert_int_equal(seqpacket_connect(longer), -ENAMETOOLONG);
	assert_int_equal(seqpacket_connect(path), -ENOENT);
	assert_int_equal(seqpacket_listen("/nonexistent/folder/s", 0600), -ENOENT);
}

static void test_connection(void **state)
{
	int listener = seqpacket_listen(path, 0600), client, server;
	pid_t pid;
	uid_t uid;

	assert_int_equal(seqpacket_accept(listener), -EAGAIN);
	client = seqpacket_connect(path);
	assert_true(client >= 0);
	server = seqpacket_accept(listener);
	assert_true(server >= 0);
	assert_true(fcntl(server, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
	assert_int_equal(seqpacket_peer(server, &pid, &uid), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(uid, getuid());
	assert_int_equal(seqpacket_peer(0, &pid, &uid) < 0, 1);
	close(client);
	close(server);
	close(listener);
}

/* --- packets -------------------------------------------------------------------------------------------- */

static void raw_send(int fd, size_t len, unsigned n_fds)
{
	static char bytes[4096];
	union {
		char b[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {bytes, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[64];

	for (unsigned i = 0; i < n_fds; i++)
		fds[i] = 0;
	if (n_fds) {
		memset(&control, 0, sizeof control);
		m.msg_control = control.b;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, n_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &m, 0), len);
}

static const struct {
	const char *name;
	size_t len;
	unsigned fds;
	ssize_t want; /* of the receiver */
} packets[] = {
	{"one byte", 1, 0, 1},
	{"the longest", SEQPACKET_BYTES, 0, SEQPACKET_BYTES},
	{"one byte too long", SEQPACKET_BYTES + 1, 0, -EMSGSIZE},
	{"too long with descriptors", SEQPACKET_BYTES + 1, 3, -EMSGSIZE},
	{"a descriptor", 5, 1, 5},
	{"the most descriptors", 5, SEQPACKET_FDS, 5},
	{"one descriptor too many", 5, SEQPACKET_FDS + 1, -EMSGSIZE},
	{"far too many descriptors", 5, 64, -EMSGSIZE},
};

static void test_packets(void **state)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	for (unsigned i = 0; i < sizeof packets / sizeof *packets; i++) {
		char buf[SEQPACKET_BYTES];
		int fds[SEQPACKET_FDS];
		size_t n_fds = 99;
		unsigned before = fds_open();
		ssize_t n;

		print_message("packet: %s\n", packets[i].name);
		raw_send(pair[0], packets[i].len, packets[i].fds);
		n = seqpacket_recv(pair[1], buf, sizeof buf, fds, &n_fds);
		assert_int_equal(n, packets[i].want);
		assert_int_equal(n_fds, n < 0 ? 0 : packets[i].fds);
		assert_int_equal(fds_open(), before + n_fds);
		for (size_t k = 0; k < n_fds; k++) {
			assert_true(fcntl(fds[k], F_GETFD) & FD_CLOEXEC);
			close(fds[k]);
		}
	}
	close(pair[0]);
	close(pair[1]);
}

static void test_send(void **state)
{
	char buf[SEQPACKET_BYTES + 1] = "x", got[SEQPACKET_BYTES];
	int pair[2], fds[SEQPACKET_FDS + 1], in[SEQPACKET_FDS];
	size_t n_fds;

	memset(fds, 0, sizeof fds);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(seqpacket_send(pair[0], buf, sizeof buf, NULL, 0), -EMSGSIZE);
	assert_int_equal(seqpacket_send(pair[0], buf, 1, fds, SEQPACKET_FDS + 1), -EMSGSIZE);
	assert_int_equal(seqpacket_recv(pair[1], got, sizeof got, in, &n_fds), -EAGAIN);
	assert_int_equal(n_fds, 0);
	assert_int_equal(seqpacket_send(pair[0], buf, SEQPACKET_BYTES, fds, SEQPACKET_FDS), 0);
	assert_int_equal(seqpacket_recv(pair[1], got, sizeof got, in, &n_fds), SEQPACKET_BYTES);
	assert_int_equal(n_fds, SEQPACKET_FDS);
	while (n_fds)
		close(in[--n_fds]);
	close(pair[0]);
	assert_int_equal(seqpacket_recv(pair[1], got, sizeof got, in, &n_fds), 0);
	assert_int_equal(seqpacket_send(pair[1], buf, 1, NULL, 0), -EPIPE); /* and no SIGPIPE */
	close(pair[1]);
}

/* A receiver that takes nothing: the sender is told, and does not wait. */
static void test_full(void **state)
{
	static const char buf[SEQPACKET_BYTES];
	int pair[2], e = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	for (unsigned i = 0; i < 100000 && !e; i++)
		e = seqpacket_send(pair[0], buf, sizeof buf, NULL, 0);
	assert_int_equal(e, -EAGAIN);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_listen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_connection, setup, teardown),
		cmocka_unit_test(test_packets),
		cmocka_unit_test(test_send),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
