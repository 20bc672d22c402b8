/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are given later: by another thread, in another order, to clients that are gone, after the server. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/http.h"

enum { TICKETS = 40, PATIENCE_MS = 10000, BODY = 200000 };

static char path[64];
static struct http_server *server;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct http_ticket *ticket[TICKETS]; /* by the number in the path */
static unsigned n_tickets;

static void serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	unsigned n = (unsigned)atoi(rq->path + 1);

	if (n >= TICKETS) {
		http_text(out, 200, "at once, %zu", rq->body_len);
		return;
	}
	pthread_mutex_lock(&lock);
	ticket[n] = http_ticket_take(rq);
	n_tickets++;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

static int setup(void **state)
{
	char why[256];

	snprintf(path, sizeof path, "/tmp/http-ticket-%d", (int)getpid());
	n_tickets = 0;
	server = http_server_new();
	http_body_max(server, BODY);
	assert_int_equal(http_listen_unix(server, path, 0600, serve, NULL, why, sizeof why), 0);
	assert_int_equal(http_server_start(server), 0);
	return 0;
}

static int teardown(void **state)
{
	http_server_free(server);
	unlink(path);
	return 0;
}

static int ask(unsigned n, size_t body)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char *text = calloc(1, body + 128);
	int len = snprintf(text, 128, "POST /%u HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", n, body);

	memcpy(at.sun_path, path, strlen(path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	memset(text + len, 'x', body);
	assert_int_equal(write(fd, text, (size_t)len + body), len + body);
	free(text);
	return fd;
}

static void taken(unsigned n)
{
	pthread_mutex_lock(&lock);
	while (n_tickets < n)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void reply(unsigned n)
{
	struct http_response out = {.content_type = "text/plain"};

	http_text(&out, 200, "answer %u", n);
	http_ticket_answer(ticket[n], &out);
}

static bool silent(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 0;
}

static void expect(int fd, const char *want)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char got[1024];
	size_t n = 0;
	ssize_t r = 1;

	while (r > 0 && n < sizeof got - 1) {
		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
		r = read(fd, got + n, sizeof got - 1 - n);
		n += r > 0 ? (size_t)r : 0;
	}
	got[n] = '\0';
	assert_non_null(strstr(got, "\r\n\r\n"));
	assert_string_equal(strstr(got, "\r\n\r\n") + 4, want);
	close(fd);
}

static void test_later(void **state)
{
	int fd = ask(0, 10);

	taken(1);
	assert_true(silent(fd));
	expect(ask(TICKETS, 0), "at once, 0"); /* nobody waits for the first */
	reply(0);
	expect(fd, "answer 0");
}

static void test_order(void **state)
{
	int fd[TICKETS];
	char want[32];

	for (unsigned i = 0; i < TICKETS; i++)
		fd[i] = ask(i, 0);
	taken(TICKETS);
	for (unsigned i = TICKETS; i-- > 0;)
		reply(i);
	for (unsigned i = 0; i < TICKETS; i++) {
		snprintf(want, sizeof want, "answer %u", i);
		expect(fd[i], want);
	}
}

static void test_client_gone(void **state)
{
	close(ask(0, 0));
	taken(1);
	expect(ask(TICKETS, 0), "at once, 0"); /* by now the server has seen the end */
	reply(0);
	expect(ask(TICKETS, 0), "at once, 0");
}

static void test_client_gone_unanswered(void **state)
{
	close(ask(0, 0));
	taken(1);
	expect(ask(TICKETS, 0), "at once, 0");
	http_server_free(server);
	server = NULL;
	reply(0);
}

static void test_server_gone(void **state)
{
	int first = ask(0, 0), second = ask(1, 0);

	taken(2);
	http_server_free(server); /* waits a moment for them */
	server = NULL;
	reply(0);
	reply(1);
	close(first);
	close(second);
}

static void *reply_soon(void *arg)
{
	reply(0);
	return NULL;
}

static void test_answered_while_it_stops(void **state)
{
	int fd = ask(0, 0);
	pthread_t t;

	taken(1);
	assert_int_equal(pthread_create(&t, NULL, reply_soon, NULL), 0);
	http_server_free(server);
	server = NULL;
	pthread_join(t, NULL);
	expect(fd, "answer 0");
}

static void test_body_max(void **state)
{
	char want[32];

	snprintf(want, sizeof want, "at once, %d", BODY);
	expect(ask(TICKETS, BODY), want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_client_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_client_gone_unanswered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_server_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answered_while_it_stops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_body_max, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
