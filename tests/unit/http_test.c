/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server: what it answers, what it refuses, and how long it waits for whom. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/http.h"
#include "net/unix_path.h"

enum { ANSWER_MAX = 1 << 20, LARGE = 8 << 20 };

static struct http_server *server;
static unsigned port;
static char answer[ANSWER_MAX];

static void serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	char value[32];
	const char *v;

	if (!strcmp(rq->path, "/echo")) {
		v = http_query(rq, "v", value, sizeof value);
		http_text(out, 200, "%s %s [%s] %zu:%s", rq->method, v ? v : "(none)", rq->accept, rq->body_len,
			  rq->body);
	} else if (!strcmp(rq->path, "/large")) {
		out->body = malloc(LARGE);
		memset(out->body, 'x', LARGE);
		out->body_len = LARGE;
		out->content_type = "application/octet-stream";
	} else if (!strcmp(rq->path, "/empty")) {
		out->status = 204;
	} else {
		http_text(out, 404, "no such path: %s\n", rq->path);
	}
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int dial(void)
{
	struct endpoint to = {addr_loopback4, (uint16_t)port};
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(&to, &ss);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	return fd;
}

/* What arrives until the end; -1 if it does not end in time. */
static ssize_t read_all(int fd, char *buf, size_t len, int wait_ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	uint64_t until = now_ms() + (uint64_t)wait_ms;
	size_t n = 0;

	while (now_ms() < until) {
		ssize_t r;

		if (poll(&p, 1, 50) <= 0)
			continue;
		r = read(fd, buf + n, len - 1 - n);
		if (r <= 0) {
			buf[n] = '\0';
			return (ssize_t)n;
		}
		n += (size_t)r;
	}
	return -1;
}

static void send_text(int fd, const char *s, size_t n)
{
	while (n) {
		ssize_t w = send(fd, s, n, MSG_NOSIGNAL);

		if (w < 0)
			return; /* refused while it was still being sent */
		s += w;
		n -= (size_t)w;
	}
}

#define HEAD "Host: x\r\n"
static const struct {
	const char *name, *request;
	size_t fill; /* so many 'a' replace "@" */
	int status;  /* 0: closed without an answer */
	const char *body;
} rows[] = {
	{"get", "GET /echo HTTP/1.1\r\n" HEAD "\r\n", 0, 200, "GET (none) [] 0:"},
	{"http/1.0", "GET /echo HTTP/1.0\r\n\r\n", 0, 200, "GET (none) [] 0:"},
	{"query", "GET /echo?a=1&v=x%20y+z&b HTTP/1.1\r\n" HEAD "\r\n", 0, 200, "GET x y z [] 0:"},
	{"query without value", "GET /echo?v HTTP/1.1\r\n" HEAD "\r\n", 0, 200, "GET  [] 0:"},
	{"query with a prefix of the name", "GET /echo?vv=1&xv=2 HTTP/1.1\r\n" HEAD "\r\n", 0, 200, "GET (none) [] 0:"},
	{"query with broken escapes", "GET /echo?v=%zz%4 HTTP/1.1\r\n" HEAD "\r\n", 0, 200, "GET %zz%4 [] 0:"},
	{"query is cut", "GET /echo?v=@ HTTP/1.1\r\n" HEAD "\r\n", 40, 200,
	 "GET aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa [] 0:"},
	{"absolute form", "GET http://x:1/echo?v=1 HTTP/1.1\r\n" HEAD "\r\n", 0, 200, "GET 1 [] 0:"},
	{"accept", "GET /echo HTTP/1.1\r\n" HEAD "aCCept: text/x\r\n\r\n", 0, 200, "GET (none) [text/x] 0:"},
	{"post", "POST /echo HTTP/1.1\r\n" HEAD "Content-Length: 3\r\n\r\nabc", 0, 200, "POST (none) [] 3:abc"},
	{"chunked", "POST /echo HTTP/1.1\r\n" HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 0, 200,
	 "POST (none) [] 3:abc"},
	{"put", "PUT /echo HTTP/1.1\r\n" HEAD "Content-Length: 0\r\n\r\n", 0, 200, "PUT (none) [] 0:"},
	{"delete", "DELETE /echo HTTP/1.1\r\n" HEAD "\r\n", 0, 200, "DELETE (none) [] 0:"},
	{"head has no body", "HEAD /echo HTTP/1.1\r\n" HEAD "\r\n", 0, 200, ""},
	{"unknown path", "GET /nothing HTTP/1.1\r\n" HEAD "\r\n", 0, 404, "no such path: /nothing\n"},
	{"path is not decoded", "GET /%65cho HTTP/1.1\r\n" HEAD "\r\n", 0, 404, "no such path: /%65cho\n"},
	{"no content", "GET /empty HTTP/1.1\r\n" HEAD "\r\n", 0, 204, ""},
	{"unknown method", "BREW /echo HTTP/1.1\r\n" HEAD "\r\n", 0, 501, NULL},
	{"no HTTP", "hello\r\n\r\n", 0, 400, NULL},
	{"header without a colon", "GET /echo HTTP/1.1\r\nnonsense\r\n\r\n", 0, 400, NULL},
	{"long path", "GET /@ HTTP/1.1\r\n" HEAD "\r\n", HTTP_PATH_MAX, 414, NULL},
	{"headers just small enough", "GET /echo HTTP/1.1\r\n" HEAD "X: @\r\n\r\n", HTTP_HEADERS_MAX - 200, 200, NULL},
	{"headers too large", "GET /echo HTTP/1.1\r\n" HEAD "X: @\r\n\r\n", HTTP_HEADERS_MAX, 400, NULL},
	{"body just small enough", "POST /empty HTTP/1.1\r\n" HEAD "Content-Length: 65536\r\n\r\n@", HTTP_BODY_MAX, 204,
	 ""},
	{"body too large", "POST /empty HTTP/1.1\r\n" HEAD "Content-Length: 65537\r\n\r\n@", HTTP_BODY_MAX + 1, 413,
	 NULL},
	{"negative length", "POST /echo HTTP/1.1\r\n" HEAD "Content-Length: -1\r\n\r\n", 0, 400, NULL},
};

static char *filled(const char *request, size_t fill)
{
	const char *at = strchr(request, '@');
	char *s = malloc(strlen(request) + fill + 1), *p = s;

	if (!at)
		return strcpy(s, request);
	memcpy(p, request, (size_t)(at - request));
	p += at - request;
	memset(p, 'a', fill);
	strcpy(p + fill, at + 1);
	return s;
}

static void test_rows(void **state)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char *request = filled(rows[i].request, rows[i].fill), *body;
		int fd = dial(), status = 0;
		uint64_t start = now_ms();
		ssize_t n;

		send_text(fd, request, strlen(request));
		n = read_all(fd, answer, sizeof answer, 4000);
		close(fd);
		free(request);
		if (n < 0)
			fail_msg("%s: the connection stays", rows[i].name);
		if (now_ms() - start > 1000)
			fail_msg("%s: answered or closed after the deadline only", rows[i].name);
		sscanf(answer, "HTTP/1.%*d %d", &status);
		body = strstr(answer, "\r\n\r\n");
		if (status != rows[i].status)
			fail_msg("%s: %d: %.80s", rows[i].name, status, answer);
		if (rows[i].body && (!body || strcmp(body + 4, rows[i].body)))
			fail_msg("%s: body \"%s\"", rows[i].name, body ? body + 4 : "");
	}
}

/* What a slow client sends, a byte every `pause_ms`, and when it is cut off. */
static const struct {
	const char *name, *first, *drip;
	int pause_ms;
} slow[] = {
	{"silent", "", "", 0},
	{"half a line", "GET /ec", "", 0},
	{"headers byte by byte", "GET /echo HTTP/1.1\r\nX: ", "a", 100},
	{"body byte by byte", "POST /echo HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", "a", 100},
	{"headers without an end", "GET /echo HTTP/1.1\r\n", "X: y\r\n", 50},
};

static void *slow_client(void *arg)
{
	size_t i = (size_t)arg;
	uint64_t start = now_ms();
	struct pollfd p = {dial(), POLLIN, 0};
	char buf[512];

	send_text(p.fd, slow[i].first, strlen(slow[i].first));
	while (now_ms() - start < 4000) {
		if (poll(&p, 1, slow[i].pause_ms ? slow[i].pause_ms : 100) > 0 && read(p.fd, buf, sizeof buf) <= 0)
			break;
		send_text(p.fd, slow[i].drip, strlen(slow[i].drip));
	}
	close(p.fd);
	return (void *)(uintptr_t)(now_ms() - start);
}

static void test_slow_clients(void **state)
{
	enum { N = sizeof slow / sizeof *slow };
	pthread_t thread[N];

	for (size_t i = 0; i < N; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, slow_client, (void *)i), 0);
	for (size_t i = 0; i < N; i++) {
		void *took;
		uint64_t ms;

		pthread_join(thread[i], &took);
		ms = (uint64_t)(uintptr_t)took;
		if (ms < HTTP_HEADER_MS - 100 || ms > HTTP_HEADER_MS + 1000)
			fail_msg("%s: closed after %d ms", slow[i].name, (int)ms);
	}
}

static void test_large_answer(void **state)
{
	static char all[LARGE + 4096];
	int fd = dial();
	ssize_t n;

	send_text(fd, "GET /large HTTP/1.1\r\n\r\n", 23);
	n = read_all(fd, all, sizeof all, 10000);
	assert_true(n > LARGE);
	assert_non_null(strstr(all, "Content-Length: 8388608\r\n"));
	assert_non_null(strstr(all, "Connection: close\r\n"));
	assert_non_null(strstr(all, "Content-Type: application/octet-stream\r\n"));
	close(fd);
}

/* Readers of a large answer: who takes a part of it in each second gets all of it, however long that takes. */
static const struct {
	const char *name;
	unsigned first_ms, chunk, pause_ms; /* before the first byte; then so much each time */
	bool whole;
} readers[] = {
	{"at 3 MB/s", 20, 64 << 10, 20, true},
	{"at 300 KB/s", 100, 32 << 10, 100, false},
	{"late", 3000, 64 << 10, 0, false},
};

static size_t slow_reader(unsigned first_ms, unsigned chunk, unsigned pause_ms, uint64_t *took)
{
	static char buf[64 << 10];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 64 << 10;
	struct endpoint to = {addr_loopback4, (uint16_t)port};
	struct sockaddr_storage ss;
	uint64_t start = now_ms();
	size_t n = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, endpoint_to_sockaddr(&to, &ss)), 0);
	send_text(fd, "GET /large HTTP/1.1\r\n\r\n", 23);
	poll(NULL, 0, (int)first_ms);
	for (ssize_t r; (r = recv(fd, buf, chunk, 0)) > 0; n += (size_t)r)
		poll(NULL, 0, now_ms() - start < 2500 ? (int)pause_ms : 0); /* by then it has been decided */
	close(fd);
	*took = now_ms() - start;
	return n;
}

static void test_slow_readers(void **state)
{
	char why[128] = "";
	struct http_server *s = http_server_new();
	unsigned before = port;

	http_answer_ms(s, 1000);
	assert_int_equal(http_listen_tcp(s, &(struct endpoint){addr_loopback4, 0}, serve, NULL, why, sizeof why), 0);
	port = http_port(s, 0);
	assert_int_equal(http_server_start(s), 0);
	for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
		uint64_t took;
		size_t n = slow_reader(readers[i].first_ms, readers[i].chunk, readers[i].pause_ms, &took);

		if ((n > LARGE) != readers[i].whole || took < 1100)
			fail_msg("%s: %zu bytes in %u ms", readers[i].name, n, (unsigned)took);
	}
	port = before;
	http_server_free(s);
}

static void *parallel_client(void *arg)
{
	char buf[1024];
	uintptr_t good = 0;

	for (unsigned i = 0; i < 50; i++) {
		int fd = dial();

		send_text(fd, "GET /echo?v=7 HTTP/1.1\r\n\r\n", 27);
		good += read_all(fd, buf, sizeof buf, 5000) > 0 && strstr(buf, "GET 7 [] 0:") != NULL;
		close(fd);
	}
	return (void *)good;
}

static void test_parallel(void **state)
{
	pthread_t thread[16];

	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, parallel_client, NULL), 0);
	for (unsigned i = 0; i < 16; i++) {
		void *good;

		pthread_join(thread[i], &good);
		assert_int_equal((uintptr_t)good, 50);
	}
}

/* Whoever holds all connections cannot keep others out: the oldest goes. */
static void test_connection_limit(void **state)
{
	int fd[HTTP_CONNECTIONS_MAX + 8], one;
	uint64_t start = now_ms();

	for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX + 8; i++)
		fd[i] = dial();
	one = dial();
	send_text(one, "GET /echo HTTP/1.1\r\n\r\n", 22);
	assert_true(read_all(one, answer, sizeof answer, 1500) > 0);
	assert_non_null(strstr(answer, " 200 "));
	assert_int_equal(read_all(fd[0], answer, sizeof answer, 500), 0);
	assert_true(now_ms() - start < HTTP_HEADER_MS);
	assert_int_equal(read_all(fd[HTTP_CONNECTIONS_MAX + 7], answer, sizeof answer, 100), -1);
	for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX + 8; i++)
		close(fd[i]);
	close(one);
}

static void ask(int fd)
{
	send_text(fd, "GET /echo HTTP/1.1\r\n\r\n", 22);
}

/* Who waits already when the server starts is accepted in one turn; what is above the limit must not be open meanwhile. */
static void test_descriptor_limit(void **state)
{
	enum { WAITING = 1000 };
	struct http_server *s = http_server_new();
	struct rlimit before, many;
	unsigned port_before = port;
	int fd[WAITING], over;
	char why[128] = "";

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	many = (struct rlimit){before.rlim_max < 4096 ? before.rlim_max : 4096, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &many), 0);
	assert_int_equal(http_listen_tcp(s, &(struct endpoint){addr_loopback4, 0}, serve, NULL, why, sizeof why), 0);
	port = http_port(s, 0);
	for (unsigned i = 0; i < WAITING; i++)
		fd[i] = dial();
	ask(fd[WAITING - 1]);
	over = fd[WAITING - 1] + HTTP_CONNECTIONS_MAX + 8; /* descriptors are taken from the lowest on */
	assert_int_equal(http_server_start(s), 0);
	for (struct pollfd p = {fd[WAITING - 1], POLLIN, 0}; poll(&p, 1, 0) == 0;)
		if (fcntl(over, F_GETFD) >= 0)
			fail_msg("descriptor %d is open", over);
	for (unsigned i = 0; i < WAITING; i++)
		close(fd[i]);
	http_server_free(s);
	port = port_before;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* Without a descriptor left nobody is accepted; who came meanwhile is, when there are some again. */
static void test_no_descriptors(void **state)
{
	struct rlimit before, none;
	int waiting, next = dial(), idle = dup(next);

	ask(next);
	assert_true(read_all(next, answer, sizeof answer, 1500) > 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	close(next);
	none = (struct rlimit){(rlim_t)next + 1, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	waiting = dial(); /* takes the last */
	ask(waiting);
	assert_int_equal(read_all(waiting, answer, sizeof answer, 300), -1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(read_all(waiting, answer, sizeof answer, 1500) > 0);
	assert_non_null(strstr(answer, " 200 "));
	close(waiting);
	close(idle);
}

static void test_unix(void **state)
{
	char dir[] = "/tmp/http-test-XXXXXX", path[64], why[128] = "";
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct http_server *one, *two;
	struct stat st;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/ctl.sock", dir);
	one = http_server_new();
	two = http_server_new();
	assert_int_equal(http_listen_unix(one, path, 0600, serve, NULL, why, sizeof why), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(http_listen_unix(two, path, 0600, serve, NULL, why, sizeof why), -EADDRINUSE);
	assert_non_null(strstr(why, path));
	assert_int_equal(http_server_start(one), 0);
	strcpy(at.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	send_text(fd, "GET /echo HTTP/1.1\r\n\r\n", 22);
	assert_true(read_all(fd, answer, sizeof answer, 2000) > 0);
	assert_non_null(strstr(answer, " 200 "));
	close(fd);
	http_server_free(one);
	/* What a dead server left behind is replaced. */
	assert_int_equal(http_listen_unix(two, path, 0600, serve, NULL, why, sizeof why), 0);
	http_server_free(two);
	unlink(path);
	/* Somebody's file is not. */
	two = http_server_new();
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(http_listen_unix(two, path, 0600, serve, NULL, why, sizeof why), -EADDRINUSE);
	assert_int_equal(unix_path_take(path), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	close(fd);
	http_server_free(two);
	unlink(path);
	rmdir(dir);
}

static void test_address_in_use(void **state)
{
	struct http_server *s = http_server_new();
	struct endpoint at = {addr_loopback4, (uint16_t)port};
	char why[128] = "";

	assert_int_equal(http_listen_tcp(s, &at, serve, NULL, why, sizeof why), -EADDRINUSE);
	assert_non_null(strstr(why, "127.0.0.1:"));
	http_server_free(s);
	http_server_free(NULL);
}

static void add_one(void *arg)
{
	++*(int *)arg;
}

static void *loop_thread(void *l)
{
	loop_run(l);
	return NULL;
}

static void test_call(void **state)
{
	struct loop *l = loop_new();
	pthread_t thread;
	int n = 0;

	assert_int_equal(pthread_create(&thread, NULL, loop_thread, l), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(http_call(l, add_one, &n, NULL), 0);
	assert_int_equal(n, 100);
	loop_stop(l);
	pthread_join(thread, NULL);
	loop_free(l);
}

/* An answer that is being read when the server goes is finished. */
static void *stop_soon(void *s)
{
	usleep(100000);
	http_server_free(s);
	return NULL;
}

static void test_stop_in_flight(void **state)
{
	static char all[LARGE + 4096];
	struct http_server *s = http_server_new();
	struct endpoint at = {addr_loopback4, 0};
	unsigned before = port;
	char why[128];
	pthread_t thread;
	uint64_t start;
	int fd, idle;

	assert_int_equal(http_listen_tcp(s, &at, serve, NULL, why, sizeof why), 0);
	assert_int_equal(http_server_start(s), 0);
	port = http_port(s, 0);
	fd = dial();
	idle = dial();
	port = before;
	send_text(fd, "GET /large HTTP/1.1\r\n\r\n", 23);
	start = now_ms();
	assert_int_equal(pthread_create(&thread, NULL, stop_soon, s), 0);
	usleep(300000);
	assert_true(read_all(fd, all, sizeof all, 5000) > LARGE);
	pthread_join(thread, NULL);
	assert_true(now_ms() - start < HTTP_STOP_MS + 200);
	assert_int_equal(read_all(idle, all, sizeof all, 100), 0);
	close(fd);
	close(idle);
}

static int setup(void **state)
{
	struct endpoint at = {addr_loopback4, 0};
	char why[128] = "";

	server = http_server_new();
	if (http_listen_tcp(server, &at, serve, NULL, why, sizeof why) < 0 || http_server_start(server) < 0)
		return -1;
	port = http_port(server, 0);
	return 0;
}

static int teardown(void **state)
{
	http_server_free(server);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_slow_clients),
		cmocka_unit_test(test_slow_readers),
		cmocka_unit_test(test_large_answer),
		cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_connection_limit),
		cmocka_unit_test(test_descriptor_limit),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_unix),
		cmocka_unit_test(test_address_in_use),
		cmocka_unit_test(test_call),
		cmocka_unit_test(test_stop_in_flight),
	};
	return cmocka_run_group_tests_name("http", tests, setup, teardown);
}
