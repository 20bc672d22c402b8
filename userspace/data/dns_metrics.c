// SPDX-License-Identifier: Apache-2.0
/* Counts queries by ztunnel's label set. Types beyond those that have a name are one, so that a pod cannot make up labels. */
#include "data/dns_metrics.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/metrics.h"
#include "data/traffic_labels.h"

static const char target[] = "dns";
static const char *const label_names[] = {"request_query_type", "request_protocol", "source_canonical_service",
					  "source_canonical_revision", NULL};
enum { LABELS = sizeof label_names / sizeof *label_names - 1 };
static const double bounds[] = {0.0005, 0.001, 0.01, 0.1, 1, 5, -1};

static struct metric_family *requests, *upstream, *failures, *durations;
static struct metric *dropped, *cached;

static struct metric *sample(struct metric_family *family, const struct dns_facts *f)
{
	char type[DNS_TYPE_NAME];
	const char *const values[LABELS] = {dns_type_name(f->q->type, type), f->tcp ? "tcp" : "udp",
					    traffic_known(f->source ? f->source->canonical_name : NULL),
					    traffic_known(f->source ? f->source->canonical_revision : NULL)};

	return metric_get(family, values);
}

static void count(struct metric_family *family, const struct dns_facts *f)
{
	struct metric *m = sample(family, f);

	metric_add(m, 1);
	metric_put(m);
}

void dns_metrics_request(const struct dns_facts *f)
{
	count(requests, f);
}

void dns_metrics_upstream(const struct dns_facts *f, double seconds, bool failed)
{
	struct metric *m = sample(durations, f);

	count(upstream, f);
	if (failed)
		count(failures, f);
	metric_observe(m, seconds);
	metric_put(m);
}

void dns_metrics_cached(void)
{
	metric_add(cached, 1);
}

void dns_metrics_dropped(void)
{
	metric_add(dropped, 1);
}

void dns_log(const struct dns_facts *f, const char *result, const char *why, unsigned answers)
{
	char type[DNS_TYPE_NAME], said[256];
	struct log_line l;

	if (!log_enabled(LOG_DEBUG, target))
		return;
	snprintf(said, sizeof said, why ? "%s (%s)" : "%s", result, why);
	log_begin(&l, LOG_DEBUG, target, "query");
	log_str(&l, "src.workload", f->source ? f->source->name : "unknown");
	log_str(&l, "src.namespace", f->source ? f->source->ns : "unknown");
	log_str(&l, "query", dns_type_name(f->q->type, type));
	log_str(&l, "domain", f->q->text);
	log_str(&l, "result", said);
	log_u64(&l, "endpoints", answers);
	log_end(&l);
}

int dns_metrics_init(void)
{
	static const char *const none[] = {NULL};

	requests = metric_family(METRIC_COUNTER, "istio_dns_requests", "DNS queries of pods (unstable)", label_names,
				 NULL);
	upstream = metric_family(METRIC_COUNTER, "istio_dns_upstream_requests",
				 "DNS queries that the mesh does not answer itself (unstable)", label_names, NULL);
	failures = metric_family(METRIC_COUNTER, "istio_dns_upstream_failures",
				 "DNS queries to which no resolver had an answer (unstable)", label_names, NULL);
	durations = metric_family(METRIC_HISTOGRAM, "istio_dns_upstream_request_duration_seconds",
				  "Time until the answer to a query that the mesh does not answer itself (unstable)",
				  label_names, bounds);
	cached = metric_get(metric_family(METRIC_COUNTER, "culvert_dns_cached",
					  "DNS queries that were answered from the cache (unstable)", NULL, NULL),
			    none);
	dropped = metric_get(metric_family(METRIC_COUNTER, "culvert_dns_queries_dropped",
					   "DNS queries beyond the limit of those under way (unstable)", NULL, NULL),
			     none);
	return requests && upstream && failures && durations && cached && dropped ? 0 : -ENOMEM;
}
