/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a decision, noted down where somebody asks for them: the functions that decide take a pointer, which is NULL
 * for connections. So an explanation is made by what decides, and cannot say something else. */
#pragma once
#include <stdbool.h>

enum {
	WHY_STEPS_MAX = 512,	/* what comes after is only counted */
	WHY_TEXT_MAX = 512,	/* with the terminator; longer ones are cut */
	WHY_ENDPOINTS_MAX = 64, /* of a service that are gone through one by one */
};

struct why {
	struct why_step {
		const char *topic; /* static */
		char *text;
	} * step;
	unsigned n, cap;
	unsigned left_out; /* for want of room or memory */
};

void why_note(struct why *w, const char *topic, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void why_free(struct why *w);

/* Nothing is evaluated when nobody asks. */
#define WHY(w, ...)                               \
	do {                                      \
		if (w)                            \
			why_note(w, __VA_ARGS__); \
	} while (0)
