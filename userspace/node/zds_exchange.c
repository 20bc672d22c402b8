/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what is said on the connection of a tunnel: one request at a time, whose answer is due in ZDS_ACK_MS. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "net/seqpacket.h"
#include "node/zds_server_internal.h"

/* --- sending -------------------------------------------------------------------------------------------- */

/* 0; -ENOENT: there is nothing to say any more. */
static int request_send(struct zds_client *c, const struct request *r)
{
	uint8_t buf[SEQPACKET_BYTES];
	int fds[1 + ZDS_SOCKETS], n = 0, e;
	struct zds_workload w;
	unsigned n_fds = 0;

	switch (r->kind) {
	case ZDS_ADD:
		e = c->server->h.describe(c->server->h.arg, r->uid, &w);
		if (e)
			return e;
		if (!c->extension)
			w.socket = NULL;
		n = zds_add_encode(buf, &w, fds, &n_fds);
		break;
	case ZDS_KEEP:
		n = zds_keep_encode(buf, r->uid, c->extension > 0 && !c->draining);
		break;
	case ZDS_DEL:
		n = zds_del_encode(buf, r->uid);
		break;
	case ZDS_SNAPSHOT:
		n = zds_snapshot_encode(buf);
		break;
	case ZDS_RETIRE:
		n = zds_retire_encode(buf);
		break;
	}
	return n < 0 ? n : seqpacket_send(c->io.fd, buf, (size_t)n, fds, n_fds);
}

void zds_next(struct task *t)
{
	struct zds_client *c = container_of(t, struct zds_client, next);

	while (!c->current && c->phase != HELLO && c->phase != DEAD) {
		struct request *r;
		int e;

		if (list_empty(&c->queue)) {
			if (c->phase == SNAPSHOT && !c->server->h.complete(c->server->h.arg, c))
				return;
			if (c->phase == SNAPSHOT && zds_client_ask(c, ZDS_SNAPSHOT, "", NULL, NULL) < 0)
				zds_client_close(c, "out of memory");
			if (c->phase != SNAPSHOT)
				return;
		}
		r = list_entry(c->queue.next, struct request, link);
		list_del(&r->link);
		e = request_send(c, r);
		if (!e) {
			c->current = r;
			timer_set(c->server->loop, &c->deadline, ZDS_ACK_MS, zds_client_late);
			return;
		}
		zds_request_fail(r, e, strerror(-e));
		if (e != -ENOENT && e != -EMSGSIZE)
			zds_client_close(c, strerror(-e));
	}
}

/* --- receiving ------------------------------------------------------------------------------------------ */

/* What is wrong with it, or NULL. */
static const char *hello_take(struct zds_client *c, const void *buf, size_t len)
{
	struct zds_hello hello;

	if (zds_hello_decode(&hello, buf, len) < 0)
		return "no hello of ZDS version 1";
	timer_cancel(&c->deadline);
	c->phase = SNAPSHOT;
	c->extension = hello.extension;
	c->draining = hello.draining && hello.extension >= ZDS_RETIRES;
	log_info(ZDS_LOG, "tunnel connected: process %d, %s", (int)c->pid,
		 c->draining	? "drains"
		 : c->extension ? "takes listening sockets"
				: "opens its own sockets");
	c->server->h.hello(c->server->h.arg, c);
	loop_defer(c->server->loop, &c->next, zds_next);
	return NULL;
}

static const char *answer_take(struct zds_client *c, const void *buf, size_t len, const int *fds, size_t n_fds)
{
	struct request *r = c->current;
	struct zds_answer a;
	int socket[ZDS_SOCKETS];
	bool live;

	if (!r)
		return "it spoke unasked";
	if (zds_answer_decode(&a, buf, len) < 0)
		return "undecodable answer";
	if (a.n_sockets != n_fds || (n_fds && (r->kind != ZDS_KEEP || a.error[0])))
		return "descriptors and answer do not match";
	if (r->kind == ZDS_SNAPSHOT && a.error[0])
		return "it refuses the snapshot";
	zds_no_sockets(socket);
	for (size_t i = 0; i < n_fds; i++)
		socket[a.socket[i]] = fds[i];
	c->current = NULL;
	timer_cancel(&c->deadline);
	live = r->kind == ZDS_SNAPSHOT;
	if (c->phase == SNAPSHOT && r->kind == ZDS_ADD && a.error[0]) {
		c->refused++;
		snprintf(c->refusal, sizeof c->refusal, "%s", a.error);
	}
	zds_request_end(r, a.error[0] ? -EREMOTEIO : 0, a.error, socket);
	if (live) {
		c->phase = LIVE;
		c->server->h.live(c->server->h.arg, c);
	}
	loop_defer(c->server->loop, &c->next, zds_next);
	return NULL;
}

void zds_packet_ready(struct io *io, uint32_t events)
{
	struct zds_client *c = container_of(io, struct zds_client, io);
	uint8_t buf[SEQPACKET_BYTES];
	int fds[SEQPACKET_FDS];
	size_t n_fds = 0;
	ssize_t n = seqpacket_recv(io->fd, buf, sizeof buf, fds, &n_fds);
	const char *wrong = n == 0 ? "closed by the tunnel" : NULL;

	if (n == -EAGAIN)
		return;
	if (n < 0)
		wrong = strerror((int)-n);
	else if (!wrong && c->phase == HELLO)
		wrong = n_fds ? "descriptors with the hello" : hello_take(c, buf, (size_t)n);
	else if (!wrong)
		wrong = answer_take(c, buf, (size_t)n, fds, n_fds);
	if (!wrong)
		return;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	zds_client_close(c, wrong);
}
