/* SPDX-License-Identifier: Apache-2.0 */
/* Two TCP sockets joined: bytes both ways, half-close as half-close, a reset as a reset. Private to data/. */
#pragma once
#include <sys/uio.h>

#include "data/grace.h"
#include "data/worker.h"

struct relay_way {     /* one direction */
	uint8_t *left; /* what the receiver did not take; at most WORKER_BUFFER bytes */
	uint32_t left_off, left_len;
	bool eof, shut; /* FIN came; FIN was passed on */
};

struct relay_ops {
	/* `n` bytes were read; they fill `iov` from its front, until this returns. */
	void (*moved)(void *owner, bool from_a, const struct iovec *iov, size_t n);
	/* Both directions ended (err 0), or a side failed (-errno; the other was reset, once it had what came before:
	 * data/grace.h). The descriptors are closed. Called once; the owner frees the relay in a deferred task. */
	void (*done)(void *owner, int err);
};

struct relay {
	struct io a, b;
	struct relay_way ab, ba;
	struct grace grace;
	int err; /* what a side has failed with, */
	bool failed_a;
	struct worker *w;
	const struct relay_ops *ops;
	void *owner;
};

/* Takes both descriptors over, also on failure. 0 or -errno (`done` is not called then). */
int relay_start(struct relay *r, struct worker *w, int a, int b, const struct relay_ops *ops, void *owner);
/* Resets both sides; `done` is not called. Takes one that never started or is over. */
void relay_kill(struct relay *r);
