/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of kTLS, for record_kernel.c and the probe. All return 0 or -errno unless they say otherwise. */
#pragma once
#include <sys/types.h>

#include "net/ktls.h"
#include "net/record_internal.h"

/* Once, on an established connection; both directions stay as they are until keys are installed. */
int ktls_attach(int fd);
/* Sets the key of one direction (`k->seals`: sending), from its sequence number on; again: a new key. */
int ktls_install(int fd, const struct record_key *k);
int ktls_expect_no_pad(int fd);
/* The sequence number of the next record of the direction that `k` is the key of. */
int ktls_sequence(int fd, const struct record_key *k, uint64_t *out);
/* Like send(2) and recv(2), never waiting. `type`: RECORD_DATA or that of one record of another kind; after
 * ktls_recv() 0 at the end of the file. */
ssize_t ktls_send(int fd, const void *p, size_t len, uint8_t type);
ssize_t ktls_recv(int fd, void *p, size_t len, uint8_t *type);
/* All bytes that TCP has taken on this connection so far, acknowledged or not: never more than is true. */
int ktls_queued(int fd, uint64_t *out);
