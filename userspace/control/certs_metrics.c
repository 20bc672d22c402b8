// SPDX-License-Identifier: Apache-2.0
/* What the metrics tell of certificates: how many there are, which ends first, and that the CA refuses. */
#include <errno.h>

#include "base/metrics.h"
#include "control/certs.h"

static struct metric *failures;

static double identities(void *arg)
{
	struct certs_summary s;

	certs_summarize(arg, &s);
	return s.identities;
}

static double without(void *arg)
{
	struct certs_summary s;

	certs_summarize(arg, &s);
	return s.without;
}

static double first_end(void *arg)
{
	struct certs_summary s;

	certs_summarize(arg, &s);
	return (double)s.first_end;
}

int certs_metrics_init(struct certs *c)
{
	static const struct {
		const char *name, *help;
		double (*value)(void *arg);
	} gauges[] = {
		{"culvert_certificate_identities", "Identities of this node's pods (unstable)", identities},
		{"culvert_certificate_identities_without", "Identities that have no valid certificate (unstable)",
		 without},
		{"culvert_certificate_first_expiry_timestamp_seconds",
		 "When the first of the valid certificates ends; 0 without one (unstable)", first_end},
	};
	static const char *const none[] = {NULL};

	for (unsigned i = 0; i < sizeof gauges / sizeof *gauges; i++) {
		struct metric_family *f = metric_family(METRIC_GAUGE, gauges[i].name, gauges[i].help, NULL, NULL);

		if (!f)
			return -ENOMEM;
		metric_callback(f, gauges[i].value, c);
	}
	failures = metric_get(metric_family(METRIC_COUNTER, "culvert_certificate_failures",
					    "Requests for a certificate that failed (unstable)", NULL, NULL),
			      none);
	return failures ? 0 : -ENOMEM;
}

void certs_metrics_failed(void)
{
	metric_add(failures, 1);
}
