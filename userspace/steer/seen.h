/* SPDX-License-Identifier: Apache-2.0 */
/* Is a pod steered, as whoever comes from outside can see it: without the keeper's descriptors, so also when there is no
 * keeper. steer_check() knows more. */
#pragma once
#include "steer/steer.h"

/* 0; -ENOENT and what is missing in `why`; or another error. */
int steer_seen(int netns_fd, const struct netns_id *ns, enum steer_mode mode, char why[STEER_WHY_MAX]);

/* Parts of it, for the namespace of the calling thread. Private to steer/. */
int seen_missing(char why[STEER_WHY_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int seen_route(bool ipv6, uint32_t table, uint32_t priority, char why[STEER_WHY_MAX]);
int seen_accept_local(char why[STEER_WHY_MAX]);
