/* SPDX-License-Identifier: Apache-2.0 */
/* A peer of net/h2 that writes frames by hand, right or wrong, and takes note of what comes back. It sits behind a
 * record on the other end of a socket pair and needs run_turns() of h2_rig.h to make progress. */
#pragma once
#include "h2_rig.h"

enum { WIRE_IDS = 4096, WIRE_IN_MAX = 1 << 20 };

enum wire_type { F_DATA, F_HEADERS, F_PRIORITY, F_RST, F_SETTINGS, F_PUSH, F_PING, F_GOAWAY, F_WINDOW, F_CONTINUATION };

struct wire {
	struct record *record;
	struct end *peer;
	nghttp2_hd_inflater *inflater;
	uint8_t in[WIRE_IN_MAX];
	size_t n_in;
	bool server, closed, deaf; /* deaf: reads nothing */
	bool no_credit;		   /* gives no window back */
	/* What came. */
	unsigned frames, settings, pings, acks, goaways, resets;
	uint32_t goaway_last, goaway_code;
	struct {
		int status;
		unsigned headers;
		uint64_t data;
		bool ended, reset;
		uint32_t code;
		int64_t window; /* for us to send */
	} s[WIRE_IDS];		/* by stream; 0: the connection's window */
	uint32_t initial;	/* the other side's INITIAL_WINDOW_SIZE */
};

/* --- out ------------------------------------------------------------------------------------------------ */

static inline void wire_recv(struct wire *w);

static inline void wire_raw(struct wire *w, const void *p, size_t len)
{
	const uint8_t *at = p;

	while (len && !w->closed && !w->peer->closed) {
		size_t n = len < 16384 ? len : 16384;
		int e = record_write(w->record, at, n);

		if (e == 0) {
			at += n;
			len -= n;
		}
		e = record_flush(w->record);
		if (e == -EAGAIN) {
			run_turns(1);
			wire_recv(w);
		} else if (e < 0) {
			w->closed = true;
		}
	}
}

static inline size_t frame_write(uint8_t *to, enum wire_type type, uint8_t flags, uint32_t id, const void *p,
				 size_t len)
{
	const uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,	(uint8_t)type, flags,
				 (uint8_t)(id >> 24),  (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};

	memcpy(to, head, 9);
	if (len)
		memcpy(to + 9, p, len);
	return 9 + len;
}

static inline void wire_frame(struct wire *w, enum wire_type type, uint8_t flags, uint32_t id, const void *p,
			      size_t len)
{
	uint8_t *buf = malloc(len + 9);

	wire_raw(w, buf, frame_write(buf, type, flags, id, p, len));
	free(buf);
}

static inline size_t u32(uint8_t *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (24 - 8 * i));
	return 4;
}

static inline void wire_u32(struct wire *w, enum wire_type type, uint32_t id, uint32_t v)
{
	uint8_t b[4];

	wire_frame(w, type, 0, id, b, u32(b, v));
}

/* A literal field without indexing (RFC 7541, 6.2.2). */
static inline size_t field(uint8_t *to, const char *name, const char *value, size_t value_len)
{
	size_t n = strlen(name), at = 0;

	to[at++] = 0;
	to[at++] = (uint8_t)n;
	memcpy(to + at, name, n);
	at += n;
	if (value_len < 127) {
		to[at++] = (uint8_t)value_len;
	} else {
		size_t rest = value_len - 127;

		to[at++] = 127;
		for (; rest >= 128; rest >>= 7)
			to[at++] = (uint8_t)(rest | 128);
		to[at++] = (uint8_t)rest;
	}
	memcpy(to + at, value, value_len);
	return at + value_len;
}

static inline size_t connect_block(uint8_t *to, const char *authority)
{
	size_t n = field(to, ":method", "CONNECT", 7);

	return n + field(to + n, ":authority", authority, strlen(authority));
}

static inline void wire_connect(struct wire *w, uint32_t id, const char *authority)
{
	uint8_t block[8192];

	w->s[id].window = w->initial;
	wire_frame(w, F_HEADERS, 4, id, block, connect_block(block, authority));
}

static inline void wire_status(struct wire *w, uint32_t id, const char *status, bool end)
{
	uint8_t block[64];

	w->s[id].window = w->initial;
	wire_frame(w, F_HEADERS, end ? 5 : 4, id, block, field(block, ":status", status, 3));
}

/* As much of `len` bytes as the windows allow, in frames of at most `step`. */
static inline size_t wire_data(struct wire *w, uint32_t id, size_t len, size_t step)
{
	static const uint8_t bytes[16384];
	size_t sent = 0;

	while (sent < len && !w->closed) {
		int64_t room = w->s[0].window < w->s[id].window ? w->s[0].window : w->s[id].window;
		size_t n = len - sent < step ? len - sent : step;

		n = (int64_t)n > room ? (size_t)(room > 0 ? room : 0) : n;
		if (!n)
			break;
		wire_frame(w, F_DATA, 0, id, bytes, n);
		w->s[0].window -= (int64_t)n;
		w->s[id].window -= (int64_t)n;
		sent += n;
	}
	return sent;
}

/* --- in ------------------------------------------------------------------------------------------------- */

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void wire_headers(struct wire *w, uint32_t id, const uint8_t *p, size_t len)
{
	int flags = 0;

	w->s[id].headers++;
	while (len) {
		nghttp2_nv nv;
		ssize_t n = nghttp2_hd_inflate_hd2(w->inflater, &nv, &flags, p, len, 1);

		assert_true(n >= 0);
		p += n;
		len -= (size_t)n;
		if (flags & NGHTTP2_HD_INFLATE_EMIT && nv.namelen == 7 && !memcmp(nv.name, ":status", 7))
			w->s[id].status = atoi((const char *)nv.value);
		if (flags & NGHTTP2_HD_INFLATE_FINAL)
			break;
	}
	nghttp2_hd_inflate_end_headers(w->inflater);
}

static inline void wire_settings(struct wire *w, uint8_t flags, const uint8_t *p, size_t len)
{
	if (flags & 1)
		return;
	w->settings++;
	for (size_t i = 0; i + 6 <= len; i += 6)
		if (p[i] == 0 && p[i + 1] == 4)
			w->initial = get32(p + i + 2);
	wire_frame(w, F_SETTINGS, 1, 0, NULL, 0);
}

static inline void wire_take(struct wire *w, uint8_t type, uint8_t flags, uint32_t id, const uint8_t *p, size_t len)
{
	w->frames++;
	assert_true(id < WIRE_IDS);
	switch (type) {
	case F_DATA:
		w->s[id].data += len;
		if (len && !w->no_credit) {
			wire_u32(w, F_WINDOW, id, (uint32_t)len);
			wire_u32(w, F_WINDOW, 0, (uint32_t)len);
		}
		break;
	case F_HEADERS:
		wire_headers(w, id, p, len);
		break;
	case F_RST:
		w->resets++;
		w->s[id].reset = true;
		w->s[id].code = get32(p);
		break;
	case F_SETTINGS:
		wire_settings(w, flags, p, len);
		break;
	case F_PING:
		if (flags & 1)
			w->acks++;
		else
			w->pings++;
		break;
	case F_GOAWAY:
		w->goaways++;
		w->goaway_last = get32(p) & 0x7fffffff;
		w->goaway_code = get32(p + 4);
		break;
	case F_WINDOW:
		w->s[id].window += get32(p);
		break;
	}
	if ((type == F_DATA || type == F_HEADERS) && flags & 1)
		w->s[id].ended = true;
}

static inline int wire_bytes(void *arg, uint8_t *p, size_t len)
{
	struct wire *w = arg;

	assert_true(w->n_in + len <= sizeof w->in);
	if (len)
		memcpy(w->in + w->n_in, p, len);
	w->n_in += len;
	return 0;
}

static inline bool wire_next(struct wire *w)
{
	size_t skip = w->server && !w->frames && !w->settings ? 24 : 0, len; /* the client's preface */
	static uint8_t frame[WIRE_IN_MAX];
	uint8_t *p = w->in + skip;

	if (w->n_in < skip + 9)
		return false;
	len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
	if (w->n_in < skip + 9 + len)
		return false;
	memcpy(frame, p, 9 + len);
	w->n_in -= skip + 9 + len;
	memmove(w->in, p + 9 + len, w->n_in);
	wire_take(w, frame[3], frame[4], get32(frame + 5) & 0x7fffffff, frame + 9, len);
	return true;
}

/* Takes what has arrived. */
static inline void wire_recv(struct wire *w)
{
	while (!w->closed && !w->deaf) {
		ssize_t n = record_recv(w->record, wire_bytes, w);

		while (wire_next(w))
			;
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			w->closed = true;
			shutdown(record_fd(w->record), SHUT_WR);
		}
	}
}

static inline void wire_step(struct wire *w)
{
	run_turns(1);
	wire_recv(w);
}

/* Lets both sides talk until nothing happens any more. */
static inline void wire_settle(struct wire *w)
{
	for (unsigned quiet = 0; quiet < 4;) {
		unsigned before = w->frames;

		wire_step(w);
		quiet = w->frames == before ? quiet + 1 : 0;
	}
}

/* --- life ----------------------------------------------------------------------------------------------- */

static inline void wire_setting(struct wire *w, uint16_t name, uint32_t value)
{
	uint8_t b[6] = {(uint8_t)(name >> 8), (uint8_t)name};

	u32(b + 2, value);
	wire_frame(w, F_SETTINGS, 0, 0, b, 6);
}

/* `e` is the other end; `server`: the role of the wire. Nothing has been said yet. */
static inline void wire_open(struct wire *w, struct end *e, bool server)
{
	int fd[2];

	memset(w, 0, sizeof *w);
	w->server = server;
	w->peer = e;
	w->initial = 65535;
	w->s[0].window = 65535;
	rig_pair(fd);
	end_init(e, fd[0], !server);
	w->record = rig_record(fd[1], server);
	assert_int_equal(nghttp2_hd_inflate_new(&w->inflater), 0);
}

static inline void wire_hello(struct wire *w)
{
	if (!w->server)
		wire_raw(w, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
	wire_frame(w, F_SETTINGS, 0, 0, NULL, 0);
	wire_settle(w);
	assert_int_equal(w->settings, 1);
}

static inline void wire_close(struct wire *w, struct end *e)
{
	end_free(e);
	nghttp2_hd_inflate_del(w->inflater);
	record_free(w->record);
}
