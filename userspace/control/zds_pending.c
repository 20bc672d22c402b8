// SPDX-License-Identifier: Apache-2.0
/* Owns pods that could not be started: each is kept, with descriptors of our own, and tried again until it runs or is
 * not wanted any more. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/zds_internal.h"

static const char target[] = "zds";

struct pending {
	struct list link;
	struct zds_pod pod;
};

void zds_pod_close(struct zds_pod *p)
{
	if (p->netns_fd >= 0)
		close(p->netns_fd);
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		if (p->socket[i] >= 0)
			close(p->socket[i]);
}

static int fd_copy(int fd, int *err)
{
	int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (fd >= 0 && copy < 0)
		*err = -errno;
	return copy;
}

static int pod_copy(struct zds_pod *out, const struct zds_pod *p)
{
	int err = 0;

	*out = *p;
	out->netns_fd = fd_copy(p->netns_fd, &err);
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		out->socket[i] = fd_copy(p->socket[i], &err);
	if (err)
		zds_pod_close(out);
	return err;
}

/* The handler owns the descriptors that it is given, so it is given copies: these are needed for the next try. */
static int pod_start(struct zds *z, const struct zds_pod *p, char *why)
{
	struct zds_pod copy;
	int err = pod_copy(&copy, p);

	if (err) {
		snprintf(why, ZDS_WHY_MAX, "descriptors: %s", strerror(-err));
		return err;
	}
	return z->h.add(z->h.arg, &copy, why);
}

/* --- those that wait ------------------------------------------------------------------------------------ */

static void pending_drop(struct zds *z, struct pending *e)
{
	list_del(&e->link);
	z->n_pending--;
	zds_pod_close(&e->pod);
	free(e);
}

void zds_pending_forget(struct zds *z, const char *uid)
{
	list_for_each_safe (p, tmp, &z->pending) {
		struct pending *e = list_entry(p, struct pending, link);
		if (!strcmp(e->pod.uid, uid))
			pending_drop(z, e);
	}
}

void zds_pending_clear(struct zds *z)
{
	while (!list_empty(&z->pending))
		pending_drop(z, list_entry(z->pending.next, struct pending, link));
	timer_cancel(&z->retry);
}

static void pending_retry(struct timer *t)
{
	struct zds *z = container_of(t, struct zds, retry);
	char why[ZDS_WHY_MAX];

	list_for_each_safe (p, tmp, &z->pending) {
		struct pending *e = list_entry(p, struct pending, link);

		if (pod_start(z, &e->pod, why) == 0)
			pending_drop(z, e);
		else
			log_warn(target, "pod %s/%s still cannot be started: %s", e->pod.ns, e->pod.name, why);
	}
	if (z->n_pending)
		timer_set(z->loop, &z->retry, ZDS_RETRY_MS, pending_retry);
	zds_ready_update(z);
}

/* Takes the pod over. */
static int pending_add(struct zds *z, struct zds_pod *p)
{
	struct pending *e = z->n_pending < ZDS_PODS_MAX ? malloc(sizeof *e) : NULL;

	if (!e) {
		zds_pod_close(p);
		return -ENOMEM;
	}
	e->pod = *p;
	list_init(&e->link);
	list_add_tail(&z->pending, &e->link);
	z->n_pending++;
	if (!timer_armed(&z->retry))
		timer_set(z->loop, &z->retry, ZDS_RETRY_MS, pending_retry);
	return 0;
}

int zds_pod_start(struct zds *z, struct zds_pod *p, char *why)
{
	int err;

	zds_pending_forget(z, p->uid);
	err = pod_start(z, p, why);
	if (!err) {
		zds_pod_close(p);
		return 0;
	}
	log_warn(target, "pod %s/%s cannot be started: %s", p->ns, p->name, why);
	pending_add(z, p);
	return err;
}
