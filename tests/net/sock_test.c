/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of net/sock in a namespace of their own: listeners of both families, dialling with a client's address, what a
 * REDIRECT rule hides, and how connections end. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "net/sock.h"
#include "own_netns.h"

enum { WAIT_MS = 3000, MARK = 0x539 };

static const struct {
	const char *name, *client, *server;
} families[] = {
	{"IPv4", "198.51.100.7", "198.51.100.80"},
	{"IPv6", "2001:db8::7", "2001:db8::80"},
};

static struct endpoint at(const char *ip, uint16_t port)
{
	struct endpoint e = {.port = port};

	assert_int_equal(addr_parse(&e.ip, ip), 0);
	return e;
}

static int wait_for(int fd, short events)
{
	struct pollfd p = {fd, events, 0};

	return poll(&p, 1, WAIT_MS);
}

static int option(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof v;

	getsockopt(fd, level, name, &v, &len);
	return v;
}

static int listen_any(struct endpoint *where)
{
	struct sock_listen how = {.at = {addr_any6, 0}, .transparent = true, .mark = MARK};
	int fd = sock_listen_tcp(&how);

	assert_true(fd >= 0);
	assert_int_equal(sock_local(fd, where), 0);
	return fd;
}

static int dial(const struct endpoint *to, const struct endpoint *spoof)
{
	struct sock_dial how = {.to = *to, .spoof = spoof, .mark = MARK};

	return sock_dial_tcp(&how, NULL, NULL);
}

static int accept_one(int listener, struct endpoint *peer)
{
	assert_int_equal(wait_for(listener, POLLIN), 1);
	return sock_accept(listener, peer);
}

/* --- listening ------------------------------------------------------------------------------------------------ */

static void test_listen(void **state)
{
	struct endpoint where, peer, local;
	int l = listen_any(&where);
	static const struct sock_keepalive alive = {180, 60, 9, 0};

	assert_int_equal(sock_listener_tune(l, &alive), 0);
	assert_int_equal(sock_accept(l, &peer), -EAGAIN);
	assert_int_equal(option(l, SOL_SOCKET, SO_MARK), MARK);
	assert_int_equal(option(l, SOL_SOCKET, SO_REUSEPORT), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct endpoint to = at(families[i].server, where.port);
		int c = dial(&to, NULL), s;

		assert_true(c >= 0);
		s = accept_one(l, &peer);
		assert_true(s >= 0);
		assert_int_equal(sock_connect_result(c), 0);
		assert_int_equal(sock_local(s, &local), 0);
		if (!endpoint_eq(&local, &to)) /* a transparent listener's address is what was dialled */
			fail_msg("%s: another local address", families[i].name);
		assert_int_equal(sock_local(c, &local), 0);
		assert_true(endpoint_eq(&local, &peer));
		assert_true(addr_is4(&peer.ip) == (i == 0));
		assert_int_equal(option(s, IPPROTO_TCP, TCP_NODELAY), 1);
		assert_int_equal(option(s, IPPROTO_TCP, TCP_KEEPIDLE), 180);
		assert_int_equal(option(c, IPPROTO_TCP, TCP_NODELAY), 1);
		assert_true(fcntl(s, F_GETFL) & O_NONBLOCK && fcntl(c, F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(s, F_GETFD) & FD_CLOEXEC && fcntl(c, F_GETFD) & FD_CLOEXEC);
		close(c);
		close(s);
	}
	close(l);
}

static void test_listen_refused(void **state)
{
	struct endpoint where;
	int l = listen_any(&where);
	struct sock_listen again = {.at = {addr_any6, where.port}};
	struct sock_listen foreign = {.at = at("203.0.113.1", 0)};

	assert_int_equal(sock_listen_tcp(&again), -EADDRINUSE);
	assert_int_equal(sock_listen_tcp(&foreign), -EADDRNOTAVAIL);
	close(l);
}

/* Without IPv6 a listener on every address is one of IPv4. */
static void test_listen_without_ipv6(void **state)
{
	struct endpoint where, to, peer;
	int l, c, s;

	assert_true(run("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"));
	l = listen_any(&where);
	to = at("127.0.0.1", where.port);
	c = dial(&to, NULL);
	s = accept_one(l, &peer);
	assert_true(c >= 0 && s >= 0);
	assert_true(addr_is4(&peer.ip));
	close(c);
	close(s);
	close(l);
	assert_true(run("echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6"));
	assert_true(run("ip -6 addr replace ::1/128 dev lo; ip -6 route replace local 2001:db8::/64 dev lo"));
}

/* --- dialling with a client's address ----------------------------------------------------------------------------- */

static void test_spoof(void **state)
{
	struct endpoint where;
	int l = listen_any(&where);

	for (unsigned i = 0; i < 2; i++) {
		struct endpoint to = at(families[i].server, where.port), client = at(families[i].client, 45678), peer;
		static bool seen[65536];

		memset(seen, 0, sizeof seen);
		for (unsigned k = 0; k < 300; k++) { /* all at once: each has a tuple of its own */
			int c = dial(&to, &client), s;

			if (c < 0)
				fail_msg("%s, %u: %s", families[i].name, k, strerror(-c));
			s = accept_one(l, &peer);
			assert_true(s >= 0);
			if (!addr_eq(&peer.ip, &client.ip) || peer.port < SOCK_SPOOF_PORT_MIN ||
			    peer.port > SOCK_SPOOF_PORT_MAX || seen[peer.port])
				fail_msg("%s, %u: port %u", families[i].name, k, peer.port);
			seen[peer.port] = true;
			assert_int_equal(option(c, SOL_SOCKET, SO_MARK), MARK);
		}
	}
	for (int fd = l; fd < l + 2000; fd++)
		close(fd);
}

struct taken {
	unsigned asked;
	unsigned after;
};

static bool is_taken(void *arg, uint16_t port)
{
	struct taken *t = arg;

	return ++t->asked <= t->after;
}

static void test_ports_taken(void **state)
{
	struct endpoint where;
	int l = listen_any(&where), c;
	struct endpoint to = at("198.51.100.80", where.port), client = at("198.51.100.7", 1);
	struct sock_dial how = {.to = to, .spoof = &client};
	struct taken all = {.after = UINT16_MAX}, some = {.after = SOCK_SPOOF_TRIES - 1};

	assert_int_equal(sock_dial_tcp(&how, is_taken, &all), -EADDRNOTAVAIL);
	assert_int_equal(all.asked, SOCK_SPOOF_TRIES);
	c = sock_dial_tcp(&how, is_taken, &some);
	assert_true(c >= 0);
	assert_int_equal(some.asked, SOCK_SPOOF_TRIES);
	close(c);
	close(l);
}

/* Who may not spoof gets an error, never another source. */
static void test_no_fallback(void **state)
{
	struct endpoint where;
	int l = listen_any(&where), status = 0;
	struct endpoint to = at("198.51.100.80", where.port), client = at("198.51.100.7", 1);
	pid_t child = fork();

	if (!child) {
		struct sock_dial how = {.to = to, .spoof = &client};

		if (setresuid(65534, 65534, 65534) < 0)
			_exit(1);
		_exit(sock_dial_tcp(&how, NULL, NULL) == -EPERM ? 0 : 2);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(sock_accept(l, &where), -EAGAIN); /* nor did anything arrive */
	close(l);
}

/* --- endings and options ---------------------------------------------------------------------------------------------- */

static void test_connect_result(void **state)
{
	struct endpoint closed = at("198.51.100.80", 1);
	int c = dial(&closed, NULL);

	assert_true(c >= 0);
	assert_int_equal(wait_for(c, POLLOUT), 1);
	assert_int_equal(sock_connect_result(c), -ECONNREFUSED);
	assert_int_equal(sock_connect_result(c), 0); /* told once */
	close(c);
}

/* A connect to this machine is over as soon as it is looked at. */
static void test_connect_poll(void **state)
{
	struct endpoint where, peer, to;
	int l = listen_any(&where), c;

	for (unsigned i = 0; i < 2; i++) {
		to = at(families[i].server, where.port);
		c = dial(&to, NULL);
		assert_int_equal(sock_connect_poll(c, &to), 0);
		close(accept_one(l, &peer));
		close(c);
		to.port = 1;
		c = dial(&to, NULL);
		assert_int_equal(sock_connect_poll(c, &to), -ECONNREFUSED);
		close(c);
	}
	close(l);
}

static void test_reset_on_close(void **state)
{
	struct endpoint where, peer;
	int l = listen_any(&where);

	for (int reset = 0; reset < 2; reset++) {
		struct endpoint to = at("2001:db8::80", where.port);
		int c = dial(&to, NULL), s = accept_one(l, &peer);
		char b;

		if (reset)
			sock_reset_on_close(s);
		close(s);
		assert_int_equal(wait_for(c, POLLIN), 1);
		assert_int_equal(recv(c, &b, 1, 0), reset ? -1 : 0);
		if (reset)
			assert_int_equal(errno, ECONNRESET);
		close(c);
	}
	close(l);
}

static void test_keepalive(void **state)
{
	static const struct sock_keepalive on = {180, 60, 9, 20000}, off = {0};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	assert_int_equal(sock_keepalive(fd, &off), 0);
	assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	assert_int_equal(sock_keepalive(fd, &on), 0);
	assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 180);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 60);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), 9);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 20000);
	close(fd);
}

static void test_original_dst(void **state)
{
	static const char *const tool[] = {"iptables", "ip6tables"};
	struct endpoint where, peer, out;
	int l = listen_any(&where);

	for (unsigned i = 0; i < 2; i++) {
		struct endpoint to = at(families[i].server, 7777), plain = at(families[i].server, where.port);
		int c, s;

		c = dial(&plain, NULL);
		s = accept_one(l, &peer);
		assert_int_equal(sock_original_dst(s, false, &out), 0);
		assert_true(endpoint_eq(&out, &plain));
		close(c);
		close(s);
		if (!run("%s -w -t nat -A OUTPUT -p tcp --dport 7777 -j REDIRECT --to-ports %u 2>/dev/null", tool[i],
			 where.port)) {
			printf("skip sock_test/original-dst/%s: no %s\n", families[i].name, tool[i]);
			continue;
		}
		c = dial(&to, NULL);
		s = accept_one(l, &peer);
		assert_true(s >= 0);
		if (sock_original_dst(s, true, &out) < 0 || !endpoint_eq(&out, &to))
			fail_msg("%s: not what was dialled", families[i].name);
		close(c);
		close(s);
	}
	close(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_listen_refused),
		cmocka_unit_test(test_listen_without_ipv6),
		cmocka_unit_test(test_spoof),
		cmocka_unit_test(test_ports_taken),
		cmocka_unit_test(test_no_fallback),
		cmocka_unit_test(test_connect_result),
		cmocka_unit_test(test_connect_poll),
		cmocka_unit_test(test_reset_on_close),
		cmocka_unit_test(test_keepalive),
		cmocka_unit_test(test_original_dst),
	};

	if (!own_netns("sock_test"))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
