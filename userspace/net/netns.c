/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces of threads. Where a thread is, is remembered per thread, so that staying costs nothing. */
#include "net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>
#include <linux/nsfs.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

static __thread int home_fd = -1;
static __thread uint64_t home_inode, here;

int netns_init_thread(void)
{
	struct stat st;
	int fd;

	if (home_fd >= 0)
		return 0;
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0) {
		int e = -errno;

		close(fd);
		return e;
	}
	home_fd = fd;
	home_inode = here = st.st_ino;
	return 0;
}

int netns_enter(int fd, uint64_t id)
{
	if (home_fd < 0)
		return -EINVAL; /* without a way back nobody leaves */
	if (here == id)
		return 0;
	if (setns(fd, CLONE_NEWNET) < 0)
		return -errno;
	here = id;
	return 0;
}

void netns_home(void)
{
	if (home_fd < 0 || here == home_inode)
		return;
	if (setns(home_fd, CLONE_NEWNET) < 0) {
		fprintf(stderr, "culvert: cannot return to this thread's network namespace: %s\n", strerror(errno));
		abort();
	}
	here = home_inode;
}

bool netns_inside(uint64_t id)
{
	return home_fd >= 0 && here == id;
}

uint64_t netns_cookie_of(int socket)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof cookie;

	return getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

static uint64_t cookie_here(void)
{
	uint64_t cookie;
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (s < 0)
		s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return 0;
	cookie = netns_cookie_of(s);
	close(s);
	return cookie;
}

int netns_identify(int fd, struct netns_id *out)
{
	struct netns_id id;
	struct stat st;
	uint64_t was = here;
	int e;

	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET || fstat(fd, &st) < 0)
		return -EINVAL;
	id.inode = st.st_ino;
	id.device = st.st_dev;
	id.cookie = 0;
	e = netns_init_thread();
	if (!e)
		e = netns_enter(fd, id.inode);
	if (e < 0)
		return e;
	id.cookie = cookie_here();
	if (was != id.inode)
		netns_home();
	*out = id;
	return 0;
}

/* Looked at before it is opened: opening a FIFO waits, and opening a device may do anything. */
int netns_open(const char *path)
{
	int at = open(path, O_PATH | O_CLOEXEC), fd, e = 0;
	struct statfs fs;
	char again[40];

	if (at < 0)
		return -errno;
	if (fstatfs(at, &fs) < 0 || fs.f_type != NSFS_MAGIC) {
		close(at);
		return -EINVAL;
	}
	snprintf(again, sizeof again, "/proc/self/fd/%d", at);
	fd = open(again, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		e = -errno;
	else if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		e = -EINVAL;
	close(at);
	if (!e)
		return fd;
	if (fd >= 0)
		close(fd);
	return e;
}
