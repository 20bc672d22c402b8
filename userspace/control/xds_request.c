// SPDX-License-Identifier: Apache-2.0
/* What is sent on a stream. The first request of a type names what the store already has with its versions, so that istiod
 * sends only what is new, and what is gone. It reads no request over 4 MiB: a mesh with more names than fit is sent again
 * as a whole instead. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/xds_internal.h"
#include "control/xds_scratch.h"
#include "proto/xds.pb-c.h"
#include "state/arena.h"

typedef Envoy__Service__Discovery__V3__DeltaDiscoveryRequest request;
typedef Envoy__Service__Discovery__V3__Version version;

static int put(struct xds *x, const request *r)
{
	size_t len = envoy__service__discovery__v3__delta_discovery_request__get_packed_size(r);
	uint8_t *p;
	int e;

	if (grpc_call_queued(x->call) + len > XDS_QUEUE_MAX)
		return -ENOBUFS;
	p = malloc(len ? len : 1);
	if (!p)
		return -ENOMEM;
	envoy__service__discovery__v3__delta_discovery_request__pack(r, p);
	e = grpc_call_send(x->call, p, len, false);
	free(p);
	return e;
}

/* --- what we have --------------------------------------------------------------------------------------- */

struct claims {
	struct xds_scratch memory;
	version **all;
	size_t n, cap, bytes;
	bool failed; /* there are too many, or no memory */
};

enum { CLAIM_OVERHEAD = 12, CLAIMS_MEMORY = 12 * XDS_CLAIMS_MAX };

static char *join(struct claims *c, const char *ns, const char *name)
{
	size_t a = strlen(ns), b = strlen(name);
	char *s = c->memory.allocator.alloc(c->memory.allocator.allocator_data, a + b + 2);

	if (!s)
		return NULL;
	memcpy(s, ns, a);
	s[a] = '/';
	memcpy(s + a + 1, name, b + 1);
	return s;
}

static char *hex(struct claims *c, uint64_t v)
{
	char *s = v ? c->memory.allocator.alloc(c->memory.allocator.allocator_data, 17) : "";

	if (s && v)
		snprintf(s, 17, "%" PRIx64, v);
	return s;
}

static bool grow(struct claims *c)
{
	size_t cap = c->cap ? 2 * c->cap : 1024;
	version **all = realloc(c->all, cap * sizeof *all);

	if (!all)
		return false;
	c->all = all;
	c->cap = cap;
	return true;
}

/* Non-zero ends the walk over the store. */
static int claim(struct claims *c, const char *name, uint64_t v)
{
	version *one = c->memory.allocator.alloc(c->memory.allocator.allocator_data, sizeof *one);
	char *text = hex(c, v);

	if (!name || !one || !text || (c->n == c->cap && !grow(c))) {
		c->failed = true;
		return -1;
	}
	envoy__service__discovery__v3__version__init(one);
	one->key = (char *)name;
	one->value = text;
	c->all[c->n++] = one;
	c->bytes += strlen(name) + strlen(text) + CLAIM_OVERHEAD;
	c->failed = c->bytes > XDS_CLAIMS_MAX;
	return c->failed;
}

static int claim_workload(void *arg, struct workload *w)
{
	return store_workload_is_xds(w) ? claim(arg, w->uid, arena_of(w)->version) : 0;
}

static int claim_service(void *arg, struct service *v)
{
	struct claims *c = arg;

	if (!store_service_is_xds(v))
		return 0;
	return claim(c, join(c, v->ns, v->hostname), arena_of(service_head(service_description(v)))->version);
}

static int claim_policy(void *arg, struct policy *p)
{
	struct claims *c = arg;

	return store_policy_is_xds(p) ? claim(c, join(c, p->ns, p->name), arena_of(p)->version) : 0;
}

static int claim_pending(void *arg, const char *name)
{
	return claim(arg, name, 0);
}

/* The objects outlive the request: this thread is their only writer. */
static void collect(struct xds *x, enum xds_type t, struct claims *c)
{
	if (t == XDS_AUTHORIZATION) {
		store_each_policy(x->store, claim_policy, c);
		return;
	}
	store_each_workload(x->store, claim_workload, c);
	if (!c->failed)
		store_each_service(x->store, claim_service, c);
}

/* --- requests ------------------------------------------------------------------------------------------- */

/* Of addresses, on demand: everything, and not that; what is left are the names that are claimed. */
static char *everything[] = {"*"};

int xds_request_first(struct xds *x, enum xds_type t)
{
	request r = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_REQUEST__INIT;
	struct claims c = {.n = 0};
	int e;

	xds_scratch_init(&c.memory, CLAIMS_MEMORY);
	collect(x, t, &c);
	r.type_url = (char *)xds_type_urls[t];
	r.node = (ProtobufCBinaryData){x->node_len, x->node};
	if (c.n && (c.failed || x->claim_nothing)) {
		x->whole |= 1u << t;
		c.n = c.bytes = 0;
		c.failed = false;
	}
	if (t == XDS_ADDRESS && x->demands)
		xds_demand_each_pending(x->demands, claim_pending, &c);
	r.n_initial_resource_versions = c.n;
	r.initial_resource_versions = c.all;
	if (t == XDS_ADDRESS && x->demands) {
		r.n_resource_names_subscribe = r.n_resource_names_unsubscribe = 1;
		r.resource_names_subscribe = r.resource_names_unsubscribe = everything;
	}
	e = put(x, &r);
	free(c.all);
	xds_scratch_free(&c.memory);
	return e;
}

int xds_request_answer(struct xds *x, const struct xds_result *a)
{
	request r = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_REQUEST__INIT;
	Envoy__Service__Discovery__V3__Status detail = ENVOY__SERVICE__DISCOVERY__V3__STATUS__INIT;

	r.type_url = (char *)a->type_url;
	r.response_nonce = (char *)a->nonce;
	detail.message = (char *)a->why;
	if (a->why[0])
		r.error_detail = &detail;
	return put(x, &r);
}

int xds_request_names(struct xds *x, const char *const *subscribe, size_t n, const char *const *unsubscribe, size_t m)
{
	request r = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_REQUEST__INIT;

	r.type_url = (char *)xds_type_urls[XDS_ADDRESS];
	r.n_resource_names_subscribe = n;
	r.resource_names_subscribe = (char **)subscribe;
	r.n_resource_names_unsubscribe = m;
	r.resource_names_unsubscribe = (char **)unsubscribe;
	return put(x, &r);
}
