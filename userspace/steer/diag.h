/* SPDX-License-Identifier: Apache-2.0 */
/* TCP sockets of the namespace in which the calling thread is, by sock_diag. 0 or -errno. */
#pragma once
#include <linux/inet_diag.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

enum { /* as the kernel numbers them */
       DIAG_ESTABLISHED = 1,
       DIAG_FIN_WAIT2 = 5,
       DIAG_TIME_WAIT = 6,
       DIAG_CLOSE = 7,
       DIAG_LISTEN = 10,
       /* Every socket that has a peer or looks for one; TIME_WAIT holds no data. */
       DIAG_CONNECTED = ~(1u << DIAG_TIME_WAIT | 1u << DIAG_CLOSE | 1u << DIAG_LISTEN),
};

struct diag_socket {
	uint8_t family, state;
	struct inet_diag_sockid id; /* names it for diag_destroy() */
	struct addr local, peer;
	uint64_t cookie;
	uint32_t mark;
	uint32_t flow; /* enum steer_flow, 0: none */
	bool orphan;   /* no process has it open */
	bool unsent;   /* bytes wait to be sent or acknowledged */
};

/* `flows`: the pod's map of that name, or -1. Stops when `each` returns false. */
int diag_each(int flows, uint32_t states, bool (*each)(void *arg, const struct diag_socket *s), void *arg);
/* Ends the connection: its peer gets a RST, its owner ECONNABORTED. One that is gone is success. */
int diag_destroy(const struct diag_socket *s);
