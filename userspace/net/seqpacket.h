/* SPDX-License-Identifier: Apache-2.0 */
/* Unix SOCK_SEQPACKET sockets that carry one message and up to SEQPACKET_FDS descriptors a packet, as ZDS does. */
#pragma once
#include <stddef.h>
#include <sys/types.h>

enum {
	SEQPACKET_BYTES = 1024, /* a longer packet is an error (ZDS, both sides) */
	SEQPACKET_FDS = 16,
};

/* A listening or connected socket at `path`; a stale path is replaced, a live one is -EADDRINUSE. -errno. */
int seqpacket_listen(const char *path, unsigned mode);
int seqpacket_connect(const char *path);
int seqpacket_accept(int listener);
/* The process at the other end of an accepted connection, as it was when it connected. 0 or -errno. */
int seqpacket_peer(int fd, pid_t *pid, uid_t *uid);

/* 0 or -errno; all or nothing. The descriptors stay the caller's. */
int seqpacket_send(int fd, const void *buf, size_t len, const int *fds, size_t n_fds);
/* Bytes received, 0 at the end of the connection, or -errno. Received descriptors are close-on-exec and the
 * caller's. -EMSGSIZE for a truncated packet (MSG_TRUNC, MSG_CTRUNC): its descriptors are closed. */
ssize_t seqpacket_recv(int fd, void *buf, size_t cap, int fds[SEQPACKET_FDS], size_t *n_fds);
