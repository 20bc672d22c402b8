// SPDX-License-Identifier: Apache-2.0
/* DNS over UDP (15053). The answer must come from the resolver's address and port 53. Captured by BPF, it is written by a
 * raw socket of the pod (dns_answer.c); behind REDIRECT rules conntrack restores the source. */
#include <errno.h>

#include "data/accept.h"
#include "data/dns_cache.h"
#include "data/dns_query.h"

enum { DNS_PER_EVENT = 32 };

void dns_receive(struct post *p)
{
	for (int i = 0; i < DNS_PER_EVENT; i++) {
		struct dns_client from = {.conn = NULL};
		ssize_t n = dns_query_recv(p->pod, p->w->buffer, DNS_MESSAGE_MAX, &from.path);

		if (n == -EAGAIN)
			return;
		if (n > 0)
			dns_query_take(p, &from, p->w->buffer, (size_t)n);
	}
}

void dns_post_open(struct post *p)
{
	list_init(&p->dns_conns);
	dns_share_init(&p->names);
}

void dns_post_close(struct post *p)
{
	dns_conns_close(p);
	dns_queries_end(p, NULL);
	dns_cache_drop(p->w->dns_cache, &p->names);
}
