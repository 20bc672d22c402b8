/* SPDX-License-Identifier: Apache-2.0 */
/* Where connections meet taps. Private to data/. */
#pragma once
#include "data/conn.h"

struct iovec;

/* Is there any tap? Else nothing below is called. */
static inline bool tap_wanted(const struct worker *w)
{
	return !list_empty(&w->taps);
}

void tap_opened(const struct conn *c);
/* Before they are counted. */
void tap_bytes(const struct conn *c, bool received, const struct iovec *iov, size_t n);
void tap_closed(const struct conn *c, const char *error);
