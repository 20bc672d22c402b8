// SPDX-License-Identifier: Apache-2.0
/* HBONE's headers: what a CONNECT and its answer carry. */
#include "data/hbone.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "data/traffic.h"

/* One more line with add() needs one more in HBONE_HEADERS. */
static void add(struct hbone_fields *f, const char *name, const char *value)
{
	assert(f->n < HBONE_HEADERS);
	f->nv[f->n++] = (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
				     NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

void hbone_request(struct hbone_fields *f, const struct workload *source, const struct endpoint *client,
		   const char *service_host, const char *from_network, const uint64_t random[3])
{
	char who[ENDPOINT_STRLEN];

	f->n = 0;
	baggage_format(f->baggage, sizeof f->baggage, source);
	add(f, "baggage", f->baggage);
	snprintf(f->forwarded, sizeof f->forwarded, "for=\"%s\"%s%s", endpoint_str(client, who),
		 service_host ? ";host=" : "", service_host ? service_host : "");
	add(f, "forwarded", f->forwarded);
	snprintf(f->traceparent, sizeof f->traceparent, "00-%016" PRIx64 "%016" PRIx64 "-%016" PRIx64 "-00", random[0],
		 random[1], random[2]);
	add(f, "traceparent", f->traceparent);
	if (from_network)
		add(f, "x-forwarded-network", from_network);
}

void hbone_response(struct hbone_fields *f, const struct workload *local)
{
	f->n = 0;
	if (!local)
		return;
	baggage_format(f->baggage, sizeof f->baggage, local);
	add(f, "baggage", f->baggage);
}

int hbone_authority(const char *text, struct endpoint *out, const char **host, char buf[HBONE_AUTHORITY_MAX])
{
	const char *colon = strrchr(text, ':');
	struct endpoint e;
	unsigned port = 0;
	size_t n;

	if (endpoint_parse(&e, text) == 0) {
		*out = e;
		*host = NULL;
		return 0;
	}
	if (!colon || colon == text || !colon[1] || strlen(colon + 1) > 5)
		return -EINVAL;
	for (const char *p = colon + 1; *p; p++) {
		if (*p < '0' || *p > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(*p - '0');
	}
	n = (size_t)(colon - text);
	if (port > 65535 || n >= HBONE_AUTHORITY_MAX || strpbrk(text, "@/ \t"))
		return -EINVAL;
	memcpy(buf, text, n);
	buf[n] = '\0';
	*host = buf;
	out->ip = addr_any4;
	out->port = (uint16_t)port;
	return 0;
}
