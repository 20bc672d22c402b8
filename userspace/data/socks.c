// SPDX-License-Identifier: Apache-2.0
/* SOCKS5 at 127.0.0.1:15080 of a pod: outbound connections whose destination is told, not captured.
 *
 * A client says which ways of authentication it has, is told that none is needed, says where it wants to go, and gets
 * its answer when it is there or cannot get there. Messages are read as far as they go and no further: what the client
 * sends ahead stays in the socket for whoever carries it. Host names are those of the mesh's services, then those of the
 * node's resolver, until there is a DNS proxy. */
#include "data/socks.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "data/accept.h"
#include "data/outbound.h"
#include "net/sock.h"
#include "state/store.h"

struct socks {
	struct outbound *o;
	struct io io;
	struct timer timer;
	struct names_request names;
	struct endpoint to;
	enum socks_reply reply; /* when it fails from here */
	bool chosen;		/* the way of authentication; the request comes next */
	size_t n;
	uint8_t buf[SOCKS_MESSAGE_MAX];
};

/* --- answers -------------------------------------------------------------------------------------------- */

/* Into the empty buffer of a fresh socket: it fits. A client that has gone is noticed by whoever reads next. */
static void say(const struct socks *s, enum socks_reply reply)
{
	const uint8_t choice[] = {5, reply == SOCKS_SUCCEEDED ? 0 : 0xff};
	const uint8_t answer[] = {5, (uint8_t)reply, 0, 1, 0, 0, 0, 0, 0, 0};

	send(s->o->fd, s->chosen ? answer : choice, s->chosen ? sizeof answer : sizeof choice,
	     MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void socks_free(struct outbound *o)
{
	struct socks *s = o->socks;

	timer_cancel(&s->timer);
	names_cancel(&s->names);
	io_stop(o->conn.w->loop, &s->io);
	o->socks = NULL;
	free(s);
}

void socks_succeed(struct outbound *o)
{
	say(o->socks, SOCKS_SUCCEEDED);
	socks_free(o);
}

/* Bytes that nobody has read would make the end a reset, which overtakes the answer. */
void socks_fail(struct outbound *o)
{
	say(o->socks, o->socks->reply);
	socks_free(o);
	recv(o->fd, o->conn.w->buffer, WORKER_BUFFER, MSG_DONTWAIT | MSG_TRUNC); /* dropped, not copied */
	close(o->fd);
	o->fd = -1;
}

static void fail(struct socks *s, enum socks_reply reply, const char *why)
{
	s->reply = reply;
	outbound_finish(s->o, FLAG_NONE, why);
}

/* --- where to ------------------------------------------------------------------------------------------- */

static void looked_up(struct names_request *r, const struct endpoint *at, unsigned n, const char *why)
{
	struct socks *s = container_of(r, struct socks, names);
	struct worker *w = s->o->conn.w;

	if (!n) {
		fail(s, SOCKS_UNREACHABLE, why);
		return;
	}
	s->to.ip = *names_pick(at, n, &s->o->conn.src.ip, worker_random(w));
	outbound_begin(s->o, &s->to);
}

/* A service's VIP on this network; of IPv4 if there is one, as the listener is. */
static bool name_of_mesh(struct socks *s, const char *host)
{
	struct worker *w = s->o->conn.w;
	const struct service *v;
	bool found = false;

	store_read_lock();
	v = store_service_by_host(w->o->store, host, s->o->conn.pod->ns);
	for (unsigned i = 0; v && i < v->n_vips; i++) {
		const struct net_addr *a = &v->vips[i].addr;

		if (strcmp(a->network, w->o->network) != 0 || (found && !addr_is4(&a->ip)))
			continue;
		s->to.ip = a->ip;
		found = true;
	}
	store_read_unlock();
	return found;
}

static void request(struct socks *s)
{
	struct worker *w = s->o->conn.w;
	char host[SOCKS_HOST_MAX];
	const char *wrong = socks_request_read(s->buf, &s->to, host);

	if (wrong) {
		fail(s, SOCKS_UNSUPPORTED, wrong);
		return;
	}
	timer_cancel(&s->timer);
	io_stop(w->loop, &s->io);
	if (host[0] && !name_of_mesh(s, host))
		names_ask(w, &s->names, NULL, host, looked_up);
	else
		outbound_begin(s->o, &s->to);
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* One message at most. 0: it is whole; -EAGAIN; or the end. */
static int message_read(struct socks *s)
{
	size_t lack;

	while ((lack = (s->chosen ? socks_request_lack : socks_methods_lack)(s->buf, s->n))) {
		ssize_t n = recv(s->io.fd, s->buf + s->n, lack, MSG_DONTWAIT);

		if (n <= 0)
			return n == 0 ? -ECONNRESET : -errno;
		s->n += (size_t)n;
	}
	return 0;
}

static void readable(struct io *io, uint32_t events)
{
	struct socks *s = container_of(io, struct socks, io);
	int e = message_read(s);
	const char *wrong;

	if (e == 0 && !s->chosen) {
		wrong = socks_methods_read(s->buf);
		if (wrong) {
			fail(s, SOCKS_UNSUPPORTED, wrong);
			return;
		}
		say(s, SOCKS_SUCCEEDED);
		s->chosen = true;
		s->n = 0;
		e = message_read(s);
	}
	if (e == 0)
		request(s);
	else if (e != -EAGAIN && e != -EINTR)
		fail(s, SOCKS_FAILED, "SOCKS: the client has gone before it said where to");
}

static void late(struct timer *t)
{
	fail(container_of(t, struct socks, timer), SOCKS_FAILED, "SOCKS: the client did not say where to in time");
}

void socks_accept(struct post *p, int fd, const struct endpoint *peer)
{
	struct outbound *o = outbound_new(p, fd, peer);
	struct socks *s = o ? calloc(1, sizeof *s) : NULL;

	if (!s) {
		if (o)
			outbound_finish(o, FLAG_NONE, "out of memory");
		return;
	}
	s->o = o;
	s->reply = SOCKS_FAILED;
	o->socks = s;
	sock_local(fd, &o->conn.original);
	o->conn.dst = o->conn.original;
	io_init(&s->io, fd, readable);
	timer_set(p->w->loop, &s->timer, SOCKS_HANDSHAKE_MS, late);
	if (io_want(p->w->loop, &s->io, EPOLLIN) < 0)
		fail(s, SOCKS_FAILED, "epoll failed");
}
