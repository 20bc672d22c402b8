// SPDX-License-Identifier: Apache-2.0
/* Owns queries as they are read, and what is answered from the mesh. With dns_reply.c the only user of ldns. */
#include "data/dns_message.h" /* first: where there is no bool yet, ldns brings one of its own */

#include <ctype.h>
#include <ldns/ldns.h>
#include <stdlib.h>
#include <string.h>

#include "data/dns_parse.h"

/* --- parsing -------------------------------------------------------------------------------------------- */

/* RFC 8945, 5.1: there is one, and more are a format error. ldns 1.8 keeps the last one and loses the others' memory. Where
 * a record ends is ldns's own view here too. */
static bool has_two_signatures(const uint8_t *msg, size_t len)
{
	static const ldns_pkt_section sections[] = {LDNS_SECTION_QUESTION, LDNS_SECTION_ANSWER, LDNS_SECTION_AUTHORITY,
						    LDNS_SECTION_ADDITIONAL};
	unsigned signatures = 0;
	size_t at = DNS_HEADER;

	if (dns_get16(msg + DNS_COUNTS + 6) < 2)
		return false;
	for (unsigned i = 0; i < sizeof sections / sizeof *sections; i++)
		for (unsigned n = dns_get16(msg + DNS_COUNTS + 2 * i); n; n--) {
			ldns_rr *rr;

			if (ldns_wire2rr(&rr, msg, len, &at, sections[i]) != LDNS_STATUS_OK)
				return signatures > 1;
			signatures += ldns_rr_get_type(rr) == LDNS_RR_TYPE_TSIG;
			ldns_rr_free(rr);
		}
	return signatures > 1;
}

ldns_pkt *dns_parse(const uint8_t *msg, size_t len)
{
	ldns_pkt *p = NULL;

	if (has_two_signatures(msg, len) || ldns_wire2pkt(&p, msg, len) != LDNS_STATUS_OK)
		return NULL;
	return p;
}

/* --- questions ------------------------------------------------------------------------------------------ */

/* Names of other characters are no host's, and would not survive as text. */
static bool is_host_character(uint8_t c)
{
	return isalnum(c) || c == '-' || c == '_' || c == '*';
}

static bool name_to_text(const uint8_t *wire, size_t len, char text[DNS_NAME_MAX])
{
	size_t n = 0;

	for (size_t at = 0; at < len && wire[at]; at += wire[at] + 1u) {
		if (n)
			text[n++] = '.';
		for (unsigned i = 1; i <= wire[at]; i++) {
			if (!is_host_character(wire[at + i]))
				return false;
			text[n++] = (char)tolower(wire[at + i]);
		}
	}
	text[n] = '\0';
	return n > 0;
}

static void read_edns(struct dns_question *q, ldns_pkt *p)
{
	q->edns = ldns_pkt_edns(p);
	q->edns_version = ldns_pkt_edns_version(p);
	q->dnssec_ok = ldns_pkt_edns_do(p);
	if (q->edns && ldns_pkt_edns_udp_size(p) > DNS_UDP_MIN)
		q->udp_size = ldns_pkt_edns_udp_size(p);
	/* An answer, an authority or a signature in a query mean something that is not known here. */
	q->plain = !ldns_pkt_edns_data(p) && !ldns_pkt_ancount(p) && !ldns_pkt_nscount(p) && !ldns_pkt_tsig(p) &&
		   !ldns_pkt_arcount(p);
}

static void read_question(struct dns_question *q, const ldns_pkt *p)
{
	const ldns_rr *rr = ldns_rr_list_rr(ldns_pkt_question(p), 0);
	const ldns_rdf *name = ldns_rr_owner(rr);

	q->type = (uint16_t)ldns_rr_get_type(rr);
	q->class = (uint16_t)ldns_rr_get_class(rr);
	q->rd = ldns_pkt_rd(p);
	q->ad = ldns_pkt_ad(p);
	q->cd = ldns_pkt_cd(p);
	q->wire_len = (uint8_t)ldns_rdf_size(name);
	memcpy(q->wire, ldns_rdf_data(name), q->wire_len);
	q->spoken = name_to_text(q->wire, q->wire_len, q->text) && q->class == LDNS_RR_CLASS_IN;
}

enum dns_read dns_question_read(struct dns_question *q, const uint8_t *msg, size_t len, enum dns_rcode *rcode)
{
	ldns_pkt *p;

	memset(q, 0, sizeof *q);
	q->udp_size = DNS_UDP_MIN;
	if (len < DNS_HEADER || msg[DNS_FLAGS] & DNS_QR)
		return DNS_READ_SILENT;
	q->id = (uint16_t)dns_get16(msg);
	if (len > DNS_QUERY_MAX && msg[DNS_FLAGS] & DNS_OPCODE) { /* as an update may be */
		*rcode = DNS_NOTIMP;
		return DNS_READ_WRONG;
	}
	p = len > DNS_QUERY_MAX ? NULL : dns_parse(msg, len);
	if (!p) {
		*rcode = DNS_FORMERR;
		return DNS_READ_WRONG;
	}
	*rcode = DNS_NOERROR;
	if (ldns_pkt_get_opcode(p) != LDNS_PACKET_QUERY)
		*rcode = DNS_NOTIMP;
	else if (ldns_pkt_qdcount(p) != 1)
		*rcode = DNS_SERVFAIL;
	if (ldns_pkt_qdcount(p) == 1) {
		read_question(q, p);
		read_edns(q, p);
	}
	ldns_pkt_free(p);
	return *rcode == DNS_NOERROR ? DNS_READ_QUERY : DNS_READ_WRONG;
}

/* --- answers of ours ------------------------------------------------------------------------------------ */

size_t dns_error_write(const uint8_t *query, size_t len, const struct dns_question *q, enum dns_rcode rcode,
		       uint8_t *out)
{
	size_t n = DNS_HEADER;

	if (len < DNS_HEADER)
		return 0;
	memset(out, 0, DNS_HEADER);
	memcpy(out, query, 2);
	out[DNS_FLAGS] = (uint8_t)(DNS_QR | (query[DNS_FLAGS] & (DNS_OPCODE | DNS_RD)));
	out[DNS_FLAGS + 1] = (uint8_t)((query[DNS_FLAGS + 1] & 0x10) | rcode);
	if (!q->wire_len)
		return n;
	dns_put16(out + DNS_COUNTS, 1);
	memcpy(out + n, q->wire, q->wire_len);
	n += q->wire_len;
	dns_put16(out + n, q->type);
	dns_put16(out + n + 2, q->class);
	return n + 4;
}

/* Takes the record over, as `data` before it; all of it may be NULL for want of memory. */
static bool push(ldns_pkt *p, ldns_pkt_section section, ldns_rr *rr)
{
	if (rr && ldns_pkt_push_rr(p, section, rr))
		return true;
	ldns_rr_free(rr);
	return false;
}

static ldns_rr *record_new(const ldns_rdf *owner, ldns_rr_type type, uint32_t ttl, ldns_rdf *data)
{
	ldns_rr *rr = ldns_rr_new();
	ldns_rdf *own = ldns_rdf_clone(owner);

	if (!rr || !own || (data && !ldns_rr_push_rdf(rr, data))) {
		ldns_rr_free(rr);
		ldns_rdf_deep_free(own);
		ldns_rdf_deep_free(data);
		return NULL;
	}
	ldns_rr_set_owner(rr, own);
	ldns_rr_set_type(rr, type);
	ldns_rr_set_class(rr, LDNS_RR_CLASS_IN);
	ldns_rr_set_ttl(rr, ttl);
	return rr;
}

static bool push_addresses(ldns_pkt *p, const ldns_rdf *owner, const struct dns_found *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		bool v4 = addr_is4(&f->at[i]);
		ldns_rdf *data = ldns_rdf_new_frm_data(v4 ? LDNS_RDF_TYPE_A : LDNS_RDF_TYPE_AAAA, v4 ? 4 : 16,
						       f->at[i].b + (v4 ? 12 : 0));

		if (!data || !push(p, LDNS_SECTION_ANSWER,
				   record_new(owner, v4 ? LDNS_RR_TYPE_A : LDNS_RR_TYPE_AAAA, DNS_TTL_S, data)))
			return false;
	}
	return true;
}

/* The zone is the cluster's where the name lies in it; of other names, the name itself. */
static bool push_soa(ldns_pkt *p, const struct dns_question *q, const ldns_rdf *name, const char *domain)
{
	static const uint32_t times[] = {1, 7200, 1800, 86400, DNS_EMPTY_TTL_S};
	char text[2][DNS_NAME_MAX + 16];
	ldns_rdf *zone = dns_name_below(q->text, domain) ? ldns_dname_new_frm_str(domain) : ldns_rdf_clone(name);
	ldns_rr *rr = zone ? record_new(zone, LDNS_RR_TYPE_SOA, DNS_EMPTY_TTL_S, NULL) : NULL;
	bool ok = rr != NULL;

	ldns_rdf_deep_free(zone);
	snprintf(text[0], sizeof text[0], "ns.dns.%s", domain);
	snprintf(text[1], sizeof text[1], "hostmaster.%s", domain);
	for (unsigned i = 0; ok && i < 7; i++) {
		ldns_rdf *data = i < 2 ? ldns_dname_new_frm_str(text[i])
				       : ldns_native2rdf_int32(i == 2 ? LDNS_RDF_TYPE_INT32 : LDNS_RDF_TYPE_PERIOD,
							       times[i - 2]);

		ok = data && ldns_rr_push_rdf(rr, data);
		if (!ok)
			ldns_rdf_deep_free(data);
	}
	if (ok)
		return push(p, LDNS_SECTION_AUTHORITY, rr);
	ldns_rr_free(rr);
	return false;
}

static bool push_records(ldns_pkt *p, const struct dns_question *q, const struct dns_found *f, unsigned n,
			 const char *domain, const ldns_rdf *name)
{
	ldns_rdf *alias;
	bool ok;

	if (!f->n)
		return push_soa(p, q, name, domain);
	if (!f->alias[0])
		return push_addresses(p, name, f, n);
	alias = ldns_dname_new_frm_str(f->alias);
	ok = alias &&
	     push(p, LDNS_SECTION_ANSWER, record_new(name, LDNS_RR_TYPE_CNAME, DNS_TTL_S, ldns_rdf_clone(alias))) &&
	     push_addresses(p, alias, f, n);
	ldns_rdf_deep_free(alias);
	return ok;
}

static bool push_question(ldns_pkt *p, const struct dns_question *q, const ldns_rdf *name)
{
	ldns_rr *rr = record_new(name, (ldns_rr_type)q->type, 0, NULL);

	if (rr)
		ldns_rr_set_question(rr, true);
	return push(p, LDNS_SECTION_QUESTION, rr);
}

/* With the first `n` addresses. */
static ldns_pkt *answer_new(const struct dns_question *q, const struct dns_found *f, unsigned n, const char *domain)
{
	ldns_pkt *p = ldns_pkt_new();
	ldns_rdf *name = ldns_dname_new_frm_data(q->wire_len, q->wire);

	if (p && name && push_question(p, q, name) && push_records(p, q, f, n, domain, name)) {
		ldns_pkt_set_id(p, q->id);
		ldns_pkt_set_qr(p, true);
		ldns_pkt_set_aa(p, true);
		ldns_pkt_set_tc(p, n < f->n);
		ldns_pkt_set_rd(p, q->rd);
		ldns_pkt_set_cd(p, q->cd);
		ldns_pkt_set_ra(p, true);
		if (q->edns) {
			ldns_pkt_set_edns_udp_size(p, q->udp_size);
			ldns_pkt_set_edns_do(p, q->dnssec_ok);
		}
	} else {
		ldns_pkt_free(p);
		p = NULL;
	}
	ldns_rdf_deep_free(name);
	return p;
}

/* -1: no memory. */
static ssize_t answer_try(const struct dns_question *q, const struct dns_found *f, unsigned n, const char *domain,
			  size_t cap, uint8_t *out)
{
	ldns_pkt *p = answer_new(q, f, n, domain);
	uint8_t *wire = NULL;
	size_t len = 0;
	bool ok = p && ldns_pkt2wire(&wire, p, &len) == LDNS_STATUS_OK;

	if (ok && len <= cap)
		memcpy(out, wire, len);
	LDNS_FREE(wire);
	ldns_pkt_free(p);
	return ok ? (ssize_t)len : -1;
}

size_t dns_answer_write(const struct dns_question *q, const struct dns_found *f, const char *domain, size_t cap,
			uint8_t *out)
{
	/* An owner is a pointer to the name before it. */
	size_t each = 2 + DNS_RECORD_HEAD + (f->n && addr_is4(&f->at[0]) ? 4 : 16), room = (cap - DNS_HEADER) / each;
	unsigned n = f->n < room ? f->n : (unsigned)room;

	for (;;) {
		ssize_t len = answer_try(q, f, n, domain, cap, out);
		size_t less;

		if (len < 0 || (size_t)len <= cap)
			return len < 0 ? 0 : (size_t)len;
		less = ((size_t)len - cap + each - 1) / each;
		if (!n)
			return 0;
		n = n > less ? n - (unsigned)less : 0;
	}
}

const char *dns_type_name(uint16_t type, char buf[DNS_TYPE_NAME])
{
	const ldns_rr_descriptor *d = ldns_rr_descript(type);
	size_t i = 0;

	if (type == LDNS_RR_TYPE_ANY) /* which ldns does not describe */
		return "any";
	if (!d || !d->_name || d->_type != type)
		return "unknown";
	for (; i < DNS_TYPE_NAME - 1 && d->_name[i]; i++)
		buf[i] = (char)tolower((uint8_t)d->_name[i]);
	buf[i] = '\0';
	return buf;
}
