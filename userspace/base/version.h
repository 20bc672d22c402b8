/* SPDX-License-Identifier: Apache-2.0 */
/* The version that every program and every answer names, and what a command line asks of a program instead of its work. */
#pragma once
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CULVERT_VERSION "0.1.0"

static inline bool help_flag(const char *word)
{
	return !strcmp(word, "--help") || !strcmp(word, "-h");
}

/* As the first word also as ztunnel has it; elsewhere that may be a value. */
static inline bool help_word(const char *word)
{
	return help_flag(word) || !strcmp(word, "help");
}

/* Whether `word` asks a program for it, who has been told then: as --version, or as ztunnel has it. */
static inline bool version_told(const char *word)
{
	if (strcmp(word, "--version") != 0 && strcmp(word, "version") != 0)
		return false;
	printf("culvert %s\n", CULVERT_VERSION);
	return true;
}

/* Whether the words from `first` on ask for help or the version, which needs neither flags nor an environment that are right. */
static inline bool only_asked(int argc, char **argv, int first, void (*usage)(void))
{
	if (first < argc && version_told(argv[first]))
		return true;
	for (int i = first; i < argc; i++)
		if (i == first ? help_word(argv[i]) : help_flag(argv[i])) {
			usage();
			return true;
		}
	return false;
}
