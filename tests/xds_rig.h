/* SPDX-License-Identifier: Apache-2.0 */
/* Responses of istiod for tests: resources one by one, then the whole as bytes; and the mesh as text, to compare. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/dump.h"
#include "control/local.h"
#include "control/xds_apply.h"
#include "fake/istiod_encode.h"
#include "proto/xds.pb-c.h"

enum { RIG_RESOURCES_MAX = 64 };

struct rig_response {
	Envoy__Service__Discovery__V3__DeltaDiscoveryResponse m;
	ProtobufCBinaryData resource[RIG_RESOURCES_MAX];
	char *removed[RIG_RESOURCES_MAX];
};

static inline struct rig_response *rig_response(const char *type, const char *nonce)
{
	struct rig_response *r = calloc(1, sizeof *r);

	envoy__service__discovery__v3__delta_discovery_response__init(&r->m);
	r->m.type_url = (char *)type;
	r->m.nonce = (char *)nonce;
	r->m.resources = r->resource;
	r->m.removed_resources = r->removed;
	return r;
}

/* `value` NULL: a resource without content. */
static inline void rig_resource(struct rig_response *r, const char *name, const char *version, const void *value,
				size_t len)
{
	Envoy__Service__Discovery__V3__Resource m = ENVOY__SERVICE__DISCOVERY__V3__RESOURCE__INIT;
	Envoy__Service__Discovery__V3__Any any = ENVOY__SERVICE__DISCOVERY__V3__ANY__INIT;
	ProtobufCBinaryData *to = &r->resource[r->m.n_resources++];

	any.value = (ProtobufCBinaryData){len, (uint8_t *)value};
	m.name = (char *)name;
	m.version = (char *)version;
	m.resource = value ? &any : NULL;
	to->data = encoder_pack(&m.base, &to->len);
}

static inline void rig_removed(struct rig_response *r, const char *name)
{
	r->removed[r->m.n_removed_resources++] = (char *)name;
}

/* Bytes, malloc'ed; `r` is gone. */
static inline uint8_t *rig_bytes(struct rig_response *r, size_t *len)
{
	uint8_t *p = encoder_pack(&r->m.base, len);

	for (size_t i = 0; i < r->m.n_resources; i++)
		free(r->resource[i].data);
	free(r);
	return p;
}

static inline int rig_apply(struct store *s, struct rig_response *r, unsigned whole, struct xds_result *out)
{
	size_t len;
	uint8_t *p = rig_bytes(r, &len);
	int e = xds_apply(s, p, len, whole, NULL, out);

	free(p);
	return e;
}

/* --- a mesh file as responses --------------------------------------------------------------------------- */

static inline int rig_add_workload(void *arg, struct workload *w)
{
	size_t len;
	uint8_t *p = encode_workload(w, &len);

	rig_resource(arg, w->uid, "1", p, len);
	free(p);
	return 0;
}

static inline int rig_add_service(void *arg, struct service *v)
{
	size_t len;
	uint8_t *p = encode_service(v, &len);
	char name[512];

	snprintf(name, sizeof name, "%s/%s", v->ns, v->hostname);
	rig_resource(arg, name, "1", p, len);
	free(p);
	return 0;
}

static inline int rig_add_policy(void *arg, struct policy *v)
{
	size_t len;
	uint8_t *p = encode_policy(v, &len);
	char name[512];

	snprintf(name, sizeof name, "%s/%s", v->ns, v->name);
	rig_resource(arg, name, "", p, len);
	free(p);
	return 0;
}

static inline struct rig_response *rig_addresses(struct store *from)
{
	struct rig_response *r = rig_response(xds_type_urls[XDS_ADDRESS], "n1");

	store_each_workload(from, rig_add_workload, r);
	store_each_service(from, rig_add_service, r);
	return r;
}

static inline struct rig_response *rig_policies(struct store *from)
{
	struct rig_response *r = rig_response(xds_type_urls[XDS_AUTHORIZATION], "n2");

	store_each_policy(from, rig_add_policy, r);
	return r;
}

static inline struct store *rig_load(const char *text)
{
	struct store *s = store_new("");
	char why[LOCAL_REASON_MAX] = "";

	if (local_load_text(s, "mesh", text, strlen(text), why)) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	return s;
}

/* What /config_dump says of the mesh; malloc'ed. */
static inline char *rig_dump(struct store *s)
{
	struct json j = {0};
	char *text;

	json_open(&j, '{');
	json_key(&j, "policies");
	dump_policies(&j, s);
	json_key(&j, "services");
	dump_services(&j, s);
	json_key(&j, "stagedServices");
	dump_staged(&j, s);
	json_key(&j, "workloads");
	dump_workloads(&j, s);
	json_close(&j, '}');
	text = strndup(j.p, j.len);
	free(j.p);
	return text;
}
