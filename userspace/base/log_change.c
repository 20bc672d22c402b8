// SPDX-License-Identifier: Apache-2.0
/* Changes of the log filter at run time: entries take the place of those for the same target. */
#include <errno.h>
#include <string.h>

#include "base/log_internal.h"

static bool names_target(const char *spec, const char *target, size_t len)
{
	for (const char *p = spec; *p;) {
		size_t n = strcspn(p, ",");

		if (n && log_entry_target(p, n) == len && !memcmp(p, target, len))
			return true;
		p += n + (p[n] == ',');
	}
	return false;
}

int log_change_filter(const char *base, const char *spec)
{
	char merged[2 * LOG_SPEC_MAX], now[LOG_SPEC_MAX];
	size_t len = 0;

	if (!*spec || strlen(spec) >= LOG_SPEC_MAX)
		return -EINVAL;
	for (const char *p = base ? base : log_filter(now); *p;) {
		size_t n = strcspn(p, ",");

		if (n && !names_target(spec, p, log_entry_target(p, n))) {
			memcpy(merged + len, p, n);
			len += n;
			merged[len++] = ',';
		}
		p += n + (p[n] == ',');
	}
	memcpy(merged + len, spec, strlen(spec) + 1);
	return log_set_filter(merged);
}
