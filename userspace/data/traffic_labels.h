/* SPDX-License-Identifier: Apache-2.0 */
/* What traffic.c and dns_metrics.c (counting) ask traffic_labels.c for: names of labels, and their values for a connection. */
#pragma once
#include "data/traffic.h"
#include "state/identity.h"

enum { TRAFFIC_LABELS = 27, TRAFFIC_LOOKUP_LABELS = 9 };

/* NULL ends them. */
extern const char *const traffic_label_names[TRAFFIC_LABELS + 1];
extern const char *const traffic_lookup_names[TRAFFIC_LOOKUP_LABELS + 1];
extern const char *const traffic_reporter_names[2];

/* The value of a label that nothing is known of. */
static inline const char *traffic_known(const char *s)
{
	return s && *s ? s : "unknown";
}

struct traffic_labels {
	const char *value[TRAFFIC_LABELS];
	char principal[IDENTITY_MAX]; /* memory for those that no object holds */
	struct baggage baggage;
};
/* Values are borrowed of the facts, and of `l` itself. */
void traffic_labels_fill(struct traffic_labels *l, const struct traffic_facts *f, enum traffic_flag flag);
void traffic_lookup_fill(const char *value[TRAFFIC_LOOKUP_LABELS], char principal[IDENTITY_MAX],
			 const struct workload *source, const char *host);
