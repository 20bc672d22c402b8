// SPDX-License-Identifier: Apache-2.0
/* BPF objects loaded ahead of need. Verifying the programs is most of the work of steering a pod, and over new maps they
 * are the same for every pod: so a thread keeps SPARES_MAX of them, and loads another for each that is taken. They are
 * pinned nowhere and go with the process. Who finds none loads its own and waits for nobody. */
#include <pthread.h>
#include <stdlib.h>

#include "base/log.h"
#include "steer/steer_internal.h"

struct spares {
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows, but the template and the node's maps, which outlive the thread */
	pthread_cond_t taken;
	bool stopping;
	bool wanted; /* unless loading failed: then not before somebody asks again */
	unsigned n;
	struct object ready[SPARES_MAX];
	const struct template *template;
	const int *node_maps;
};

/* One more, without the lock meanwhile. */
static void load_one(struct spares *s)
{
	char why[STEER_WHY_MAX];
	struct object o;
	int e;

	pthread_mutex_unlock(&s->lock);
	e = object_load_new(&o, s->template, s->node_maps, why);
	if (e)
		log_debug(STEER_LOG, "no spare: %s", why);
	pthread_mutex_lock(&s->lock);
	if (e)
		s->wanted = false;
	else
		s->ready[s->n++] = o;
}

static void *keep_ready(void *arg)
{
	struct spares *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		if (s->wanted && s->n < SPARES_MAX)
			load_one(s);
		else
			pthread_cond_wait(&s->taken, &s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

struct spares *spares_start(const struct template *t, const int *node_maps)
{
	struct spares *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->template = t;
	s->node_maps = node_maps;
	s->wanted = true;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->taken, NULL);
	if (pthread_create(&s->thread, NULL, keep_ready, s) == 0)
		return s;
	pthread_cond_destroy(&s->taken);
	pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}

void spares_stop(struct spares *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->taken);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	while (s->n)
		object_close(&s->ready[--s->n]);
	pthread_cond_destroy(&s->taken);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

bool spares_take(struct spares *s, struct object *out)
{
	bool found;

	if (!s)
		return false;
	pthread_mutex_lock(&s->lock);
	found = s->n > 0;
	if (found)
		*out = s->ready[--s->n];
	s->wanted = true;
	pthread_cond_signal(&s->taken);
	pthread_mutex_unlock(&s->lock);
	return found;
}

unsigned spares_count(struct spares *s)
{
	unsigned n = 0;

	if (s) {
		pthread_mutex_lock(&s->lock);
		n = s->n;
		pthread_mutex_unlock(&s->lock);
	}
	return n;
}
