// SPDX-License-Identifier: Apache-2.0
/* sock_diag: listing TCP sockets with their mark and what our programs stored in them, and ending them. */
#include "steer/diag.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "steer/netlink.h"
#include "steer/steer.h"

enum { REQUEST_BYTES = 512 };

struct call {
	bool (*each)(void *arg, const struct diag_socket *s);
	void *arg;
	bool stopped;
};

static uint32_t stored_flow(const struct nlattr *storages)
{
	const struct nlattr *one, *a;

	mnl_attr_for_each_nested(one, storages) mnl_attr_for_each_nested(
		a, one) if (mnl_attr_get_type(a) == SK_DIAG_BPF_STORAGE_MAP_VALUE &&
			    mnl_attr_get_payload_len(a) >= sizeof(uint32_t)) return mnl_attr_get_u32(a);
	return 0;
}

static struct addr to_addr(uint8_t family, const uint32_t *words)
{
	struct addr a;

	if (family == AF_INET)
		return addr_from4(words[0]);
	memcpy(&a, words, sizeof a);
	return a;
}

static int on_socket(const struct nlmsghdr *h, void *arg)
{
	const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
	struct call *call = arg;
	struct diag_socket s = {.family = m->idiag_family, .state = m->idiag_state, .id = m->id};
	const struct nlattr *a;

	s.local = to_addr(s.family, m->id.idiag_src);
	s.peer = to_addr(s.family, m->id.idiag_dst);
	s.cookie = m->id.idiag_cookie[0] | (uint64_t)m->id.idiag_cookie[1] << 32;
	s.orphan = !m->idiag_inode;
	s.unsent = m->idiag_wqueue > 0;
	mnl_attr_for_each(a, h, sizeof *m)
	{
		if (mnl_attr_get_type(a) == INET_DIAG_MARK)
			s.mark = mnl_attr_get_u32(a);
		else if (mnl_attr_get_type(a) == INET_DIAG_SK_BPF_STORAGES)
			s.flow = stored_flow(a);
	}
	if (!call->stopped)
		call->stopped = !call->each(call->arg, &s);
	return MNL_CB_OK;
}

int diag_each(int flows, uint32_t states, bool (*each)(void *arg, const struct diag_socket *s), void *arg)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	struct call call = {each, arg, false};
	int e = 0;

	for (size_t i = 0; i < sizeof families && !e && !call.stopped; i++) {
		char buf[REQUEST_BYTES];
		struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
		struct inet_diag_req_v2 *req = mnl_nlmsg_put_extra_header(h, sizeof *req);

		h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
		h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
		req->sdiag_family = families[i];
		req->sdiag_protocol = IPPROTO_TCP;
		req->idiag_states = states;
		if (flows >= 0) {
			struct nlattr *nest = mnl_attr_nest_start(h, INET_DIAG_REQ_SK_BPF_STORAGES);

			mnl_attr_put_u32(h, SK_DIAG_BPF_STORAGE_REQ_MAP_FD, flows);
			mnl_attr_nest_end(h, nest);
		}
		e = netlink_talk(NETLINK_SOCK_DIAG, h, on_socket, &call);
		if (families[i] == AF_INET6 && e == -ENOENT)
			e = 0; /* no IPv6 */
	}
	return e;
}

int diag_destroy(const struct diag_socket *s)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req = mnl_nlmsg_put_extra_header(h, sizeof *req);
	int e;

	h->nlmsg_type = SOCK_DESTROY;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	req->sdiag_family = s->family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->id = s->id;
	e = netlink_talk(NETLINK_SOCK_DIAG, h, NULL, NULL);
	return e == -ENOENT ? 0 : e;
}
