/* SPDX-License-Identifier: Apache-2.0 */
/* Names as Kubernetes and istiod write them where a namespace belongs to them: NAMESPACE/NAME. */
#pragma once
#include <stdbool.h>
#include <string.h>

/* Is `text` the name `name` in `ns`? */
static inline bool qualified_is(const char *text, const char *ns, const char *name)
{
	size_t n = strlen(ns);

	return !strncmp(text, ns, n) && text[n] == '/' && !strcmp(text + n + 1, name);
}
