// SPDX-License-Identifier: Apache-2.0
/* DNS over TCP (15053, RFC 7766): messages with their length before them, several at a time on a connection, answered in
 * the order in which answers come. A client that does not read its answers, or has many queries under way, is not read
 * from meanwhile; one that does nothing for a while is let go. What is owed to a pod is bounded; an answer beyond it ends its
 * connection. */
#include <errno.h>
#include <ports.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "data/accept.h"
#include "data/dns_query.h"
#include "data/limits.h"
#include "net/sock.h"

enum { PREFIX = 2, DNS_PORT = 53, ROOM = 512, PER_EVENT = 4 }; /* messages, then the others have their turn */

struct chunk {
	struct list link;
	size_t len, sent;
	uint8_t bytes[];
};

struct dns_conn {
	struct list link; /* of the post */
	struct post *post;
	struct dns_client client;
	struct io io;
	struct timer idle;
	struct task read_on, bury;
	uint8_t *in; /* one message and its length */
	size_t have, room;
	struct list out; /* struct chunk */
	size_t out_bytes;
	unsigned under_way;
	bool eof, lost; /* lost: an answer */
};

static void bury(struct task *t)
{
	struct dns_conn *c = container_of(t, struct dns_conn, bury);

	free(c->in);
	free(c);
}

static void conn_close(struct dns_conn *c)
{
	struct loop *l = c->post->w->loop;

	dns_queries_end(c->post, c);
	if (!list_empty(&c->out) || c->lost)
		sock_reset_on_close(c->io.fd);
	list_for_each_safe (pos, tmp, &c->out)
		free(list_entry(pos, struct chunk, link));
	list_init(&c->out);
	c->post->dns_out -= c->out_bytes;
	io_close(l, &c->io);
	timer_cancel(&c->idle);
	task_cancel(&c->read_on);
	list_del(&c->link);
	__atomic_sub_fetch(&c->post->pod->n_dns_conns, 1, __ATOMIC_RELAXED);
	c->eof = true;
	loop_defer(l, &c->bury, bury);
}

static bool may_read(const struct dns_conn *c)
{
	return !c->eof && !c->lost && c->under_way < DNS_CONN_QUERIES_MAX && c->out_bytes < DNS_CONN_OUT_MAX;
}

/* What it waits for; or its end. False: it is closed. */
static bool conn_settle(struct dns_conn *c)
{
	uint32_t mask = (may_read(c) ? EPOLLIN : 0) | (list_empty(&c->out) ? 0 : EPOLLOUT);
	bool over = c->lost || (c->eof && !c->under_way && list_empty(&c->out));

	if (!over && io_want(c->post->w->loop, &c->io, mask) == 0)
		return true;
	conn_close(c);
	return false;
}

static void idle(struct timer *t)
{
	struct dns_conn *c = container_of(t, struct dns_conn, idle);

	/* Its queries end by themselves. */
	if (c->under_way && list_empty(&c->out))
		timer_set(c->post->w->loop, t, DNS_CONN_IDLE_MS, idle);
	else
		conn_close(c);
}

/* It did something. While it is owed an answer, nothing else counts than to take that to its end. */
static void stay(struct dns_conn *c)
{
	if (list_empty(&c->out))
		timer_set(c->post->w->loop, &c->idle, DNS_CONN_IDLE_MS, idle);
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* One for which there is no room is the end of the connection: behind half an answer there can be no other. It ends once it
 * is settled, as it is after a read and after a query. */
static void queue(struct dns_conn *c, const struct iovec *v, size_t skip)
{
	size_t len = v[0].iov_len + v[1].iov_len;
	bool full = c->post->dns_out >= DNS_OUT_POD_MAX;
	struct chunk *k = full ? NULL : malloc(sizeof *k + len);

	if (full)
		limit_reached(LIMIT_DNS_ANSWERS);
	if (!k) {
		c->lost = true;
		return;
	}
	memcpy(k->bytes, v[0].iov_base, v[0].iov_len);
	memcpy(k->bytes + v[0].iov_len, v[1].iov_base, v[1].iov_len);
	k->len = len;
	k->sent = skip;
	c->out_bytes += len;
	c->post->dns_out += len;
	list_add_tail(&c->out, &k->link);
}

void dns_conn_answer(struct dns_conn *c, const uint8_t *msg, size_t len)
{
	uint8_t prefix[PREFIX];
	struct iovec v[2] = {{prefix, PREFIX}, {(void *)msg, len}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	ssize_t n = 0;

	if (c->lost)
		return;
	stay(c);
	dns_put16(prefix, (unsigned)len);
	if (list_empty(&c->out))
		n = sendmsg(c->io.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		c->lost = true; /* its client has gone */
	else if (n < (ssize_t)(PREFIX + len))
		queue(c, v, n > 0 ? (size_t)n : 0);
}

/* False: it is closed. */
static bool flush(struct dns_conn *c)
{
	while (!list_empty(&c->out)) {
		struct chunk *k = list_entry(c->out.next, struct chunk, link);
		ssize_t n = send(c->io.fd, k->bytes + k->sent, k->len - k->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n < 0) {
			conn_close(c);
			return false;
		}
		k->sent += (size_t)n;
		if (k->sent < k->len)
			return true;
		c->out_bytes -= k->len;
		c->post->dns_out -= k->len;
		list_del(&k->link);
		free(k);
		timer_set(c->post->w->loop, &c->idle, DNS_CONN_IDLE_MS, idle);
	}
	return true;
}

/* --- queries -------------------------------------------------------------------------------------------- */

static void read_on(struct task *t);

void dns_conn_hold(struct dns_conn *c)
{
	c->under_way++;
}

/* What is read next must not begin inside the end of a query, nor in the same turn: it may end at once as well, and so on
 * for as long as there are queries to be read. */
void dns_conn_release(struct dns_conn *c)
{
	c->under_way--;
	loop_next_turn(c->post->w->loop, &c->read_on, read_on);
}

static size_t wanted(const struct dns_conn *c)
{
	return c->have < PREFIX ? PREFIX : PREFIX + dns_get16(c->in);
}

static bool make_room(struct dns_conn *c)
{
	size_t want = wanted(c) > ROOM ? wanted(c) : ROOM;
	uint8_t *in = want > c->room ? realloc(c->in, want) : c->in;

	if (!in)
		return false;
	c->room = want > c->room ? want : c->room;
	c->in = in;
	return true;
}

/* Reads up to the end of one message: true when it is there. */
static bool message_read(struct dns_conn *c)
{
	while (c->have < PREFIX || c->have < wanted(c)) {
		ssize_t n = make_room(c) ? recv(c->io.fd, c->in + c->have, wanted(c) - c->have, MSG_DONTWAIT) : 0;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return false;
		if (n <= 0) {
			c->eof = true;
			return false;
		}
		c->have += (size_t)n;
	}
	return true;
}

static void conn_read(struct dns_conn *c)
{
	for (unsigned i = 0; i < PER_EVENT && may_read(c) && message_read(c); i++) {
		c->have = 0;
		stay(c);
		dns_query_take(c->post, &c->client, c->in + PREFIX, dns_get16(c->in));
	}
	conn_settle(c);
}

static void read_on(struct task *t)
{
	conn_read(container_of(t, struct dns_conn, read_on));
}

static void conn_ready(struct io *io, uint32_t events)
{
	struct dns_conn *c = container_of(io, struct dns_conn, io);

	if (flush(c))
		conn_read(c);
}

/* --- life ----------------------------------------------------------------------------------------------- */

/* Whom the client wanted to ask; what it dialled may not be us. */
static int find_resolver(struct post *p, int fd, const struct endpoint *peer, struct dns_path *path)
{
	int e = accept_original_dst(fd, PORT_DNS, &path->resolver);

	path->client = *peer;
	if (e < 0)
		return e;
	return accept_is_loop(p->w, peer, &path->resolver) || path->resolver.port == PORT_DNS ? -ELOOP : 0;
}

static bool takes_place(struct pod *p)
{
	if (__atomic_add_fetch(&p->n_dns_conns, 1, __ATOMIC_RELAXED) <= DNS_CONNS_POD_MAX)
		return true;
	__atomic_sub_fetch(&p->n_dns_conns, 1, __ATOMIC_RELAXED);
	return false;
}

void dns_tcp_accept(struct post *p, int fd, const struct endpoint *peer)
{
	struct dns_conn *c;

	if (!p->w->o->dns_zone) {
		outbound_accept_dns(p, fd, peer);
		return;
	}
	c = calloc(1, sizeof *c);
	if (!c || find_resolver(p, fd, peer, &c->client.path) < 0 || !takes_place(p->pod)) {
		free(c);
		accept_refuse(fd);
		return;
	}
	c->post = p;
	c->client.conn = c;
	list_init(&c->out);
	list_add_tail(&p->dns_conns, &c->link);
	io_init(&c->io, fd, conn_ready);
	stay(c);
	conn_settle(c);
}

void dns_conns_close(struct post *p)
{
	list_for_each_safe (pos, tmp, &p->dns_conns)
		conn_close(list_entry(pos, struct dns_conn, link));
}
