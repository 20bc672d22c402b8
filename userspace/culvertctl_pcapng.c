/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the form of pcapng, and the packets that nobody ever sent: a handshake where a connection begins, segments of data
 * whose numbers are the connection's own counts, a FIN from both or a RST where it ends. */
#include "culvertctl_pcapng.h"

#include <errno.h>
#include <string.h>

#include "base/addr.h"
#include "base/version.h"
#include "culvertctl.h"

enum {
	BLOCK_SECTION = 0x0a0d0d0a,
	BLOCK_INTERFACE = 1,
	BLOCK_PACKET = 6,
	ORDER_MARK = 0x1a2b3c4d,
	LINK_RAW = 101, /* a packet begins with its IP header */
	OPT_COMMENT = 1,
	OPT_IF_NAME = 2,
	OPT_APPLICATION = 4,
	OPTION_MAX = 1024,
	SNAP = 1 << 18,
	FIN = 1,
	SYN = 2,
	RST = 4,
	PSH = 8,
	ACK = 16,
	TCP_BYTES = 20,
	IP_BYTES_MAX = 40,
	SEGMENT_MAX = 32768,
};

/* --- blocks --------------------------------------------------------------------------------------------- */

struct option {
	uint16_t code;
	const char *text;
};

static const uint8_t none[1]; /* data of no length */

static size_t padded(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

static void put(FILE *f, const void *p, size_t n)
{
	static const uint8_t zeros[4];

	fwrite(p, 1, n, f);
	fwrite(zeros, 1, padded(n) - n, f);
}

/* A block of fixed fields, perhaps packet data in two parts, and one option. */
static int block(FILE *f, uint32_t type, const void *fixed, size_t fixed_len, const uint8_t *head, size_t head_len,
		 const uint8_t *data, size_t data_len, const struct option *o)
{
	uint16_t option[2] = {o->code, (uint16_t)strnlen(o->text, OPTION_MAX)};
	static const uint16_t end[2];
	size_t packet = head_len + data_len;
	uint32_t total = (uint32_t)(12 + fixed_len + padded(packet) + 4 + padded(option[1]) + 4);

	fwrite(&type, 4, 1, f);
	fwrite(&total, 4, 1, f);
	fwrite(fixed, 1, fixed_len, f);
	fwrite(head, 1, head_len, f); /* whole words: see headers() */
	put(f, data, data_len);
	fwrite(option, 4, 1, f);
	put(f, o->text, option[1]);
	fwrite(end, 4, 1, f);
	fwrite(&total, 4, 1, f);
	return ferror(f) ? -EIO : 0;
}

int pcapng_begin(FILE *f, const char *pod)
{
	const struct {
		uint32_t order;
		uint16_t major, minor;
		int32_t length[2]; /* not given */
	} section = {ORDER_MARK, 1, 0, {-1, -1}};
	const struct {
		uint16_t link, reserved;
		uint32_t snap;
	} interface = {LINK_RAW, 0, SNAP};
	int e = block(f, BLOCK_SECTION, &section, sizeof section, none, 0, none, 0,
		      &(struct option){OPT_APPLICATION, "culvertctl " CULVERT_VERSION});

	return e ? e
		 : block(f, BLOCK_INTERFACE, &interface, sizeof interface, none, 0, none, 0,
			 &(struct option){OPT_IF_NAME, pod});
}

/* --- headers -------------------------------------------------------------------------------------------- */

struct segment {
	struct endpoint from, to;
	uint32_t seq, ack;
	uint8_t flags;
	const uint8_t *data;
	size_t len;
};

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* RFC 1071; the sum before it is inverted. All but the last piece must be of even length. */
static uint32_t sum(uint32_t s, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

static size_t ip_header(uint8_t *p, const struct segment *s)
{
	size_t payload = TCP_BYTES + s->len;

	if (addr_is4(&s->from.ip) && addr_is4(&s->to.ip)) {
		memset(p, 0, 20);
		p[0] = 0x45;
		put16(p + 2, (uint32_t)(20 + payload));
		p[8] = 64;
		p[9] = IPPROTO_TCP;
		memcpy(p + 12, s->from.ip.b + 12, 4);
		memcpy(p + 16, s->to.ip.b + 12, 4);
		put16(p + 10, ~sum(0, p, 20));
		return 20;
	}
	memset(p, 0, 40);
	p[0] = 0x60;
	put16(p + 4, (uint32_t)payload);
	p[6] = IPPROTO_TCP;
	p[7] = 64;
	memcpy(p + 8, s->from.ip.b, 16);
	memcpy(p + 24, s->to.ip.b, 16);
	return 40;
}

/* IP and TCP, whole words long. */
static size_t headers(uint8_t p[IP_BYTES_MAX + TCP_BYTES], const struct segment *s)
{
	size_t ip = ip_header(p, s), addrs = ip == 20 ? 8 : 32;
	uint8_t *t = p + ip;
	uint32_t check;

	memset(t, 0, TCP_BYTES);
	put16(t, s->from.port);
	put16(t + 2, s->to.port);
	put32(t + 4, s->seq);
	put32(t + 8, s->flags & ACK ? s->ack : 0);
	t[12] = (TCP_BYTES / 4) << 4;
	t[13] = s->flags;
	put16(t + 14, 65535);
	check = sum((uint32_t)(IPPROTO_TCP + TCP_BYTES + s->len), p + ip - addrs, addrs);
	check = sum(sum(check, t, TCP_BYTES), s->data, s->len);
	put16(t + 16, ~check);
	return ip + TCP_BYTES;
}

static int packet(FILE *f, const struct segment *s, uint64_t time_us, const char *comment)
{
	uint8_t head[IP_BYTES_MAX + TCP_BYTES];
	size_t head_len = headers(head, s);
	const uint32_t len = (uint32_t)(head_len + s->len);
	const uint32_t fixed[5] = {0, (uint32_t)(time_us >> 32), (uint32_t)time_us, len, len};

	return block(f, BLOCK_PACKET, fixed, sizeof fixed, head, head_len, s->data, s->len,
		     &(struct option){OPT_COMMENT, comment});
}

/* --- events --------------------------------------------------------------------------------------------- */

static void comment_of(json_t *e, char *buf, size_t len)
{
	json_t *c = json_object_get(e, "client"), *s = json_object_get(e, "server");
	const char *service = text_of(s, "service"), *error = text_of(e, "error");

	snprintf(buf, len, "client %s (%s); server %s (%s)%s%s; %s, %s of the pod; connection %lld%s%s",
		 *text_of(c, "identity") ? text_of(c, "identity") : "without identity", text_of(c, "workload"),
		 *text_of(s, "identity") ? text_of(s, "identity") : "without identity", text_of(s, "workload"),
		 *service ? ", service " : "", service, text_of(e, "protocol"), text_of(e, "direction"),
		 number_of(e, "connection"), *error ? "; ended: " : "", error);
}

struct ends {
	struct endpoint client, server;
	uint32_t received, sent; /* the next numbers of the client and of the server */
};

static struct segment segment(const struct ends *x, bool by_client, uint8_t flags)
{
	return (struct segment){.from = by_client ? x->client : x->server,
				.to = by_client ? x->server : x->client,
				.seq = by_client ? x->received : x->sent,
				.ack = by_client ? x->sent : x->received,
				.flags = flags,
				.data = none};
}

static int opened(FILE *f, const struct ends *x, uint64_t at, const char *comment)
{
	struct segment syn = segment(x, true, SYN), answer = segment(x, false, SYN | ACK), ack = segment(x, true, ACK);
	int e;

	syn.seq--;
	answer.seq--;
	e = packet(f, &syn, at, comment);
	if (!e)
		e = packet(f, &answer, at, comment);
	return e ? e : packet(f, &ack, at, comment);
}

static int closed(FILE *f, struct ends *x, uint64_t at, bool failed, const char *comment)
{
	struct segment first = segment(x, true, failed ? RST | ACK : FIN | ACK), second;
	int e = packet(f, &first, at, comment);

	if (e || failed)
		return e;
	x->received++;
	second = segment(x, false, FIN | ACK);
	return packet(f, &second, at, comment);
}

static int carried(FILE *f, const struct ends *x, bool by_client, uint64_t at, const uint8_t *data, size_t len,
		   const char *comment)
{
	struct segment s = segment(x, by_client, PSH | ACK);
	int e = 0;

	for (s.data = data; len && !e; len -= s.len, s.data += s.len, s.seq += (uint32_t)s.len) {
		s.len = len < SEGMENT_MAX ? len : SEGMENT_MAX;
		e = packet(f, &s, at, comment);
	}
	return e;
}

int pcapng_event(FILE *f, json_t *event, const uint8_t *data, size_t len)
{
	const char *kind = text_of(event, "event");
	uint64_t at = (uint64_t)number_of(event, "time");
	char comment[OPTION_MAX];
	struct ends x = {.received = (uint32_t)number_of(event, "received") + 1,
			 .sent = (uint32_t)number_of(event, "sent") + 1};

	if (endpoint_parse(&x.client, text_of(json_object_get(event, "client"), "address")) < 0 ||
	    endpoint_parse(&x.server, text_of(json_object_get(event, "server"), "address")) < 0)
		return 0;
	comment_of(event, comment, sizeof comment);
	if (!strcmp(kind, "opened"))
		return opened(f, &x, at, comment);
	if (!strcmp(kind, "data"))
		return carried(f, &x, !strcmp(text_of(event, "to"), "server"), at, data, len, comment);
	if (!strcmp(kind, "closed"))
		return closed(f, &x, at, json_object_get(event, "error") != NULL, comment);
	return 0;
}
