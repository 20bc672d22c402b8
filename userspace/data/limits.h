/* SPDX-License-Identifier: Apache-2.0 */
/* Counts how often a peer has reached one of the limits, as culvert_limits_reached. What was refused or ended for it is a
 * rate-limited line of the access log. */
#pragma once
#include "net/h2.h"

enum limit {
	LIMIT_H2, /* enum h2_limit from here on */
	LIMIT_CONNECTIONS = LIMIT_H2 + H2_LIMITS,
	LIMIT_HANDSHAKES,
	LIMIT_STREAMS,
	LIMITS
};

/* Registers the family; once, before threads start. 0 or -ENOMEM. */
int limits_init(void);
/* Any thread. */
void limit_reached(enum limit l);
