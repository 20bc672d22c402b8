// SPDX-License-Identifier: Apache-2.0
/* Makes the CA that the configuration asks for. */
#include "tunnel_ca.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/ca_client.h"
#include "control/ca_embedded.h"
#include "tunnel_istiod.h"

_Static_assert((int)ISTIOD_HEADERS_MAX <= (int)CA_HEADERS_MAX, "all of them fit");

static struct ca *client(struct loop *l, const struct tunnel_config *c, char *why)
{
	struct istiod_headers headers;
	struct ca_client_options o = {
		.server = {.root = c->ca_root,
			   .alt_host = *c->alt_ca_hostname ? c->alt_ca_hostname : NULL,
			   .pqc = !strcmp(c->compliance, "pqc")},
		.token = istiod_token(c),
		.cluster_id = c->cluster_id,
		.ttl_s = c->secret_ttl_s,
		.impersonate = !c->dedicated,
		.headers = headers.all,
	};
	char *address, reason[CA_WHY_MAX] = "";
	struct ca *ca;

	if (istiod_headers_read(&headers, "CA_HEADER_", why) < 0)
		return NULL;
	address = istiod_address("CA_ADDRESS", c->ca_address, "CA_ROOT_CA", c->ca_root, why);
	if (!address)
		return NULL;
	o.n_headers = headers.n;
	o.server.address = address;
	ca = ca_client_new(l, &o, reason);
	if (!ca)
		snprintf(why, CONFIG_WHY_MAX, "CA_ADDRESS: %s", reason);
	free(address);
	return ca;
}

struct ca *tunnel_ca_new(struct loop *l, const struct tunnel_config *c, char why[CONFIG_WHY_MAX])
{
	struct ca_embedded_options o = {
		.cert_path = *c->ca_cert ? c->ca_cert : NULL,
		.key_path = *c->ca_key ? c->ca_key : NULL,
		.ttl_s = c->secret_ttl_s,
	};

	return *c->ca_address && !c->fake_ca ? client(l, c, why) : ca_embedded_new(l, &o, why);
}
