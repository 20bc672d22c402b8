/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of the pods and, from the workers, of live connections, for whoever asks (another thread). The collection outlives
 * an asker that gave up: the last one who holds it frees it. */
#include "data/dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/conn.h"
#include "data/plane.h"

enum { WAIT_S = 2, GROW = 256 };

struct collection {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned holders, pending;
	bool failed;
	struct tunnel_dump out;
	unsigned cap;
	struct part {
		struct msg msg;
		struct collection *of;
		struct worker *w;
		struct data_plane *plane; /* the control thread's part: pods */
	} part[DATA_WORKERS_MAX + 1];
};

static void collection_release(struct collection *c)
{
	bool last;

	pthread_mutex_lock(&c->lock);
	last = --c->holders == 0;
	pthread_mutex_unlock(&c->lock);
	if (!last)
		return;
	tunnel_dump_free(&c->out);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
}

static void text(char *dst, const char *src)
{
	snprintf(dst, DUMP_NAME_MAX, "%s", src ? src : "");
}

static void copy_conn(struct dump_conn *d, const struct conn *c)
{
	memset(d, 0, sizeof *d);
	memcpy(d->pod_uid, c->pod->uid, sizeof d->pod_uid);
	d->inbound = c->inbound;
	d->src = c->src;
	d->original_dst = c->original;
	d->actual_dst = c->inbound ? c->original : c->dst;
	text(d->forwarded_host, rstr_text(c->host));
	text(d->src_identity, rstr_text(c->src_identity));
	text(d->dst_identity, rstr_text(c->dst_identity));
	d->hbone = c->hbone;
	d->nested = c->nested;
	d->local = c->local;
	d->cipher = c->cipher ? record_cipher_name(c->cipher) : NULL;
	d->kernel_tx = c->kernel_tx;
	d->kernel_rx = c->kernel_rx;
	d->received = c->received;
	d->sent = c->sent;
	d->age_ms = loop_now(c->w->loop) - c->since;
}

static bool room_for_one(struct collection *c)
{
	struct dump_conn *n;

	if (c->out.n_conns < c->cap)
		return true;
	n = realloc(c->out.conns, (c->cap + GROW) * sizeof *n);
	if (!n)
		return false;
	c->out.conns = n;
	c->cap += GROW;
	return true;
}

static void part_done(struct collection *c)
{
	c->pending--;
	pthread_cond_signal(&c->changed);
	pthread_mutex_unlock(&c->lock);
	collection_release(c);
}

static void collect_conns(struct loop *l, struct msg *m)
{
	struct part *p = container_of(m, struct part, msg);
	struct collection *c = p->of;

	pthread_mutex_lock(&c->lock);
	list_for_each (pos, &p->w->conns) {
		if (!room_for_one(c)) {
			c->failed = true;
			break;
		}
		copy_conn(&c->out.conns[c->out.n_conns++], list_entry(pos, struct conn, link));
	}
	part_done(c);
}

static void collect_pods(struct loop *l, struct msg *m)
{
	struct part *p = container_of(m, struct part, msg);
	struct collection *c = p->of;
	unsigned n = 0;

	pthread_mutex_lock(&c->lock);
	c->out.pods = calloc(p->plane->n_pods + 1, sizeof *c->out.pods);
	c->failed |= !c->out.pods;
	list_for_each (pos, &p->plane->pods) {
		struct pod *pod = list_entry(pos, struct pod, link);
		struct dump_pod *d;

		if (!c->out.pods)
			break;
		d = &c->out.pods[n++];
		memcpy(d->uid, pod->uid, sizeof d->uid);
		memcpy(d->name, pod->name, sizeof d->name);
		memcpy(d->ns, pod->ns, sizeof d->ns);
		memcpy(d->sa, pod->sa, sizeof d->sa);
		d->up = !pod->waits;
	}
	c->out.n_pods = n;
	part_done(c);
}

/* Of this many workers. */
static struct collection *collection_new(unsigned workers)
{
	struct collection *c = calloc(1, sizeof *c);
	pthread_condattr_t monotonic;

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	c->pending = workers + 1;
	c->holders = c->pending + 1;
	return c;
}

int data_dump(struct data_plane *d, enum dump_what what, struct tunnel_dump *out)
{
	unsigned workers = what == DUMP_PODS ? 0 : d->o.workers;
	struct collection *c = collection_new(workers);
	struct timespec until;
	int e = 0;

	if (!c)
		return -ENOMEM;
	for (unsigned i = 0; i <= workers; i++) {
		c->part[i].of = c;
		c->part[i].plane = d;
		c->part[i].w = i < workers ? d->worker[i] : NULL;
		if (c->part[i].w)
			loop_post(c->part[i].w->loop, &c->part[i].msg, collect_conns);
		else
			loop_post(d->control, &c->part[i].msg, collect_pods);
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&c->lock);
	while (c->pending && !e)
		e = -pthread_cond_timedwait(&c->changed, &c->lock, &until);
	if (!e && c->failed)
		e = -ENOMEM;
	if (!e) {
		*out = c->out;
		memset(&c->out, 0, sizeof c->out);
	}
	pthread_mutex_unlock(&c->lock);
	collection_release(c);
	return e;
}

void tunnel_dump_free(struct tunnel_dump *d)
{
	free(d->pods);
	free(d->conns);
	memset(d, 0, sizeof *d);
}
