/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the plugin share: limits, error codes, and how a failure is told. Functions that may fail return 0 or
 * the CNI specification's error code, and fill in a struct failure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cni_abi.h"

enum {
	STDIN_MAX = 1024 * 1024,
	STDIN_MS = 5000, /* the runtime writes it at once */
	FAILURE_MAX = 2048,
};

enum code {
	E_VERSION = 1,
	E_FIELD = 2,
	E_ENVIRONMENT = 4,
	E_IO = 5,
	E_DECODE = 6,
	E_CONFIG = 7,
	E_NETNS = 8,
	E_AGAIN = 11,
	E_UNAVAILABLE = 50, /* STATUS: no pod can be added */
	E_LIMITED = 51,	    /* STATUS: and pods that are there may be cut off */
	E_BROKEN = 100,	    /* CHECK: ours to define */
	E_INTERNAL = 999,
};

struct failure {
	int code;
	char msg[FAILURE_MAX];
};
/* Returns `code`. */
int failed(struct failure *f, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* CLOCK_MONOTONIC. */
uint64_t now_ms(void);
/* What is left until `deadline`, for poll(2). */
int left_ms(uint64_t deadline);
