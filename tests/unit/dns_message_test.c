/* SPDX-License-Identifier: Apache-2.0 */
/* DNS messages: how queries are read, what is answered, what a resolver's answer is worth, and how long it is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "data/dns_cache.h"
#include "data/dns_conf.h"
#include "data/dns_message.h"

#define COUNT(a)  (sizeof(a) / sizeof *(a))
#define BYTES(s)  s, sizeof(s) - 1
#define HEAD	  "\x12\x34\1\0\0\1\0\0\0\0\0\0" /* RD, one question */
#define TSIG	  "\0\0\372\0\377\0\0\0\0\0\0"
#define HEAD_OPT  "\x12\x34\1\0\0\1\0\0\0\0\0\1"
#define WEB	  "\3wEb\4Test\0"
#define A	  "\0\1\0\1"
#define AAAA	  "\0\34\0\1"
#define OPT(size) "\0\0\51" size "\0\0\0\0\0\0"
#define L63	  "\77aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define POINTER	  "\xc0\14"

/* Bytes of a test are at the end of their memory, so that reading on is found. */
static uint8_t *copy(const void *p, size_t len)
{
	uint8_t *m = malloc(len ? len : 1);

	memcpy(m, p, len);
	return m;
}

/* --- queries -------------------------------------------------------------------------------------------- */

enum { SILENT = -1, READ = 0 }; /* else the rcode */
static const struct {
	const char *name, *msg;
	size_t len;
	int want;
	const char *text; /* NULL: not a host's name */
	bool edns, plain;
	unsigned udp_size;
} queries[] = {
	{"A", BYTES(HEAD WEB A), READ, "web.test", false, true, 512},
	{"AAAA", BYTES(HEAD WEB AAAA), READ, "web.test", false, true, 512},
	{"EDNS", BYTES(HEAD_OPT WEB A OPT("\20\0")), READ, "web.test", true, true, 4096},
	{"EDNS of less than all take", BYTES(HEAD_OPT WEB A OPT("\0\20")), READ, "web.test", true, true, 512},
	{"EDNS of size 0", BYTES(HEAD_OPT WEB A OPT("\0\0")), READ, "web.test", true, true, 512},
	{"EDNS with an option", BYTES(HEAD_OPT WEB A "\0\0\51\20\0\0\0\0\0\0\14\0\12\0\10abcdefgh"), READ, "web.test",
	 true, false, 4096},
	{"a record that is not EDNS", BYTES(HEAD_OPT WEB A POINTER A "\0\0\0\0\0\4\1\2\3\4"), READ, "web.test", false,
	 false, 512},
	{"a signature", BYTES(HEAD_OPT WEB A TSIG), READ, "web.test", false, false, 512},
	{"two signatures", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\2" WEB A TSIG TSIG), DNS_FORMERR},
	{"two signatures, then a cut", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\3" WEB A TSIG TSIG "\3ww"), DNS_FORMERR},
	{"two signatures behind an address shorter than it says",
	 BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\3" WEB A POINTER A "\0\0\0\0\0\5\1\2\3\4" TSIG TSIG), DNS_FORMERR},
	{"the root", BYTES(HEAD "\0" A), READ, NULL, false, true, 512},
	{"a label with a dot", BYTES(HEAD "\3a.b\0" A), READ, NULL, false, true, 512},
	{"a label with a zero", BYTES(HEAD "\3a\0b\0" A), READ, NULL, false, true, 512},
	{"a label that is not ASCII", BYTES(HEAD "\2\xc3\xa4\0" A), READ, NULL, false, true, 512},
	{"a wildcard", BYTES(HEAD "\1*\1a\0" A), READ, "*.a", false, true, 512},
	{"a service record's name", BYTES(HEAD "\5_http\4_tcp\1a\0\0\41\0\1"), READ, "_http._tcp.a", false, true, 512},
	{"another class", BYTES(HEAD WEB "\0\1\0\3"), READ, NULL, false, true, 512},
	{"a long name", BYTES(HEAD L63 L63 L63 "\0" A), READ, "", false, true, 512},
	{"a response", BYTES("\x12\x34\x81\0\0\1\0\0\0\0\0\0" WEB A), SILENT},
	{"shorter than a header", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0"), SILENT},
	{"nothing", BYTES(""), SILENT},
	{"another opcode", BYTES("\x12\x34\x28\0\0\1\0\0\0\0\0\0" WEB A), DNS_NOTIMP},
	{"no question", BYTES("\x12\x34\1\0\0\0\0\0\0\0\0\0"), DNS_SERVFAIL},
	{"two questions", BYTES("\x12\x34\1\0\0\2\0\0\0\0\0\0" WEB A WEB A), DNS_SERVFAIL},
	{"a question that is cut", BYTES(HEAD WEB "\0\1"), DNS_FORMERR},
	{"a label that is cut", BYTES(HEAD "\7web"), DNS_FORMERR},
	{"a name that is too long", BYTES(HEAD L63 L63 L63 L63 "\0" A), DNS_FORMERR},
	{"a pointer to itself", BYTES(HEAD POINTER A), DNS_FORMERR},
	{"a pointer beyond the end", BYTES(HEAD "\xc0\x7f" A), DNS_FORMERR},
	{"fewer records than it says", BYTES(HEAD_OPT WEB A), DNS_FORMERR},
};

static void test_queries(void **state)
{
	for (size_t i = 0; i < COUNT(queries); i++) {
		uint8_t *msg = copy(queries[i].msg, queries[i].len), out[DNS_UDP_MIN];
		enum dns_rcode rcode = DNS_NOERROR;
		struct dns_question q;
		enum dns_read r = dns_question_read(&q, msg, queries[i].len, &rcode);
		int got = r == DNS_READ_SILENT ? SILENT : r == DNS_READ_WRONG ? (int)rcode : READ;
		const char *text = queries[i].text;

		if (got != queries[i].want)
			fail_msg("%s: %d", queries[i].name, got);
		if (got == READ &&
		    (q.spoken != !!text || (text && *text && strcmp(q.text, text)) || q.edns != queries[i].edns ||
		     q.plain != queries[i].plain || q.udp_size != queries[i].udp_size || q.id != 0x1234 || !q.rd))
			fail_msg("%s: \"%s\" spoken %d edns %d plain %d size %u", queries[i].name, q.text, q.spoken,
				 q.edns, q.plain, q.udp_size);
		if (got > 0) {
			size_t n = dns_error_write(msg, queries[i].len, &q, rcode, out);

			if (n < DNS_HEADER || memcmp(out, "\x12\x34", 2) || dns_reply_rcode(out) != rcode ||
			    !(out[DNS_FLAGS] & DNS_QR) || n != DNS_HEADER + (q.wire_len ? q.wire_len + 4u : 0))
				fail_msg("%s: an error of %zu bytes", queries[i].name, n);
		}
		free(msg);
	}
}

/* What is read of messages is bounded by their length before ldns sees them: a text record of nothing but empty strings. */
static void test_long_messages(void **state)
{
	static const struct {
		const char *name;
		size_t query, reply;
		enum dns_read read;
		unsigned ttl;
	} rows[] = {
		{"the longest", DNS_QUERY_MAX, DNS_REPLY_READ_MAX, DNS_READ_QUERY, 44},
		{"longer", DNS_QUERY_MAX + 1, DNS_REPLY_READ_MAX + 1, DNS_READ_WRONG, 0},
		{"as long as can be", DNS_MESSAGE_MAX, DNS_MESSAGE_MAX, DNS_READ_WRONG, 0},
	};
	static const char query[] = HEAD_OPT WEB A, reply[] = "\x12\x34\x81\x80\0\1\0\1\0\0\0\0" WEB A;
	static const char record[] = POINTER "\0\20\0\1\0\0\0\54"; /* TXT, 44 s */

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct dns_question q;
		struct dns_reply r = {0};
		enum dns_rcode rcode;
		size_t n = sizeof query - 1, rest = rows[i].query - n - sizeof record - 1;
		uint8_t *m = calloc(1, DNS_MESSAGE_MAX);

		memcpy(m, query, n);
		memcpy(m + n, record, sizeof record - 1);
		dns_put16(m + n + sizeof record - 1, (unsigned)rest);
		if (dns_question_read(&q, m, rows[i].query, &rcode) != rows[i].read ||
		    rcode != (rows[i].read == DNS_READ_WRONG ? DNS_FORMERR : DNS_NOERROR))
			fail_msg("%s: a query of %zu bytes", rows[i].name, rows[i].query);
		m[DNS_FLAGS] = 0x28;
		if (dns_question_read(&q, m, rows[i].query, &rcode) != DNS_READ_WRONG || rcode != DNS_NOTIMP)
			fail_msg("%s: an update of %zu bytes", rows[i].name, rows[i].query);
		q = (struct dns_question){.id = 0x1234, .type = 16, .class = 1, .wire_len = sizeof WEB - 1};
		memcpy(q.wire, WEB, sizeof WEB - 1);
		memcpy(m, reply, n);
		dns_put16(m + n - 4, 16);
		dns_put16(m + n + sizeof record - 1, (unsigned)(rows[i].reply - n - sizeof record - 1));
		dns_reply_read(&r, &q, m, rows[i].reply);
		if (r.ttl_s != rows[i].ttl)
			fail_msg("%s: an answer of %zu bytes is kept %u s", rows[i].name, rows[i].reply, r.ttl_s);
		free(m);
	}
}

/* --- our answers ---------------------------------------------------------------------------------------- */

static struct dns_question question(const char *msg, size_t len)
{
	struct dns_question q;
	enum dns_rcode rcode;

	assert_int_equal(dns_question_read(&q, (const uint8_t *)msg, len, &rcode), DNS_READ_QUERY);
	return q;
}

static struct dns_found found_of(unsigned n, bool v6, const char *alias)
{
	static struct dns_found f;

	f.n = n;
	snprintf(f.alias, sizeof f.alias, "%s", alias);
	for (unsigned i = 0; i < n; i++) {
		memset(f.at[i].b, 0, 16);
		if (!v6)
			memcpy(f.at[i].b + 10, "\xff\xff\12", 3);
		else
			f.at[i].b[0] = 0xfd;
		f.at[i].b[14] = (uint8_t)(i >> 8);
		f.at[i].b[15] = (uint8_t)i;
	}
	return f;
}

/* Flags: QR AA RD; RA. */
#define ANSWER(an, ns, ar) "\x12\x34\x85\x80\0\1\0" an "\0" ns "\0" ar
static const struct {
	const char *name, *msg;
	size_t len;
	unsigned n;
	bool v6;
	const char *alias, *want;
	size_t want_len;
} answers[] = {
	{"one address", BYTES(HEAD WEB A), 1, false, "",
	 BYTES(ANSWER("\1", "\0", "\0") WEB A POINTER A "\0\0\0\36\0\4\12\0\0\0")},
	{"two addresses", BYTES(HEAD WEB A), 2, false, "",
	 BYTES(ANSWER("\2", "\0", "\0") WEB A POINTER A "\0\0\0\36\0\4\12\0\0\0" POINTER A "\0\0\0\36\0\4\12\0\0\1")},
	{"IPv6", BYTES(HEAD WEB AAAA), 1, true, "",
	 BYTES(ANSWER("\1", "\0", "\0") WEB AAAA POINTER AAAA "\0\0\0\36\0\20\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")},
	{"EDNS", BYTES(HEAD_OPT WEB A "\0\0\51\5\0\0\0\x80\0\0\0"), 1, false, "",
	 BYTES(ANSWER("\1", "\0", "\1") WEB A POINTER A "\0\0\0\36\0\4\12\0\0\0\0\0\51\5\0\0\0\x80\0\0\0")},
	{"an alias", BYTES(HEAD "\3web\4test\1x\0" A), 1, false, "web.test",
	 BYTES(ANSWER("\2", "\0", "\0") "\3web\4test\1x\0" A POINTER "\0\5\0\1\0\0\0\36\0\12\3web\4test\0"
					"\xc0\50" A "\0\0\0\36\0\4\12\0\0\0")},
	{"none, in the cluster's zone", BYTES(HEAD "\1A\7Cluster\5loCal\0" A), 0, false, "",
	 BYTES(ANSWER("\0", "\1", "\0") "\1A\7Cluster\5loCal\0" A "\xc0\16\0\6\0\1\0\0\0\5\0\52\2ns\3dns\xc0\16"
					"\12hostmaster\xc0\16\0\0\0\1\0\0\34\40\0\0\7\10\0\1\x51\x80\0\0\0\5")},
	{"none, of a name outside", BYTES(HEAD WEB A), 0, false, "",
	 BYTES(ANSWER("\0", "\1", "\0") WEB A POINTER
	       "\0\6\0\1\0\0\0\5\0\67\2ns\3dns\7cluster\5local\0"
	       "\12hostmaster\xc0\55\0\0\0\1\0\0\34\40\0\0\7\10\0\1\x51\x80\0\0\0\5")},
};

static void test_answers(void **state)
{
	uint8_t out[DNS_UDP_MIN];

	for (size_t i = 0; i < COUNT(answers); i++) {
		struct dns_question q = question(answers[i].msg, answers[i].len);
		struct dns_found f = found_of(answers[i].n, answers[i].v6, answers[i].alias);
		size_t n = dns_answer_write(&q, &f, "cluster.local", sizeof out, out);

		if (n != answers[i].want_len || memcmp(out, answers[i].want, n)) {
			for (size_t k = 0; k < n; k++)
				print_error("%02x%s", out[k], k % 16 == 15 ? "\n" : " ");
			fail_msg("%s: %zu bytes, not %zu", answers[i].name, n, answers[i].want_len);
		}
		assert_true(dns_reply_fits(&q, out, n));
	}
}

static const struct {
	const char *name, *msg;
	size_t len;
	unsigned n;
	bool v6;
	size_t cap;
	unsigned want;
	bool truncated;
} sizes[] = {
	{"all that fit into 512", BYTES(HEAD WEB A), 30, false, 512, 30, false},
	{"one more than fits", BYTES(HEAD WEB A), 31, false, 512, 30, true},
	{"IPv6 into 512", BYTES(HEAD WEB AAAA), 18, true, 512, 17, true},
	{"with EDNS there is less room", BYTES(HEAD_OPT WEB A OPT("\2\0")), 30, false, 512, 29, true},
	{"EDNS of 1232", BYTES(HEAD_OPT WEB A OPT("\4\320")), 70, false, 1232, 70, false},
	{"over TCP", BYTES(HEAD WEB A), DNS_ADDRS_MAX, false, DNS_MESSAGE_MAX, DNS_ADDRS_MAX, false},
	{"IPv6 over TCP", BYTES(HEAD WEB AAAA), DNS_ADDRS_MAX, true, DNS_MESSAGE_MAX, DNS_ADDRS_MAX, false},
};

static void test_sizes(void **state)
{
	static uint8_t out[DNS_MESSAGE_MAX];

	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct dns_question q = question(sizes[i].msg, sizes[i].len);
		struct dns_found f = found_of(sizes[i].n, sizes[i].v6, "");
		size_t n = dns_answer_write(&q, &f, "cluster.local", sizes[i].cap, out);

		if (!n || n > sizes[i].cap || dns_reply_answers(out) != sizes[i].want ||
		    dns_reply_truncated(out) != sizes[i].truncated)
			fail_msg("%s: %zu bytes, %u answers", sizes[i].name, n, dns_reply_answers(out));
	}
}

/* --- resolvers' answers --------------------------------------------------------------------------------- */

#define REPLY(rcode, an, ns, ar) "\x12\x34\x81" rcode "\0\1\0" an "\0" ns "\0" ar
#define RR_A(ttl)		 POINTER A "\0\0" ttl "\0\4\1\2\3\4"
#define SOA(ttl, minimum)	 "\0\0\6\0\1\0\0" ttl "\0\26\0\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0" minimum
static const struct {
	const char *name, *msg;
	size_t len;
	bool fits;
	uint32_t ttl;
} replies[] = {
	{"an address", BYTES(REPLY("\x80", "\1", "\0", "\0") WEB A RR_A("\1\54")), true, 300},
	{"in other letters", BYTES(REPLY("\x80", "\1", "\0", "\0") "\3WEB\4tesT\0" A RR_A("\1\54")), true, 300},
	{"the shortest lifetime", BYTES(REPLY("\x80", "\2", "\0", "\0") WEB A RR_A("\1\54") RR_A("\0\12")), true, 10},
	{"OPT has no lifetime", BYTES(REPLY("\x80", "\1", "\0", "\1") WEB A RR_A("\1\54") OPT("\20\0")), true, 300},
	{"two signatures", BYTES(REPLY("\x80", "\1", "\0", "\2") WEB A RR_A("\1\54") TSIG TSIG), true, 0},
	{"a lifetime of 0", BYTES(REPLY("\x80", "\1", "\0", "\0") WEB A RR_A("\0\0")), true, 0},
	{"no such name", BYTES(REPLY("\x83", "\0", "\1", "\0") WEB A SOA("\1\0", "\0\12")), true, 10},
	{"no such name, SOA's own lifetime", BYTES(REPLY("\x83", "\0", "\1", "\0") WEB A SOA("\0\11", "\0\12")), true,
	 9},
	{"no such name, without SOA", BYTES(REPLY("\x83", "\0", "\0", "\0") WEB A), true, 0},
	{"no such address", BYTES(REPLY("\x80", "\0", "\1", "\0") WEB A SOA("\1\0", "\0\12")), true, 10},
	{"an alias that leads nowhere",
	 BYTES(REPLY("\x80", "\1", "\1", "\0") WEB A POINTER "\0\5\0\1\0\0\0\5\0\2\xc0\20" SOA("\1\0", "\0\12")), true,
	 5},
	{"truncated", BYTES("\x12\x34\x83\x80\0\1\0\1\0\0\0\0" WEB A RR_A("\1\54")), true, 0},
	{"the resolver failed", BYTES(REPLY("\x82", "\0", "\0", "\0") WEB A), true, 0},
	{"refused, with nothing repeated", BYTES("\x12\x34\x81\x85\0\0\0\0\0\0\0\0"), true, 0},
	{"nothing repeated, and no error", BYTES("\x12\x34\x81\x80\0\0\0\0\0\0\0\0"), false, 0},
	{"another id", BYTES("\x12\x35\x81\x80\0\1\0\1\0\0\0\0" WEB A RR_A("\1\54")), false, 0},
	{"a query", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" WEB A), false, 0},
	{"another name", BYTES(REPLY("\x80", "\0", "\0", "\0") "\3weB\4tost\0" A), false, 0},
	{"another type", BYTES(REPLY("\x80", "\0", "\0", "\0") WEB AAAA), false, 0},
	{"another class", BYTES(REPLY("\x80", "\0", "\0", "\0") WEB "\0\1\0\3"), false, 0},
	{"a cut question", BYTES(REPLY("\x80", "\0", "\0", "\0") WEB "\0\1\0"), false, 0},
	{"a cut header", BYTES("\x12\x34\x81\x80\0\1\0\0\0\0\0"), false, 0},
	{"a cut record", BYTES(REPLY("\x80", "\1", "\0", "\0") WEB A POINTER A "\0\0\0\1\0\4\1\2\3"), true, 0},
	{"bytes behind the records", BYTES(REPLY("\x80", "\1", "\0", "\0") WEB A RR_A("\1\54") "x"), true, 0},
};

static void test_replies(void **state)
{
	const struct dns_question q = question(HEAD WEB A, sizeof(HEAD WEB A) - 1);

	for (size_t i = 0; i < COUNT(replies); i++) {
		uint8_t *msg = copy(replies[i].msg, replies[i].len);
		struct dns_reply r = {0};
		bool fits = dns_reply_fits(&q, msg, replies[i].len);

		if (fits)
			dns_reply_read(&r, &q, msg, replies[i].len);
		if (fits != replies[i].fits || r.ttl_s != replies[i].ttl)
			fail_msg("%s: fits %d, ttl %u", replies[i].name, fits, r.ttl_s);
		free(msg);
	}
}

/* --- the cache ------------------------------------------------------------------------------------------ */

static const char reply_a[] = REPLY("\x80", "\1", "\0", "\1") WEB A RR_A("\0\144") OPT("\20\0");
static struct dns_share pods[3];
static const struct endpoint resolver = {{{1}}, 53}, other_resolver = {{{2}}, 53};

static void put(struct dns_cache *c, struct dns_share *pod, const struct dns_question *q, uint64_t now)
{
	struct dns_reply r;

	dns_reply_read(&r, q, (const uint8_t *)reply_a, sizeof reply_a - 1);
	assert_int_equal(r.ttl_s, 100);
	dns_cache_put(c, pod, &resolver, q, &r, now, (const uint8_t *)reply_a, sizeof reply_a - 1);
}

static const struct {
	const char *name, *msg;
	size_t len;
	unsigned pod;
	bool other_resolver, found;
	uint64_t at_ms;
	unsigned ttl;
	size_t cap;
} lookups[] = {
	{"at once", BYTES(HEAD WEB A), 0, false, true, 0, 100, 512},
	{"in other letters, by another id", BYTES("\x55\x55\1\0\0\1\0\0\0\0\0\0\3WEB\4TEST\0" A), 0, false, true, 0,
	 100, 512},
	{"older", BYTES(HEAD WEB A), 0, false, true, 30500, 70, 512},
	{"in its last second", BYTES(HEAD WEB A), 0, false, true, 99999, 1, 512},
	{"no room for it", BYTES(HEAD WEB A), 0, false, false, 0, 0, 40},
	{"another pod", BYTES(HEAD WEB A), 1, false, false, 0, 0, 512},
	{"another resolver", BYTES(HEAD WEB A), 0, true, false, 0, 0, 512},
	{"another type", BYTES(HEAD WEB AAAA), 0, false, false, 0, 0, 512},
	{"another name", BYTES(HEAD "\3wob\4test\0" A), 0, false, false, 0, 0, 512},
	{"another class", BYTES(HEAD WEB "\0\1\0\3"), 0, false, false, 0, 0, 512},
	{"with EDNS", BYTES(HEAD_OPT WEB A OPT("\20\0")), 0, false, false, 0, 0, 512},
	{"without RD", BYTES("\x12\x34\0\0\0\1\0\0\0\0\0\0" WEB A), 0, false, false, 0, 0, 512},
	{"with CD", BYTES("\x12\x34\1\20\0\1\0\0\0\0\0\0" WEB A), 0, false, false, 0, 0, 512},
	{"with AD", BYTES("\x12\x34\1\40\0\1\0\0\0\0\0\0" WEB A), 0, false, false, 0, 0, 512},
	{"too old", BYTES(HEAD WEB A), 0, false, false, 100000, 0, 512},
};

static void test_cache(void **state)
{
	const struct dns_question first = question(HEAD WEB A, sizeof(HEAD WEB A) - 1);
	struct dns_cache *c = dns_cache_new();

	for (size_t i = 0; i < COUNT(lookups); i++) {
		struct dns_question q = question(lookups[i].msg, lookups[i].len);
		uint8_t out[512];
		size_t n;

		put(c, &pods[0], &first, 1000);
		n = dns_cache_get(c, &pods[lookups[i].pod], lookups[i].other_resolver ? &other_resolver : &resolver, &q,
				  1000 + lookups[i].at_ms, lookups[i].cap, out);
		if (!n != !lookups[i].found)
			fail_msg("%s: %zu bytes", lookups[i].name, n);
		if (!n)
			continue;
		/* Behind header, question, pointer, type and class stands the lifetime; OPT's is not one. */
		if (n != sizeof reply_a - 1 || !dns_reply_fits(&q, out, n) || memcmp(out + 12, q.wire, q.wire_len) ||
		    dns_get16(out + 34) != lookups[i].ttl || memcmp(out + n - 11, OPT("\20\0"), 11))
			fail_msg("%s: ttl %u", lookups[i].name, dns_get16(out + 34));
	}
	put(c, &pods[0], &first, 1000);
	assert_int_not_equal(dns_cache_bytes(c), 0);
	dns_cache_drop(c, &pods[0]);
	assert_int_equal(dns_cache_bytes(c), 0);
	dns_cache_free(c);
}

static struct dns_question numbered(unsigned i)
{
	char msg[64];
	size_t n = sizeof HEAD - 1;

	memcpy(msg, HEAD, n);
	n += (size_t)sprintf(msg + n, "%c%08u", 8, i) + 1;
	memcpy(msg + n, A, 4);
	return question(msg, n + 4);
}

/* What it holds of a pod is bounded, and what it holds at all; the least recently used ones go. */
static void test_cache_bounds(void **state)
{
	enum { MANY = 40000, PODS = 40 };
	static struct dns_share many[PODS];
	struct dns_cache *c = dns_cache_new();
	struct dns_question first = numbered(0), q;
	const struct dns_reply r = {.ttl_s = 10};
	uint8_t msg[DNS_REPLY_READ_MAX + 1] = {0}, out[DNS_REPLY_READ_MAX + 1];

	dns_cache_put(c, &pods[1], &resolver, &first, &r, 0, msg, 100);
	for (unsigned i = 1; i < MANY; i++) {
		q = numbered(i);
		dns_cache_put(c, &pods[0], &resolver, &q, &r, 0, msg, 100);
		if (i == 100)
			first = q;
		assert_int_not_equal(dns_cache_get(c, &pods[0], &resolver, &q, 0, sizeof out, out), 0);
		if (i > 100)
			assert_int_not_equal(dns_cache_get(c, &pods[0], &resolver, &first, 0, sizeof out, out), 0);
		assert_true(pods[0].bytes <= DNS_CACHE_POD_BYTES);
	}
	q = numbered(200);
	assert_int_equal(dns_cache_get(c, &pods[0], &resolver, &q, 0, sizeof out, out), 0);
	q = numbered(0);
	assert_int_equal(dns_cache_get(c, &pods[1], &resolver, &q, 0, sizeof out, out), 100);
	for (unsigned i = 0; i < PODS; i++) {
		dns_share_init(&many[i]);
		for (unsigned k = 0; k < 200; k++) {
			q = numbered(k);
			dns_cache_put(c, &many[i], &resolver, &q, &r, 0, msg, 4000);
			assert_true(dns_cache_bytes(c) <= DNS_CACHE_BYTES);
		}
	}
	q = numbered(0);
	assert_int_equal(dns_cache_get(c, &pods[1], &resolver, &q, 0, sizeof out, out), 0);
	assert_in_range(dns_cache_bytes(c), DNS_CACHE_BYTES - 8192, DNS_CACHE_BYTES);
	q = numbered(MANY);
	dns_cache_put(c, &pods[0], &resolver, &q, &r, 0, msg, sizeof msg);
	assert_int_equal(dns_cache_get(c, &pods[0], &resolver, &q, 0, sizeof out, out), 0);
	dns_cache_free(c);
	assert_int_equal(pods[0].bytes, 0);
}

/* --- resolv.conf ---------------------------------------------------------------------------------------- */

static void test_resolv_conf(void **state)
{
	static const char *const lines[] = {"# nameserver 9.9.9.9\n",
					    "nameserver 10.0.0.1\n",
					    "nameserver\tfd00::1  \n",
					    "nameserver not-an-address\n",
					    "nameservers 10.0.0.9\n",
					    "nameserver 10.0.0.2\n",
					    "nameserver 10.0.0.3\n",
					    "domain first.test\n",
					    "search NS.svc.Cluster.local. svc.cluster.local\tx\n",
					    "searching here.test\n",
					    "options ndots:5\n"};
	static struct dns_zone z;
	struct dns_resolvers r = {.n = 0};
	char text[ENDPOINT_STRLEN];

	for (size_t i = 0; i < COUNT(lines); i++) {
		dns_conf_line(lines[i], &r, NULL);
		dns_conf_line(lines[i], NULL, &z);
	}
	assert_int_equal(r.n, DNS_RESOLVERS_MAX);
	assert_string_equal(endpoint_str(&r.at[0], text), "10.0.0.1:53");
	assert_string_equal(endpoint_str(&r.at[1], text), "[fd00::1]:53");
	assert_string_equal(endpoint_str(&r.at[2], text), "10.0.0.2:53");
	assert_int_equal(z.n_search, 3);
	assert_string_equal(z.search[0], "ns.svc.cluster.local");
	assert_string_equal(z.search[2], "x");
	dns_conf_line("search a b c d e f g h", NULL, &z);
	assert_int_equal(z.n_search, DNS_SEARCH_MAX);
}

static void test_types(void **state)
{
	static const struct {
		uint16_t type;
		const char *name;
	} types[] = {{1, "a"}, {28, "aaaa"}, {16, "txt"}, {255, "any"}, {0, "unknown"}, {65280, "unknown"}};
	char buf[DNS_TYPE_NAME];

	for (size_t i = 0; i < COUNT(types); i++)
		assert_string_equal(dns_type_name(types[i].type, buf), types[i].name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_queries),	     cmocka_unit_test(test_long_messages),
		cmocka_unit_test(test_answers),	     cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_replies),	     cmocka_unit_test(test_cache),
		cmocka_unit_test(test_cache_bounds), cmocka_unit_test(test_resolv_conf),
		cmocka_unit_test(test_types),
	};

	for (size_t i = 0; i < COUNT(pods); i++)
		dns_share_init(&pods[i]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
