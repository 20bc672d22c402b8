/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc tells of a process: its age, and the file that it runs. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* When it began, in clock ticks since boot: of two processes the younger has the larger number. 0: it cannot be seen. */
uint64_t process_born(pid_t pid);
/* Seconds since then. */
uint64_t process_age(pid_t pid);

/* A program's file: two are the same only if nothing was written in between. All 0: not known. */
struct program {
	dev_t dev;
	ino_t ino;
	int64_t size, mtime_ns;
};
/* 0 or -errno; -EACCES for what is no program. */
int program_of_path(const char *path, struct program *out);
/* The same, and a descriptor (O_PATH) from which it can be started when the path leads to another one. */
int program_open(const char *path, struct program *out);
/* Of the file that the process runs, which may have no name any more. `name`: its path, or that which it had. A descriptor
 * or -errno. */
int program_of_process(pid_t pid, struct program *out, char name[PATH_MAX]);
bool program_same(const struct program *a, const struct program *b);
