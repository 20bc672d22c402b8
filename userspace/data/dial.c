// SPDX-License-Identifier: Apache-2.0
/* Connecting: to next hops from the pod, and to the pod's application with the client's address.
 *
 * A spoofed connection and a captured one from the same client to the same port must differ in the client's port, or
 * their tuples collide in the pod and the connect hangs. Spoofed ports come from a range that clients do not use; for
 * the client that does so all the same, the ports of live inbound connections are counted per pod. The table (45 KB)
 * comes with the first such client and stays with the pod. */
#include "data/dial.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/sock.h"

enum { PORTS = SOCK_SPOOF_PORT_MAX - SOCK_SPOOF_PORT_MIN + 1 };

static void finish(struct dial *d, int err)
{
	int fd = -1;

	timer_cancel(&d->timer);
	if (err) {
		io_close(d->w->loop, &d->io);
	} else {
		io_stop(d->w->loop, &d->io);
		fd = d->io.fd;
		d->io.fd = -1;
	}
	d->done(d, fd, err);
}

static void finish_at_once(struct task *t)
{
	struct dial *d = container_of(t, struct dial, at_once);

	finish(d, d->result);
}

static void ready(struct io *io, uint32_t events)
{
	struct dial *d = container_of(io, struct dial, io);

	finish(d, sock_connect_result(io->fd));
}

static void late(struct timer *t)
{
	finish(container_of(t, struct dial, timer), -ETIMEDOUT);
}

static uint16_t *port_count(struct pod *p, uint16_t port, bool make)
{
	uint16_t *t = __atomic_load_n(&p->taken, __ATOMIC_ACQUIRE), *none = NULL;

	if (port < SOCK_SPOOF_PORT_MIN || port > SOCK_SPOOF_PORT_MAX)
		return NULL;
	if (!t && make) {
		t = calloc(PORTS, sizeof *t);
		if (t && !__atomic_compare_exchange_n(&p->taken, &none, t, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			free(t);
			t = none;
		}
	}
	return t ? &t[port - SOCK_SPOOF_PORT_MIN] : NULL;
}

bool dial_port_hold(struct pod *p, uint16_t port)
{
	uint16_t *n = port_count(p, port, true);

	if (n)
		__atomic_add_fetch(n, 1, __ATOMIC_RELAXED);
	return n;
}

void dial_port_release(struct pod *p, uint16_t port)
{
	uint16_t *n = port_count(p, port, false);

	if (n)
		__atomic_sub_fetch(n, 1, __ATOMIC_RELAXED);
}

static bool port_taken(void *arg, uint16_t port)
{
	uint16_t *n = port_count(arg, port, false);

	return n && __atomic_load_n(n, __ATOMIC_RELAXED) > 0;
}

/* `local`: to the pod's own application. Keepalive would ask our own kernel whether it is there. */
static int start(struct dial *d, struct worker *w, struct pod *p, const struct endpoint *to,
		 const struct endpoint *spoof, bool local, void (*done)(struct dial *d, int fd, int err))
{
	struct sock_dial how = {.to = *to, .spoof = spoof, .mark = p->mark};
	int fd = pod_enter(p);

	d->w = w;
	d->done = done;
	d->io.fd = -1;
	if (fd < 0)
		return fd;
	fd = sock_dial_tcp(&how, port_taken, p);
	if (fd < 0)
		return fd;
	io_init(&d->io, fd, ready);
	if (local) {
		d->result = sock_connect_poll(fd, to);
		if (d->result != -EINPROGRESS) {
			loop_defer(w->loop, &d->at_once, finish_at_once);
			return 0;
		}
	} else {
		sock_keepalive(fd, &w->o->keepalive);
	}
	fd = io_want(w->loop, &d->io, EPOLLOUT);
	if (fd < 0) {
		io_close(w->loop, &d->io);
		return fd;
	}
	timer_set(w->loop, &d->timer, DATA_CONNECT_MS, late);
	return 0;
}

int dial_start(struct dial *d, struct worker *w, struct pod *p, const struct endpoint *to,
	       void (*done)(struct dial *d, int fd, int err))
{
	return start(d, w, p, to, NULL, false, done);
}

void dial_cancel(struct dial *d)
{
	if (!d->w || d->io.fd < 0)
		return;
	timer_cancel(&d->timer);
	task_cancel(&d->at_once);
	io_close(d->w->loop, &d->io);
}

int dial_application(struct dial *d, struct worker *w, struct pod *p, const struct endpoint *to,
		     const struct endpoint *client, void (*done)(struct dial *d, int fd, int err))
{
	bool spoof = p->spoof && !addr_eq(&client->ip, &to->ip) && addr_is4(&client->ip) == addr_is4(&to->ip) &&
		     !addr_is_loopback(&to->ip);

	return start(d, w, p, to, spoof ? client : NULL, true, done);
}
