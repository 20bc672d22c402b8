/* SPDX-License-Identifier: Apache-2.0 */
/* The header `baggage`: how the two ends of a tunnel tell each other which workload they speak for. It is the peer's
 * own word: telemetry may repeat it, nothing else may believe it. */
#pragma once
#include <stddef.h>

#include "state/mesh.h"

enum {
	BAGGAGE_VALUE_MAX = 128, /* bytes of one value; longer ones are cut */
};

struct baggage { /* "" where the header says nothing */
	char cluster[BAGGAGE_VALUE_MAX + 1], ns[BAGGAGE_VALUE_MAX + 1], workload[BAGGAGE_VALUE_MAX + 1];
	char service[BAGGAGE_VALUE_MAX + 1], version[BAGGAGE_VALUE_MAX + 1];
	char region[BAGGAGE_VALUE_MAX + 1], zone[BAGGAGE_VALUE_MAX + 1];
};

/* `p` needs no terminator and may hold anything. Unknown keys and malformed entries are skipped, the last of
 * several wins. -EINVAL, with all values empty, when a byte is not printable ASCII. */
int baggage_parse(struct baggage *out, const char *p, size_t len);

/* The header of a workload, terminated, into `buf`. Returns its length; attributes that do not fit, or that
 * no header can carry, are left out. */
size_t baggage_format(char *buf, size_t len, const struct workload *w);
