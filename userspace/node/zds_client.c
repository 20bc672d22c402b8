/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the connection of one tunnel to the keeper.
 *
 * It passes through three phases: HELLO until its hello is here, SNAPSHOT while it is told what there is, LIVE. Its
 * requests wait in a queue and are encoded when their turn comes, so that they say what is true then and hold no
 * descriptors meanwhile. The queue is bounded by what asks: pods and operations on them. A client that ends is taken
 * out at once, its requests fail, and its memory goes at the end of the loop's turn. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "net/seqpacket.h"
#include "node/process.h"
#include "node/zds_server_internal.h"

struct request {
	struct list link;
	enum zds_kind kind;
	zds_done done;
	void *arg;
	char uid[ZDS_UID_MAX];
};

/* --- requests ------------------------------------------------------------------------------------------- */

void zds_no_sockets(int socket[ZDS_SOCKETS])
{
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		socket[i] = -1;
}

static void sockets_close(int socket[ZDS_SOCKETS])
{
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		if (socket[i] >= 0)
			close(socket[i]);
	zds_no_sockets(socket);
}

static void request_end(struct request *r, int err, const char *why, int socket[ZDS_SOCKETS])
{
	if (r->done)
		r->done(r->arg, err, why, socket);
	else
		sockets_close(socket);
	free(r);
}

static void request_fail(struct request *r, int err, const char *why)
{
	int none[ZDS_SOCKETS];

	zds_no_sockets(none);
	request_end(r, err, why, none);
}

static void next_run(struct task *t);

int zds_client_ask(struct zds_client *c, enum zds_kind kind, const char *uid, zds_done done, void *arg)
{
	struct request *r = calloc(1, sizeof *r);

	if (!r)
		return -ENOMEM;
	r->kind = kind;
	r->done = done;
	r->arg = arg;
	snprintf(r->uid, sizeof r->uid, "%s", uid);
	list_init(&r->link);
	list_add_tail(&c->queue, &r->link);
	loop_defer(c->server->loop, &c->next, next_run);
	return 0;
}

int zds_add(struct zds_client *c, const char *uid, zds_done done, void *arg)
{
	return zds_client_ask(c, ZDS_ADD, uid, done, arg);
}

int zds_keep(struct zds_client *c, const char *uid, zds_done done, void *arg)
{
	return zds_client_ask(c, ZDS_KEEP, uid, done, arg);
}

void zds_continue(struct zds_client *c)
{
	loop_defer(c->server->loop, &c->next, next_run);
}

int zds_retire(struct zds_client *c)
{
	int e = 0;

	if (!c->draining && c->phase == LIVE)
		e = c->extension < ZDS_RETIRES ? -EOPNOTSUPP : zds_client_ask(c, ZDS_RETIRE, "", NULL, NULL);
	c->draining = true;
	return e;
}

/* --- a client's end ------------------------------------------------------------------------------------- */

void zds_client_free(struct zds_client *c)
{
	list_del(&c->link);
	timer_cancel(&c->deadline);
	task_cancel(&c->next);
	task_cancel(&c->bury);
	free(c->current);
	list_for_each_safe (p, tmp, &c->queue)
		free(list_entry(p, struct request, link));
	if (c->io.fd >= 0) {
		io_stop(c->server->loop, &c->io);
		close(c->io.fd);
	}
	free(c);
}

static void client_bury(struct task *t)
{
	zds_client_free(container_of(t, struct zds_client, bury));
}

static void client_close(struct zds_client *c, const char *why)
{
	bool known = c->phase != HELLO;
	struct request *current = c->current;

	if (c->phase == DEAD)
		return;
	log_info(ZDS_LOG, "connection of process %d ends: %s", (int)c->pid, why);
	c->phase = DEAD;
	c->current = NULL;
	timer_cancel(&c->deadline);
	io_stop(c->server->loop, &c->io);
	close(c->io.fd);
	c->io.fd = -1;
	list_del(&c->link);
	list_add_tail(&c->server->buried, &c->link);
	c->server->n_clients--;
	loop_defer(c->server->loop, &c->bury, client_bury);
	if (current)
		request_fail(current, -ECONNRESET, why);
	while (!list_empty(&c->queue)) {
		struct request *r = list_entry(c->queue.next, struct request, link);

		list_del(&r->link);
		request_fail(r, -ECONNRESET, why);
	}
	if (known)
		c->server->h.gone(c->server->h.arg, c);
}

/* The loop serves timers before descriptors: after a long turn (rules that took their time) the answer may be here. */
static void client_late(struct timer *t)
{
	struct zds_client *c = container_of(t, struct zds_client, deadline);
	struct pollfd p = {.fd = c->io.fd, .events = POLLIN};

	if (poll(&p, 1, 0) == 1) {
		timer_set(c->server->loop, t, 0, client_late);
		return;
	}
	client_close(c, c->phase == HELLO ? "no hello in time" : "no answer in time");
}

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

/* Sends what comes next; SnapshotSent when the first queue has run dry. */
static void next_run(struct task *t)
{
	struct zds_client *c = container_of(t, struct zds_client, next);

	while (!c->current && c->phase != HELLO && c->phase != DEAD) {
		struct request *r;
		int e;

		if (list_empty(&c->queue)) {
			if (c->phase == SNAPSHOT && !c->server->h.complete(c->server->h.arg, c))
				return;
			if (c->phase == SNAPSHOT && zds_client_ask(c, ZDS_SNAPSHOT, "", NULL, NULL) < 0)
				client_close(c, "out of memory");
			if (c->phase != SNAPSHOT)
				return;
		}
		r = list_entry(c->queue.next, struct request, link);
		list_del(&r->link);
		e = request_send(c, r);
		if (!e) {
			c->current = r;
			timer_set(c->server->loop, &c->deadline, ZDS_ACK_MS, client_late);
			return;
		}
		request_fail(r, e, strerror(-e));
		if (e != -ENOENT && e != -EMSGSIZE)
			client_close(c, strerror(-e));
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
	loop_defer(c->server->loop, &c->next, next_run);
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
	request_end(r, a.error[0] ? -EREMOTEIO : 0, a.error, socket);
	if (live) {
		c->phase = LIVE;
		c->server->h.live(c->server->h.arg, c);
	}
	loop_defer(c->server->loop, &c->next, next_run);
	return NULL;
}

static void packet_ready(struct io *io, uint32_t events)
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
	client_close(c, wrong);
}

/* --- beginning, and what others ask ------------------------------------------------------------------------------- */

int zds_client_new(struct zds_server *s, int fd, pid_t pid)
{
	struct zds_client *c = calloc(1, sizeof *c);
	int e;

	if (!c)
		return -ENOMEM;
	c->server = s;
	c->pid = pid;
	c->born = process_born(pid);
	list_init(&c->queue);
	list_init(&c->link);
	io_init(&c->io, fd, packet_ready);
	e = io_want(s->loop, &c->io, EPOLLIN);
	if (e < 0) {
		free(c);
		return e;
	}
	timer_set(s->loop, &c->deadline, ZDS_ACK_MS, client_late);
	list_add_tail(&s->clients, &c->link);
	s->n_clients++;
	return 0;
}

bool zds_client_ours(const struct zds_client *c)
{
	return c->extension > 0;
}

bool zds_client_live(const struct zds_client *c)
{
	return c->phase == LIVE;
}

bool zds_client_draining(const struct zds_client *c)
{
	return c->draining;
}

unsigned zds_client_refused(const struct zds_client *c, const char **why)
{
	*why = c->refusal;
	return c->refused;
}

pid_t zds_client_pid(const struct zds_client *c)
{
	return c->pid;
}
