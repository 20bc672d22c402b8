// SPDX-License-Identifier: Apache-2.0
/* Rings of failed connections: one a worker, and all of them together for who asks. */
#include "data/failures.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/plane.h"

struct failures {
	pthread_mutex_t lock;
	uint64_t seen;
	unsigned entries;
	struct failure ring[];
};

/* calloc() takes memory of this size from the kernel: what no failure has filled is not resident. */
struct failures *failures_new(unsigned entries)
{
	struct failures *f = calloc(1, sizeof *f + entries * sizeof *f->ring);

	if (!f)
		return NULL;
	f->entries = entries;
	pthread_mutex_init(&f->lock, NULL);
	return f;
}

void failures_free(struct failures *f)
{
	if (!f)
		return;
	pthread_mutex_destroy(&f->lock);
	free(f);
}

void failures_add(struct failures *f, const struct failure *one)
{
	struct failure *to;

	pthread_mutex_lock(&f->lock);
	to = &f->ring[f->seen % f->entries];
	*to = *one;
	to->number = ++f->seen;
	pthread_mutex_unlock(&f->lock);
}

static int by_number(const void *a, const void *b)
{
	const struct failure *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

int failures_copy(struct failures *f, struct failure **out, unsigned *n, uint64_t *seen)
{
	struct failure *all = malloc(f->entries * sizeof *all);
	unsigned k = 0;

	if (!all)
		return -ENOMEM;
	for (unsigned i = 0; i < f->entries; i++) {
		pthread_mutex_lock(&f->lock);
		all[k] = f->ring[i];
		*seen = f->seen;
		pthread_mutex_unlock(&f->lock);
		k += all[k].number != 0;
	}
	qsort(all, k, sizeof *all, by_number);
	*out = all;
	*n = k;
	return 0;
}

static int by_time(const void *a, const void *b)
{
	const struct timespec *x = &((const struct failure *)a)->at, *y = &((const struct failure *)b)->at;

	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? -1 : 1;
	return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

/* Appends one worker's. */
static int gather(struct failures_list *l, struct failures *f)
{
	struct failure *some, *all;
	uint64_t seen = 0;
	unsigned n;
	int e = failures_copy(f, &some, &n, &seen);

	if (e)
		return e;
	all = realloc(l->all, (l->n + n + 1) * sizeof *all);
	if (all) {
		memcpy(all + l->n, some, n * sizeof *all);
		l->all = all;
		l->n += n;
		l->seen += seen;
	}
	free(some);
	return all ? 0 : -ENOMEM;
}

int data_failures(struct data_plane *d, struct failures_list *out)
{
	struct failures_list l = {0};
	int e = 0;

	for (unsigned i = 0; i < d->o.workers && !e; i++)
		e = gather(&l, d->worker[i]->failures);
	if (e) {
		free(l.all);
		return e;
	}
	qsort(l.all, l.n, sizeof *l.all, by_time);
	*out = l;
	return 0;
}
