/* SPDX-License-Identifier: Apache-2.0 */
/* What an HBONE server waits for before it begins a handshake. */
#include <sys/epoll.h>

#include "data/server.h"
#include "net/sock.h"
#include "net/tls.h"

/* Half a ClientHello costs no more than silence: the handshake begins when its first record is whole. Each wait is for
 * more than the last one; woken before that, the client has gone, or the kernel has no room for more. False: no more
 * waiting. */
static bool wait_for_more(struct server *s)
{
	uint32_t size = tls_hello_size(s->io.fd);

	if (size <= s->hello || size <= sock_unread(s->io.fd) || sock_wake_at(s->io.fd, size) < 0)
		return false;
	s->hello = size;
	return true;
}

static void client_gone(struct io *io, uint32_t events)
{
	server_end(container_of(io, struct server, io), "the client hung up while its handshake waited");
}

static void hello_ready(struct io *io, uint32_t events)
{
	struct server *s = container_of(io, struct server, io);

	if (wait_for_more(s))
		return;
	if (s->hello)
		sock_wake_at(io->fd, 1);
	io->ready = client_gone;
	io_want(s->w->loop, io, EPOLLRDHUP);
	turn_await(s);
}

void hello_await(struct server *s)
{
	s->io.ready = hello_ready;
	if (io_want(s->w->loop, &s->io, EPOLLIN) < 0)
		server_end(s, "epoll failed");
}
