/* SPDX-License-Identifier: Apache-2.0 */
/* The limits' names, and how often each was reached; and the limit on descriptors. */
#include "data/limits.h"

#include <errno.h>
#include <sys/resource.h>

#include "base/metrics.h"

static const char *const names[LIMITS] = {
	[LIMIT_H2 + H2_LIMIT_CONTROL] = "control_frames",
	[LIMIT_H2 + H2_LIMIT_RESETS] = "resets",
	[LIMIT_H2 + H2_LIMIT_HEADERS] = "header_bytes",
	[LIMIT_H2 + H2_LIMIT_STALLED] = "stalled_stream",
	[LIMIT_H2 + H2_LIMIT_BLOCK] = "header_block",
	[LIMIT_H2 + H2_LIMIT_UNREAD] = "unread_connection",
	[LIMIT_H2 + H2_LIMIT_PROTOCOL] = "protocol_errors",
	[LIMIT_CONNECTIONS] = "connections_of_a_source",
	[LIMIT_HANDSHAKES] = "handshakes_of_a_source",
	[LIMIT_HANDSHAKES_OF_ALL] = "handshakes_of_all_sources",
	[LIMIT_STREAMS] = "streams_of_a_source",
	[LIMIT_TUNNELS] = "tunnels_of_a_worker",
	[LIMIT_TUNNELS_OF_POD] = "tunnels_of_a_pod",
	[LIMIT_DNS_ANSWERS] = "dns_answers_of_a_pod",
};

static struct metric *reached[LIMITS];

int limits_init(void)
{
	static const char *const labels[] = {"limit", NULL};
	struct metric_family *f = metric_family(METRIC_COUNTER, "culvert_limits_reached",
						"Limits that peers and pods have reached (unstable)", labels, NULL);

	for (unsigned i = 0; i < LIMITS; i++) {
		reached[i] = metric_get(f, &names[i]);
		if (!reached[i])
			return -ENOMEM;
	}
	return 0;
}

void limit_reached(enum limit l)
{
	metric_add(reached[l], 1);
}

unsigned limit_of_files(unsigned max, unsigned of, unsigned workers, unsigned least)
{
	struct rlimit r;
	rlim_t some;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		r.rlim_cur = RLIM_INFINITY;
	some = r.rlim_cur / of / workers;
	return some >= max ? max : some > least ? (unsigned)some : least;
}
