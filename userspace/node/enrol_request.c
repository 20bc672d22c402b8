/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the beginning of an enrolment: is the namespace one that may be steered, is the pod enrolled already, and must
 * another of its uid go first. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "node/enrol_internal.h"
#include "steer_abi.h"

/* 0, or what is wrong with the namespace. */
static int netns_check(struct enrol *e, const char *path, int fd, struct netns_id *ns, char why[POD_WHY_MAX])
{
	int err = fd < 0 ? fd : netns_identify(fd, ns);

	if (err == -EINVAL)
		snprintf(why, POD_WHY_MAX, "%s is not a network namespace", path);
	else if (err)
		snprintf(why, POD_WHY_MAX, "%s: %s", path, strerror(-err));
	else if (ns->inode == e->own_inode || ns->inode == e->init_inode)
		snprintf(why, POD_WHY_MAX, "%s is the node's own network namespace, which is never steered", path);
	else if (!ns->cookie)
		snprintf(why, POD_WHY_MAX, "%s: this kernel does not tell namespaces apart (SO_NETNS_COOKIE, 5.14)",
			 path);
	else
		return 0;
	return err ? err : -EPERM;
}

/* The request as a record, and the namespace; the descriptor is the caller's. */
static int request_take(struct enrol *e, const struct enrol_request *q, struct pod_record *r, int *fd,
			struct netns_id *ns, char why[POD_WHY_MAX])
{
	int err = pod_identity_parse(&r->identity, q->identity, why);

	if (!err && q->uid && !pod_uid_valid(q->uid)) {
		snprintf(why, POD_WHY_MAX, "\"%.64s\" is not a pod's uid", q->uid);
		err = -EINVAL;
	}
	if (!err &&
	    (q->netns[0] != '/' || snprintf(r->netns, sizeof r->netns, "%s", q->netns) >= (int)sizeof r->netns)) {
		snprintf(why, POD_WHY_MAX, "the namespace must be given by its absolute path, at most %d bytes",
			 POD_NETNS_MAX - 1);
		err = -EINVAL;
	}
	if (err)
		return err;
	*fd = netns_open(q->netns);
	err = netns_check(e, q->netns, *fd, ns, why);
	if (err)
		return err;
	if (q->uid)
		snprintf(r->uid, sizeof r->uid, "%s", q->uid);
	else
		pod_uid_make(r->uid, ns->cookie);
	r->abi = STEER_ABI_VERSION;
	r->cookie = ns->cookie;
	snprintf(r->boot, sizeof r->boot, "%s", pods_boot(e->pods_folder));
	if (q->attachment)
		r->attachment = *q->attachment;
	if (q->overlay)
		r->overlay = *q->overlay;
	return 0;
}

/* --- enrolled already? ----------------------------------------------------------------------------------- */

/* Who is in the namespace, and does not leave it. */
static struct enrol_pod *find_inside(struct enrol *e, uint64_t cookie)
{
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->record.cookie == cookie && p->state != POD_LEAVING)
			return p;
	}
	return NULL;
}

/* A repeated enrolment brings the attachment and the overlay up to date. */
static int renew(struct enrol_pod *p, const struct enrol_request *q, char why[POD_WHY_MAX])
{
	struct pod_record old = p->record;
	struct steer_config c;
	int err = 0;

	/* Of several networks of one container the first is the one whose end is the pod's. */
	if (q->attachment && strcmp(q->attachment->container_id, old.attachment.container_id) != 0)
		p->record.attachment = *q->attachment;
	if (q->overlay)
		p->record.overlay = *q->overlay;
	if (!memcmp(&old, &p->record, sizeof old))
		return 0;
	c = enrol_pod_config(p);
	if (memcmp(&old.overlay, &p->record.overlay, sizeof old.overlay) != 0)
		err = steer_configure(p->steering, &c, why);
	if (!err)
		err = pods_save(p->enrol->pods_folder, &p->record, why);
	if (err)
		p->record = old;
	return err;
}

static int enrolled_already(struct enrol_pod *p, const struct enrol_request *q, const struct pod_record *r,
			    char why[POD_WHY_MAX])
{
	const struct pod_identity *is = &p->record.identity, *id = &r->identity;

	if (strcmp(is->ns, id->ns) != 0 || strcmp(is->name, id->name) != 0 || strcmp(is->sa, id->sa) != 0 ||
	    (q->uid && strcmp(p->record.uid, q->uid) != 0)) {
		snprintf(why, POD_WHY_MAX, "the namespace is enrolled as %s/%s/%s, uid %s; un-enrol it first", is->ns,
			 is->name, is->sa, p->record.uid);
		return -EEXIST;
	}
	if (p->state == POD_ENROLLED)
		return renew(p, q, why);
	snprintf(why, POD_WHY_MAX, "another operation on this pod is under way; try again");
	return -EBUSY;
}

/* --- another of the same uid ------------------------------------------------------------------------------- */

static void other_is_out(void *arg, int err, const char *why)
{
	if (err) /* the one that waits meets its deadline */
		log_warn("enrol", "an older sandbox of the same pod cannot be removed: %s", why);
}

/* An older sandbox leaves at once; of those that wait to follow it only the newest counts. True: somebody is there yet,
 * behind whom to wait. */
static bool make_room(struct enrol *e, const char *uid)
{
	struct enrol_pod *waits = NULL, *p;

	list_for_each (l, &e->pods) {
		p = list_entry(l, struct enrol_pod, link);
		if (p->behind && !strcmp(p->record.uid, uid))
			waits = p;
	}
	if (waits)
		enrol_pod_fail(waits, -ECANCELED, "the pod has a newer sandbox");
	p = enrol_pod_find(e, uid);
	if (p)
		enrol_end(e, p, other_is_out, NULL);
	return enrol_pod_find(e, uid) != NULL;
}

static void join_too_late(struct timer *t)
{
	struct enrol_pod *p = container_of(t, struct enrol_pod, limit);

	enrol_pod_fail(p, -ETIMEDOUT, "not done in time, and undone; %s",
		       p->behind     ? "an older sandbox of the pod lingers"
		       : p->steering ? "the tunnel has not answered"
				     : "no tunnel is connected to the keeper; see culvertctl status");
}

void enrol_add(struct enrol *e, const struct enrol_request *q, enrol_done done, void *arg)
{
	struct pod_record r = {.uid = ""};
	struct enrol_pod *p = NULL;
	char why[POD_WHY_MAX] = "";
	struct netns_id ns = {0};
	int fd = -1, err = request_take(e, q, &r, &fd, &ns, why);
	bool behind = false;

	if (!err) {
		p = find_inside(e, ns.cookie);
		if (!p && !q->uid && enrol_pod_find(e, r.uid)) {
			snprintf(why, sizeof why, "another operation on this pod is under way; try again");
			err = -EBUSY;
		}
	}
	if (p)
		err = enrolled_already(p, q, &r, why);
	if (err || p) {
		if (fd >= 0)
			close(fd);
		done(arg, err, why);
		return;
	}
	if (q->uid)
		behind = make_room(e, r.uid);
	p = enrol_pod_new(e, &r, fd, &ns);
	if (!p) {
		close(fd);
		done(arg, -ENOSPC, "too many pods");
		return;
	}
	p->state = POD_JOINING;
	p->done = done;
	p->arg = arg;
	p->found = q->found;
	if (q->deadline_ms)
		timer_set(e->loop, &p->limit, q->deadline_ms, join_too_late);
	p->behind = behind;
	if (!behind)
		enrol_pod_begin(p);
}
