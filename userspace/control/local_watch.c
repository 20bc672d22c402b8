// SPDX-License-Identifier: Apache-2.0
/* Follows the local file. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/file_watch.h"
#include "control/local.h"

struct local_watch {
	struct loop *loop;
	struct store *store;
	struct file_watch *watch;
	pthread_mutex_t lock; /* of the trouble, which the dump's thread asks for */
	char trouble[LOCAL_REASON_MAX];
	struct timer trim; /* when the memory of the mesh before goes back to the system */
	char path[];
};

static void trim(struct timer *t)
{
	malloc_trim(0);
}

static void set_trouble(struct local_watch *w, const char *why)
{
	pthread_mutex_lock(&w->lock);
	snprintf(w->trouble, sizeof w->trouble, "%s", why);
	pthread_mutex_unlock(&w->lock);
}

void local_watch_trouble(struct local_watch *w, char out[LOCAL_REASON_MAX])
{
	pthread_mutex_lock(&w->lock);
	memcpy(out, w->trouble, sizeof w->trouble);
	pthread_mutex_unlock(&w->lock);
}

static void changed(void *arg)
{
	struct local_watch *w = arg;
	char why[LOCAL_REASON_MAX] = "";
	struct store_counts n;
	int e = local_load_file(w->store, w->path, why);

	set_trouble(w, e ? why : "");
	if (e) {
		log_error("local", "%s; the mesh stays as it was", why);
		return;
	}
	timer_set(w->loop, &w->trim, LOCAL_TRIM_MS, trim);
	store_count(w->store, &n);
	log_info("local", "%s: %u workloads, %u services, %u policies", w->path, n.workloads, n.services, n.policies);
}

struct local_watch *local_watch_new(struct loop *l, struct store *s, const char *path)
{
	struct local_watch *w = calloc(1, sizeof *w + strlen(path) + 1);

	if (!w)
		return NULL;
	w->loop = l;
	w->store = s;
	pthread_mutex_init(&w->lock, NULL);
	memcpy(w->path, path, strlen(path) + 1);
	w->watch = file_watch_new(l, path, 0, changed, w);
	if (!w->watch) {
		free(w);
		return NULL;
	}
	return w;
}

void local_watch_free(struct local_watch *w)
{
	if (!w)
		return;
	timer_cancel(&w->trim);
	file_watch_free(w->watch);
	free(w);
}
