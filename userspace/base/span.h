/* SPDX-License-Identifier: Apache-2.0 */
/* Where a value stands in a JSON text, so that it can be passed on byte for byte. The text must be known to be valid. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct span {
	const char *at;
	size_t len;
};

/* The value of `key`, which is written without escapes, in the object that `object` spans; false if it is not there. */
bool span_member(const struct span *object, const char *key, struct span *out);
/* The element after `e` of the array that `array` spans, in `e`; the first when e->at is NULL. False at the end. */
bool span_next(const struct span *array, struct span *e);
/* The text without the blanks around it. */
struct span span_trim(const char *text, size_t len);
