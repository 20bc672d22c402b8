/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, durations, CPU quantities, modes of files and lists, as Istio's variables have them. */
#include "base/values.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int value_number(const char *s, unsigned long *out)
{
	char *end;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	*out = strtoul(s, &end, 10);
	return *end || errno || *out > INT_MAX ? -EINVAL : 0;
}

int value_seconds(const char *s, double *out)
{
	static const struct {
		const char *unit;
		double ms;
	} units[] = {{"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"h", 3.6e6}, {"d", 8.64e7}, {"w", 6.048e8}, {"", 1e3}};
	double total = 0;

	if (!*s)
		return -EINVAL;
	while (*s) {
		char *end;
		double v = strtod(s, &end);
		size_t len = strspn(end, "abcdefghijklmnopqrstuvwxyz"), i = 0;

		if (end == s || v < 0 || (!len && *end && *end != ' ' && *end != '+'))
			return -EINVAL;
		for (; i < sizeof units / sizeof *units; i++)
			if (len == strlen(units[i].unit) && !strncmp(end, units[i].unit, len))
				break;
		if (i == sizeof units / sizeof *units)
			return -EINVAL;
		total += v * units[i].ms;
		s = end + len;
		s += strspn(s, " +");
	}
	if (!isfinite(total))
		return -EINVAL;
	*out = total / 1000;
	return 0;
}

int value_duration(const char *s, unsigned long *ms)
{
	double seconds;

	if (value_seconds(s, &seconds) < 0 || !(seconds * 1000 < INT_MAX))
		return -EINVAL;
	*ms = (unsigned long)(seconds * 1000);
	return 0;
}

int value_cpus(const char *s, unsigned long *out)
{
	char *end;
	double v = strtod(s, &end);

	if (end == s || !(v >= 0 && v <= 4096))
		return -EINVAL;
	if (!strcmp(end, "m"))
		v /= 1000;
	else if (*end)
		return -EINVAL;
	*out = (unsigned long)v + (v > (double)(unsigned long)v);
	return 0;
}

int value_mode(const char *s, unsigned long *mode)
{
	char *end;
	unsigned long v = strtoul(s, &end, 8);

	if (*s < '0' || *s > '7' || *end || v > 0777)
		return -EINVAL;
	*mode = v;
	return 0;
}

bool value_next(const char **rest, struct span *out)
{
	while (**rest) {
		size_t n = strcspn(*rest, ",");

		*out = span_trim(*rest, n);
		*rest += n + ((*rest)[n] == ',');
		if (out->len)
			return true;
	}
	return false;
}

bool value_lists(const char *list, const char *name)
{
	struct span one;

	while (value_next(&list, &one))
		if (one.len == strlen(name) && !memcmp(one.at, name, one.len))
			return true;
	return false;
}
