/* SPDX-License-Identifier: Apache-2.0 */
/* One netlink question and its answer, in the namespace of the calling thread. Private to steer/. */
#pragma once
#include <libmnl/libmnl.h>

/* Sends `h` by a socket of its own, so that a late answer cannot meet the next question, and gives each message of the
 * answer to `each` (may be NULL). Waits STEER_DEADLINE_MS at most. 0 or -errno: the kernel's, -ETIMEDOUT, or -EINTR for
 * a dump that changed while it was read. */
int netlink_talk(int protocol, struct nlmsghdr *h, mnl_cb_t each, void *arg);
