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
#include "node/process.h"
#include "node/zds_server_internal.h"

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

void zds_request_end(struct request *r, int err, const char *why, int socket[ZDS_SOCKETS])
{
	if (r->done)
		r->done(r->arg, err, why, socket);
	else
		sockets_close(socket);
	free(r);
}

void zds_request_fail(struct request *r, int err, const char *why)
{
	int none[ZDS_SOCKETS];

	zds_no_sockets(none);
	zds_request_end(r, err, why, none);
}

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
	loop_defer(c->server->loop, &c->next, zds_next);
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
	loop_defer(c->server->loop, &c->next, zds_next);
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

void zds_client_close(struct zds_client *c, const char *why)
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
		zds_request_fail(current, -ECONNRESET, why);
	while (!list_empty(&c->queue)) {
		struct request *r = list_entry(c->queue.next, struct request, link);

		list_del(&r->link);
		zds_request_fail(r, -ECONNRESET, why);
	}
	if (known)
		c->server->h.gone(c->server->h.arg, c);
}

/* The loop serves timers before descriptors: after a long turn (rules that took their time) the answer may be here. */
void zds_client_late(struct timer *t)
{
	struct zds_client *c = container_of(t, struct zds_client, deadline);
	struct pollfd p = {.fd = c->io.fd, .events = POLLIN};

	if (poll(&p, 1, 0) == 1) {
		timer_set(c->server->loop, t, 0, zds_client_late);
		return;
	}
	zds_client_close(c, c->phase == HELLO ? "no hello in time" : "no answer in time");
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
	io_init(&c->io, fd, zds_packet_ready);
	e = io_want(s->loop, &c->io, EPOLLIN);
	if (e < 0) {
		free(c);
		return e;
	}
	timer_set(s->loop, &c->deadline, ZDS_ACK_MS, zds_client_late);
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
