// SPDX-License-Identifier: Apache-2.0
/* Unix SOCK_SEQPACKET sockets with descriptors beside the bytes (unix(7), SCM_RIGHTS). A packet that does not fit is an
 * error, and whatever descriptors came with it are closed: nothing is half received. */
#include "net/seqpacket.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/unix_path.h"

enum { BACKLOG = 16 };

static int address(struct sockaddr_un *un, const char *path)
{
	size_t len = strlen(path);

	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!len || len >= sizeof un->sun_path)
		return -ENAMETOOLONG;
	memcpy(un->sun_path, path, len);
	return 0;
}

int seqpacket_connect(const char *path)
{
	struct sockaddr_un un;
	int e = address(&un, path), fd;

	if (e < 0)
		return e;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&un, sizeof un) < 0) {
		e = -errno;
		close(fd);
		return e;
	}
	return fd;
}

int seqpacket_listen(const char *path, unsigned mode)
{
	struct sockaddr_un un;
	int e = address(&un, path), fd;

	if (e == 0)
		e = unix_path_clear(path, SOCK_SEQPACKET);
	if (e < 0)
		return e;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* The mode is set before listen(2): until then nobody can connect. */
	if (bind(fd, (struct sockaddr *)&un, sizeof un) < 0 || chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0) {
		e = -errno;
		close(fd);
		return e;
	}
	return fd;
}

int seqpacket_accept(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

int seqpacket_peer(int fd, pid_t *pid, uid_t *uid)
{
	struct ucred cred;
	socklen_t len = sizeof cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*pid = cred.pid;
	*uid = cred.uid;
	return 0;
}

int seqpacket_send(int fd, const void *buf, size_t len, const int *fds, size_t n_fds)
{
	union {
		char space[CMSG_SPACE(SEQPACKET_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {(void *)buf, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (len > SEQPACKET_BYTES || n_fds > SEQPACKET_FDS)
		return -EMSGSIZE;
	if (n_fds) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof control);
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *m, int fds[SEQPACKET_FDS], size_t *n_fds)
{
	*n_fds = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		const uint8_t *data = CMSG_DATA(c);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, data + i * sizeof fd, sizeof fd);
			if (*n_fds < SEQPACKET_FDS)
				fds[(*n_fds)++] = fd;
			else
				close(fd);
		}
	}
}

ssize_t seqpacket_recv(int fd, void *buf, size_t cap, int fds[SEQPACKET_FDS], size_t *n_fds)
{
	union {
		char space[CMSG_SPACE(SEQPACKET_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {buf, cap};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
	ssize_t n;

	do
		n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	*n_fds = 0;
	if (n < 0)
		return -errno;
	take_fds(&m, fds, n_fds);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		while (*n_fds)
			close(fds[--*n_fds]);
		return -EMSGSIZE;
	}
	return n;
}
