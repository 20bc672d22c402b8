/* SPDX-License-Identifier: Apache-2.0 */
/* The version that every program and every answer names. */
#pragma once
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CULVERT_VERSION "0.1.0"

/* Whether `word` asks a program for it, who has been told then: as --version, or as ztunnel has it. */
static inline bool version_told(const char *word)
{
	if (strcmp(word, "--version") != 0 && strcmp(word, "version") != 0)
		return false;
	printf("culvert %s\n", CULVERT_VERSION);
	return true;
}
