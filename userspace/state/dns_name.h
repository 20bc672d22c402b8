/* SPDX-License-Identifier: Apache-2.0 */
/* What the mesh answers for a DNS name, from the point of view of one pod: services by name, expanded as Kubernetes'
 * search lists expand it, headless services, wildcards and pod names. Pure; no packets. */
#pragma once
#include "state/store.h"

enum {
	DNS_NAME_MAX = 256,   /* a name as text, with its terminator */
	DNS_ADDRS_MAX = 2048, /* of one answer; of more, as many of them as this, by chance */
	DNS_SEARCH_MAX = 6,   /* search domains, as resolv.conf(5) has them */
};

/* Names of the zone as text: lower case, without the dot at the end. */
struct dns_zone {
	char domain[DNS_NAME_MAX];		   /* the cluster's, "cluster.local" */
	const char *preferred;			   /* of namespaces that own the same name, this one; "": none */
	char search[DNS_SEARCH_MAX][DNS_NAME_MAX]; /* dedicated mode: the workload's own */
	unsigned n_search;
	bool dedicated; /* else the search domains are those that Kubernetes gives to pods */
	bool ipv6;	/* are there AAAA records? */
};

struct dns_asker {
	struct store *store;
	const struct dns_zone *zone;
	const struct workload *who;
	uint64_t random; /* decides order and choice of addresses */
};

enum dns_verdict {
	DNS_UNKNOWN, /* not the mesh's: the resolver has to know */
	DNS_FOUND,
	DNS_EMPTY,     /* the name exists, without such addresses here */
	DNS_NO_FAMILY, /* the same: the service is not of this family, or there is no IPv6 */
};

struct dns_found {
	char alias[DNS_NAME_MAX]; /* not "": the name without its search domain, which the addresses belong to */
	unsigned n;
	struct addr at[DNS_ADDRS_MAX];
};

/* Inside a read section. `name` in lower case, without the dot at the end; `v6`: AAAA is asked, not A. */
enum dns_verdict dns_name_find(const struct dns_asker *a, const char *name, bool v6, struct dns_found *out);
/* Does `name` lie below `domain`? */
bool dns_name_below(const char *name, const char *domain);
