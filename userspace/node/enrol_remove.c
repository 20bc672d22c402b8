/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the beginning of a removal: which pod is meant, and may it leave now. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/qualified.h"
#include "node/enrol_internal.h"

/* The only one of this NAMESPACE/NAME; NULL, and -ENOTUNIQ where there are more. */
static struct enrol_pod *pod_named(struct enrol *e, const char *name, int *err)
{
	struct enrol_pod *found = NULL;

	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (!qualified_is(name, p->record.identity.ns, p->record.identity.name))
			continue;
		if (found)
			*err = -ENOTUNIQ;
		found = p;
	}
	return *err ? NULL : found;
}

/* By uid, by namespace, or by the path that was given when it was enrolled (it may be gone). */
static struct enrol_pod *pod_search(struct enrol *e, const char *pod)
{
	struct enrol_pod *p = enrol_pod_find(e, pod);
	struct netns_id ns;
	int fd = p || pod[0] != '/' ? -1 : netns_open(pod);
	bool there = fd >= 0 && netns_identify(fd, &ns) == 0;

	if (fd >= 0)
		close(fd);
	if (p)
		return p;
	list_for_each (l, &e->pods) {
		p = list_entry(l, struct enrol_pod, link);
		if (there ? p->record.cookie == ns.cookie : !strcmp(p->record.netns, pod))
			return p;
	}
	return NULL;
}

static void remove_known(struct enrol_pod *p, unsigned drain_ms, enrol_done done, void *arg)
{
	struct steer_config c = enrol_pod_config(p);
	char why[POD_WHY_MAX] = "";
	int err = 0;

	if (!p->steering) /* to be removed it must be known */
		err = steer_attach(p->enrol->steer, &p->steering, p->record.uid, p->record.mode, p->netns_fd, &p->ns,
				   &c, &p->socks, why);
	if (err) {
		done(arg, err, why);
		return;
	}
	p->done = done;
	p->arg = arg;
	p->err = 0;
	p->why[0] = '\0';
	p->told = true;
	enrol_pod_leave(p, drain_ms);
}

void enrol_remove(struct enrol *e, const char *pod, enrol_done done, void *arg)
{
	struct enrol_pod *p = pod_search(e, pod);
	char why[POD_WHY_MAX];
	int err = -ENOENT;

	if (!p && pod[0] != '/') {
		err = 0;
		p = pod_named(e, pod, &err);
		err = err ? err : -ENOENT;
	}
	if (!p) {
		snprintf(why, sizeof why, "%.512s: %s; give its netns or UID (culvertctl pods)", pod,
			 err == -ENOTUNIQ ? "more than one pod is called so"
					  : "no pod is enrolled there or by this name");
		done(arg, err, why);
	} else if (p->state == POD_JOINING || p->state == POD_LEAVING) {
		done(arg, -EBUSY, "another operation on this pod is under way; try again");
	} else {
		remove_known(p, e->o.drain_ms, done, arg);
	}
}

void enrol_end(struct enrol *e, const struct enrol_pod *pod, enrol_done done, void *arg)
{
	struct enrol_pod *p = (struct enrol_pod *)pod; /* one of ours; gone, perhaps, once it has failed */
	enum pod_state state = p->state;

	if (state == POD_JOINING)
		enrol_pod_fail(p, -ECANCELED, "the pod's sandbox is removed");
	if (state == POD_JOINING || state == POD_LEAVING)
		done(arg, 0, "");
	else
		remove_known(p, 0, done, arg);
}
