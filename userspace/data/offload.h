/* SPDX-License-Identifier: Apache-2.0 */
/* From a finished handshake to a record whose directions the kernel carries, as far as the node's features and the
 * connection allow; what became of it is counted. */
#pragma once
#include "data/worker.h"
#include "net/tls.h"

/* Registers the metric; once, before threads start. 0 or -ENOMEM. */
int offload_init(void);
/* As tls_handshake_finish(). */
struct record *offload_finish(struct worker *w, struct tls_handshake *h);
