/* SPDX-License-Identifier: Apache-2.0 */
/* Cleaning up after pods and keepers that are gone: pins that nobody knows, and what becomes of each. Their namespaces are
 * sought all at once, since that is a walk through all processes. */
#include <bpf/bpf.h>
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/steer_internal.h"

/* Its un-enrolment was asked for, and did not end. */
static bool is_leaving(const struct pins *pins)
{
	struct steer_conf conf;

	return object_conf_read(pins, &conf) == 0 && conf.flags & STEER_F_STOPPING;
}

/* A folder of pins that nobody knows, locked. */
struct orphan {
	char uid[STEER_UID_MAX];
	struct pins pins;
};

struct orphans {
	unsigned n, room;
	struct orphan *all;
	struct netns_sought *sought; /* of each; inode 0: nothing is attached any more */
};

static int make_room(struct orphans *o)
{
	unsigned room = o->room ? 2 * o->room : 8;
	struct netns_sought *sought = realloc(o->sought, room * sizeof *sought);
	struct orphan *all;

	if (!sought)
		return -ENOMEM;
	o->sought = sought;
	all = realloc(o->all, room * sizeof *all);
	if (!all)
		return -ENOMEM;
	o->all = all;
	o->room = room;
	return 0;
}

static void take_orphan(struct steer *s, struct orphans *o, const char *uid)
{
	char why[STEER_WHY_MAX];
	struct orphan *one;

	if (o->n == o->room && make_room(o) < 0)
		return; /* the next collection finds it */
	one = &o->all[o->n];
	if (pins_open(&one->pins, s->pin_dir, uid, why) < 0)
		return; /* in use, or not ours */
	snprintf(one->uid, sizeof one->uid, "%s", uid);
	o->sought[o->n] = (struct netns_sought){.inode = 0};
	lookup_pinned(&one->pins, &o->sought[o->n].inode);
	o->n++;
}

/* Before anything is looked at it is asked whose the pins are: a pod that lives is never unsteered here, whatever they
 * look like. */
static int list_orphans(struct steer *s, struct orphans *o, bool (*known)(void *arg, const char *uid), void *arg)
{
	char path[PIN_PATH_MAX];
	struct dirent *entry;
	DIR *d;

	snprintf(path, sizeof path, "%s/v1", s->pin_dir);
	d = opendir(path);
	if (!d)
		return -errno;
	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.' && !known(arg, entry->d_name))
			take_orphan(s, o, entry->d_name);
	closedir(d);
	return 0;
}

/* 1 if it is gone. Takes the pins. */
static unsigned collect_one(struct steer *s, struct orphan *o, const struct netns_sought *ns, unsigned *dying)
{
	struct steer_conf conf;

	if (ns->inode && ns->fd == -ENOENT) {
		/* Connections that nobody has open any more keep a namespace until they have timed out. */
		*dying += 1;
		pins_close(&o->pins);
		return 0;
	}
	if (ns->inode && is_leaving(&o->pins))
		return pod_abandon(s, o->uid, &o->pins, ns->fd);
	if (ns->inode) { /* a lost record must not let a pod out of the mesh */
		log_warn(STEER_LOG,
			 "%s is steered, but nobody knows whose pod it is: it stays so, without a tunnel, until it is "
			 "enrolled "
			 "again (namespace %llu)",
			 o->uid, (unsigned long long)ns->inode);
		pins_close(&o->pins);
		return 0;
	}
	if (object_conf_read(&o->pins, &conf) == 0)
		shared_forget(&s->shared, conf.netns_cookie, conf.owner);
	pins_remove(&o->pins);
	return 1;
}

int steer_collect(struct steer *s, bool (*known)(void *arg, const char *uid), void *arg, unsigned *dying)
{
	struct orphans o = {0};
	unsigned n = 0, left = 0;
	int e;

	if (dying)
		*dying = 0;
	if (s->shared.map[MAP_NODE] < 0)
		return 0;
	agents_prune(s);
	e = list_orphans(s, &o, known, arg);
	netns_seek(o.sought, o.n);
	for (unsigned i = 0; i < o.n; i++) {
		n += collect_one(s, &o.all[i], &o.sought[i], &left);
		if (o.sought[i].fd >= 0)
			close(o.sought[i].fd);
	}
	free(o.all);
	free(o.sought);
	if (dying)
		*dying = left;
	return e ? e : (int)n;
}
