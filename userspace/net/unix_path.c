// SPDX-License-Identifier: Apache-2.0
/* Owns the removal of socket files that are in the way. */
#include "net/unix_path.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool somebody_listens(const char *path, int type)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	bool yes = false;
	int fd;

	if (strlen(path) >= sizeof un.sun_path)
		return false; /* nobody can */
	memcpy(un.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true; /* cannot be told */
	/* A full backlog is a listener as well, and so is one of another type. */
	yes = connect(fd, (struct sockaddr *)&un, sizeof un) == 0 || errno == EAGAIN || errno == EPROTOTYPE;
	close(fd);
	return yes;
}

int unix_path_take(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EADDRINUSE;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int unix_path_clear(const char *path, int type)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && somebody_listens(path, type))
		return -EADDRINUSE;
	return unix_path_take(path);
}
