/* SPDX-License-Identifier: Apache-2.0 */
/* Decides what the DNS proxy may answer, and for which zone. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "data/dns_conf.h"
#include "tunnel.h"

int dns_up(struct tunnel *t, char *why)
{
	const struct tunnel_config *c = &t->c;
	struct dns_zone *z = &t->zone;

	if (c->dns && c->xds_on_demand)
		log_warn("dns", "XDS_ON_DEMAND: not all names of the mesh are here, so all queries go to resolvers");
	t->answers = c->dns && !c->xds_on_demand;
	/* tunnel_config.c has checked that it fits. */
	for (size_t i = 0; i < sizeof z->domain - 1 && c->cluster_domain[i]; i++)
		z->domain[i] = (char)tolower((uint8_t)c->cluster_domain[i]);
	z->preferred = c->preferred_ns;
	z->ipv6 = c->ipv6;
	z->dedicated = c->dedicated;
	if (c->dedicated)
		dns_conf_search(z);
	return 0;
}
