// SPDX-License-Identifier: Apache-2.0
/* Owns the life of the xDS client: streams one after the other, waits between them, when the mesh is complete, what is
 * told about it.
 *
 * The wait doubles with each stream that did not last, whoever ended it and however politely, so that no istiod is asked
 * for its whole mesh in a loop; it is half fixed, half random, so that a thousand nodes do not come back at once. */
#include "control/xds.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/metrics.h"
#include "control/xds_internal.h"

static const char target[] = "xds";

/* --- metrics -------------------------------------------------------------------------------------------- */

enum reason { CONNECTION_ERROR, ERROR, RECONNECT, COMPLETE, REASONS };

static struct metric *terminations[REASONS], *messages[XDS_TYPES + 1], *message_bytes[XDS_TYPES + 1];

int xds_metrics_init(void)
{
	static const char *const by_reason[] = {"reason", NULL}, *const by_url[] = {"url", NULL};
	static const char *const reasons[REASONS] = {"ConnectionError", "Error", "Reconnect", "Complete"};
	struct metric_family *ended, *count, *bytes;
	bool all = true;

	ended = metric_family(METRIC_COUNTER, "istio_xds_connection_terminations",
			      "Streams to istiod that ended, by what ended them (unstable)", by_reason, NULL);
	count = metric_family(METRIC_COUNTER, "istio_xds_message", "Messages of istiod (unstable)", by_url, NULL);
	bytes = metric_family(METRIC_COUNTER, "istio_xds_message_bytes", "Bytes of resources from istiod (unstable)",
			      by_url, NULL);
	for (unsigned i = 0; i < REASONS; i++)
		all &= (terminations[i] = metric_get(ended, &reasons[i])) != NULL;
	for (unsigned t = 0; t <= XDS_TYPES; t++) {
		const char *url = t < XDS_TYPES ? xds_type_urls[t] : "unknown";

		all &= (messages[t] = metric_get(count, &url)) != NULL;
		all &= (message_bytes[t] = metric_get(bytes, &url)) != NULL;
	}
	return all ? 0 : -ENOMEM;
}

/* What a server that goes away, or a proxy in between, makes of a stream. */
static bool is_reconnect(enum grpc_status status, const char *why)
{
	return status == GRPC_UNKNOWN || status == GRPC_CANCELLED || status == GRPC_DEADLINE_EXCEEDED ||
	       (status == GRPC_UNAVAILABLE &&
		(strstr(why, "transport is closing") || strstr(why, "received prior goaway")));
}

static enum reason reason_of(const struct xds *x, enum grpc_status status, const char *why)
{
	if (!x->messages)
		return CONNECTION_ERROR;
	if (status == GRPC_OK)
		return COMPLETE;
	return is_reconnect(status, why) ? RECONNECT : ERROR;
}

/* --- what is told --------------------------------------------------------------------------------------- */

static void set_connected(struct xds *x, bool connected, const char *why)
{
	pthread_mutex_lock(&x->lock);
	if (x->status.connected != connected || !x->status.since)
		x->status.since = time(NULL);
	x->status.connected = connected;
	if (why)
		snprintf(x->status.why, sizeof x->status.why, "%s", why);
	pthread_mutex_unlock(&x->lock);
}

static void set_refused(struct xds *x)
{
	pthread_mutex_lock(&x->lock);
	x->status.closed = xds_refused_say(&x->refused, x->status.refused);
	pthread_mutex_unlock(&x->lock);
}

void xds_status(struct xds *x, struct xds_status *out)
{
	pthread_mutex_lock(&x->lock);
	*out = x->status;
	pthread_mutex_unlock(&x->lock);
}

/* Types (bits) without which the mesh is not complete: on demand, addresses never are. */
static unsigned wanted(const struct xds *x)
{
	return x->demands ? 1u << XDS_AUTHORIZATION : XDS_ALL;
}

static void set_warm(struct xds *x)
{
	if (x->warm || ~x->complete & wanted(x))
		return;
	x->warm = true;
	pthread_mutex_lock(&x->lock);
	x->status.warm = true;
	pthread_mutex_unlock(&x->lock);
	if (x->told_warm)
		x->told_warm(x->arg);
}

static void log_refusal(struct xds *x, const struct xds_result *r)
{
	uint64_t more;

	if (!log_allowed(&x->refusals, loop_now(x->loop), &more))
		return;
	log_warn(target, "%s: %u of %u resources left out, %u policies closed: %s", r->type_url, r->rejected,
		 r->resources, r->closed, r->why);
	if (more)
		log_warn(target, "%llu more such lines in the last second", (unsigned long long)more);
}

static void trim(struct timer *t)
{
	malloc_trim(0);
}

void xds_answered(struct xds *x, const struct xds_result *r, uint64_t took_us)
{
	unsigned bit = 1u << r->type;
	bool first = r->type < XDS_TYPES && !(x->answered & bit);

	metric_add(messages[r->type], 1);
	metric_add(message_bytes[r->type], (int64_t)r->bytes);
	if (x->messages == 1)
		set_connected(x, true, NULL);
	set_refused(x);
	if (r->why[0])
		log_refusal(x, r);
	log_at(first ? LOG_INFO : LOG_DEBUG, target, "%s: %u resources, %u removed, %zu bytes, applied in %llu us",
	       r->type_url, r->resources, r->removed, r->bytes, (unsigned long long)took_us);
	if (r->bytes > XDS_TRIM_BYTES)
		timer_set(x->loop, &x->trim, XDS_TRIM_MS, trim);
	if (r->type == XDS_TYPES)
		return;
	x->answered |= bit;
	if (!r->rejected)
		x->complete |= bit;
	if (!(~x->answered & XDS_ALL))
		timer_cancel(&x->first);
	set_warm(x);
}

/* --- streams -------------------------------------------------------------------------------------------- */

static void open_now(struct timer *t)
{
	struct xds *x = container_of(t, struct xds, again);
	char why[XDS_WHY_MAX];

	if (xds_stream_open(x, why))
		xds_ended(x, GRPC_UNAVAILABLE, why);
}

static unsigned next_wait(struct xds *x)
{
	unsigned half, random = 0;

	if (loop_now(x->loop) - x->opened_at >= XDS_STEADY_MS && x->messages)
		x->backoff_ms = XDS_BACKOFF_MIN_MS;
	else
		x->backoff_ms = 2 * x->backoff_ms < XDS_BACKOFF_MAX_MS ? 2 * x->backoff_ms : XDS_BACKOFF_MAX_MS;
	half = x->backoff_ms / 2;
	if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
		random = (unsigned)loop_now(x->loop);
	return half + random % (half + 1);
}

void xds_ended(struct xds *x, enum grpc_status status, const char *why)
{
	enum reason reason = reason_of(x, status, why);
	unsigned wait = next_wait(x);
	char line[XDS_WHY_MAX];

	metric_add(terminations[reason], 1);
	if (x->messages)
		x->claim_nothing = false;
	else if (status == GRPC_RESOURCE_EXHAUSTED)
		x->claim_nothing = true;
	snprintf(line, sizeof line, "%s: %s%s%.256s", x->server.address,
		 status == GRPC_OK ? "closed by istiod" : grpc_status_name(status), *why ? ": " : "", why);
	set_connected(x, false, line);
	log_at(reason == COMPLETE || reason == RECONNECT ? LOG_INFO : LOG_WARN, target, "%s; next attempt in %u ms",
	       line, wait);
	timer_set(x->loop, &x->again, wait, open_now);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static bool copy(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

static bool options_copy(struct xds *x, const struct xds_options *o)
{
	bool all = copy((char **)&x->server.address, o->server.address) &&
		   copy((char **)&x->server.root, o->server.root) &&
		   copy((char **)&x->server.alt_host, o->server.alt_host) && copy(&x->token, o->token) &&
		   copy(&x->cluster_id, o->cluster_id) && copy(&x->node_name, o->node_name);

	x->server.tls12 = o->server.tls12;
	x->message_max = o->message_max ? o->message_max : XDS_MESSAGE_MAX;
	x->message_ms = o->message_ms ? o->message_ms : XDS_MESSAGE_MS;
	x->first_ms = o->first_ms ? o->first_ms : XDS_FIRST_MS;
	x->demand_ms = o->demand_ms ? o->demand_ms : XDS_DEMAND_MS;
	x->told_warm = o->warm;
	x->arg = o->arg;
	x->node_len = o->node_len;
	x->node = malloc(o->node_len ? o->node_len : 1);
	if (x->node && o->node_len)
		memcpy(x->node, o->node, o->node_len);
	x->n_headers = o->n_headers < XDS_HEADERS_MAX ? o->n_headers : XDS_HEADERS_MAX;
	for (unsigned i = 0; i < x->n_headers; i++)
		all &= copy((char **)&x->headers[i].name, o->headers[i].name) &&
		       copy((char **)&x->headers[i].value, o->headers[i].value);
	return all && x->node;
}

/* An address that is none is better said now than with each attempt. */
static bool address_is_one(struct xds *x, char *why)
{
	struct grpc_channel *c = grpc_channel_new(x->loop, &x->server, why);

	grpc_channel_free(c);
	return c;
}

struct xds *xds_new(struct loop *l, struct store *s, const struct xds_options *o, char why[XDS_WHY_MAX])
{
	struct xds *x = calloc(1, sizeof *x);

	snprintf(why, XDS_WHY_MAX, "out of memory");
	if (!x)
		return NULL;
	x->loop = l;
	x->store = s;
	x->backoff_ms = XDS_BACKOFF_MIN_MS;
	x->refusals.per_second = 10;
	xds_refused_init(&x->refused);
	pthread_mutex_init(&x->lock, NULL);
	if (o->on_demand)
		x->demands = xds_demands_new(x);
	if (!options_copy(x, o) || !address_is_one(x, why) || (o->on_demand && !x->demands)) {
		xds_free(x);
		return NULL;
	}
	x->status.address = x->server.address;
	set_connected(x, false, NULL);
	timer_set(l, &x->again, 0, open_now);
	return x;
}

void xds_free(struct xds *x)
{
	if (!x)
		return;
	timer_cancel(&x->again);
	timer_cancel(&x->trim);
	xds_stream_close(x);
	xds_demands_free(x->demands);
	xds_refused_clear(&x->refused);
	grpc_channel_free(x->channel);
	for (unsigned i = 0; i < XDS_HEADERS_MAX; i++) {
		free((char *)x->headers[i].name);
		free((char *)x->headers[i].value);
	}
	free((char *)x->server.address);
	free((char *)x->server.root);
	free((char *)x->server.alt_host);
	free(x->token);
	free(x->cluster_id);
	free(x->node_name);
	free(x->node);
	pthread_mutex_destroy(&x->lock);
	free(x);
}
