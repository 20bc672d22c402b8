/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the socket that tunnels connect to, the list of those that are there, and what goes to all of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "net/seqpacket.h"
#include "node/zds_server_internal.h"

enum { ACCEPT_PAUSE_MS = 100 };

/* A Del is one request for each client, and one answer. */
struct deletion {
	struct list link;
	unsigned left;
	int err;
	char why[ZDS_WHY_MAX];
	struct task task;
	zds_done done;
	void *arg;
};

/* --- connections ---------------------------------------------------------------------------------------- */

/* Only root may feed or be fed: whoever answers decides what happens to the pods' traffic. */
static int client_admit(struct zds_server *s, int fd, const char **why)
{
	pid_t pid = 0;
	uid_t uid = 0;
	int e = seqpacket_peer(fd, &pid, &uid);

	if (!e && uid != 0)
		e = -EPERM;
	*why = e == -EPERM ? "it is not root's" : NULL;
	if (!e && s->n_clients >= ZDS_CLIENTS_MAX) {
		e = -EBUSY;
		*why = "too many connections";
	}
	return e ? e : zds_client_new(s, fd, pid);
}

static void accept_resume(struct timer *t)
{
	struct zds_server *s = container_of(t, struct zds_server, resume);

	io_want(s->loop, &s->listener, EPOLLIN);
}

static void accept_ready(struct io *io, uint32_t events)
{
	struct zds_server *s = container_of(io, struct zds_server, listener);
	int fd = seqpacket_accept(io->fd), e = fd < 0 ? fd : 0;
	const char *why = NULL;

	if (e == -EAGAIN || e == -ECONNABORTED)
		return;
	if (!e)
		e = client_admit(s, fd, &why);
	if (!e)
		return;
	log_warn(ZDS_LOG, "a connection was refused: %s", why ? why : strerror(-e));
	if (fd >= 0) {
		close(fd);
		return;
	}
	io_want(s->loop, io, 0); /* it would fail again at once */
	timer_set(s->loop, &s->resume, ACCEPT_PAUSE_MS, accept_resume);
}

int zds_server_open(struct zds_server **out, struct loop *l, const char *path, const struct zds_server_handler *h,
		    char why[ZDS_WHY_MAX])
{
	struct zds_server *s = calloc(1, sizeof *s);
	int fd = s ? seqpacket_listen(path, 0600) : -ENOMEM, e = fd < 0 ? fd : 0;

	if (!e) {
		s->loop = l;
		s->h = *h;
		list_init(&s->clients);
		list_init(&s->buried);
		list_init(&s->deletions);
		io_init(&s->listener, fd, accept_ready);
		e = io_want(l, &s->listener, EPOLLIN);
	}
	if (!e) {
		*out = s;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	free(s);
	snprintf(why, ZDS_WHY_MAX, "%s: %s", path,
		 e == -EADDRINUSE ? "in use by another process; stop it first" : strerror(-e));
	return e;
}

void zds_server_free(struct zds_server *s)
{
	if (!s)
		return;
	timer_cancel(&s->resume);
	io_stop(s->loop, &s->listener);
	close(s->listener.fd);
	list_for_each_safe (p, tmp, &s->clients)
		zds_client_free(list_entry(p, struct zds_client, link));
	list_for_each_safe (p, tmp, &s->buried)
		zds_client_free(list_entry(p, struct zds_client, link));
	list_for_each_safe (p, tmp, &s->deletions) {
		struct deletion *d = list_entry(p, struct deletion, link);

		task_cancel(&d->task);
		free(d);
	}
	free(s);
}

/* Of processes that cannot be seen, and of one age, the last one to come. */
struct zds_client *zds_server_newest(const struct zds_server *s)
{
	struct zds_client *newest = NULL;

	list_for_each (p, &s->clients) {
		struct zds_client *c = list_entry(p, struct zds_client, link);

		if (c->phase != HELLO && !c->draining && (!newest || c->born >= newest->born))
			newest = c;
	}
	return newest;
}

struct zds_client *zds_server_find(const struct zds_server *s, pid_t pid)
{
	for (struct list *p = s->clients.prev; p != &s->clients; p = p->prev) {
		struct zds_client *c = list_entry(p, struct zds_client, link);

		if (c->phase != HELLO && c->pid == pid)
			return c;
	}
	return NULL;
}

void zds_server_each(const struct zds_server *s, void (*each)(void *arg, const struct zds_client *c), void *arg)
{
	list_for_each (p, &s->clients)
		if (list_entry(p, struct zds_client, link)->phase != HELLO)
			each(arg, list_entry(p, struct zds_client, link));
}

unsigned zds_server_clients(const struct zds_server *s)
{
	return s->n_clients;
}

/* --- Del, to all ---------------------------------------------------------------------------------------- */

static void deletion_finish(struct task *t)
{
	struct deletion *d = container_of(t, struct deletion, task);
	int none[ZDS_SOCKETS];

	zds_no_sockets(none);
	list_del(&d->link);
	if (d->done)
		d->done(d->arg, d->err, d->why, none);
	free(d);
}

static void deletion_answered(void *arg, int err, const char *why, int socket[ZDS_SOCKETS])
{
	struct deletion *d = arg;

	if (err == -EREMOTEIO) { /* a tunnel that is gone has no pods any more */
		d->err = err;
		snprintf(d->why, sizeof d->why, "%s", why);
	}
	if (--d->left == 0)
		deletion_finish(&d->task);
}

int zds_del(struct zds_server *s, const char *uid, zds_done done, void *arg)
{
	struct deletion *d = calloc(1, sizeof *d);
	int e = 0;

	if (!d)
		return -ENOMEM;
	d->done = done;
	d->arg = arg;
	list_init(&d->link);
	list_add_tail(&s->deletions, &d->link);
	list_for_each (p, &s->clients) {
		struct zds_client *c = list_entry(p, struct zds_client, link);

		if (c->phase == HELLO)
			continue;
		e = zds_client_ask(c, ZDS_DEL, uid, deletion_answered, d);
		if (e)
			break;
		d->left++;
	}
	if (e)
		log_error(ZDS_LOG, "out of memory: not every tunnel learns that pod %s is gone", uid);
	if (!d->left)
		loop_defer(s->loop, &d->task, deletion_finish);
	return 0;
}
