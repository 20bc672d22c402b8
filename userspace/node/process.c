/* SPDX-License-Identifier: Apache-2.0 */
/* Reads /proc/PID/stat and /proc/PID/exe. */
#include "node/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STAT_BORN = 22 - 2 }; /* proc(5): field 22, counted from the one after the name */

uint64_t process_born(pid_t pid)
{
	char path[64], text[1024], *at;
	unsigned long long born = 0;
	size_t n;
	FILE *f;

	if (pid <= 0)
		return 0;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = '\0';
	at = strrchr(text, ')'); /* the name may hold anything */
	for (int i = 0; at && i < STAT_BORN; i++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, " %llu", &born) == 1 ? born : 0;
}

uint64_t process_age(pid_t pid)
{
	uint64_t born = process_born(pid), second = (uint64_t)sysconf(_SC_CLK_TCK);
	struct timespec now;

	if (!born || clock_gettime(CLOCK_BOOTTIME, &now) < 0 || (uint64_t)now.tv_sec < born / second)
		return 0;
	return (uint64_t)now.tv_sec - born / second;
}

static void program_take(struct program *out, const struct stat *st)
{
	*out = (struct program){st->st_dev, st->st_ino, st->st_size,
				st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec};
}

static int is_program(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_mode & 0111 && st->st_size ? 0 : -EACCES;
}

int program_of_path(const char *path, struct program *out)
{
	struct stat st;
	int e = stat(path, &st) < 0 ? -errno : is_program(&st);

	if (!e)
		program_take(out, &st);
	return e;
}

int program_open(const char *path, struct program *out)
{
	int fd = open(path, O_PATH | O_CLOEXEC), e;
	struct stat st;

	if (fd < 0)
		return -errno;
	e = fstat(fd, &st) < 0 ? -errno : is_program(&st);
	if (e) {
		close(fd);
		return e;
	}
	program_take(out, &st);
	return fd;
}

int program_of_process(pid_t pid, struct program *out, char name[PATH_MAX])
{
	static const char gone[] = " (deleted)";
	char path[64];
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
	n = readlink(path, name, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	name[n] = '\0';
	if ((size_t)n > strlen(gone) && !strcmp(name + n - strlen(gone), gone))
		name[(size_t)n - strlen(gone)] = '\0';
	return program_open(path, out);
}

bool program_same(const struct program *a, const struct program *b)
{
	return a->ino == b->ino && a->dev == b->dev && a->size == b->size && a->mtime_ns == b->mtime_ns;
}
