// SPDX-License-Identifier: Apache-2.0
/* Owns what is read from resolvers' answers: whether it is one, how long it may be kept, where its lifetimes stand. */
#include "data/dns_message.h" /* first: where there is no bool yet, ldns brings one of its own */

#include <ctype.h>
#include <ldns/ldns.h>
#include <string.h>

#include "data/dns_parse.h"

enum { NAME_POINTER = 0xc0 };

unsigned dns_reply_rcode(const uint8_t *msg)
{
	return msg[DNS_FLAGS + 1] & 0xf;
}

unsigned dns_reply_answers(const uint8_t *msg)
{
	return dns_get16(msg + DNS_COUNTS + 2);
}

bool dns_reply_truncated(const uint8_t *msg)
{
	return msg[DNS_FLAGS] & DNS_TC;
}

void dns_reply_disown(uint8_t *msg)
{
	msg[DNS_FLAGS] &= (uint8_t)~DNS_AA;
}

/* Behind the name at `at`; 0: cut. Pointers are not followed. */
static size_t name_end(const uint8_t *msg, size_t len, size_t at)
{
	while (at < len && msg[at] && msg[at] < NAME_POINTER)
		at += msg[at] + 1u;
	if (at < len)
		at += msg[at] ? 2 : 1;
	return at <= len ? at : 0;
}

static bool same_name(const uint8_t *a, const uint8_t *b, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (tolower(a[i]) != tolower(b[i]))
			return false;
	return true;
}

bool dns_reply_fits(const struct dns_question *q, const uint8_t *msg, size_t len)
{
	size_t end = DNS_HEADER + q->wire_len;

	if (len < DNS_HEADER || dns_get16(msg) != q->id || !(msg[DNS_FLAGS] & DNS_QR))
		return false;
	if (!dns_get16(msg + DNS_COUNTS)) /* some repeat nothing of what they refuse */
		return dns_reply_rcode(msg) != DNS_NOERROR && dns_reply_rcode(msg) != DNS_NXDOMAIN;
	return len >= end + 4 && same_name(msg + DNS_HEADER, q->wire, q->wire_len) && dns_get16(msg + end) == q->type &&
	       dns_get16(msg + end + 2) == q->class;
}

void dns_reply_readdress(uint8_t *msg, const struct dns_question *q)
{
	dns_put16(msg, q->id);
	memcpy(msg + DNS_HEADER, q->wire, q->wire_len);
}

/* RFC 2308, 5: without a SOA nobody knows how long nothing stays nothing. */
static uint32_t empty_ttl(const ldns_pkt *p)
{
	const ldns_rr_list *l = ldns_pkt_authority(p);

	for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++) {
		const ldns_rr *rr = ldns_rr_list_rr(l, i);
		uint32_t minimum;

		if (ldns_rr_get_type(rr) != LDNS_RR_TYPE_SOA || ldns_rr_rd_count(rr) != 7)
			continue;
		minimum = ldns_rdf2native_int32(ldns_rr_rdf(rr, 6));
		return minimum < ldns_rr_ttl(rr) ? minimum : ldns_rr_ttl(rr);
	}
	return 0;
}

static uint32_t lowest_ttl(const ldns_rr_list *l, uint32_t ttl)
{
	for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++)
		if (ldns_rr_ttl(ldns_rr_list_rr(l, i)) < ttl)
			ttl = ldns_rr_ttl(ldns_rr_list_rr(l, i));
	return ttl;
}

static bool has_type(const ldns_rr_list *l, uint16_t type)
{
	for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++)
		if (ldns_rr_get_type(ldns_rr_list_rr(l, i)) == (ldns_rr_type)type)
			return true;
	return type == LDNS_RR_TYPE_ANY && ldns_rr_list_rr_count(l);
}

static uint32_t reply_ttl(const struct dns_question *q, const ldns_pkt *p)
{
	unsigned rcode = ldns_pkt_get_rcode(p);
	uint32_t ttl = UINT32_MAX >> 1;

	if (ldns_pkt_tc(p) || ldns_pkt_edns_extended_rcode(p) || ldns_pkt_tsig(p) ||
	    (rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN))
		return 0;
	if (rcode == DNS_NXDOMAIN || !has_type(ldns_pkt_answer(p), q->type))
		ttl = empty_ttl(p);
	ttl = lowest_ttl(ldns_pkt_answer(p), ttl);
	ttl = lowest_ttl(ldns_pkt_authority(p), ttl);
	return lowest_ttl(ldns_pkt_additional(p), ttl);
}

/* Where the lifetimes stand in a message that ldns has understood. False: too many, or not where they should be. */
static bool find_ttls(struct dns_reply *r, const uint8_t *msg, size_t len)
{
	unsigned records =
		dns_get16(msg + DNS_COUNTS + 2) + dns_get16(msg + DNS_COUNTS + 4) + dns_get16(msg + DNS_COUNTS + 6);
	size_t at = name_end(msg, len, DNS_HEADER) + 4;

	for (unsigned i = 0; i < records; i++) {
		at = name_end(msg, len, at);
		if (!at || at + DNS_RECORD_HEAD > len)
			return false;
		if (dns_get16(msg + at) != LDNS_RR_TYPE_OPT) {
			if (r->n_ttls == DNS_TTLS_MAX)
				return false;
			r->ttl_at[r->n_ttls++] = (uint16_t)(at + 4);
		}
		at += DNS_RECORD_HEAD + dns_get16(msg + at + 8);
	}
	return at == len;
}

void dns_reply_read(struct dns_reply *r, const struct dns_question *q, const uint8_t *msg, size_t len)
{
	bool may_be = q->wire_len && dns_get16(msg + DNS_COUNTS) == 1 && len <= DNS_REPLY_READ_MAX;
	ldns_pkt *p = may_be ? dns_parse(msg, len) : NULL;

	r->ttl_s = 0;
	r->n_ttls = 0;
	if (!p)
		return;
	if (find_ttls(r, msg, len))
		r->ttl_s = reply_ttl(q, p);
	ldns_pkt_free(p);
}
