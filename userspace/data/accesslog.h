/* SPDX-License-Identifier: Apache-2.0 */
/* Access log lines, built on the stack and only where the log takes them. Lines about failures
 * are limited (traffic.h); what is left out is counted. Private to data/. */
#pragma once
#include "data/traffic.h"

/* How many threads share the limits; before they start. */
void accesslog_threads(unsigned n);
void accesslog_opened(const struct traffic_facts *f);
/* `received` and `sent` as traffic.h means them. `error`: NULL for a clean end. */
void accesslog_closed(const struct traffic_facts *f, uint64_t received, uint64_t sent, uint64_t duration_ms,
		      uint64_t now_ms, const char *error);
void accesslog_rejected(enum traffic_reporter reporter, const struct endpoint *src, const struct endpoint *dst,
			const char *error, uint64_t now_ms);
/* Lines that were left out since the start. */
uint64_t accesslog_suppressed(void);
