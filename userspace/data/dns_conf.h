/* SPDX-License-Identifier: Apache-2.0 */
/* What resolv.conf(5) of the tunnel says: resolvers, for queries whose own resolver REDIRECT rules hide; search domains,
 * for dedicated mode, where the file is the workload's own. */
#pragma once
#include "data/dns_upstream.h"

enum { DNS_CONF_FRESH_MS = 5000 }; /* how long a worker goes by what it has read */

struct dns_conf {
	struct dns_resolvers resolvers;
	uint64_t read_ms; /* 0: never */
};

/* One line of the file, into either; NULL: of no interest. */
void dns_conf_line(const char *line, struct dns_resolvers *r, struct dns_zone *z);
/* The file as a worker knows it, read again when that is old. A file that cannot be read leaves what is known. */
const struct dns_resolvers *dns_conf_resolvers(struct dns_conf *c, uint64_t now_ms);
/* At start. */
void dns_conf_search(struct dns_zone *z);
