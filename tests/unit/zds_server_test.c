/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the ZDS server against scripted tunnels: who is told what, in which order, and what ends a connection. The
 * script runs on a thread of its own, the server on the main thread's loop. */
#include <errno.h>
#include <fcntl.h>
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "fds.h"
#include "net/seqpacket.h"
#include "node/zds_server.h"
#include "steer/steer.h"
#include "proto/zds.pb-c.h"

enum { STEPS_MAX = 24, CLIENTS = ZDS_CLIENTS_MAX + 2, WAIT_MS = 7000 };

enum what {
	END,
	CONNECT,   /* text: "ours", "ours-1" (of extension 1), "draining", "foreign", or NULL for no hello */
	SAY,	   /* len bytes 0xff */
	SAY_FDS,   /* a hello with a descriptor */
	WANT_ADD,  /* text: uid; fds: how many come with it */
	WANT_KEEP, /* fds: 1 if sockets are asked for */
	WANT_DEL,
	WANT_SNAPSHOT,
	WANT_RETIRE,
	ACK,
	NACK,
	ACK_SOCKETS,  /* fds: that the answer names */
	ACK_NO_FDS,   /* names a socket that does not come */
	ACK_EXTRA_FD, /* a descriptor that it does not name */
	ACK_TWICE_NAMED,
	QUIET,	/* nothing comes */
	CLOSED, /* by the server; fds: within so many ms, if given */
	HANG_UP,
	LATE,  /* an answer that waits for the server for longer than the deadline */
	ORDER, /* text: "+u", "-u", "!" (retire the newest) or "." (go on), for the server on its loop */
};

struct step {
	enum what what;
	unsigned who;
	const char *text;
	unsigned fds;
};

static const struct {
	const char *name, *snapshot; /* what the handler asks on hello: "+a ?b"; "=": holds back */
	struct step step[STEPS_MAX];
	const char *log;
} rows[] = {
	{"nothing to say", "", {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}}, "hello live "},
	{"a pod with its sockets",
	 "+a",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {ACK}, {WANT_SNAPSHOT}, {ACK}},
	 "hello a:0 live "},
	{"a foreign tunnel gets the namespace alone",
	 "+a",
	 {{CONNECT, 0, "foreign"}, {WANT_ADD, 0, "a", 1}, {ACK}, {WANT_SNAPSHOT}, {ACK}},
	 "hello(foreign) a:0 live "},
	{"one request at a time",
	 "+a +b",
	 {{CONNECT, 0, "ours"},
	  {WANT_ADD, 0, "a", 3},
	  {QUIET},
	  {ACK},
	  {WANT_ADD, 0, "b", 3},
	  {QUIET},
	  {ACK},
	  {WANT_SNAPSHOT},
	  {QUIET},
	  {ACK}},
	 "hello a:0 b:0 live "},
	{"a refusal is passed on, the next request comes",
	 "+a +b",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {NACK}, {WANT_ADD, 0, "b", 3}, {ACK}, {WANT_SNAPSHOT}, {ACK}},
	 "hello a:refused(no) b:0 live "},
	{"sockets come back",
	 "?a",
	 {{CONNECT, 0, "ours"}, {WANT_KEEP, 0, "a", 1}, {ACK_SOCKETS, 0, NULL, 3}, {WANT_SNAPSHOT}, {ACK}},
	 "hello a:0[0,1,2] live "},
	{"a foreign tunnel is not asked for sockets",
	 "?a",
	 {{CONNECT, 0, "foreign"}, {WANT_KEEP, 0, "a", 0}, {ACK}, {WANT_SNAPSHOT}, {ACK}},
	 "hello(foreign) a:0 live "},
	{"kept by nobody: added before the snapshot is sent",
	 "?a",
	 {{CONNECT, 0, "ours"}, {WANT_KEEP, 0, "a", 1}, {NACK}, {WANT_ADD, 0, "a", 3}, {ACK}, {WANT_SNAPSHOT}, {ACK}},
	 "hello a:refused(no) a:0 live "},
	{"a pod that is gone meanwhile is left out",
	 "+gone +a",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {ACK}, {WANT_SNAPSHOT}, {ACK}},
	 "hello gone:gone a:0 live "},
	{"added later",
	 "",
	 {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}, {ORDER, 0, "+a"}, {WANT_ADD, 0, "a", 3}, {ACK}},
	 "hello live a:0 "},
	{"the snapshot is held back",
	 "=+a",
	 {{CONNECT, 0, "ours"},
	  {WANT_ADD, 0, "a", 3},
	  {ACK},
	  {QUIET},
	  {ORDER, 0, "+b"},
	  {WANT_ADD, 0, "b", 3},
	  {ACK},
	  {QUIET},
	  {ORDER, 0, "."},
	  {WANT_SNAPSHOT},
	  {ACK}},
	 "hello a:0 hold b:0 hold live "},
	{"removed later",
	 "",
	 {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}, {ORDER, 0, "-a"}, {WANT_DEL, 0, "a"}, {ACK}},
	 "hello live del a:0 "},
	{"removed without a tunnel", "", {{ORDER, 0, "-a"}}, "del a:0 "},
	{"removed while a tunnel has not said hello", "", {{CONNECT, 0}, {ORDER, 0, "-a"}, {QUIET}}, "del a:0 "},
	{"a removal that is refused",
	 "",
	 {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}, {ORDER, 0, "-a"}, {WANT_DEL, 0, "a"}, {NACK}},
	 "hello live del a:refused(no) "},
	{"a removal that the tunnel does not survive",
	 "",
	 {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}, {ORDER, 0, "-a"}, {WANT_DEL, 0, "a"}, {HANG_UP}},
	 "hello live del a:0 gone "},
	{"added to the newest, removed from all",
	 "",
	 {{CONNECT, 0, "ours"},
	  {WANT_SNAPSHOT},
	  {ACK},
	  {CONNECT, 1, "ours"},
	  {WANT_SNAPSHOT, 1},
	  {ACK, 1},
	  {ORDER, 0, "+a"},
	  {WANT_ADD, 1, "a", 3},
	  {ACK, 1},
	  {QUIET, 0},
	  {ORDER, 0, "-a"},
	  {WANT_DEL, 0, "a"},
	  {WANT_DEL, 1, "a"},
	  {ACK, 1},
	  {ACK, 0}},
	 "hello live hello live a:0 del a:0 "},
	{"the newest leaves: the one before is newest again",
	 "",
	 {{CONNECT, 0, "ours"},
	  {WANT_SNAPSHOT},
	  {ACK},
	  {CONNECT, 1, "ours"},
	  {WANT_SNAPSHOT, 1},
	  {ACK, 1},
	  {HANG_UP, 1},
	  {ORDER, 0, "+a"},
	  {WANT_ADD, 0, "a", 3},
	  {ACK}},
	 "hello live hello live gone a:0 "},
	{"retired: the one before is the newest, and it still learns who leaves",
	 "",
	 {{CONNECT, 0, "ours"},
	  {WANT_SNAPSHOT},
	  {ACK},
	  {CONNECT, 1, "ours"},
	  {WANT_SNAPSHOT, 1},
	  {ACK, 1},
	  {ORDER, 0, "!"},
	  {WANT_RETIRE, 1},
	  {ORDER, 0, "+a"},
	  {WANT_ADD, 0, "a", 3},
	  {ACK},
	  {ACK, 1},
	  {ORDER, 0, "-a"},
	  {WANT_DEL, 0, "a"},
	  {WANT_DEL, 1, "a"},
	  {ACK, 1},
	  {ACK}},
	 "hello live hello live retire:0 a:0 del a:0 "},
	{"one that drains is asked for no sockets",
	 "?a",
	 {{CONNECT, 0, "draining"}, {WANT_KEEP, 0, "a", 0}, {ACK}, {WANT_SNAPSHOT}, {ACK}},
	 "hello(draining) a:0 live "},
	{"one that drains is nobody's newest",
	 "",
	 {{CONNECT, 0, "draining"},
	  {WANT_SNAPSHOT},
	  {ACK},
	  {ORDER, 0, "+a"},
	  {ORDER, 0, "-a"},
	  {WANT_DEL, 0, "a"},
	  {ACK}},
	 "hello(draining) live a:nobody del a:0 "},
	{"a foreign one cannot say that it drains",
	 "",
	 {{CONNECT, 0, "draining-foreign"}, {WANT_SNAPSHOT}, {ACK}, {ORDER, 0, "+a"}, {WANT_ADD, 0, "a", 1}, {ACK}},
	 "hello(foreign) live a:0 "},
	{"one of extension 1 cannot be retired, but is passed over",
	 "",
	 {{CONNECT, 0, "ours-1"}, {WANT_SNAPSHOT}, {ACK}, {ORDER, 0, "!"}, {QUIET}, {ORDER, 0, "+a"}},
	 "hello live retire:95 a:nobody "},
	{"retired before its snapshot: passed over, and told of nothing",
	 "",
	 {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ORDER, 0, "!"}, {ACK}, {QUIET}, {ORDER, 0, "+a"}},
	 "hello retire:0 live a:nobody "},
	{"a tunnel without a hello is nobody's newest",
	 "",
	 {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}, {CONNECT, 1}, {ORDER, 0, "+a"}, {WANT_ADD, 0, "a", 3}, {ACK}},
	 "hello live a:0 "},
	{"nobody to add to", "", {{ORDER, 0, "+a"}}, "a:nobody "},
	{"gone with a request under way and one waiting",
	 "+a +b",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {HANG_UP}},
	 "hello a:lost b:lost gone "},
	{"garbage for a hello", "", {{CONNECT, 0}, {SAY, 0, NULL, 5}, {CLOSED}}, ""},
	{"a long hello", "", {{CONNECT, 0}, {SAY, 0, NULL, 1024}, {CLOSED}}, ""},
	{"a hello of version 0", "", {{CONNECT, 0, "version 0"}, {CLOSED}}, ""},
	{"a descriptor with the hello", "", {{CONNECT, 0}, {SAY_FDS}, {CLOSED}}, ""},
	{"gone before the hello", "", {{CONNECT, 0}, {HANG_UP}}, ""},
	{"garbage for an answer",
	 "+a",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {SAY, 0, NULL, 3}, {CLOSED}},
	 "hello a:lost gone "},
	{"it speaks unasked", "", {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}, {ACK}, {CLOSED}}, "hello live gone "},
	{"one unasked byte",
	 "",
	 {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {ACK}, {SAY, 0, NULL, 1}, {CLOSED}},
	 "hello live gone "},
	{"the snapshot is refused", "", {{CONNECT, 0, "ours"}, {WANT_SNAPSHOT}, {NACK}, {CLOSED}}, "hello gone "},
	{"sockets that nobody asked for",
	 "+a",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {ACK_SOCKETS, 0, NULL, 2}, {CLOSED}},
	 "hello a:lost gone "},
	{"fewer descriptors than named",
	 "?a",
	 {{CONNECT, 0, "ours"}, {WANT_KEEP, 0, "a", 1}, {ACK_NO_FDS}, {CLOSED}},
	 "hello a:lost gone "},
	{"more descriptors than named",
	 "?a",
	 {{CONNECT, 0, "ours"}, {WANT_KEEP, 0, "a", 1}, {ACK_EXTRA_FD}, {CLOSED}},
	 "hello a:lost gone "},
	{"a socket named twice",
	 "?a",
	 {{CONNECT, 0, "ours"}, {WANT_KEEP, 0, "a", 1}, {ACK_TWICE_NAMED}, {CLOSED}},
	 "hello a:lost gone "},
	{"an answer that is too long",
	 "+a",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {SAY, 0, NULL, 1025}, {CLOSED}},
	 "hello a:lost gone "},
	{"more connections than are taken",
	 "",
	 {{CONNECT, 0},	       {CONNECT, 1},   {CONNECT, 2},
	  {CONNECT, 3},	       {CONNECT, 4},   {CONNECT, 5},
	  {CONNECT, 6},	       {CONNECT, 7},   {CONNECT, 8},
	  {CONNECT, 9},	       {CONNECT, 10},  {CONNECT, 11},
	  {CONNECT, 12},       {CONNECT, 13},  {CONNECT, 14},
	  {CONNECT, 15},       {CONNECT, 16},  {CLOSED, 16, NULL, 2000},
	  {HANG_UP, 0},	       {ORDER, 0, ""}, {CONNECT, 17, "ours"},
	  {WANT_SNAPSHOT, 17}, {ACK, 17}},
	 "hello live "},
	{"an answer that came while the server was busy",
	 "+a",
	 {{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {LATE, 0, "~"}, {WANT_SNAPSHOT}, {ACK}},
	 "hello a:0 live "},
	{"deadlines: no hello, no answer",
	 "+a",
	 {{CONNECT, 0}, {CONNECT, 1, "ours"}, {WANT_ADD, 1, "a", 3}, {CLOSED, 0}, {CLOSED, 1}},
	 "hello a:lost gone "},
};

static struct {
	struct loop *loop;
	struct zds_server *server;
	const char *snapshot;
	const struct step *steps;
	char path[64], log[512], wrong[256];
	int nul, client[CLIENTS];
	bool hold; /* no snapshot is complete */
} rig;

/* --- the handler, on the loop --------------------------------------------------------------------------- */

static void note(const char *fmt, ...)
{
	size_t len = strlen(rig.log);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(rig.log + len, sizeof rig.log - len, fmt, ap);
	va_end(ap);
}

static int describe(void *arg, const char *uid, struct zds_workload *out)
{
	static int sockets[ZDS_SOCKETS];

	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		sockets[i] = i == STEER_TCP15006 || i == STEER_RAW4 ? rig.nul : -1;
	if (!strcmp(uid, "gone"))
		return -ENOENT;
	*out = (struct zds_workload){
		.uid = uid, .name = "web", .ns = "shop", .sa = "sa", .netns_fd = rig.nul, .socket = sockets};
	return 0;
}

static void asked(void *arg, int err, const char *why, int socket[ZDS_SOCKETS])
{
	const char *uid = arg;
	unsigned n = 0;

	if (err == -EREMOTEIO)
		note("%s:refused(%s)", uid, why);
	else
		note("%s:%s", uid, !err ? "0" : err == -ENOENT ? "gone" : err == -ECONNRESET ? "lost" : "?");
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		if (socket[i] >= 0) {
			note("%s%u", n++ ? "," : "[", i);
			close(socket[i]);
		}
	note("%s ", n ? "]" : "");
}

static void kept(void *arg, int err, const char *why, int socket[ZDS_SOCKETS])
{
	asked(arg, err, why, socket);
	if (err == -EREMOTEIO)
		assert_int_equal(zds_add(zds_server_newest(rig.server), arg, asked, arg), 0);
}

static const char *name_of(const char *p)
{
	return p[1] == 'g' ? "gone" : p[1] == 'a' ? "a" : "b";
}

static void hello(void *arg, struct zds_client *c)
{
	note("hello%s ", zds_client_draining(c) ? "(draining)" : zds_client_ours(c) ? "" : "(foreign)");
	assert_int_equal(zds_client_pid(c), getpid());
	assert_false(zds_client_live(c));
	for (const char *p = rig.snapshot; *p; p += strcspn(p, " "), p += *p == ' ')
		assert_int_equal(*p == '+' ? zds_add(c, name_of(p), asked, (void *)name_of(p))
					   : zds_keep(c, name_of(p), kept, (void *)name_of(p)),
				 0);
}

static bool complete(void *arg, struct zds_client *c)
{
	if (!rig.hold)
		return true;
	note("hold ");
	return false;
}

static void live(void *arg, struct zds_client *c)
{
	assert_true(zds_client_live(c));
	note("live ");
}

static void gone(void *arg, struct zds_client *c)
{
	note("gone ");
}

/* --- the script, on its thread -------------------------------------------------------------------------- */

static void say_wrong(const struct step *s, const char *fmt, ...)
{
	size_t n = (size_t)snprintf(rig.wrong, sizeof rig.wrong, "step %d: ", (int)(s - rig.steps));
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(rig.wrong + n, sizeof rig.wrong - n, fmt, ap);
	va_end(ap);
}

static void script_send(const struct step *s, const void *buf, size_t len, unsigned n_fds)
{
	int fds[SEQPACKET_FDS];

	for (unsigned i = 0; i < SEQPACKET_FDS; i++)
		fds[i] = rig.nul;
	if (len > SEQPACKET_BYTES ? send(rig.client[s->who], buf, len, MSG_NOSIGNAL) < 0
				  : seqpacket_send(rig.client[s->who], buf, len, fds, n_fds) < 0)
		say_wrong(s, "cannot send: %s", strerror(errno));
}

static void script_hello(const struct step *s, unsigned extension, int version, unsigned n_fds)
{
	Istio__Workload__Zds__ZdsHello h = ISTIO__WORKLOAD__ZDS__ZDS_HELLO__INIT;
	uint8_t buf[16];

	h.version = version;
	h.extension = !version ? 1 : extension; /* an empty packet would be an end of file */
	h.draining = s->text && !strncmp(s->text, "draining", 8);
	script_send(s, buf, istio__workload__zds__zds_hello__pack(&h, buf), n_fds);
}

static void script_answer(const struct step *s, const char *error, unsigned named, bool twice, unsigned n_fds)
{
	Istio__Workload__Zds__Ack ack = ISTIO__WORKLOAD__ZDS__ACK__INIT;
	Istio__Workload__Zds__WorkloadResponse r = ISTIO__WORKLOAD__ZDS__WORKLOAD_RESPONSE__INIT;
	Istio__Workload__Zds__Socket list[ZDS_SOCKETS];
	uint8_t buf[128];

	for (unsigned i = 0; i < named; i++)
		list[i] = (Istio__Workload__Zds__Socket)(twice ? 0 : i);
	ack.error = (char *)error;
	ack.sockets = list;
	ack.n_sockets = named;
	r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_RESPONSE__PAYLOAD_ACK;
	r.ack = &ack;
	script_send(s, buf, istio__workload__zds__workload_response__pack(&r, buf), n_fds);
}

/* Length, 0 at the end of the connection, -1 when nothing comes. */
static ssize_t script_receive(const struct step *s, uint8_t *buf, size_t *n_fds, int wait_ms)
{
	struct pollfd p = {.fd = rig.client[s->who], .events = POLLIN};
	int fds[SEQPACKET_FDS];
	ssize_t n;

	*n_fds = 0;
	if (poll(&p, 1, wait_ms) != 1)
		return -1;
	n = seqpacket_recv(rig.client[s->who], buf, SEQPACKET_BYTES, fds, n_fds);
	for (size_t i = 0; i < *n_fds; i++)
		close(fds[i]);
	return n < 0 ? 0 : n;
}

static bool is_wanted(const struct step *s, const Istio__Workload__Zds__WorkloadRequest *r, size_t n_fds)
{
	switch (s->what) {
	case WANT_ADD:
		return r->payload_case == ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_ADD &&
		       !strcmp(r->add->uid, s->text) && n_fds == s->fds && r->add->n_sockets + 1 == n_fds &&
		       (n_fds == 1 || (r->add->sockets[0] == ISTIO__WORKLOAD__ZDS__SOCKET__TCP15006 &&
				       r->add->sockets[1] == ISTIO__WORKLOAD__ZDS__SOCKET__RAW4)) &&
		       !strcmp(r->add->workload_info->namespace_, "shop") &&
		       !strcmp(r->add->workload_info->name, "web") &&
		       !strcmp(r->add->workload_info->service_account, "sa");
	case WANT_KEEP:
		return r->payload_case == ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_KEEP &&
		       !strcmp(r->keep->uid, s->text) && (unsigned)r->keep->return_sockets == s->fds && !n_fds;
	case WANT_DEL:
		return r->payload_case == ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_DEL &&
		       !strcmp(r->del->uid, s->text) && !n_fds;
	case WANT_RETIRE:
		return r->payload_case == ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_RETIRE && !n_fds;
	default:
		return r->payload_case == ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_SNAPSHOT_SENT && !n_fds;
	}
}

static void script_want(const struct step *s)
{
	Istio__Workload__Zds__WorkloadRequest *r;
	uint8_t buf[SEQPACKET_BYTES];
	size_t n_fds;
	ssize_t n = script_receive(s, buf, &n_fds, WAIT_MS);

	r = n > 0 ? istio__workload__zds__workload_request__unpack(NULL, (size_t)n, buf) : NULL;
	if (!r || !is_wanted(s, r, n_fds))
		say_wrong(s, "another request came: %zd bytes, %zu descriptors, case %d", n, n_fds,
			  r ? (int)r->payload_case : -1);
	if (r)
		istio__workload__zds__workload_request__free_unpacked(r, NULL);
}

static void script_connect(const struct step *s)
{
	int fd = seqpacket_connect(rig.path);

	rig.client[s->who] = fd;
	if (fd < 0)
		say_wrong(s, "cannot connect: %s", strerror(-fd));
	else if (s->text)
		script_hello(s,
			     strstr(s->text, "foreign")	  ? 0
			     : !strcmp(s->text, "ours-1") ? 1
							  : ZDS_EXTENSION,
			     strcmp(s->text, "version 0") != 0, 0);
}

struct order {
	struct msg msg;
	const char *text;
	pthread_mutex_t lock; /* held until it was carried out */
};

static void order_run(struct loop *l, struct msg *m)
{
	struct order *o = container_of(m, struct order, msg);
	struct zds_client *c = zds_server_newest(rig.server);

	if (!o->text[0]) {
		; /* it came to pass the time */
	} else if (o->text[0] == '~') {
		usleep((ZDS_ACK_MS + 200) * 1000); /* a turn that takes longer than the deadline */
	} else if (o->text[0] == '.') {
		rig.hold = false;
		zds_continue(c);
	} else if (o->text[0] == '!') {
		note("retire:%d ", -zds_retire(c));
	} else if (o->text[0] == '-') {
		note("del ");
		assert_int_equal(zds_del(rig.server, o->text + 1, asked, (void *)(o->text + 1)), 0);
	} else if (c) {
		assert_int_equal(zds_add(c, o->text + 1, asked, (void *)(o->text + 1)), 0);
	} else {
		note("%s:nobody ", o->text + 1);
	}
	pthread_mutex_unlock(&o->lock);
}

static void script_pass(const char *text)
{
	struct order o = {.text = text};

	pthread_mutex_init(&o.lock, NULL);
	pthread_mutex_lock(&o.lock);
	loop_post(rig.loop, &o.msg, order_run);
	pthread_mutex_lock(&o.lock);
	pthread_mutex_destroy(&o.lock);
}

/* What the script did before was ready for the loop before the first message, so it is served before the second. */
static void script_settle(void)
{
	script_pass("");
	script_pass("");
}

static void script_order(const struct step *s)
{
	script_settle();
	script_pass(s->text);
}

/* Answers in the middle of a long turn of the server. */
static void script_late(const struct step *s)
{
	struct order o = {.text = s->text};

	pthread_mutex_init(&o.lock, NULL);
	pthread_mutex_lock(&o.lock);
	loop_post(rig.loop, &o.msg, order_run);
	script_answer(s, "", 0, false, 0);
	pthread_mutex_lock(&o.lock);
	pthread_mutex_destroy(&o.lock);
}

static void script_step(const struct step *s)
{
	static const uint8_t junk[2048] = {[0 ... 2047] = 0xff};
	uint8_t buf[SEQPACKET_BYTES];
	size_t n_fds;
	ssize_t n;

	switch (s->what) {
	case CONNECT:
		script_connect(s);
		break;
	case SAY:
		script_send(s, junk, s->fds, 0);
		break;
	case SAY_FDS:
		script_hello(s, 1, 1, 1);
		break;
	case ACK:
		script_answer(s, "", 0, false, 0);
		break;
	case NACK:
		script_answer(s, "no", 0, false, 0);
		break;
	case ACK_SOCKETS:
		script_answer(s, "", s->fds, false, s->fds);
		break;
	case ACK_NO_FDS:
		script_answer(s, "", 2, false, 1);
		break;
	case ACK_EXTRA_FD:
		script_answer(s, "", 1, false, 2);
		break;
	case ACK_TWICE_NAMED:
		script_answer(s, "", 2, true, 2);
		break;
	case QUIET:
		if (script_receive(s, buf, &n_fds, 100) >= 0)
			say_wrong(s, "it was not quiet");
		break;
	case CLOSED:
		n = script_receive(s, buf, &n_fds, s->fds ? (int)s->fds : WAIT_MS);
		if (n != 0)
			say_wrong(s, "not closed (%zd)", n);
		break;
	case HANG_UP:
		close(rig.client[s->who]);
		rig.client[s->who] = -1;
		break;
	case ORDER:
		script_order(s);
		break;
	case LATE:
		script_late(s);
		break;
	default:
		script_want(s);
	}
}

static void *script(void *arg)
{
	for (const struct step *s = rig.steps; s->what != END && !rig.wrong[0]; s++)
		script_step(s);
	script_settle();
	loop_stop(rig.loop);
	return NULL;
}

/* --- rows ----------------------------------------------------------------------------------------------- */

static void rig_open(void)
{
	static const struct zds_server_handler h = {describe, hello, complete, live, gone, NULL};
	char why[ZDS_WHY_MAX];

	rig.log[0] = rig.wrong[0] = '\0';
	for (unsigned i = 0; i < CLIENTS; i++)
		rig.client[i] = -1;
	rig.loop = loop_new();
	assert_int_equal(zds_server_open(&rig.server, rig.loop, rig.path, &h, why), 0);
}

static void rig_close(void)
{
	zds_server_free(rig.server);
	for (unsigned i = 0; i < CLIENTS; i++)
		if (rig.client[i] >= 0)
			close(rig.client[i]);
	loop_free(rig.loop);
	unlink(rig.path);
}

static void test_rows(void **state)
{
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		unsigned before = fds_open();
		pthread_t thread;

		print_message("row: %s\n", rows[i].name);
		rig.hold = rows[i].snapshot[0] == '=';
		rig.snapshot = rows[i].snapshot + rig.hold;
		rig.steps = rows[i].step;
		rig_open();
		pthread_create(&thread, NULL, script, NULL);
		loop_run(rig.loop);
		pthread_join(thread, NULL);
		rig_close();
		assert_string_equal(rig.wrong, "");
		assert_string_equal(rig.log, rows[i].log);
		assert_int_equal(fds_open(), before);
	}
}

/* Freed with a request under way, some waiting, and a removal. */
static void test_free_busy(void **state)
{
	static const struct step steps[] = {
		{CONNECT, 0, "ours"}, {WANT_ADD, 0, "a", 3}, {ORDER, 0, "-b"}, {ORDER, 0, "+b"}, {END}};
	pthread_t thread;

	rig.snapshot = "+a +b";
	rig.steps = steps;
	rig_open();
	pthread_create(&thread, NULL, script, NULL);
	loop_run(rig.loop);
	pthread_join(thread, NULL);
	rig_close();
	assert_string_equal(rig.wrong, "");
	assert_string_equal(rig.log, "hello del ");
}

/* Whoever is not root is not served, wherever the socket was moved to. */
static void *stranger(void *arg)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		char byte;
		int fd;

		if (setuid(65534) < 0)
			_exit(2);
		fd = seqpacket_connect(rig.path);
		fcntl(fd, F_SETFL, 0);
		send(fd, "\x08\x01", 2, MSG_NOSIGNAL); /* a hello that root's tunnel would get an answer to */
		_exit(fd < 0 ? 3 : recv(fd, &byte, 1, 0) <= 0 ? 0 : 4);
	}
	waitpid(pid, &status, 0);
	snprintf(rig.wrong, sizeof rig.wrong, "%d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	loop_stop(rig.loop);
	return NULL;
}

static void test_not_root(void **state)
{
	pthread_t thread;

	if (geteuid() != 0)
		skip();
	rig.snapshot = "";
	rig_open();
	chmod(rig.path, 0666);
	pthread_create(&thread, NULL, stranger, NULL);
	loop_run(rig.loop);
	pthread_join(thread, NULL);
	rig_close();
	assert_string_equal(rig.wrong, "0");
	assert_string_equal(rig.log, "");
}

static void test_in_use(void **state)
{
	static const struct zds_server_handler h = {describe, hello, complete, live, gone, NULL};
	struct zds_server *second = NULL;
	struct stat st;
	char why[ZDS_WHY_MAX] = "";

	rig_open();
	assert_int_equal(stat(rig.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(zds_server_open(&second, rig.loop, rig.path, &h, why), -EADDRINUSE);
	assert_non_null(strstr(why, rig.path));
	assert_null(second);
	rig_close();
}

/* The longest names still make a packet; longer ones are an error and not a cut packet. */
static void test_sizes(void **state)
{
	char name[254], huge[1024], uid[ZDS_UID_MAX];
	int sockets[ZDS_SOCKETS] = {0}, fds[1 + ZDS_SOCKETS];
	struct zds_workload w = {uid, name, name, name, 0, sockets};
	uint8_t buf[SEQPACKET_BYTES];
	unsigned n_fds;

	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	memset(uid, 'u', sizeof uid - 1);
	uid[sizeof uid - 1] = '\0';
	memset(huge, 'x', sizeof huge - 1);
	huge[sizeof huge - 1] = '\0';
	assert_true(zds_add_encode(buf, &w, fds, &n_fds) > 0);
	assert_int_equal(n_fds, 1 + ZDS_SOCKETS);
	w.name = huge;
	assert_int_equal(zds_add_encode(buf, &w, fds, &n_fds), -EMSGSIZE);
	assert_int_equal(zds_del_encode(buf, huge), -EMSGSIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),   cmocka_unit_test(test_free_busy), cmocka_unit_test(test_not_root),
		cmocka_unit_test(test_in_use), cmocka_unit_test(test_sizes),
	};

	log_set_filter("off");
	rig.nul = open("/dev/null", O_RDONLY | O_CLOEXEC);
	snprintf(rig.path, sizeof rig.path, "/tmp/zds-server-test-%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
