// SPDX-License-Identifier: Apache-2.0
/* DNS over UDP (15053): a plain forwarder to the resolver that the application asked. Each query has a socket of its
 * own, connected to the resolver from inside the pod: the kernel keeps out answers from elsewhere, and the port is
 * random.
 *
 * The answer must come from the resolver's address and port 53. Captured by BPF, it is written by a raw socket of the
 * pod (dns_answer.c); behind REDIRECT rules conntrack restores the source, and the resolver is the node's own, since
 * the original one cannot be told. */
#include <arpa/inet.h>
#include <errno.h>
#include <ports.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "data/accept.h"
#include "data/dns_answer.h"
#include "data/traffic.h"
#include "net/netns.h"

enum {
	DNS_PER_EVENT = 32,
	DNS_UDP_MAX = 65535,
	DNS_HEADER = 12,
};

struct query {
	struct list link;
	struct worker *w;
	struct pod *pod; /* referenced */
	struct io io;
	struct timer timer;
	struct dns_path path;
	uint8_t id[2];
	struct task bury;
};

static void bury(struct task *t)
{
	free(container_of(t, struct query, bury));
}

static void query_end(struct query *q)
{
	io_close(q->w->loop, &q->io);
	timer_cancel(&q->timer);
	list_del(&q->link);
	__atomic_store_n(&q->w->n_queries, q->w->n_queries - 1, __ATOMIC_RELAXED);
	pod_unref(q->pod);
	loop_defer(q->w->loop, &q->bury, bury);
}

static void query_late(struct timer *t)
{
	query_end(container_of(t, struct query, timer));
}

static void answer_ready(struct io *io, uint32_t events)
{
	struct query *q = container_of(io, struct query, io);
	uint8_t *buf = q->w->buffer;
	ssize_t n = recv(io->fd, buf, DNS_UDP_MAX, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n >= DNS_HEADER && memcmp(buf, q->id, 2) != 0)
		return; /* somebody guesses: wait for the right one */
	if (n >= DNS_HEADER)
		dns_answer_send(q->pod, &q->path, buf, (size_t)n);
	query_end(q);
}

static int upstream_socket(const struct pod *p, const struct endpoint *resolver)
{
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(resolver, &ss);
	int e = pod_enter(p), fd;

	if (e < 0)
		return e;
	fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if ((p->mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &p->mark, sizeof p->mark) < 0) ||
	    connect(fd, (struct sockaddr *)&ss, len) < 0) {
		e = -errno;
		close(fd);
		return e;
	}
	return fd;
}

static void forward(struct post *p, const struct dns_path *path, const uint8_t *msg, size_t len)
{
	struct worker *w = p->w;
	struct query *q;
	int fd;

	if (len < DNS_HEADER)
		return;
	if (w->n_queries >= DNS_QUERIES_MAX) {
		traffic_query_dropped();
		return;
	}
	fd = upstream_socket(p->pod, &path->resolver);
	if (fd < 0)
		return;
	q = calloc(1, sizeof *q);
	if (!q || send(fd, msg, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len) {
		free(q);
		close(fd);
		return;
	}
	q->w = w;
	q->pod = pod_ref(p->pod);
	q->path = *path;
	memcpy(q->id, msg, 2);
	io_init(&q->io, fd, answer_ready);
	list_add_tail(&w->queries, &q->link);
	__atomic_store_n(&w->n_queries, w->n_queries + 1, __ATOMIC_RELAXED); /* the control thread reads it */
	timer_set(w->loop, &q->timer, DNS_QUERY_MS, query_late);
	if (io_want(w->loop, &q->io, EPOLLIN) < 0)
		query_end(q);
}

void dns_receive(struct post *p)
{
	for (int i = 0; i < DNS_PER_EVENT; i++) {
		struct dns_path path;
		ssize_t n = dns_query_recv(p->pod, p->w->buffer, DNS_UDP_MAX, &path);

		if (n == -EAGAIN)
			return;
		if (n > 0)
			forward(p, &path, p->w->buffer, (size_t)n);
	}
}

void dns_drop_pod(struct worker *w, const struct pod *pod)
{
	list_for_each_safe (pos, tmp, &w->queries) {
		struct query *q = list_entry(pos, struct query, link);

		if (!pod || q->pod == pod)
			query_end(q);
	}
}
