/* SPDX-License-Identifier: Apache-2.0 */
/* Texts that many objects of the mesh share (namespaces, nodes, host names) are kept once. Any thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { INTERN_MAX = 128 }; /* bytes of a text; longer ones are hardly shared */

/* A terminated copy that lives until intern_put(*id). NULL: no memory. */
const char *intern_get(const char *s, size_t len, uint32_t *id);
void intern_put(uint32_t id);
unsigned intern_count(void);
