// SPDX-License-Identifier: Apache-2.0
/* The agent's sockets in a pod. All are marked, so that their packets are known as the agent's; listeners are
 * transparent, so that they can answer from addresses that are not the pod's. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/sock.h"
#include "steer/steer_internal.h"

static const struct {
	enum { TCP, UDP, RAW } kind;
	uint16_t port;
	int family;
	bool dns;
	const char *name;
} table[STEER_SOCKETS] = {
	[STEER_TCP15001] = {TCP, PORT_OUTBOUND, 0, false, "TCP port 15001"},
	[STEER_TCP15006] = {TCP, PORT_INBOUND, 0, false, "TCP port 15006"},
	[STEER_TCP15008] = {TCP, PORT_HBONE, 0, false, "TCP port 15008"},
	[STEER_TCP15053] = {TCP, PORT_DNS, 0, true, "TCP port 15053"},
	[STEER_UDP15053] = {UDP, PORT_DNS, 0, true, "UDP port 15053"},
	[STEER_RAW4] = {RAW, 0, AF_INET, true, "IPv4 raw socket"},
	[STEER_RAW6] = {RAW, 0, AF_INET6, true, "IPv6 raw socket"},
};

/* IPPROTO_RAW: sends whole IP packets of either family, headers included, and receives none. */
static int open_raw(int family)
{
	int fd = socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
	uint32_t mark = CULVERT_MARK_AGENT;

	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) {
		int e = -errno;

		close(fd);
		return e;
	}
	return fd < 0 ? -errno : fd;
}

static int open_one(enum steer_socket which)
{
	struct sock_listen how = {{addr_any6, table[which].port}, CULVERT_MARK_AGENT, true, false};

	if (table[which].kind == RAW)
		return open_raw(table[which].family);
	return table[which].kind == TCP ? sock_listen_tcp(&how) : sock_bind_udp(&how);
}

/* All that is missing; what failed, or NULL. */
static int open_missing(int fresh[STEER_SOCKETS], const struct steer_sockets *s, bool dns, const char **what)
{
	for (unsigned i = 0; i < STEER_SOCKETS; i++) {
		if (s->fd[i] >= 0 || (table[i].dns && !dns))
			continue;
		fresh[i] = open_one(i);
		if (fresh[i] >= 0 || (fresh[i] == -EAFNOSUPPORT && table[i].family == AF_INET6))
			continue;
		*what = table[i].name;
		return fresh[i];
	}
	return 0;
}

/* Two keepers that open at the same moment may refuse each other, since a socket announces that it listens before the
 * kernel looks for others that do: hence the lock on the namespace. It is free again when this returns. */
int steer_sockets_open(struct steer_sockets *s, const struct netns_id *ns, int netns_fd, bool dns,
		       char why[STEER_WHY_MAX])
{
	int fresh[STEER_SOCKETS], e = netns_init_thread();
	const char *what = NULL;

	if (!e)
		e = netns_enter(netns_fd, ns->inode);
	if (e)
		return failed(why, e, "cannot enter the network namespace");
	memset(fresh, -1, sizeof fresh);
	if (flock(netns_fd, LOCK_EX | LOCK_NB) < 0)
		e = failed(why, errno == EWOULDBLOCK ? -EBUSY : -errno,
			   "another process has locked the network namespace (flock), to enrol it or to stay out");
	else
		e = open_missing(fresh, s, dns, &what);
	if (what)
		failed(why, e, "cannot open %s in the pod", what);
	netns_home();
	for (unsigned i = 0; i < STEER_SOCKETS; i++) {
		if (fresh[i] < 0)
			continue;
		if (e)
			close(fresh[i]);
		else
			s->fd[i] = fresh[i];
	}
	flock(netns_fd, LOCK_UN);
	return e;
}

void steer_sockets_close(struct steer_sockets *s)
{
	for (unsigned i = 0; i < STEER_SOCKETS; i++) {
		if (s->fd[i] >= 0)
			close(s->fd[i]);
		s->fd[i] = -1;
	}
}
