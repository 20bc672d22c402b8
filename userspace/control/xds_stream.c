// SPDX-License-Identifier: Apache-2.0
/* One stream: opened with a request for each type, then each response is applied and answered, until either side has
 * enough. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/monotonic.h"
#include "control/token.h"
#include "control/xds_internal.h"

static const char method[] = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/* Ours to end: istiod did not keep to the protocol. */
static void end(struct xds *x, enum grpc_status status, const char *why)
{
	xds_stream_close(x);
	xds_ended(x, status, why);
}

static void answer(struct xds *x, const struct xds_result *r)
{
	int e = xds_request_answer(x, r);

	if (e)
		end(x, GRPC_RESOURCE_EXHAUSTED, e == -ENOBUFS ? "istiod does not read its answers" : "out of memory");
}

static void named(void *arg, const char *name, bool removed)
{
	const struct xds *x = arg;

	xds_demand_named(x->demands, name, removed);
}

static void judged(void *arg, enum xds_type type, const char *name, const char *line, bool is_closed)
{
	struct xds *x = arg;

	xds_refused_judged(&x->refused, type, name, line, is_closed);
}

static void responded(void *arg, const uint8_t *msg, size_t len)
{
	struct xds *x = arg;
	const struct xds_listener listener = {x->demands ? named : NULL, judged, x};
	struct xds_result r;
	uint64_t began = monotonic_us();
	int e;

	if (x->messages++ == 0)
		xds_refused_restart(&x->refused, x->whole);
	e = xds_apply(x->store, msg, len, x->whole, &listener, &r);
	if (e) {
		end(x, GRPC_INTERNAL, e == -EPROTO ? "a message of istiod's cannot be decoded" : "out of memory");
		return;
	}
	if (r.type == XDS_TYPES) {
		snprintf(r.why, sizeof r.why, "resources of this type were not asked for");
		judged(x, r.type, r.type_url, r.why, false);
	} else {
		x->whole &= ~(1u << r.type);
	}
	xds_answered(x, &r, monotonic_us() - began);
	answer(x, &r);
}

static void closed(void *arg, enum grpc_status status, const char *why)
{
	struct xds *x = arg;

	x->call = NULL;
	timer_cancel(&x->first);
	xds_ended(x, status, why);
}

/* Where the mesh is complete, istiod may well have nothing to say. */
static void unanswered(struct timer *t)
{
	struct xds *x = container_of(t, struct xds, first);

	if (x->whole || ~x->complete & XDS_ALL)
		end(x, GRPC_DEADLINE_EXCEEDED, "istiod does not answer");
}

static int call(struct xds *x, const char *bearer, char *why)
{
	static const struct grpc_call_events events = {.message = responded, .closed = closed};
	struct grpc_header h[XDS_HEADERS_MAX + 2];
	unsigned n = 0;
	int e = 0;

	h[n++] = (struct grpc_header){"clusterid", x->cluster_id};
	if (bearer)
		h[n++] = (struct grpc_header){"authorization", bearer};
	memcpy(&h[n], x->headers, x->n_headers * sizeof *h);
	n += x->n_headers;
	x->channel = grpc_channel_new(x->loop, &x->server, why);
	if (!x->channel)
		return -EINVAL;
	x->call = grpc_call_new(x->channel,
				&(struct grpc_call_options){.path = method,
							    .headers = h,
							    .n_headers = n,
							    .message_max = x->message_max,
							    .message_ms = x->message_ms},
				&events, x);
	if (!x->call)
		e = -ENOMEM;
	for (unsigned t = 0; t < XDS_TYPES && !e; t++)
		e = xds_request_first(x, t);
	if (e)
		snprintf(why, XDS_WHY_MAX, "out of memory");
	return e;
}

int xds_stream_open(struct xds *x, char why[XDS_WHY_MAX])
{
	char *bearer = NULL;
	int e = 0;

	xds_stream_close(x);
	grpc_channel_free(x->channel);
	x->channel = NULL;
	x->messages = x->whole = x->answered = 0;
	if (x->demands)
		xds_demand_restart(x->demands);
	x->opened_at = loop_now(x->loop);
	if (x->token)
		e = token_header(x->token, &bearer);
	if (e)
		snprintf(why, XDS_WHY_MAX, "token: %s", strerror(-e));
	else
		e = call(x, bearer, why);
	free(bearer);
	if (e)
		xds_stream_close(x);
	else
		timer_set(x->loop, &x->first, x->first_ms, unanswered);
	return e;
}

void xds_stream_close(struct xds *x)
{
	timer_cancel(&x->first);
	if (x->call)
		grpc_call_cancel(x->call);
	x->call = NULL;
}
