/* SPDX-License-Identifier: Apache-2.0 */
/* A command of culvertctl, and what its command line may say. */
#pragma once
#include <stdbool.h>

#include "culvertctl.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct options {
	const char *run_dir;
	bool json, all, wait, verbose, reset;
	const char *peer, *write, *pod, *since; /* NULL: not given */
	const char *argument[3];
	unsigned n;
};

struct command {
	const char *name, *arguments;
	unsigned least, most;
	/* 0; the exit status, where what was printed says why; or -errno with a line in `why` */
	int (*run)(const struct options *o, char why[CALL_WHY_MAX]);
	const char *brief, *help;
};

/* The one of the `n` commands that is to be run, with as many arguments as it takes. NULL: help was printed, or a line
 * about what is wrong, and `status` is the exit status. */
const struct command *line_read(struct options *o, const struct command *all, unsigned n, int argc, char **argv,
				int *status);
