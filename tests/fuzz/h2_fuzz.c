/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes net/h2 in both roles, behind a record. The first byte says the role and how applications behave; the rest is
 * a script that makes the peer send frames, right and wrong, whole or in pieces, and our side open streams, write,
 * resume, drop and leave in between. */
#include "h2_wire.h"

enum op { RAW, FRAME, HEADERS, WRITE, TAKE, DROP, CONNECT, TURN, FIN, LEAVE, ANSWER, OPS };

struct script {
	const uint8_t *p;
	size_t left;
};

static struct end end;
static struct record *peer;
static bool gone;

static uint8_t next(struct script *s)
{
	if (!s->left)
		return 0;
	s->left--;
	return *s->p++;
}

static const uint8_t *next_bytes(struct script *s, size_t *n)
{
	const uint8_t *p = s->p;

	if (*n > s->left)
		*n = s->left;
	s->p += *n;
	s->left -= *n;
	return p;
}

static int discard(void *arg, uint8_t *p, size_t len)
{
	return 0;
}

static void drain(void)
{
	ssize_t n;

	run_turns(1);
	do
		n = record_recv(peer, discard, NULL);
	while (n >= 0);
	gone |= n != -EAGAIN;
}

static void say(const void *p, size_t n)
{
	if (gone || !n || record_write(peer, p, n) < 0)
		return;
	for (int i = 0; i < 3; i++) {
		if (record_flush(peer) == 0)
			return;
		drain();
	}
	gone = true;
}

static void say_frame(struct script *s)
{
	uint8_t buf[9 + 256];
	uint8_t type = next(s) % 12, flags = next(s), id = next(s);
	size_t n = next(s);
	const uint8_t *p = next_bytes(s, &n);

	say(buf, frame_write(buf, (enum wire_type)type, flags, id, p, n));
}

static void say_headers(struct script *s)
{
	uint8_t buf[9 + 512], block[512];
	uint8_t id = next(s), flags = next(s);
	size_t n = end.server ? connect_block(block, flags & 0x80 ? "refuse-503:1" : "10.0.0.1:80")
			      : field(block, ":status", flags & 0x80 ? "503" : "200", 3);

	say(buf, frame_write(buf, F_HEADERS, (flags & 1) | 4, id, block, n));
}

static struct app *some_app(struct script *s)
{
	uint8_t i = next(s);

	return end.n_apps ? end.app[i % end.n_apps] : NULL;
}

static void app_do(enum op op, struct app *a, uint8_t how)
{
	static const uint8_t bytes[65536];

	if (!a || !a->s.h2)
		return;
	if (op == WRITE && send(a->fd[1], bytes, (size_t)how << 8, MSG_NOSIGNAL) < 0)
		return;
	if (op == FIN)
		shutdown(a->fd[1], SHUT_WR);
	if (op == TAKE) {
		a->cap = how & 1 ? SIZE_MAX : a->n_got + how;
		a->fail = how == 0xff ? -ECONNRESET : 0;
		h2_stream_resume(&a->s);
	}
	if (op == DROP)
		app_drop(a, how % 14);
	if (op == ANSWER && end.server && !a->s.answered) {
		if (how & 1)
			h2_stream_refuse(&a->s, 503);
		else if (h2_stream_accepted(&a->s, &rig_baggage, 1) == 0)
			app_start(a);
	}
}

static void step(struct script *s)
{
	enum op op = next(s) % OPS;
	size_t n;

	switch (op) {
	case RAW:
		n = next(s);
		n = n ? n : 4096;
		say(next_bytes(s, &n), n);
		break;
	case FRAME:
		say_frame(s);
		break;
	case HEADERS:
		say_headers(s);
		break;
	case CONNECT:
		if (!end.server && end.n_apps < 16 && h2_open_for_streams(end.h2, 16)) {
			struct app *a = app_new(&end);

			if (h2_stream_connect(end.h2, &a->s, &app_ops, "10.0.0.1:80", &rig_baggage, 1) < 0)
				abort();
		}
		break;
	case TURN:
		drain();
		break;
	case LEAVE:
		h2_shutdown(end.h2, next(s) & 1);
		break;
	default: {
		struct app *a = some_app(s);

		app_do(op, a, next(s));
	}
	}
}

static void check(const struct h2_stream *s)
{
	if (s->held_cap > H2_STREAM_WINDOW || s->in_cap > 4 * H2_TAKE_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct script s = {p, len};
	uint8_t how = next(&s);
	int fd[2];

	if (!rig_loop && rig_setup(NULL))
		abort();
	rig_pair(fd);
	end_init(&end, fd[0], how & 1);
	end.keep_waiting = how & 2;
	peer = rig_record(fd[1], !(how & 1));
	gone = false;
	if (how & 4) {
		if (end.server)
			say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
		say("\0\0\0\4\0\0\0\0\0", 9);
		drain();
	}
	while (s.left && !gone && !end.closed)
		step(&s);
	drain();
	for (unsigned i = 0; i < end.n_apps; i++)
		check(&end.app[i]->s);
	end_free(&end);
	record_free(peer);
	return 0;
}
