// SPDX-License-Identifier: Apache-2.0
/* What the accepting paths share: original destinations, and loops. */
#include "data/accept.h"

#include <ports.h>
#include <unistd.h>

#include "net/sock.h"
#include "state/route.h"

/* Captured by BPF or TPROXY, a connection's local address is what the client dialled. Only a REDIRECT rule makes the
 * local port the listener's; conntrack then knows the truth. Without an entry there the client did dial our port. */
int accept_original_dst(int fd, uint16_t listener, struct endpoint *out)
{
	struct endpoint nat;
	int e = sock_local(fd, out);

	if (!e && out->port == listener && sock_original_dst(fd, true, &nat) == 0)
		*out = nat;
	return e;
}

bool accept_is_loop(const struct worker *w, const struct endpoint *src, const struct endpoint *dst)
{
	if (!route_illegal_port(dst->port, w->o->socks))
		return false;
	return addr_eq(&src->ip, &dst->ip) || addr_is_loopback(&dst->ip);
}

void accept_refuse(int fd)
{
	sock_reset_on_close(fd);
	close(fd);
}
