// SPDX-License-Identifier: Apache-2.0
/* The data plane on the control thread: workers, pods, and what is told to the workers by message. Every change reaches
 * each worker's loop as one message, in order; nothing here waits for them but the dump. */
#include "data/plane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "data/accept.h"
#include "data/accesslog.h"
#include "data/conn.h"
#include "data/prefetch.h"

struct order { /* one message to one worker */
	struct msg msg;
	struct worker *w;
	struct pod *pod; /* referenced, or NULL */
	void (*run)(struct worker *w, struct pod *pod);
};

static void order_handle(struct loop *l, struct msg *m)
{
	struct order *o = container_of(m, struct order, msg);

	o->run(o->w, o->pod);
	pod_unref(o->pod);
	free(o);
}

int plane_order(struct data_plane *d, void (*run)(struct worker *w, struct pod *pod), struct pod *pod)
{
	struct order *o[DATA_WORKERS_MAX];

	for (unsigned i = 0; i < d->o.workers; i++) {
		o[i] = calloc(1, sizeof **o);
		if (!o[i]) {
			while (i)
				free(o[--i]);
			return -ENOMEM;
		}
	}
	for (unsigned i = 0; i < d->o.workers; i++) {
		*o[i] = (struct order){.w = d->worker[i], .pod = pod ? pod_ref(pod) : NULL, .run = run};
		loop_post(d->worker[i]->loop, &o[i]->msg, order_handle);
	}
	return 0;
}

/* --- the mesh changed ----------------------------------------------------------------------------------- */

static void worker_store_changed(struct loop *l, struct msg *m)
{
	struct worker *w = container_of(m, struct worker, store_changed);

	__atomic_store_n(&w->behind, false, __ATOMIC_SEQ_CST); /* first: a change from now on is told anew */
	workload_wait_wake(w);
	conns_enforce(w);
}

/* The message is the worker's own: it cannot fail for want of memory, and many changes are one look. */
static void store_changed(void *arg)
{
	struct data_plane *d = arg;

	for (unsigned i = 0; i < d->o.workers; i++)
		if (!__atomic_exchange_n(&d->worker[i]->behind, true, __ATOMIC_SEQ_CST))
			loop_post(d->worker[i]->loop, &d->worker[i]->store_changed, worker_store_changed);
	prefetch_pods(d);
}

/* --- life ----------------------------------------------------------------------------------------------- */

struct data_plane *data_new(struct loop *control, const struct data_options *o, char why[DATA_WHY_MAX])
{
	struct data_plane *d = calloc(1, sizeof *d);

	snprintf(why, DATA_WHY_MAX, "out of memory");
	if (!d)
		return NULL;
	d->o = *o;
	d->control = control;
	accesslog_threads(o->workers);
	list_init(&d->pods);
	for (unsigned i = 0; i < o->workers; i++) {
		d->worker[i] = worker_new(d, &d->o, i);
		if (!d->worker[i]) {
			data_free(d);
			return NULL;
		}
	}
	if (store_watch(o->store, store_changed, d) < 0) {
		data_free(d);
		return NULL;
	}
	return d;
}

int data_start(struct data_plane *d)
{
	int e = 0;

	for (unsigned i = 0; i < d->o.workers && !e; i++)
		e = worker_start(d->worker[i]);
	return e;
}

static void worker_clear(struct worker *w)
{
	for (unsigned i = 0; i < WORKER_POD_SLOTS; i++)
		while (!list_empty(&w->pods[i]))
			post_close(list_entry(w->pods[i].next, struct post, link));
}

static void worker_end(struct worker *w, struct pod *pod)
{
	w->draining = true;
	worker_clear(w);
	servers_free(w);
	loop_stop(w->loop);
}

/* Some may not be there or not run, when the start has failed. */
static void stop_workers(struct data_plane *d)
{
	bool all = true;

	for (unsigned i = 0; i < d->o.workers; i++)
		all &= d->worker[i] && d->worker[i]->started;
	if (all && plane_order(d, worker_end, NULL) == 0)
		return;
	for (unsigned i = 0; i < d->o.workers; i++)
		if (d->worker[i])
			loop_stop(d->worker[i]->loop);
}

void data_stop(struct data_plane *d)
{
	if (!d)
		return;
	timer_cancel(&d->drain_timer);
	timer_cancel(&d->close_timer);
	stop_workers(d);
	for (unsigned i = 0; i < d->o.workers; i++)
		if (d->worker[i])
			worker_join(d->worker[i]);
}

void data_free(struct data_plane *d)
{
	if (!d)
		return;
	data_stop(d);
	for (unsigned i = 0; i < d->o.workers; i++)
		worker_free(d->worker[i]);
	list_for_each_safe (pos, tmp, &d->pods) {
		struct pod *p = list_entry(pos, struct pod, link);

		list_del(&p->link);
		pod_unref(p);
	}
	free(d);
}

const struct data_options *data_options(const struct data_plane *d)
{
	return &d->o;
}

unsigned data_connections(const struct data_plane *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->o.workers; i++)
		n += __atomic_load_n(&d->worker[i]->n_conns, __ATOMIC_RELAXED);
	return n;
}

/* --- pods ----------------------------------------------------------------------------------------------- */

static struct pod *find(struct data_plane *d, const char *uid)
{
	list_for_each (pos, &d->pods) {
		struct pod *p = list_entry(pos, struct pod, link);

		if (!strcmp(p->uid, uid))
			return p;
	}
	return NULL;
}

static void worker_add(struct worker *w, struct pod *pod)
{
	if (post_open(w, pod) < 0)
		log_error("worker", "pod %s/%s: out of memory", pod->ns, pod->name);
}

static void worker_look(struct worker *w, struct pod *pod)
{
	for (unsigned i = 0; i < WORKER_POD_SLOTS; i++)
		list_for_each (pos, &w->pods[i])
			if (list_entry(pos, struct post, link)->pod == pod)
				post_look(list_entry(pos, struct post, link));
}

static void worker_remove(struct worker *w, struct pod *pod)
{
	for (unsigned i = 0; i < WORKER_POD_SLOTS; i++)
		list_for_each_safe (pos, tmp, &w->pods[i]) {
			struct post *p = list_entry(pos, struct post, link);

			if (p->pod == pod)
				post_close(p);
		}
}

static void drop(struct data_plane *d, struct pod *p)
{
	list_del(&p->link);
	d->n_pods--;
	d->n_self -= p->kind == DATA_POD_SELF;
	if (plane_order(d, worker_remove, p) < 0)
		log_error("worker", "out of memory: pod %s/%s stays", p->ns, p->name);
	pod_unref(p);
}

static void close_spec(const struct data_pod *spec)
{
	if (spec->netns_fd >= 0)
		close(spec->netns_fd);
	for (int i = 0; i < DATA_SOCKETS; i++)
		if (spec->socket[i] >= 0)
			close(spec->socket[i]);
}

int data_pod_add(struct data_plane *d, const struct data_pod *spec, char why[DATA_WHY_MAX])
{
	struct pod *old = find(d, spec->uid), *p;

	if (old) {
		struct netns_id id;
		int e = netns_identify(spec->netns_fd, &id);

		if (e < 0) {
			snprintf(why, DATA_WHY_MAX, "pod %s/%s: not a network namespace", spec->ns, spec->name);
			close_spec(spec);
			return e;
		}
		if (id.inode == old->netns.inode && id.cookie == old->netns.cookie) {
			close_spec(spec);
			plane_order(d, worker_look, old); /* without memory the next connection does it */
			return 0;
		}
	}
	p = pod_new(d, spec, why);
	if (!p)
		return -EINVAL;
	if (old)
		drop(d, old);
	if (!p->waits && plane_order(d, worker_add, p) < 0) {
		snprintf(why, DATA_WHY_MAX, "out of memory");
		pod_unref(p);
		return -ENOMEM;
	}
	list_add_tail(&d->pods, &p->link);
	d->n_pods++;
	d->n_self += p->kind == DATA_POD_SELF;
	prefetch_pod(d, p);
	return 0;
}

void data_pods_go(struct data_plane *d)
{
	list_for_each (pos, &d->pods) {
		struct pod *p = list_entry(pos, struct pod, link);

		if (p->waits && plane_order(d, worker_add, p) < 0)
			log_error("worker", "pod %s/%s: out of memory", p->ns, p->name);
		p->waits = false;
	}
}

static bool account_is_served(const struct data_plane *d, const char *ns, const char *sa)
{
	list_for_each (pos, &d->pods) {
		const struct pod *p = list_entry(pos, struct pod, link);

		if (!strcmp(p->ns, ns) && !strcmp(p->sa, sa))
			return true;
	}
	return false;
}

void data_pod_remove(struct data_plane *d, const char *uid)
{
	struct pod *p = find(d, uid);

	if (!p)
		return;
	pod_ref(p);
	drop(d, p);
	if (!account_is_served(d, p->ns, p->sa))
		d->o.certs->ops->forget(d->o.certs, p->ns, p->sa);
	pod_unref(p);
}

void data_pod_each(struct data_plane *d, void (*each)(void *ctx, const char *uid), void *ctx)
{
	list_for_each_safe (pos, tmp, &d->pods) {
		const struct pod *p = list_entry(pos, struct pod, link);

		if (p->kind == DATA_POD_NODE)
			each(ctx, p->uid);
	}
}

int data_pod_sockets(struct data_plane *d, const char *uid, int socket[DATA_SOCKETS])
{
	const struct pod *p = find(d, uid);

	if (!p)
		return -ENOENT;
	memcpy(socket, p->socket, DATA_SOCKETS * sizeof *socket);
	return 0;
}

unsigned data_pods(const struct data_plane *d)
{
	return d->n_pods - d->n_self;
}
