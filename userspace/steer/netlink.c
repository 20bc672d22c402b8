// SPDX-License-Identifier: Apache-2.0
/* What rtnetlink and sock_diag share: sending a request and reading its answer. */
#include "steer/netlink.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "steer/steer.h"

enum { SEQ = 1, ANSWER_BYTES = 65536 };

static int talk_open(struct mnl_socket *nl)
{
	struct timeval patience = {STEER_DEADLINE_MS / 1000, STEER_DEADLINE_MS % 1000 * 1000};

	if (setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
		return -errno;
	return mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno : 0;
}

int netlink_talk(int protocol, struct nlmsghdr *h, mnl_cb_t each, void *arg)
{
	struct mnl_socket *nl = mnl_socket_open2(protocol, SOCK_CLOEXEC);
	char *buf = malloc(ANSWER_BYTES);
	int r = MNL_CB_OK, e = nl ? 0 : -errno;

	if (!e)
		e = buf ? talk_open(nl) : -ENOMEM;
	h->nlmsg_seq = SEQ;
	if (!e && mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		e = -errno;
	while (!e && r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(nl, buf, ANSWER_BYTES);

		r = n < 0 ? MNL_CB_ERROR : mnl_cb_run(buf, n, SEQ, mnl_socket_get_portid(nl), each, arg);
		if (r < 0)
			e = errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	if (nl)
		mnl_socket_close(nl);
	free(buf);
	return e;
}
