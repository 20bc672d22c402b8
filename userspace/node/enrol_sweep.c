/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the looking for pods whose sandbox went unnoticed: the plugin says so once, and the keeper may not have been there,
 * or have been back before the sandbox was gone. Its namespace is held by nobody but us then. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "node/enrol_internal.h"

/* Is its namespace no longer where the plugin said? It may have another name, or processes. */
static bool is_missing(const struct enrol_pod *p)
{
	struct stat st;

	if (p->state != POD_ENROLLED || !p->record.attachment.container_id[0])
		return false;
	return stat(p->record.netns, &st) < 0 || st.st_ino != p->ns.inode || st.st_dev != p->ns.device;
}

static void ended(void *arg, int err, const char *why)
{
	if (err)
		log_warn("enrol", "a pod whose sandbox is gone could not be un-enrolled: %s", why);
}

static void end_one(struct enrol *e, struct enrol_pod *p)
{
	log_info("enrol", "the sandbox of pod %s/%s is gone", p->record.identity.ns, p->record.identity.name);
	enrol_end(e, p, ended, NULL);
}

static unsigned list_missing(const struct enrol *e, struct enrol_pod **missing, struct netns_sought *sought)
{
	unsigned n = 0;

	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (!is_missing(p))
			continue;
		missing[n] = p;
		sought[n++] = (struct netns_sought){.inode = p->ns.inode};
	}
	return n;
}

/* All of them are sought at once: a node that was drained misses hundreds. */
static void look(struct enrol *e)
{
	struct enrol_pod **missing = calloc(e->n_pods, sizeof *missing);
	struct netns_sought *sought = calloc(e->n_pods, sizeof *sought);
	unsigned n = missing && sought ? list_missing(e, missing, sought) : 0;

	if (n)
		netns_seek(sought, n);
	for (unsigned i = 0; i < n; i++) {
		if (sought[i].fd >= 0)
			close(sought[i].fd);
		else if (sought[i].fd == -ENOENT)
			end_one(e, missing[i]);
	}
	free(sought);
	free(missing);
}

static void sweep(struct timer *t)
{
	struct enrol *e = container_of(t, struct enrol, sweep);

	look(e);
	enrol_sweep_start(e);
}

void enrol_sweep_start(struct enrol *e)
{
	timer_set(e->loop, &e->sweep, ENROL_SWEEP_MS, sweep);
}
