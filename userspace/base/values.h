/* SPDX-License-Identifier: Apache-2.0 */
/* Values of the configuration as text. Those that read one return 0 or -EINVAL. */
#pragma once
#include "base/span.h"

/* Decimal, up to INT_MAX. */
int value_number(const char *s, unsigned long *out);
/* Sums of number and unit, as "1h30m" or "3m+31"; seconds where no unit is given. Milliseconds, up to INT_MAX. */
int value_duration(const char *s, unsigned long *ms);
/* The same in seconds, however long. */
int value_seconds(const char *s, double *out);
/* Kubernetes quantities of CPU, rounded up: "2", "1.5", "500m". */
int value_cpus(const char *s, unsigned long *out);
/* Of a file: octal digits, as 0600. */
int value_mode(const char *s, unsigned long *mode);
/* The next entry of a list with commas, whose rest `rest` is; blanks around an entry do not count, nor do empty ones. */
bool value_next(const char **rest, struct span *out);
/* Is `name` an entry? */
bool value_lists(const char *list, const char *name);
