/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the ZDS client against a scripted server: what each request makes it do, answer and close. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "control/zds.h"
#include "control/zds_msg.h"
#include "fds.h"
#include "proto/zds.pb-c.h"

enum { STEPS_MAX = 6, SERVER_WAIT_MS = 7000 };

struct step {
	enum {
		END,
		ADD,
		ADD_NO_INFO,
		DEL,
		KEEP,
		KEEP_RETURN,
		SNAPSHOT,
		GARBAGE,
		HANG_UP,
		PAUSE,
		LONG_UID,
		RETIRE
	} what;
	const char *uid;
	unsigned fds;	     /* that go with it */
	unsigned sockets;    /* ADD: bit set of the extension */
	const char *refused; /* part of the error that is due; NULL: none is */
};

static const struct {
	const char *name, *running; /* pods that run before */
	struct step step[STEPS_MAX];
	const char *log;  /* what the handler saw */
	bool disconnects; /* the client hangs up */
} rows[] = {
	{"one pod", "", {{ADD, "u1", 1}, {SNAPSHOT}}, "+u1(shop/web/sa) ready ", false},
	{"no pods", "", {{SNAPSHOT}}, "ready ", false},
	{"not named: removed", "old u1", {{ADD, "u1", 1}, {SNAPSHOT}}, "+u1(shop/web/sa) -old ready ", false},
	{"nothing named", "a b", {{SNAPSHOT}}, "-a -b ready ", false},
	{"keep protects", "a b", {{KEEP, "b"}, {SNAPSHOT}}, "-a ready ", false},
	{"del before the snapshot", "a", {{KEEP, "a"}, {DEL, "a"}, {SNAPSHOT}}, "-a ready ", false},
	{"del after the snapshot", "a", {{KEEP, "a"}, {SNAPSHOT}, {DEL, "a"}}, "ready -a ", false},
	{"add after the snapshot", "", {{SNAPSHOT}, {ADD, "u1", 1}}, "ready +u1(shop/web/sa) ", false},
	{"sockets of the extension",
	 "",
	 {{ADD, "u1", 3, 1 << 2 | 1 << 5}, {SNAPSHOT}},
	 "+u1(shop/web/sa,2,5) ready ",
	 false},
	{"sockets given back", "a", {{KEEP_RETURN, "a"}, {SNAPSHOT}}, "sockets(a) ready ", false},
	{"sockets of nobody",
	 "",
	 {{KEEP_RETURN, "a", .refused = "no sockets of a"}, {SNAPSHOT}},
	 "sockets(a) ready ",
	 false},
	{"cannot start, then can",
	 "",
	 {{ADD, "bad", 2, 1 << 1, "told to fail"}, {SNAPSHOT}, {PAUSE}},
	 "+bad(shop/web/sa,1) +bad(shop/web/sa,1) ready ",
	 false},
	{"cannot start, gone before the retry",
	 "",
	 {{ADD, "bad", 1, .refused = "told to fail"}, {SNAPSHOT}, {DEL, "bad"}},
	 "+bad(shop/web/sa) -bad ready ",
	 false},
	{"no descriptor", "", {{ADD, "u1", 0, .refused = "descriptors"}}, "", true},
	{"two descriptors", "", {{ADD, "u1", 2, .refused = "descriptors"}}, "", true},
	{"sockets without descriptors", "", {{ADD, "u1", 1, 1, .refused = "descriptors"}}, "", true},
	{"descriptor with del", "", {{DEL, "u1", 1, .refused = "descriptors"}}, "", true},
	{"not a message", "", {{GARBAGE, .refused = "undecodable"}}, "", true},
	{"not a message, with descriptors", "", {{GARBAGE, .fds = 3, .refused = "undecodable"}}, "", true},
	{"no workload info", "", {{ADD_NO_INFO, "u1", 1, .refused = "no workload info"}}, "", true},
	{"no uid", "", {{ADD, "", 1, .refused = "bad uid"}}, "", true},
	{"uid too long", "", {{LONG_UID, NULL, 1, .refused = "bad uid"}}, "", true},
	{"two snapshots", "", {{SNAPSHOT}, {SNAPSHOT, .refused = "second snapshot"}}, "ready lost ", true},
	{"late keep", "a", {{KEEP, "a"}, {SNAPSHOT}, {KEEP, "a", .refused = "keep after"}}, "ready lost ", true},
	{"retired: no pod comes, those that leave do",
	 "a",
	 {{KEEP, "a"}, {SNAPSHOT}, {RETIRE}, {ADD, "u1", 2, 1 << 2, "drains"}, {DEL, "a"}},
	 "ready retire -a ",
	 false},
	{"retired twice", "a", {{KEEP, "a"}, {SNAPSHOT}, {RETIRE}, {RETIRE}}, "ready retire ", false},
	{"retired with a pod that waits",
	 "",
	 {{ADD, "bad", 1, .refused = "told to fail"}, {SNAPSHOT}, {RETIRE}, {PAUSE}},
	 "+bad(shop/web/sa) retire ready ",
	 false},
	{"retire before the snapshot", "", {{RETIRE, .refused = "retire before"}}, "", true},
	{"cannot serve in the end", "noports", {{KEEP, "noports"}, {SNAPSHOT, .refused = "no port"}}, "", true},
	{"connection lost", "a", {{KEEP, "a"}, {SNAPSHOT}, {HANG_UP}}, "ready lost ", false},
};

static struct {
	struct loop *loop;
	const struct step *steps;
	int listener, nul;
	char running[64], log[512], wrong[256];
	struct zds *client;
	bool closed;
	unsigned attempts;
} rig;

/* --- the server: a thread ------------------------------------------------------------------------------- */

static void say_wrong(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(rig.wrong, sizeof rig.wrong, fmt, ap);
	va_end(ap);
}

static size_t message(const struct step *s, uint8_t *buf)
{
	static const char long_uid[] = "0123456789012345678901234567890123456789012345678901234567890123";
	Istio__Workload__Zds__WorkloadRequest r = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	Istio__Workload__Zds__AddWorkload add = ISTIO__WORKLOAD__ZDS__ADD_WORKLOAD__INIT;
	Istio__Workload__Zds__WorkloadInfo info = ISTIO__WORKLOAD__ZDS__WORKLOAD_INFO__INIT;
	Istio__Workload__Zds__DelWorkload del = ISTIO__WORKLOAD__ZDS__DEL_WORKLOAD__INIT;
	Istio__Workload__Zds__KeepWorkload keep = ISTIO__WORKLOAD__ZDS__KEEP_WORKLOAD__INIT;
	Istio__Workload__Zds__SnapshotSent snapshot = ISTIO__WORKLOAD__ZDS__SNAPSHOT_SENT__INIT;
	Istio__Workload__Zds__Retire retire = ISTIO__WORKLOAD__ZDS__RETIRE__INIT;
	Istio__Workload__Zds__Socket sockets[ZDS_SOCKETS];
	char *uid = (char *)(s->what == LONG_UID ? long_uid : s->uid);

	info.name = (char *)"web";
	info.namespace_ = (char *)"shop";
	info.service_account = (char *)"sa";
	add.sockets = sockets;
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		if (s->sockets & 1u << i)
			sockets[add.n_sockets++] = (Istio__Workload__Zds__Socket)i;
	switch (s->what) {
	case GARBAGE:
		memset(buf, 0xff, 7);
		return 7;
	case DEL:
		del.uid = uid;
		r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_DEL;
		r.del = &del;
		break;
	case KEEP:
	case KEEP_RETURN:
		keep.uid = uid;
		keep.return_sockets = s->what == KEEP_RETURN;
		r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_KEEP;
		r.keep = &keep;
		break;
	case SNAPSHOT:
		r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_SNAPSHOT_SENT;
		r.snapshot_sent = &snapshot;
		break;
	case RETIRE:
		r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_RETIRE;
		r.retire = &retire;
		break;
	default:
		add.uid = uid;
		add.workload_info = s->what == ADD_NO_INFO ? NULL : &info;
		r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_ADD;
		r.add = &add;
	}
	return istio__workload__zds__workload_request__pack(&r, buf);
}

static void send_with_fds(int fd, const void *buf, size_t len, unsigned n)
{
	union {
		char b[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)buf, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[8];

	for (unsigned i = 0; i < n; i++)
		fds[i] = rig.nul;
	if (n) {
		m.msg_control = control.b;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	if (sendmsg(fd, &m, MSG_NOSIGNAL) != (ssize_t)len)
		say_wrong("server cannot send: %s", strerror(errno));
}

/* Receives one packet, closes its descriptors and counts them. */
static ssize_t receive(int fd, uint8_t *buf, size_t cap, unsigned *n_fds)
{
	union {
		char b[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {buf, cap};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.b, .msg_controllen = sizeof control.b};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n = poll(&p, 1, SERVER_WAIT_MS) == 1 ? recvmsg(fd, &m, MSG_CMSG_CLOEXEC) : -2;
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	*n_fds = c ? (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
	for (unsigned i = 0; i < *n_fds; i++)
		close(((int *)CMSG_DATA(c))[i]);
	return n;
}

static void answer_check(const struct step *s, const uint8_t *buf, ssize_t n, unsigned n_fds)
{
	Istio__Workload__Zds__WorkloadResponse *r =
		n > 0 ? istio__workload__zds__workload_response__unpack(NULL, (size_t)n, buf) : NULL;
	const char *error = r && r->ack ? r->ack->error : NULL;
	unsigned want = s->what == KEEP_RETURN && !s->refused ? 2 : 0;

	if (!error)
		say_wrong("step %d: no answer (%zd)", (int)(s - rig.steps), n);
	else if (s->refused ? !strstr(error, s->refused) : error[0] != 0)
		say_wrong("step %d: answered \"%s\"", (int)(s - rig.steps), error);
	else if (n_fds != want || r->ack->n_sockets != want)
		say_wrong("step %d: %u descriptors came", (int)(s - rig.steps), n_fds);
	else if (want && (r->ack->sockets[0] != 0 || r->ack->sockets[1] != 3))
		say_wrong("step %d: sockets are misnamed", (int)(s - rig.steps));
	else if (!s->refused && !want && (n != 2 || memcmp(buf, "\n\0", 2)))
		say_wrong("step %d: an Ack of another form than istio-cni knows", (int)(s - rig.steps));
	if (r)
		istio__workload__zds__workload_response__free_unpacked(r, NULL);
}

static void *serve(void *arg)
{
	uint8_t buf[1024];
	unsigned n_fds;
	int fd = accept(rig.listener, NULL, NULL);
	ssize_t n = receive(fd, buf, sizeof buf, &n_fds);

	if (n < 2 || memcmp(buf, "\10\1", 2))
		say_wrong("bad hello");
	for (const struct step *s = rig.steps; s->what != END && !rig.wrong[0]; s++) {
		if (s->what == HANG_UP)
			break;
		if (s->what == PAUSE) {
			usleep((ZDS_RETRY_MS + 100) * 1000);
			continue;
		}
		send_with_fds(fd, buf, message(s, buf), s->fds);
		n = receive(fd, buf, sizeof buf, &n_fds);
		answer_check(s, buf, n, n_fds);
	}
	struct pollfd p = {.fd = fd, .events = POLLIN};
	rig.closed = poll(&p, 1, 40) == 1 && recv(fd, buf, sizeof buf, 0) == 0;
	close(fd);
	usleep(15000); /* the client sees the end, if that is new to it; its next connection is 20 ms away */
	loop_stop(rig.loop);
	return NULL;
}

/* --- the handler ---------------------------------------------------------------------------------------- */

static void note(const char *fmt, ...)
{
	size_t at = strlen(rig.log);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(rig.log + at, sizeof rig.log - at, fmt, ap);
	va_end(ap);
}

static int on_add(void *arg, struct zds_pod *p, char why[ZDS_WHY_MAX])
{
	char list[32] = "";

	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		if (p->socket[i] >= 0) {
			snprintf(list + strlen(list), sizeof list - strlen(list), ",%u", i);
			assert_true(p->sockets_sent);
			assert_int_equal(close(p->socket[i]), 0);
		}
	assert_int_equal(close(p->netns_fd), 0);
	note("+%s(%s/%s/%s%s) ", p->uid, p->ns, p->name, p->sa, list);
	if (strcmp(p->uid, "bad") || rig.attempts++)
		return 0;
	snprintf(why, ZDS_WHY_MAX, "told to fail");
	return -EBUSY;
}

static void on_remove(void *arg, const char *uid)
{
	note("-%s ", uid);
}

static void on_each(void *arg, void (*each)(void *ctx, const char *uid), void *ctx)
{
	char copy[sizeof rig.running], *save = NULL;

	strcpy(copy, rig.running);
	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
		each(ctx, t);
}

static int on_sockets(void *arg, const char *uid, int socket[ZDS_SOCKETS])
{
	note("sockets(%s) ", uid);
	if (!strstr(rig.running, uid))
		return -ENOENT;
	socket[0] = socket[3] = rig.nul;
	return 0;
}

static int on_snapshot(void *arg, char why[ZDS_WHY_MAX])
{
	if (strcmp(rig.running, "noports") != 0)
		return 0;
	snprintf(why, ZDS_WHY_MAX, "no port");
	return -EADDRINUSE;
}

static void on_retire(void *arg)
{
	note("retire ");
	zds_drain(rig.client);
}

static void on_ready(void *arg, bool ready)
{
	note(ready ? "ready " : "lost ");
}

static void test_rows(void **state)
{
	const struct zds_handler h = {on_add, on_remove, on_each, on_sockets, on_snapshot, on_retire, on_ready, NULL};
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/culvert-zds-XXXXXX";

	assert_non_null(mkdtemp(dir));
	snprintf(at.sun_path, sizeof at.sun_path, "%s/zds.sock", dir);
	rig.nul = open("/dev/null", O_RDONLY);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		unsigned before = fds_open();
		pthread_t server;
		struct zds *z;

		rig.log[0] = rig.wrong[0] = 0;
		rig.attempts = 0;
		strcpy(rig.running, rows[i].running);
		rig.steps = rows[i].step;
		rig.loop = loop_new();
		rig.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		unlink(at.sun_path);
		assert_int_equal(bind(rig.listener, (struct sockaddr *)&at, sizeof at), 0);
		assert_int_equal(listen(rig.listener, 5), 0);
		z = rig.client = zds_new(rig.loop, at.sun_path, &h);
		pthread_create(&server, NULL, serve, NULL);
		loop_run(rig.loop);
		pthread_join(server, NULL);
		zds_free(z);
		close(rig.listener);
		loop_free(rig.loop);
		if (strcmp(rig.wrong, "") ||
		    (strcmp(rig.log, rows[i].log) && /* the end of the server itself may have been seen, or not */
		     (strncmp(rig.log, rows[i].log, strlen(rows[i].log)) ||
		      strcmp(rig.log + strlen(rows[i].log), "lost "))) ||
		    rig.closed != rows[i].disconnects)
			fail_msg("%s: saw \"%s\"%s; %s", rows[i].name, rig.log, rig.closed ? ", hung up" : "",
				 rig.wrong);
		if (fds_open() != before)
			fail_msg("%s: %u descriptors before, %u after", rows[i].name, before, fds_open());
	}
	close(rig.nul);
	unlink(at.sun_path);
	rmdir(dir);
}

/* Nobody listens at first; then the client finds the server by itself. */
static void *appear(void *arg)
{
	struct sockaddr_un *at = arg;

	usleep(200000);
	bind(rig.listener, (struct sockaddr *)at, sizeof *at);
	listen(rig.listener, 5);
	return serve(NULL);
}

static void test_reconnects(void **state)
{
	static const struct step steps[STEPS_MAX] = {{SNAPSHOT}};
	const struct zds_handler h = {on_add, on_remove, on_each, on_sockets, on_snapshot, on_retire, on_ready, NULL};
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/culvert-zds-XXXXXX";
	pthread_t server;
	struct zds *z;

	assert_non_null(mkdtemp(dir));
	snprintf(at.sun_path, sizeof at.sun_path, "%s/zds.sock", dir);
	memset(&rig, 0, sizeof rig);
	rig.steps = steps;
	rig.loop = loop_new();
	rig.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	z = rig.client = zds_new(rig.loop, at.sun_path, &h);
	pthread_create(&server, NULL, appear, &at);
	loop_run(rig.loop);
	pthread_join(server, NULL);
	assert_string_equal(rig.wrong, "");
	assert_true(!strncmp(rig.log, "ready ", 6));
	zds_free(z);
	close(rig.listener);
	loop_free(rig.loop);
	unlink(at.sun_path);
	rmdir(dir);
}

/* --- a drain that the server did not ask for -------------------------------------------------------------- */

struct drain_order {
	struct msg msg;
};

static void drain_now(struct loop *l, struct msg *m)
{
	zds_drain(rig.client);
}

/* A connection on which a pod comes, with sockets or without, and the snapshot. */
static int fed(bool ours)
{
	const struct step add = {ADD, "u1", ours ? 2 : 1, ours ? 1 : 0}, snapshot = {SNAPSHOT};
	const struct step *const steps[] = {&add, &snapshot};
	uint8_t buf[1024];
	unsigned n_fds;
	int fd = accept(rig.listener, NULL, NULL);

	receive(fd, buf, sizeof buf, &n_fds);
	for (unsigned i = 0; i < 2; i++) {
		send_with_fds(fd, buf, message(steps[i], buf), steps[i]->fds);
		receive(fd, buf, sizeof buf, &n_fds);
	}
	return fd;
}

/* The client drains. The hello of its next connection, or 0. */
static size_t drained_hello(bool ours_before, bool ours, uint8_t hello[16])
{
	static struct drain_order order;
	struct pollfd p = {.fd = rig.listener, .events = POLLIN};
	uint8_t buf[1024];
	unsigned n_fds;
	int fd, next;
	ssize_t n;

	close(fed(ours_before));
	fd = fed(ours);
	loop_post(rig.loop, &order.msg, drain_now);
	n = receive(fd, buf, sizeof buf, &n_fds);
	if (n != 0)
		say_wrong("the connection goes on");
	close(fd);
	if (poll(&p, 1, ours ? SERVER_WAIT_MS : 300) != 1)
		return 0;
	next = accept(rig.listener, NULL, NULL);
	n = receive(next, hello, 16, &n_fds);
	close(next);
	return n > 0 ? (size_t)n : 0;
}

struct drained {
	bool ours_before, ours;
	uint8_t hello[16];
	size_t len;
};

static void *serve_drain(void *arg)
{
	struct drained *d = arg;

	d->len = drained_hello(d->ours_before, d->ours, d->hello);
	loop_stop(rig.loop);
	return NULL;
}

static void test_drain(void **state)
{
	static const uint8_t draining[] = {0x08, 0x01, 0xa0, 0x06, 0x02, 0xa8, 0x06, 0x01};
	const struct zds_handler h = {on_add, on_remove, on_each, on_sockets, on_snapshot, on_retire, on_ready, NULL};
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/culvert-zds-XXXXXX";

	assert_non_null(mkdtemp(dir));
	snprintf(at.sun_path, sizeof at.sun_path, "%s/zds.sock", dir);
	for (unsigned row = 0; row < 4; row++) {
		bool ours = row & 1;
		struct drained d = {.ours_before = row & 2, .ours = ours};
		pthread_t server;

		print_message("row: %s, after %s\n", ours ? "a keeper is told" : "another server is left",
			      d.ours_before ? "a keeper" : "another");
		memset(&rig, 0, sizeof rig);
		rig.nul = open("/dev/null", O_RDONLY);
		rig.loop = loop_new();
		rig.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		unlink(at.sun_path);
		assert_int_equal(bind(rig.listener, (struct sockaddr *)&at, sizeof at), 0);
		assert_int_equal(listen(rig.listener, 5), 0);
		rig.client = zds_new(rig.loop, at.sun_path, &h);
		pthread_create(&server, NULL, serve_drain, &d);
		loop_run(rig.loop);
		pthread_join(server, NULL);
		zds_free(rig.client);
		close(rig.listener);
		close(rig.nul);
		loop_free(rig.loop);
		assert_string_equal(rig.wrong, "");
		assert_int_equal(d.len, ours ? sizeof draining : 0);
		if (ours)
			assert_memory_equal(d.hello, draining, sizeof draining);
	}
	unlink(at.sun_path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_reconnects),
		cmocka_unit_test(test_drain),
	};
	return cmocka_run_group_tests_name("zds_client", tests, NULL, NULL);
}
