/* SPDX-License-Identifier: Apache-2.0 */
/* A tap's memory, shared by who reads it (tap.c) and the workers that write it (tap_worker.c).
 *
 * A ring is written by its worker alone and read by the tap's reader alone: `head` is how much was ever written, `tail` how
 * much was read. The reader says that it is about to sleep, looks once more, and sleeps on the eventfd; the first
 * worker that has something for it then takes the word back and wakes it. */
#pragma once
#include "data/tap.h"
#include "data/worker.h"

struct tap_post { /* a worker's part */
	struct list link;
	struct tap *tap;
	struct worker *w;
	struct msg begin, end;
	uint8_t *ring;
	size_t size;
	uint64_t head, tail;		   /* atomic */
	uint64_t lost_records, lost_bytes; /* atomic; written by the worker */
};

struct tap {
	unsigned refs;	/* atomic */
	unsigned begun; /* workers that have joined; atomic */
	int fd;
	bool sleeps; /* atomic */
	struct tap_filter filter;
	struct addr peer_ip;
	bool has_ip;
	unsigned posts, turn;
	struct tap_post post[];
};
