/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the watch of a namespace's links, addresses, rules, routes and filters: which kind of them changed, not how. */
#include "steer/rtnl.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

int rtnl_watch_open(void)
{
	struct sockaddr_nl sa = {.nl_family = AF_NETLINK,
				 .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_RULE |
					      RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_TC |
					      1u << (RTNLGRP_IPV6_RULE - 1)};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE), e;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
		e = -errno;
		close(fd);
		return e;
	}
	return fd;
}

static unsigned what_changed(uint16_t type)
{
	switch (type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return RTNL_DEVICES;
	default:
		return RTNL_PATHS;
	}
}

unsigned rtnl_watch_drain(int fd)
{
	struct nlmsghdr h; /* of each: that something changed is all that matters, the rest of the datagram is cut */
	unsigned changed = 0;

	for (int i = 0; i < 256; i++) {
		ssize_t n = recv(fd, &h, sizeof h, MSG_TRUNC);

		if (n >= (ssize_t)sizeof h)
			changed |= what_changed(h.nlmsg_type);
		else if (n < 0 && errno == ENOBUFS)
			changed |= RTNL_DEVICES | RTNL_PATHS;
		else if (n >= 0 || errno != EINTR)
			break;
	}
	return changed;
}
