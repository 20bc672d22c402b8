/* SPDX-License-Identifier: Apache-2.0 */
/* One trial of the start-up probe: what ktls_probe.c gives it, and what its two directions do. */
#pragma once
#include "net/ktls_internal.h"

enum { TRIAL_TEXT_MAX = 96 * 1024 };

struct probe { /* what all trials share */
	struct record_pool *pool;
	int left_ms; /* that may still be waited */
	uint8_t text[TRIAL_TEXT_MAX], wire[TRIAL_TEXT_MAX], got[TRIAL_TEXT_MAX];
};

/* One connection: [0] is the kernel's end, [1] ours. */
struct trial {
	struct probe *probe;
	enum record_cipher cipher;
	int fd[2];
	size_t at; /* bytes of the text that are through */
	char *why;
};

/* Says why; returns `err`, or -EIO for 0. */
int trial_fails(struct trial *t, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* False: not within what may still be waited. */
bool trial_readable(struct trial *t, int fd);
/* Keys of the text's way: the kernel's when `seals`, or ours to it. */
int trial_key(struct trial *t, struct record_key *k, bool seals);

/* The kernel sends, or receives; `rekey`: with a new key after a while. 0 or -errno. */
int trial_tx(struct trial *t, bool rekey);
int trial_rx(struct trial *t, bool no_pad, bool rekey);
