/* SPDX-License-Identifier: Apache-2.0 */
/* Counts how often a peer or a pod has reached one of the limits, as culvert_limits_reached. A connection that
 * was refused or ended for it is a rate-limited line of the access log. And how many descriptors one kind of thing may take. */
#pragma once
#include "net/h2.h"

enum limit {
	LIMIT_H2, /* enum h2_limit from here on */
	LIMIT_CONNECTIONS = LIMIT_H2 + H2_LIMITS,
	LIMIT_HANDSHAKES,
	LIMIT_HANDSHAKES_OF_ALL,
	LIMIT_STREAMS,
	LIMIT_TUNNELS,
	LIMIT_TUNNELS_OF_POD,
	LIMIT_DNS_ANSWERS,
	LIMITS
};

/* Registers the family; once, before threads start. 0 or -ENOMEM. */
int limits_init(void);
/* Any thread. */
void limit_reached(enum limit l);
/* How many things with a descriptor each one of `workers` (1: the process) may have: `max`, or its part of this fraction (1/`of`) of all
 * descriptors where that is fewer, but not fewer than `least`. */
unsigned limit_of_files(unsigned max, unsigned of, unsigned workers, unsigned least);
