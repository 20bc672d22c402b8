/* SPDX-License-Identifier: Apache-2.0 */
/* DNS in metrics, with ztunnel's names and labels, and the log's line about a query (target dns, DEBUG). Private to data/. */
#pragma once
#include "data/dns_message.h"

/* Registers the families; once, before threads start. 0 or -ENOMEM. */
int dns_metrics_init(void);

struct dns_facts {
	const struct workload *source; /* or NULL: unknown */
	const struct dns_question *q;
	bool tcp;
};

/* A query from a pod. */
void dns_metrics_request(const struct dns_facts *f);
/* One that went on to a resolver, and took so long; `failed`: it did not say what there is, or that there is nothing. */
void dns_metrics_upstream(const struct dns_facts *f, double seconds, bool failed);
/* It was answered from the cache. */
void dns_metrics_cached(void);
/* A query beyond what may be under way. */
void dns_metrics_dropped(void);
/* `why`: of a failure, or NULL. */
void dns_log(const struct dns_facts *f, const char *result, const char *why, unsigned answers);
