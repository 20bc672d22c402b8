/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of data/dns_answer in a namespace of their own: a client asks a resolver that is not there, and takes an answer
 * only from that resolver's address and port 53, with a good checksum: its kernel decides. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "data/dns_answer.h"
#include "net/sock.h"
#include "own_netns.h"

enum { WAIT_MS = 2000, ANSWER_MAX = 9000 };

static struct pod pod;

static struct endpoint at(const char *ip, uint16_t port)
{
	struct endpoint e = {.port = port};

	assert_int_equal(addr_parse(&e.ip, ip), 0);
	return e;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, ms) == 1;
}

/* A client's socket, connected to the resolver. */
static int client_of(const char *ip, uint16_t port)
{
	struct endpoint to = at(ip, port);
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(&to, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	return fd;
}

static ssize_t ask(int client, const void *q, size_t len, struct dns_path *path)
{
	uint8_t buf[ANSWER_MAX];

	assert_int_equal(send(client, q, len, 0), (ssize_t)len);
	assert_true(readable(pod.socket[POD_DNS_UDP], WAIT_MS));
	return dns_query_recv(&pod, buf, sizeof buf, path);
}

static void open_pod(uint16_t port)
{
	struct sock_listen how = {.at = {addr_any6, port}, .transparent = true};

	for (int i = 0; i < DATA_SOCKETS; i++)
		pod.socket[i] = -1;
	pod.socket[POD_DNS_UDP] = sock_bind_udp(&how);
	pod.socket[POD_RAW4] = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
	pod.socket[POD_RAW6] = socket(AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
	assert_true(pod.socket[POD_DNS_UDP] >= 0 && pod.socket[POD_RAW4] >= 0 && pod.socket[POD_RAW6] >= 0);
}

static void close_pod(void)
{
	for (int i = 0; i < DATA_SOCKETS; i++)
		if (pod.socket[i] >= 0)
			close(pod.socket[i]);
}

static const char *const resolvers[] = {"198.51.100.53", "2001:db8::53"};

/* The socket is on port 53 itself, which is what a redirected datagram looks like to it. */
static void test_raw(void **state)
{
	static const size_t sizes[] = {12, 13, 100, 511, 512, 1231, 1232, 1472, 4001, ANSWER_MAX};

	open_pod(53);
	for (unsigned i = 0; i < 2; i++)
		for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
			uint8_t answer[ANSWER_MAX], got[ANSWER_MAX + 1];
			struct endpoint resolver = at(resolvers[i], 53);
			struct dns_path path;
			int client = client_of(resolvers[i], 53);

			for (size_t b = 0; b < sizes[k]; b++)
				answer[b] = (uint8_t)(b * 7 + k);
			assert_int_equal(ask(client, "0123456789ab", 12, &path), 12);
			assert_true(path.raw);
			assert_true(endpoint_eq(&path.resolver, &resolver));
			dns_answer_send(&pod, &path, answer, sizes[k]);
			if (!readable(client, WAIT_MS) || recv(client, got, sizeof got, 0) != (ssize_t)sizes[k] ||
			    memcmp(got, answer, sizes[k]))
				fail_msg("%s, %zu bytes: no answer", resolvers[i], sizes[k]);
			close(client);
		}
	close_pod();
}

/* A checksum that comes to zero is sent as all ones: bytes that make every sum appear. */
static void test_checksum(void **state)
{
	open_pod(53);
	for (unsigned i = 0; i < 2; i++) {
		int client = client_of(resolvers[i], 53);
		struct dns_path path;

		assert_int_equal(ask(client, "0123456789ab", 12, &path), 12);
		for (unsigned sum = 0; sum < 65536; sum++) {
			uint8_t answer[12] = {0}, got[16];

			answer[10] = (uint8_t)(sum >> 8);
			answer[11] = (uint8_t)sum;
			dns_answer_send(&pod, &path, answer, sizeof answer);
			if (recv(client, got, sizeof got, MSG_DONTWAIT) != 12 || memcmp(got, answer, 12))
				fail_msg("%s: sum %u does not arrive", resolvers[i], sum);
		}
		close(client);
	}
	close_pod();
}

/* Too long for a datagram: nothing is sent, nothing is overrun. */
static void test_too_long(void **state)
{
	static uint8_t answer[65536];

	open_pod(53);
	for (unsigned i = 0; i < 2; i++) {
		int client = client_of(resolvers[i], 53);
		struct dns_path path;

		assert_int_equal(ask(client, "0123456789ab", 12, &path), 12);
		dns_answer_send(&pod, &path, answer, 65535 - 8);
		dns_answer_send(&pod, &path, answer, 65535);
		assert_false(readable(client, 0));
		close(client);
	}
	close_pod();
}

/* Behind REDIRECT the query comes to loopback, and the answer goes back from there; from elsewhere it is dropped. */
static void test_redirected(void **state)
{
	static const struct {
		const char *ip;
		bool served;
	} rows[] = {{"127.0.0.1", true}, {"::1", true}, {"198.51.100.1", false}, {"2001:db8::1", false}};

	open_pod(15053);
	for (unsigned i = 0; i < 4; i++) {
		int client = client_of(rows[i].ip, 15053);
		struct dns_path path;
		ssize_t n = ask(client, "0123456789ab", 12, &path);
		char got[16];

		if (n != (rows[i].served ? 12 : 0))
			fail_msg("%s: %zd", rows[i].ip, n);
		if (rows[i].served) {
			assert_false(path.raw);
			dns_answer_send(&pod, &path, (const uint8_t *)"answer-12345", 12);
			if (!readable(client, WAIT_MS) || recv(client, got, sizeof got, 0) != 12)
				fail_msg("%s: no answer", rows[i].ip);
		}
		close(client);
	}
	close_pod();
}

static void test_truncated_query(void **state)
{
	struct dns_path path;
	uint8_t small[16];
	char query[100] = {0};
	int client;

	open_pod(53);
	client = client_of(resolvers[0], 53);
	assert_int_equal(send(client, query, sizeof query, 0), sizeof query);
	assert_true(readable(pod.socket[POD_DNS_UDP], WAIT_MS));
	assert_int_equal(dns_query_recv(&pod, small, sizeof small, &path), 0);
	assert_int_equal(dns_query_recv(&pod, small, sizeof small, &path), -EAGAIN);
	close(client);
	close_pod();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_redirected),
		cmocka_unit_test(test_truncated_query),
	};

	if (!own_netns("dns_answer_test"))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
