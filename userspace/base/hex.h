/* SPDX-License-Identifier: Apache-2.0 */
/* Hexadecimal digits, and the percent-encoding that is made of them. */
#pragma once
#include <stddef.h>

/* -1: it is none. */
static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The first of `n` > 0 bytes, decoded where an escape begins there; what is like one only stays. How many bytes it took. */
static inline size_t percent_next(const char *p, size_t n, char *out)
{
	*out = *p;
	if (*p != '%' || n < 3 || hex_digit(p[1]) < 0 || hex_digit(p[2]) < 0)
		return 1;
	*out = (char)(hex_digit(p[1]) << 4 | hex_digit(p[2]));
	return 3;
}
