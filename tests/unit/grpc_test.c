/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the gRPC client: how messages are cut, and calls against a server that answers in every way. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/ca_root.h"
#include "fake/grpc_server.h"
#include "net/grpc.h"

/* --- frames --------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	const char *bytes;
	size_t len, max;
	int err;
	unsigned messages;
	size_t total; /* bytes of all messages */
} frames[] = {
	{"empty input", "", 0, 100, 0, 0, 0},
	{"empty message", "\0\0\0\0\0", 5, 100, 0, 1, 0},
	{"one message", "\0\0\0\0\3abc", 8, 100, 0, 1, 3},
	{"two messages", "\0\0\0\0\3abc\0\0\0\0\1d", 14, 100, 0, 2, 4},
	{"half a prefix", "\0\0\0", 3, 100, 0, 0, 0},
	{"half a message", "\0\0\0\0\3a", 6, 100, 0, 0, 0},
	{"at the limit", "\0\0\0\0\3abc", 8, 3, 0, 1, 3},
	{"over the limit", "\0\0\0\0\4abcd", 9, 3, -EMSGSIZE, 0, 0},
	{"4 GiB promised", "\0\377\377\377\377x", 6, 1 << 20, -EMSGSIZE, 0, 0},
	{"compressed", "\1\0\0\0\3abc", 8, 100, -EPROTO, 0, 0},
	{"good, then compressed", "\0\0\0\0\1a\1\0\0\0\0", 11, 100, -EPROTO, 1, 1},
};

struct tally {
	unsigned messages;
	size_t total;
};

static int count_message(void *arg, const uint8_t *msg, size_t len)
{
	struct tally *t = arg;

	t->messages++;
	t->total += len;
	return 0;
}

static void test_frames(void **state)
{
	for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
		for (size_t step = 1; step <= 16; step += 5) { /* however the bytes are cut */
			struct grpc_frames f = {.max = frames[i].max};
			struct tally t = {0};
			int err = 0;

			for (size_t at = 0; at < frames[i].len && !err; at += step)
				err = grpc_frames_feed(&f, (const uint8_t *)frames[i].bytes + at,
						       frames[i].len - at < step ? frames[i].len - at : step,
						       count_message, &t);
			grpc_frames_free(&f);
			if (err != frames[i].err || t.messages != frames[i].messages || t.total != frames[i].total)
				fail_msg("%s, by %zu: %d, %u messages, %zu bytes", frames[i].name, step, err,
					 t.messages, t.total);
		}
}

/* --- calls ---------------------------------------------------------------------------------------------- */

enum { WAIT_MS = 8000 };

static struct server_reply plan[8]; /* of the server, in order; then the last one again */
static unsigned planned, served;

static void serve(void *arg, const struct server_request *rq, struct server_reply *out)
{
	unsigned i = __atomic_fetch_add(&served, 1, __ATOMIC_RELAXED);

	*out = plan[i < planned ? i : planned - 1];
	if (out->body)
		out->body = (uint8_t *)strdup((const char *)out->body);
	else if (!strcmp(rq->path, "/echo") && rq->len >= GRPC_PREFIX) {
		out->len = rq->len - GRPC_PREFIX;
		out->body = malloc(out->len + 1);
		memcpy(out->body, rq->body + GRPC_PREFIX, out->len);
	} else if (!strcmp(rq->path, "/header")) {
		out->body = (uint8_t *)strdup(server_header(rq, "x-test") ? server_header(rq, "x-test") : "none");
		out->len = strlen((char *)out->body);
	}
}

struct one {
	struct loop *loop;
	struct timer late;
	unsigned left, messages, closes;
	enum grpc_status status;
	size_t bytes;
	char why[GRPC_WHY_MAX], text[64];
};

static void one_message(void *arg, const uint8_t *msg, size_t len)
{
	struct one *o = arg;

	o->messages++;
	o->bytes += len;
	snprintf(o->text, sizeof o->text, "%.*s", (int)(len < 60 ? len : 60), (const char *)msg);
}

static void one_closed(void *arg, enum grpc_status status, const char *why)
{
	struct one *o = arg;

	o->closes++;
	o->status = status;
	snprintf(o->why, sizeof o->why, "%s", why);
	if (--o->left == 0)
		loop_stop(o->loop);
}

static void one_late(struct timer *t)
{
	struct one *o = container_of(t, struct one, late);

	snprintf(o->why, sizeof o->why, "the test waited too long");
	loop_stop(o->loop);
}

static const struct grpc_call_events events = {.message = one_message, .closed = one_closed};

/* `n` calls at once on one channel of their own. */
static void call(struct one *o, const struct grpc_options *to, const char *path, unsigned n, const void *msg,
		 size_t len, unsigned deadline_ms)
{
	char why[GRPC_WHY_MAX] = "";
	static const struct grpc_header h[] = {{"x-test", "seen"}};
	struct grpc_channel *c;

	memset(o, 0, sizeof *o);
	o->loop = loop_new();
	o->left = n;
	c = grpc_channel_new(o->loop, to, why);
	assert_string_equal(why, "");
	for (unsigned i = 0; i < n; i++) {
		struct grpc_call *k =
			grpc_call_new(c,
				      &(struct grpc_call_options){
					      .path = path, .headers = h, .n_headers = 1, .deadline_ms = deadline_ms},
				      &events, o);
		assert_non_null(k);
		assert_int_equal(grpc_call_send(k, msg, len, true), 0);
	}
	timer_set(o->loop, &o->late, WAIT_MS, one_late);
	loop_run(o->loop);
	timer_cancel(&o->late);
	grpc_channel_free(c);
	loop_free(o->loop);
}

static const struct {
	const char *name;
	struct server_reply reply;
	enum grpc_status status;
	const char *why; /* part of it */
	unsigned messages;
} answers[] = {
	{"an answer", {.body = (uint8_t *)"hello", .len = 5}, GRPC_OK, "", 1},
	{"a status", {.status = 16, .message = "bad%20token"}, GRPC_UNAUTHENTICATED, "bad token", 0},
	{"control characters in a status", {.status = 3, .message = "a%0Ab"}, GRPC_INVALID_ARGUMENT, "a b", 0},
	{"a status out of range", {.status = 99}, GRPC_UNKNOWN, "", 0},
	{"no answer", {.hang = true}, GRPC_DEADLINE_EXCEEDED, "in time", 0},
	{"refused stream", {.reset = true}, GRPC_UNAVAILABLE, "REFUSED_STREAM", 0},
	{"dropped connection", {.drop = true}, GRPC_UNAVAILABLE, "127.0.0.1:", 0},
	{"not gRPC: 503", {.http_status = 503}, GRPC_UNAVAILABLE, "HTTP status 503", 0},
	{"not gRPC: 404", {.http_status = 404}, GRPC_UNIMPLEMENTED, "HTTP status 404", 0},
	{"answer and GOAWAY", {.body = (uint8_t *)"x", .len = 1, .goaway = true}, GRPC_OK, "", 1},
};

static void plan_one(const struct server_reply *r)
{
	plan[0] = *r;
	planned = 1;
	served = 0;
}

static void test_answers(void **state)
{
	struct server *s = server_start(&(struct server_options){.host = "127.0.0.1", .serve = serve});
	char address[64];

	snprintf(address, sizeof address, "http://127.0.0.1:%u", s->port);
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
		struct one o;

		plan_one(&answers[i].reply);
		call(&o, &(struct grpc_options){.address = address}, "/test", 1, "q", 1, 400);
		if (o.closes != 1 || o.status != answers[i].status || o.messages != answers[i].messages ||
		    !strstr(o.why, answers[i].why))
			fail_msg("%s: %u closes, %s, %u messages, %s", answers[i].name, o.closes,
				 grpc_status_name(o.status), o.messages, o.why);
	}
	server_stop(s);
}

static void test_many_and_large(void **state)
{
	struct server *s = server_start(&(struct server_options){.host = "::1", .serve = serve});
	size_t len = 300000;
	char address[64], *big = malloc(len);
	struct one o;

	memset(big, 'x', len);
	plan_one(&(struct server_reply){0});
	snprintf(address, sizeof address, "http://[::1]:%u", s->port);
	call(&o, &(struct grpc_options){.address = address}, "/echo", 50, big, len, 0);
	assert_int_equal(o.closes, 50);
	assert_int_equal(o.messages, 50);
	assert_int_equal(o.bytes, 50 * len);
	call(&o, &(struct grpc_options){.address = address}, "/header", 1, "", 0, 0);
	assert_string_equal(o.text, "seen");
	server_stop(s);
	free(big);
}

/* --- TLS ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *name, *host, *alt; /* host: of the address */
	int root;		       /* 0: the server's, 1: another one, 2: garbage, 3: a file that has it */
	enum grpc_status status;
	const char *why;
} servers[] = {
	{"by address", "127.0.0.1", NULL, 0, GRPC_OK, ""},
	{"root from a file", "127.0.0.1", NULL, 3, GRPC_OK, ""},
	{"by name", "localhost", NULL, 0, GRPC_UNAVAILABLE, "not for localhost"},
	{"by another name that it proves", "localhost", "istiod.test", 0, GRPC_OK, ""},
	{"by address or another name", "127.0.0.1", "nobody.test", 0, GRPC_OK, ""},
	{"neither", "localhost", "nobody.test", 0, GRPC_UNAVAILABLE, "not for localhost"},
	{"another CA", "127.0.0.1", NULL, 1, GRPC_UNAVAILABLE, "certificate"},
	{"no roots", "127.0.0.1", NULL, 2, GRPC_UNAVAILABLE, "no usable root"},
};

static void test_tls(void **state)
{
	static const char *const names[] = {"127.0.0.1", "istiod.test"};
	char why[CA_WHY_MAX], address[64], file[] = "/tmp/culvert-root-XXXXXX";
	struct ca_root *root = ca_root_new(NULL, NULL, why), *other = ca_root_new(NULL, NULL, why);
	struct ca_cert own;
	struct server *s;

	assert_int_equal(ca_root_server(root, names, 2, &own), 0);
	close(mkstemp(file));
	assert_int_equal(ca_root_save(root, file, "/dev/null"), 0);
	s = server_start(&(struct server_options){
		.host = "127.0.0.1", .serve = serve, .key_pem = own.key, .chain_pem = own.chain});
	plan_one(&(struct server_reply){0});
	for (size_t i = 0; i < sizeof servers / sizeof *servers; i++) {
		const char *roots[] = {ca_root_pem(root), ca_root_pem(other), "garbage", file};
		struct one o;

		snprintf(address, sizeof address, "https://%s:%u", servers[i].host, s->port);
		call(&o,
		     &(struct grpc_options){
			     .address = address, .root = roots[servers[i].root], .alt_host = servers[i].alt},
		     "/echo", 1, "abc", 3, 4000);
		if (o.closes != 1 || o.status != servers[i].status || !strstr(o.why, servers[i].why))
			fail_msg("%s: %u closes, %s, %s", servers[i].name, o.closes, grpc_status_name(o.status), o.why);
	}
	server_stop(s);
	unlink(file);
	ca_cert_clear(&own);
	ca_root_free(root);
	ca_root_free(other);
}

static void test_nobody_there(void **state)
{
	struct server *s = server_start(&(struct server_options){.host = "127.0.0.1", .mute = true});
	char address[64];
	struct one o;

	snprintf(address, sizeof address, "https://127.0.0.1:%u", s->port);
	call(&o, &(struct grpc_options){.address = address, .root = "SYSTEM"}, "/echo", 1, "abc", 3, 300);
	assert_int_equal(o.status, GRPC_DEADLINE_EXCEEDED);
	call(&o, &(struct grpc_options){.address = address, .root = "SYSTEM"}, "/echo", 1, "abc", 3, 0);
	assert_int_equal(o.status, GRPC_UNAVAILABLE);
	assert_non_null(strstr(o.why, "no TLS handshake in time"));
	server_stop(s);
	call(&o, &(struct grpc_options){.address = address}, "/echo", 1, "abc", 3, 0);
	assert_int_equal(o.status, GRPC_UNAVAILABLE);
	assert_non_null(strstr(o.why, "refused"));
	call(&o, &(struct grpc_options){.address = "http://nobody.invalid:1"}, "/echo", 1, "abc", 3, 0);
	assert_int_equal(o.status, GRPC_UNAVAILABLE);
	assert_non_null(strstr(o.why, "nobody.invalid"));
}

static const struct {
	const char *address;
	bool good;
} addresses[] = {
	{"https://istiod.istio-system.svc:15012", true},
	{"http://127.0.0.1:1", true},
	{"https://[::1]:15012", true},
	{"https://[::1]", true},
	{"https://host", true},
	{"https://host:15012/path", true},
	{"host:15012", false},
	{"ftp://host:1", false},
	{"https://", false},
	{"https://:15012", false},
	{"https://host:", false},
	{"https://host:0", false},
	{"https://host:65536", false},
	{"https://host:+1", false},
	{"https://host:15012x", false},
	{"https://u@host:1", false},
	{"https://[::1:15012", false},
	{"https://[::1]x:15012", false},
};

static void test_addresses(void **state)
{
	struct loop *l = loop_new();

	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		char why[GRPC_WHY_MAX] = "";
		struct grpc_channel *c =
			grpc_channel_new(l, &(struct grpc_options){.address = addresses[i].address}, why);

		if (addresses[i].good != !!c || addresses[i].good == !!why[0])
			fail_msg("%s: %s", addresses[i].address, c ? "taken" : why);
		grpc_channel_free(c);
	}
	loop_free(l);
}

/* --- one channel over time: cancel inside an event, GOAWAY, a connection that was lost ------------------ */

static struct {
	struct grpc_channel *c;
	struct grpc_call *call;
	struct one *o;
	unsigned round;
} again;

static void again_closed(void *arg, enum grpc_status status, const char *why);
static void again_message(void *arg, const uint8_t *msg, size_t len)
{
	again.o->messages++;
	if (again.round == 3) { /* no `closed` follows */
		grpc_call_cancel(again.call);
		loop_stop(again.o->loop);
	}
}

static void again_start(void)
{
	static const struct grpc_call_events ev = {.message = again_message, .closed = again_closed};

	again.call =
		grpc_call_new(again.c, &(struct grpc_call_options){.path = "/echo", .deadline_ms = 2000}, &ev, NULL);
	assert_non_null(again.call);
	grpc_call_send(again.call, "abc", 3, true);
}

static void again_closed(void *arg, enum grpc_status status, const char *why)
{
	static const enum grpc_status due[] = {GRPC_OK, GRPC_UNAVAILABLE, GRPC_OK};

	if (status != due[again.round])
		fail_msg("round %u: %s, %s", again.round, grpc_status_name(status), why);
	again.round++;
	again_start();
}

static void test_channel_recovers(void **state)
{
	struct server *s = server_start(&(struct server_options){.host = "127.0.0.1", .serve = serve});
	struct one o = {.loop = loop_new()};
	char address[64], why[GRPC_WHY_MAX];

	snprintf(address, sizeof address, "http://127.0.0.1:%u", s->port);
	memset(plan, 0, sizeof plan);
	plan[0].goaway = true;
	plan[1].drop = true;
	planned = 3;
	served = 0;
	again.o = &o;
	again.round = 0;
	again.c = grpc_channel_new(o.loop, &(struct grpc_options){.address = address}, why);
	again_start();
	timer_set(o.loop, &o.late, WAIT_MS, one_late);
	loop_run(o.loop);
	assert_int_equal(again.round, 3);
	assert_int_equal(o.messages, 3);
	grpc_channel_free(again.c);
	loop_free(o.loop);
	server_stop(s);
}

/* Calls that are open when the channel goes leave nothing behind. */
static void test_free_open(void **state)
{
	struct server *s = server_start(&(struct server_options){.host = "127.0.0.1", .serve = serve});
	struct one o = {.loop = loop_new(), .left = 1};
	char address[64], why[GRPC_WHY_MAX];
	struct grpc_channel *c;

	snprintf(address, sizeof address, "http://127.0.0.1:%u", s->port);
	plan_one(&(struct server_reply){.hang = true});
	c = grpc_channel_new(o.loop, &(struct grpc_options){.address = address}, why);
	for (unsigned i = 0; i < 3; i++)
		grpc_call_send(grpc_call_new(c, &(struct grpc_call_options){.path = "/x"}, &events, &o), "a", 1, true);
	timer_set(o.loop, &o.late, 100, one_late);
	loop_run(o.loop);
	grpc_call_new(c, &(struct grpc_call_options){.path = "/x"}, &events, &o);
	grpc_channel_free(c);
	loop_free(o.loop);
	assert_int_equal(o.closes, 0);
	server_stop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_many_and_large),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_nobody_there),
		cmocka_unit_test(test_channel_recovers),
		cmocka_unit_test(test_free_open),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("grpc", tests, NULL, NULL);
}
