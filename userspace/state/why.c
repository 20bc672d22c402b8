// SPDX-License-Identifier: Apache-2.0
/* Owns the list of a decision's steps. */
#include "state/why.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool room(struct why *w)
{
	unsigned cap = w->cap ? 2 * w->cap : 32;
	struct why_step *more;

	if (w->n < w->cap)
		return true;
	if (w->n == WHY_STEPS_MAX)
		return false;
	more = realloc(w->step, cap * sizeof *more);
	if (!more)
		return false;
	w->step = more;
	w->cap = cap;
	return true;
}

void why_note(struct why *w, const char *topic, const char *fmt, ...)
{
	char text[WHY_TEXT_MAX], *copy;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	copy = room(w) ? strdup(text) : NULL;
	if (copy)
		w->step[w->n++] = (struct why_step){topic, copy};
	else
		w->left_out++;
}

void why_free(struct why *w)
{
	for (unsigned i = 0; i < w->n; i++)
		free(w->step[i].text);
	free(w->step);
	*w = (struct why){0};
}
