/* SPDX-License-Identifier: Apache-2.0 */
/* The dump as a whole, keys in alphabetical order. Only copies are asked of other threads; the mesh is read beside its
 * writer. */
#include "admin/dump.h"

#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "control/local.h"

static void version(struct json *j, const struct admin *a)
{
	json_open(j, '{');
	json_key_text(j, "buildProfile", "release");
	json_key_text(j, "buildStatus", "unknown");
	json_key_text(j, "cryptoProvider", "tls-openssl");
	json_key_text(j, "gitRevision", "unknown");
	json_key_text(j, "istioVersion", a->istio_version);
	json_key_text(j, "rustVersion", "none");
	json_key_text(j, "version", CULVERT_VERSION);
	json_close(j, '}');
}

static void static_config(struct json *j, const struct admin *a)
{
	char trouble[LOCAL_REASON_MAX] = "";

	if (a->local)
		local_watch_trouble(a->local, trouble);
	json_open(j, '{');
	json_key_some(j, "path", a->local_path);
	json_key_some(j, "trouble", trouble);
	json_close(j, '}');
}

static void ktls(struct json *j, const struct admin *a)
{
	json_open(j, '{');
	json_key(j, "features");
	json_open(j, '[');
	for (unsigned f = 0; f < KTLS_FEATURES; f++) {
		json_open(j, '{');
		json_key(j, "available");
		json_raw(j, a->ktls->has[f] ? "true" : "false");
		json_key_text(j, "name", ktls_feature_name(f));
		json_key_some(j, "reason", a->ktls->why[f]);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_key_text(j, "mode", ktls_mode_name(a->ktls_mode));
	json_close(j, '}');
}

static void xds(struct json *j, const struct admin *a)
{
	struct xds_status s;

	xds_status(a->xds, &s);
	json_open(j, '{');
	json_key_text(j, "address", s.address);
	json_key(j, "closed");
	json_number(j, s.closed);
	json_key(j, "complete");
	json_bool(j, s.warm);
	json_key(j, "connected");
	json_bool(j, s.connected);
	json_key_some(j, "lastError", s.why);
	json_key_some(j, "refused", s.refused);
	json_key_time(j, "since", s.since);
	json_close(j, '}');
}

static void mesh_counts(struct json *j, struct admin *a)
{
	struct store_counts n;

	store_count(a->store, &n);
	json_key(j, "mesh");
	json_open(j, '{');
	json_key(j, "policies");
	json_number(j, n.policies);
	json_key(j, "services");
	json_number(j, n.services);
	json_key(j, "workloads");
	json_number(j, n.workloads);
	json_close(j, '}');
}

static void mesh(struct json *j, struct admin *a, struct tunnel_dump *live, bool whole)
{
	if (whole) {
		json_key(j, "policies");
		dump_policies(j, a->store);
		json_key(j, "services");
		dump_services(j, a->store);
		json_key(j, "stagedServices");
		dump_staged(j, a->store);
	} else {
		mesh_counts(j, a);
	}
	json_key(j, "staticConfig");
	static_config(j, a);
	json_key(j, "version");
	version(j, a);
	json_key(j, "workloadState");
	dump_pods(j, live, a->store);
	if (!whole)
		return;
	json_key(j, "workloads");
	dump_workloads(j, a->store);
}

void config_dump(struct admin *a, bool whole, struct http_response *out)
{
	struct json j = {0};
	struct tunnel_dump live = {0};
	bool complete;

	json_open(&j, '{');
	json_key(&j, "certificates");
	complete = dump_certificates(&j, a->control, a->certs) && data_dump(a->data, DUMP_PODS_AND_CONNS, &live) == 0;
	if (complete) {
		json_key(&j, "config");
		json_raw(&j, a->config);
		if (a->crl) {
			json_key(&j, "crl");
			dump_lists(&j, a->crl);
		}
		if (a->ktls) {
			json_key(&j, "ktls");
			ktls(&j, a);
		}
		store_thread_register();
		mesh(&j, a, &live, whole);
		store_thread_unregister();
		if (a->xds) {
			json_key(&j, "xds");
			xds(&j, a);
		}
		json_close(&j, '}');
		json_raw(&j, "\n");
	}
	tunnel_dump_free(&live);
	if (complete && !j.failed) {
		out->body = j.p;
		out->body_len = j.len;
		out->content_type = "application/json";
		return;
	}
	free(j.p);
	http_text(out, 500, complete ? "out of memory\n" : "the workers did not answer in time\n");
}
