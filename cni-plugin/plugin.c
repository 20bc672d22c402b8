/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what the plugin's files share: failures, and time. */
#include "plugin.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

int failed(struct failure *f, int code, const char *fmt, ...)
{
	va_list ap;

	f->code = code;
	va_start(ap, fmt);
	vsnprintf(f->msg, sizeof f->msg, fmt, ap);
	va_end(ap);
	for (char *p = f->msg; *p; p++) /* it may quote what came in */
		*p = (unsigned char)*p < ' ' || *p == 127 ? ' ' : *p;
	return code;
}

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int left_ms(uint64_t deadline)
{
	uint64_t now = now_ms();

	return now < deadline ? (int)(deadline - now) : 0;
}
