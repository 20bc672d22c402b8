// SPDX-License-Identifier: Apache-2.0
/* Owns the end of a tunnel that lets its connections finish: listeners are left, peers told, connections waited for. On
 * the control thread, but for what the workers are told. */
#include <unistd.h>

#include "base/log.h"
#include "data/accept.h"
#include "data/plane.h"
#include "data/pod.h"
#include "data/pool.h"

enum { DRAIN_TICK_MS = 50 };

static void each_post(struct worker *w, void (*each)(struct post *p))
{
	for (unsigned i = 0; i < WORKER_POD_SLOTS; i++)
		list_for_each (pos, &w->pods[i])
			each(list_entry(pos, struct post, link));
}

/* What comes while the others still watch is taken by them, or at the end by the last one. */
static void worker_drain(struct worker *w, struct pod *pod)
{
	w->draining = true;
	each_post(w, post_drain);
	if (__atomic_add_fetch(&w->plane->leaving, 1, __ATOMIC_ACQ_REL) == w->o->workers)
		each_post(w, post_shut);
	servers_shutdown(w);
	pool_drain(w->pool);
	__atomic_add_fetch(&w->plane->resting, 1, __ATOMIC_RELEASE);
}

static void sockets_close(struct data_plane *d, enum pod_socket from, enum pod_socket to)
{
	list_for_each (pos, &d->pods) {
		struct pod *p = list_entry(pos, struct pod, link);

		for (unsigned i = from; i <= to; i++) {
			if (p->socket[i] >= 0)
				close(p->socket[i]);
			p->socket[i] = -1;
		}
	}
}

/* As soon as no worker watches them: what is not accepted any more must go to the next tunnel's listeners, or be
 * dropped and tried again, not wait for the end of this one. */
static void listeners_close(struct timer *t)
{
	struct data_plane *d = container_of(t, struct data_plane, close_timer);

	if (__atomic_load_n(&d->resting, __ATOMIC_ACQUIRE) < d->o.workers) {
		timer_set(d->control, t, 1, listeners_close);
		return;
	}
	sockets_close(d, POD_OUTBOUND, POD_DNS_TCP);
	sockets_close(d, POD_SOCKS, POD_SOCKS);
	d->closed = true;
}

static unsigned queries(const struct data_plane *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->o.workers; i++)
		n += __atomic_load_n(&d->worker[i]->n_queries, __ATOMIC_RELAXED);
	return n;
}

/* What an end would cut: connections; tunnels, as clients may be on their way whose first request comes yet, and last bytes
 * on theirs to a server; queries that are under way, where no more come. */
static unsigned live(const struct data_plane *d)
{
	unsigned n = data_connections(d) + (d->handed_over ? queries(d) : 0);

	for (unsigned i = 0; i < d->o.workers; i++)
		n += __atomic_load_n(&d->worker[i]->n_tunnels, __ATOMIC_RELAXED);
	return n;
}

static void drain_tick(struct timer *t)
{
	struct data_plane *d = container_of(t, struct data_plane, drain_timer);
	unsigned n = live(d);

	if (d->handed_over && d->closed && !queries(d)) /* who holds them keeps others from opening them anew */
		sockets_close(d, POD_DNS_UDP, POD_RAW6);
	if (n && loop_now(d->control) < d->drain_until) {
		timer_set(d->control, t, DRAIN_TICK_MS, drain_tick);
		return;
	}
	n = data_connections(d);
	if (n)
		log_warn("drain", "%u connections are reset at the deadline", n);
	d->drained(d->drained_arg);
}

void data_drain_limit(struct data_plane *d, unsigned deadline_ms)
{
	uint64_t until = loop_now(d->control) + deadline_ms;

	if (until < d->drain_until)
		d->drain_until = until;
}

void data_drain(struct data_plane *d, unsigned deadline_ms, bool handed_over, void (*done)(void *arg), void *arg)
{
	d->handed_over = handed_over;
	d->drained = done;
	d->drained_arg = arg;
	d->drain_until = loop_now(d->control) + deadline_ms;
	plane_order(d, worker_drain, NULL);
	timer_set(d->control, &d->close_timer, 1, listeners_close);
	/* The first look comes after the workers have had their turn and the peers their GOAWAY. */
	timer_set(d->control, &d->drain_timer, 4 * DRAIN_TICK_MS, drain_tick);
}
