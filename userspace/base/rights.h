/* SPDX-License-Identifier: Apache-2.0 */
/* A process's capabilities: kept by name, all others given up for good. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* Keeps those of `caps` (CAP_*) that this process has, in the permitted and the effective set, and none in the
 * inheritable and ambient ones. The bounding set shrinks as well where CAP_SETPCAP lets it. Of the calling thread:
 * before others start. 0 or -errno. */
int rights_keep(const int *caps, size_t n);
/* Is the capability effective? */
bool rights_has(int cap);
