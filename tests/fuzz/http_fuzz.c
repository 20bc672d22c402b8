/* SPDX-License-Identifier: Apache-2.0 */
/* A client of the admin, readiness and metrics ports that sends anything and closes its side. The first byte chooses the
 * port. The server must end the connection by itself, with an answer or without. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/ready.h"
#include "admin/stats.h"
#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void quit(void *arg)
{
}

static struct admin admin = {.log_default = "off", .quit = quit};
static struct ready ready;
static char paths[3][64];

/* Pages that need a whole tunnel, or take their seconds, have tests of their own. */
static void without_some(void *arg, const struct http_request *rq, struct http_response *out)
{
	static const char *const without[] = {"/config_dump", "/generation", "/failures", "/trace",
					      "/debug/pprof/profile"};

	for (unsigned i = 0; i < sizeof without / sizeof *without; i++)
		if (!strcmp(rq->path, without[i]))
			return;
	admin_serve(arg, rq, out);
	log_set_filter("off");
}

static void remove_sockets(void)
{
	for (unsigned i = 0; i < 3; i++)
		unlink(paths[i]);
}

static void start(void)
{
	static const http_serve serve[] = {without_some, ready_serve, stats_serve};
	static void *const arg[] = {&admin, &ready, NULL};
	struct http_server *s = http_server_new();
	char why[256];

	log_set_filter("off");
	require(s && stats_init("fuzz") == 0);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(paths[i], sizeof paths[i], "/tmp/http-fuzz-%d-%u", (int)getpid(), i);
		require(http_listen_unix(s, paths[i], 0600, serve[i], arg[i], why, sizeof why) == 0);
	}
	atexit(remove_sockets);
	require(http_server_start(s) == 0);
}

static int dial(unsigned port)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = 4};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(at.sun_path, paths[port]);
	require(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	require(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char buf[4096];
	ssize_t n;
	int fd;

	if (!paths[0][0])
		start();
	if (size < 1)
		return 0;
	fd = dial(data[0] % 3);
	if (send(fd, data + 1, size - 1, MSG_NOSIGNAL) == (ssize_t)(size - 1))
		shutdown(fd, SHUT_WR);
	/* A socket with a time limit is interrupted by the fuzzer's own alarm (signal(7)). */
	do
		n = read(fd, buf, sizeof buf);
	while (n > 0 || (n < 0 && errno == EINTR));
	require(n == 0 || errno == ECONNRESET || errno == EPIPE);
	close(fd);
	return 0;
}
