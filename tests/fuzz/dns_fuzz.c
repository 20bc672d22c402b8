/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what is done with DNS messages. The first byte: 0, the rest is a query, which is answered in each way; 1, the
 * rest is an answer to a query for the A record of web.test with the id 0, which is kept and given again. */
#include <stdlib.h>
#include <string.h>

#include "data/dns_cache.h"

static const struct endpoint resolver = {{{1}}, 53};

static void query(const uint8_t *p, size_t len)
{
	static uint8_t out[DNS_MESSAGE_MAX];
	static struct dns_found found = {.n = 40};
	enum dns_rcode rcode = DNS_NOERROR;
	struct dns_question q;

	switch (dns_question_read(&q, p, len, &rcode)) {
	case DNS_READ_SILENT:
		return;
	case DNS_READ_WRONG:
		if (dns_error_write(p, len, &q, rcode, out) > DNS_UDP_MIN)
			abort();
		return;
	case DNS_READ_QUERY:
		break;
	}
	for (found.n = 0; q.spoken && found.n <= 40; found.n += 20) {
		size_t n;

		memcpy(found.alias, found.n == 20 ? q.text : "", found.n == 20 ? strlen(q.text) + 1 : 1);
		n = dns_answer_write(&q, &found, "cluster.local", q.udp_size, out);
		if (n > q.udp_size || (n && !dns_reply_fits(&q, out, n)))
			abort();
	}
}

static void reply(const uint8_t *p, size_t len)
{
	static const uint8_t asked[] = "\0\0\1\0\0\1\0\0\0\0\0\0\3web\4test\0\0\1\0\1";
	struct dns_cache *c = dns_cache_new();
	uint8_t *out = malloc(len ? len : 1);
	enum dns_rcode rcode;
	struct dns_share pod;
	struct dns_question q;
	struct dns_reply r;
	size_t n;

	dns_share_init(&pod);
	dns_question_read(&q, asked, sizeof asked - 1, &rcode);
	if (dns_reply_fits(&q, p, len)) {
		dns_reply_read(&r, &q, p, len);
		dns_cache_put(c, &pod, &resolver, &q, &r, 0, p, len);
		n = dns_cache_get(c, &pod, &resolver, &q, 999, len, out);
		if (n && (n != len || !r.ttl_s))
			abort();
	}
	free(out);
	dns_cache_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	uint8_t *exact = malloc(len ? len : 1);

	if (len) {
		memcpy(exact, p + 1, len - 1);
		(p[0] & 1 ? reply : query)(exact, len - 1);
	}
	free(exact);
	return 0;
}
