/* SPDX-License-Identifier: Apache-2.0 */
/* DNS messages (RFC 1035, 2308, 6891): what a query asks, answers from the mesh, what resolvers answer. Pure functions
 * over bytes that may hold anything. Private to data/. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/dns_name.h"

enum {
	DNS_HEADER = 12,
	DNS_MESSAGE_MAX = 65535,
	DNS_QUERY_MAX = 1232,	   /* of a query: only keys that are agreed on (TKEY) make longer ones */
	DNS_REPLY_READ_MAX = 4096, /* longer answers are passed on unread (ldns can take half a second), not kept */
	DNS_UDP_MIN = 512,	   /* what everybody takes in one datagram */
	DNS_WIRE_NAME = 255,	   /* a name on the wire */
	DNS_TTL_S = 30,		   /* of the mesh's answers */
	DNS_EMPTY_TTL_S = 5,	   /* how long "no such address" is believed: endpoints may come any time */
	DNS_TTLS_MAX = 128,	   /* records of an answer that is kept */
	DNS_TYPE_NAME = 16,
};

/* Where a header has what, and its flags; of a record what stands between its owner and its data. */
enum {
	DNS_FLAGS = 2,
	DNS_COUNTS = 4,
	DNS_QR = 0x80,
	DNS_OPCODE = 0x78,
	DNS_AA = 0x04,
	DNS_TC = 0x02,
	DNS_RD = 0x01,
	DNS_RECORD_HEAD = 10
};

enum dns_rcode { DNS_NOERROR, DNS_FORMERR, DNS_SERVFAIL, DNS_NXDOMAIN, DNS_NOTIMP };

struct dns_question {
	uint16_t id, type, class, udp_size; /* udp_size: what the client takes in a datagram */
	bool rd, ad, cd, edns, dnssec_ok;
	bool plain;  /* no EDNS options and nothing else that an answer may depend on */
	bool spoken; /* class IN, and a name that a host can have: `text` is it */
	uint8_t edns_version;
	uint8_t wire_len;	     /* 0: none */
	uint8_t wire[DNS_WIRE_NAME]; /* the name as it was sent */
	char text[DNS_NAME_MAX];     /* in lower case, without the dot at the end */
};

enum dns_read {
	DNS_READ_QUERY,
	DNS_READ_SILENT, /* a response, or no message at all: not answered */
	DNS_READ_WRONG,	 /* to be answered with the rcode */
};
enum dns_read dns_question_read(struct dns_question *q, const uint8_t *msg, size_t len, enum dns_rcode *rcode);

/* Each writes a message of at most `cap` bytes (at least DNS_UDP_MIN) and returns its length; 0: no memory. */
size_t dns_error_write(const uint8_t *query, size_t len, const struct dns_question *q, enum dns_rcode rcode,
		       uint8_t *out);
/* `f` with n == 0: no such address, with the SOA of `domain` or of the name. Addresses beyond `cap` are left out, and
 * the message says that it is truncated. */
size_t dns_answer_write(const struct dns_question *q, const struct dns_found *f, const char *domain, size_t cap,
			uint8_t *out);

static inline unsigned dns_get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static inline void dns_put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* Does a message answer this question? The least that a forger has to guess; what the answer is worth, below. */
bool dns_reply_fits(const struct dns_question *q, const uint8_t *msg, size_t len);

struct dns_reply {
	uint32_t ttl_s; /* how long it may be kept: 0, not at all */
	unsigned n_ttls;
	uint16_t ttl_at[DNS_TTLS_MAX]; /* where the lifetimes of its records stand */
};
/* Of one that fits. */
void dns_reply_read(struct dns_reply *r, const struct dns_question *q, const uint8_t *msg, size_t len);
unsigned dns_reply_rcode(const uint8_t *msg);
unsigned dns_reply_answers(const uint8_t *msg);
bool dns_reply_truncated(const uint8_t *msg);
/* We are not the authority for what others know. */
void dns_reply_disown(uint8_t *msg);
/* Makes the answer to one question that of another, which asks the same. */
void dns_reply_readdress(uint8_t *msg, const struct dns_question *q);

/* "a", "aaaa", "https"; "unknown". */
const char *dns_type_name(uint16_t type, char buf[DNS_TYPE_NAME]);
