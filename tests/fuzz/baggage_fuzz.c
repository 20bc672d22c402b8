/* SPDX-License-Identifier: Apache-2.0 */
/* The baggage header of a peer: values are terminated, printable, short; what is read, is written and is read
 * again stays the same where it can be written at all. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/baggage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check_value(const char *v)
{
	size_t n = strnlen(v, BAGGAGE_VALUE_MAX + 1);

	require(n <= BAGGAGE_VALUE_MAX);
	for (size_t i = 0; i < n; i++)
		require(v[i] == '\t' || (v[i] >= 0x20 && v[i] <= 0x7e));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct baggage b, again;
	char text[2048];
	size_t n;

	if (baggage_parse(&b, (const char *)data, size) < 0)
		return 0;
	const char *values[] = {b.cluster, b.ns, b.workload, b.service, b.version, b.region, b.zone};
	for (unsigned i = 0; i < 7; i++)
		check_value(values[i]);
	struct workload w = {
		.cluster_id = b.cluster,
		.ns = b.ns,
		.workload_type = "pod",
		.workload_name = b.workload,
		.canonical_name = b.service,
		.canonical_revision = b.version,
		.region = b.region,
		.zone = b.zone,
	};
	n = baggage_format(text, sizeof text, &w);
	require(n < sizeof text && strlen(text) == n);
	require(baggage_parse(&again, text, n) == 0);
	require(!strcmp(b.cluster, again.cluster) && !strcmp(b.ns, again.ns) && !strcmp(b.workload, again.workload));
	require(!strcmp(b.service, again.service) && !strcmp(b.version, again.version));
	require(!strcmp(b.region, again.region) && !strcmp(b.zone, again.zone));
	return 0;
}
