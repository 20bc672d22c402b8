/* SPDX-License-Identifier: Apache-2.0 */
/* The headers of an HBONE CONNECT and of its answer. To add a header: one line in hbone_request()
 * or hbone_response() to send it, a field of h2_headers to read it. Private to data/. */
#pragma once
#include "base/addr.h"
#include "net/h2.h"
#include "state/mesh.h"

enum {
	HBONE_HEADERS = 4,
	HBONE_AUTHORITY_MAX = 320, /* a hostname of 253 bytes, a port, and room */
};

/* Header fields with the memory behind their values; lives on the stack of who sends them. */
struct hbone_fields {
	nghttp2_nv nv[HBONE_HEADERS];
	size_t n;
	char baggage[1024], forwarded[400], traceparent[56];
};

/* `random`: two values for the trace and span ids. `service_host`: NULL if no service was dialled. `from_network`: to
 * another network this one's name, also an empty one; else NULL. */
void hbone_request(struct hbone_fields *f, const struct workload *source, const struct endpoint *client,
		   const char *service_host, const char *from_network, const uint64_t random[3]);
/* `local` NULL: no baggage in the answer. */
void hbone_response(struct hbone_fields *f, const struct workload *local);

/* What a CONNECT's authority says: an address, or (`host` set, in `buf`) a name; the port in both. -EINVAL. */
int hbone_authority(const char *text, struct endpoint *out, const char **host, char buf[HBONE_AUTHORITY_MAX]);
