/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the looking for pods whose sandbox went unnoticed: the plugin says so once, and the keeper may not have been there,
 * or have been back before the sandbox was gone. Its namespace is held by nobody but us then. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "node/enrol_internal.h"

static bool is_gone(const struct enrol_pod *p)
{
	struct stat st;
	int fd;

	if (p->state != POD_ENROLLED || !p->record.attachment.container_id[0])
		return false;
	if (stat(p->record.netns, &st) == 0 && st.st_ino == p->ns.inode && st.st_dev == p->ns.device)
		return false;
	fd = netns_find(p->ns.inode, 0); /* by another name, or by its processes */
	if (fd >= 0)
		close(fd);
	return fd == -ENOENT;
}

static void ended(void *arg, int err, const char *why)
{
	if (err)
		log_warn("enrol", "a pod whose sandbox is gone could not be un-enrolled: %s", why);
}

static void sweep(struct timer *t)
{
	struct enrol *e = container_of(t, struct enrol, sweep);

	list_for_each_safe (l, tmp, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (!is_gone(p))
			continue;
		log_info("enrol", "the sandbox of pod %s/%s is gone", p->record.identity.ns, p->record.identity.name);
		enrol_end(e, p, ended, NULL);
	}
	enrol_sweep_start(e);
}

void enrol_sweep_start(struct enrol *e)
{
	timer_set(e->loop, &e->sweep, ENROL_SWEEP_MS, sweep);
}
