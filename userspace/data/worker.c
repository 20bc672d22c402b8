// SPDX-License-Identifier: Apache-2.0
/* A worker's thread: its loop, its place in the store's read side, its namespace. */
#include "data/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/log.h"
#include "data/dns_cache.h"
#include "data/dns_conf.h"
#include "data/failures.h"
#include "data/names.h"
#include "data/nested.h"
#include "data/plane.h"
#include "data/pool.h"
#include "data/sources.h"
#include "net/netns.h"

/* While a worker sleeps, writers of the store need not wait for it. */
static void turn(void *arg, bool about_to_sleep)
{
	if (about_to_sleep)
		store_thread_offline();
	else
		store_thread_online();
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;
	char name[16];

	snprintf(name, sizeof name, "worker-%u", w->index);
	pthread_setname_np(pthread_self(), name);
	if (netns_init_thread() < 0)
		log_error("worker", "cannot open this thread's network namespace; pods will not start");
	store_thread_register();
	loop_on_turn(w->loop, turn, w);
	loop_run(w->loop);
	store_thread_online();
	store_thread_unregister();
	return NULL;
}

struct worker *worker_new(struct data_plane *plane, const struct data_options *o, unsigned index)
{
	struct worker *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->plane = plane;
	w->o = o;
	w->index = index;
	list_init(&w->conns);
	list_init(&w->servers);
	list_init(&w->shaking);
	list_init(&w->stepping);
	list_init(&w->waiting);
	list_init(&w->nested);
	list_init(&w->queries);
	list_init(&w->taps);
	for (unsigned i = 0; i < WORKER_POD_SLOTS; i++)
		list_init(&w->pods[i]);
	w->loop = loop_new();
	w->records = record_pool_new(WORKER_RECORD_KEEP);
	w->pool = pool_new(w);
	w->names = names_new();
	w->sources = w->loop ? sources_new(w->loop, o->workers, &plane->waiting) : NULL;
	w->dns_cache = dns_cache_new();
	w->dns_conf = calloc(1, sizeof *w->dns_conf);
	w->failures = failures_new(FAILURES_MAX / o->workers > FAILURES_WORKER_MIN ? FAILURES_MAX / o->workers
										   : FAILURES_WORKER_MIN);
	w->buffer = malloc(WORKER_BUFFER);
	if (!w->loop || !w->records || !w->pool || !w->names || !w->dns_cache || !w->dns_conf || !w->failures ||
	    !w->sources || !w->buffer || getrandom(w->random, sizeof w->random, 0) != sizeof w->random) {
		worker_free(w);
		return NULL;
	}
	w->random[0] |= 1;
	if (o->openssl_only)
		record_pool_openssl_only(w->records);
	return w;
}

int worker_start(struct worker *w)
{
	int e = -pthread_create(&w->thread, NULL, thread_main, w);

	w->started = !e;
	return e;
}

void worker_join(struct worker *w)
{
	if (!w->started)
		return;
	pthread_join(w->thread, NULL);
	w->started = false;
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	pool_free(w->pool);
	w->pool = NULL;
	nested_free_all(w);
	names_free(w->names);
	dns_cache_free(w->dns_cache);
	free(w->dns_conf);
	failures_free(w->failures);
	if (w->loop)
		loop_free(w->loop);
	sources_free(w->sources);
	record_pool_free(w->records);
	free(w->buffer);
	free(w);
}

/* xorshift128+: for load balancing and trace ids, which need no secret. */
uint64_t worker_random(struct worker *w)
{
	uint64_t a = w->random[0], b = w->random[1];

	w->random[0] = b;
	a ^= a << 23;
	w->random[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
	return w->random[1] + b;
}

void worker_tunnels(struct worker *w, int n)
{
	__atomic_store_n(&w->n_tunnels, w->n_tunnels + (unsigned)n, __ATOMIC_RELAXED); /* the control thread reads it */
}
