/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh from istiod: what xDS needs of the configuration and of the environment, and what waits for the mesh. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tunnel.h"
#include "tunnel_istiod.h"

extern char **environ;

static const char target[] = "tunnel";

/* --- who we are ----------------------------------------------------------------------------------------- */

static const char *variable(const char *name, const char *otherwise)
{
	const char *s = getenv(name);

	return s ? s : otherwise;
}

struct metadata {
	struct xds_metadata all[XDS_METADATA_MAX];
	char *keys[XDS_METADATA_MAX]; /* of those that come from the environment */
	unsigned n;
};

static bool metadata_add(struct metadata *m, const char *key, const char *text, bool json)
{
	if (m->n == XDS_METADATA_MAX)
		return false;
	m->all[m->n++] = (struct xds_metadata){key, text, json};
	return true;
}

/* ISTIO_META_KEY=text and ISTIO_METAJSON_KEY=JSON: what an operator gives istiod to know. */
static bool metadata_from(struct metadata *m, const char *prefix, bool json)
{
	size_t skip = strlen(prefix);

	for (char **e = environ; *e; e++) {
		const char *eq = strchr(*e, '=');
		char *key;

		if (strncmp(*e, prefix, skip) != 0 || !eq)
			continue;
		key = strndup(*e + skip, (size_t)(eq - *e) - skip);
		if (!key || !metadata_add(m, key, eq + 1, json)) {
			free(key);
			return false;
		}
		m->keys[m->n - 1] = key;
	}
	return true;
}

static int node_encode(const struct tunnel_config *c, struct metadata *m, uint8_t **node, size_t *len, char *why)
{
	const char *ip = variable("INSTANCE_IP", "1.1.1.1"), *name = variable("POD_NAME", ""),
		   *ns = variable("POD_NAMESPACE", "");
	unsigned bad = 0;
	char *id;
	int e;

	metadata_add(m, "NAME", name, false);
	metadata_add(m, "NAMESPACE", ns, false);
	metadata_add(m, "INSTANCE_IPS", ip, false);
	metadata_add(m, "NODE_NAME", c->node_name, false);
	metadata_add(m, "CLUSTER_ID", c->cluster_id, false);
	if (!metadata_from(m, "ISTIO_META_", false) || !metadata_from(m, "ISTIO_METAJSON_", true)) {
		snprintf(why, CONFIG_WHY_MAX, "ISTIO_META_*, ISTIO_METAJSON_*: at most %d are taken",
			 XDS_METADATA_MAX - 5);
		return -EINVAL;
	}
	if (asprintf(&id, "ztunnel~%s~%s.%s~%s.svc.cluster.local", ip, name, ns, ns) < 0)
		id = NULL;
	e = id ? xds_node_encode(id, m->all, m->n, node, len, &bad) : -ENOMEM;
	free(id);
	if (e == -EINVAL)
		snprintf(why, CONFIG_WHY_MAX, "ISTIO_METAJSON_%.128s: not JSON, or too deep", m->all[bad].key);
	else if (e)
		snprintf(why, CONFIG_WHY_MAX, "out of memory");
	return e;
}

/* --- the client ----------------------------------------------------------------------------------------- */

static void mesh_is_complete(void *arg)
{
	struct tunnel *t = arg;
	struct store_counts n;

	store_count(t->store, &n);
	log_info(target, "mesh from istiod: %u workloads, %u services, %u policies", n.workloads, n.services,
		 n.policies);
	ready_await_mesh(&t->ready, false);
	pods_begin(t);
}

static int client_new(struct tunnel *t, const char *address, const uint8_t *node, size_t node_len, char *why)
{
	const struct tunnel_config *c = &t->c;
	struct istiod_headers headers;
	struct xds_options o = {
		.server = {.address = address,
			   .root = c->xds_root,
			   .alt_host = *c->alt_xds_hostname ? c->alt_xds_hostname : NULL,
			   .pqc = !strcmp(c->compliance, "pqc")},
		.token = istiod_token(c),
		.cluster_id = c->cluster_id,
		.headers = headers.all,
		.node = node,
		.node_len = node_len,
		.on_demand = c->xds_on_demand,
		.node_name = c->node_name,
		.warm = mesh_is_complete,
		.arg = t,
	};
	char reason[XDS_WHY_MAX] = "";

	if (istiod_headers_read(&headers, "XDS_HEADER_", why) < 0)
		return -1;
	o.n_headers = headers.n;
	t->xds = xds_new(t->loop, t->store, &o, reason);
	if (t->xds)
		return 0;
	snprintf(why, CONFIG_WHY_MAX, "XDS_ADDRESS: %.384s", reason);
	return -1;
}

int xds_up(struct tunnel *t, char *why)
{
	const struct tunnel_config *c = &t->c;
	struct metadata *m;
	uint8_t *node = NULL;
	char *address;
	size_t len = 0;
	int e = -1;

	if (!*c->xds_address)
		return 0;
	address = istiod_address("XDS_ADDRESS", c->xds_address, "XDS_ROOT_CA", c->xds_root, why);
	m = address ? calloc(1, sizeof *m) : NULL;
	if (address && !m)
		tunnel_says(why, "out of memory");
	if (m && node_encode(c, m, &node, &len, why) == 0)
		e = client_new(t, address, node, len, why);
	for (unsigned i = 0; m && i < XDS_METADATA_MAX; i++)
		free(m->keys[i]);
	free(m);
	free(node);
	free(address);
	ready_await_mesh(&t->ready, true);
	return e;
}

void xds_down(struct tunnel *t)
{
	xds_free(t->xds);
	t->xds = NULL;
}
