/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the pods of this node, and the steps by which one joins and leaves.
 *
 *   enrol_add     JOINING: wait for a tunnel - record - sockets - steering - tunnel's answer -> ENROLLED
 *                 a failure at any step: LEAVING, everything undone, gone
 *   enrol_remove  LEAVING: captured connections drain - steering undone - tunnels told - record removed -> gone */
#include "node/enrol.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "node/enrol_internal.h"
#include "steer_abi.h"

static const char target[] = "enrol";

/* Takes it off the list; requests that are under way may still hold it. */
static void pod_drop(struct enrol_pod *p)
{
	list_del(&p->link);
	p->enrol->n_pods--;
	enrol_pod_put(p);
}

static void pod_answer(struct enrol_pod *p, int err, const char *why)
{
	enrol_done done = p->done;

	p->done = NULL;
	if (done)
		done(p->arg, err, why);
}

/* --- out ------------------------------------------------------------------------------------------------ */

/* Another one of its uid is there, or leaves. */
static bool has_to_wait(const struct enrol *e, const struct enrol_pod *p)
{
	list_for_each (l, &e->pods) {
		const struct enrol_pod *other = list_entry(l, struct enrol_pod, link);

		if (!other->behind && !strcmp(other->record.uid, p->record.uid))
			return true;
	}
	return false;
}

static struct enrol_pod *first_behind(const struct enrol *e)
{
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->behind && !has_to_wait(e, p))
			return p;
	}
	return NULL;
}

/* Those that waited for another of their uid to be out. Not at once: who ends a pod may be walking over all of them, and
 * one that begins may end as well. */
static void behind_begin(struct task *t)
{
	struct enrol *e = container_of(t, struct enrol, behind);
	struct enrol_pod *p;

	while ((p = first_behind(e))) {
		p->behind = false;
		enrol_pod_begin(p);
	}
}

static void pod_out(struct enrol_pod *p)
{
	int err = p->recorded ? pods_remove(p->enrol->pods_folder, p->record.uid) : 0;
	struct enrol *e = p->enrol;
	char uid[POD_UID_MAX];

	if (err && !p->err) {
		p->err = err;
		snprintf(p->why, sizeof p->why,
			 "un-enrolled, but the record of pod %s cannot be removed: %s; remove it by hand, or the next "
			 "keeper takes the pod back",
			 p->record.uid, strerror(-err));
	} else if (err) {
		log_error(target, "cannot remove the record of pod %s: %s", p->record.uid, strerror(-err));
	}
	if (p->err)
		log_warn(target, "pod %s/%s: %s", p->record.identity.ns, p->record.identity.name, p->why);
	else
		log_info(target, "pod %s/%s is un-enrolled", p->record.identity.ns, p->record.identity.name);
	enrol_collect_later(e);
	pod_answer(p, p->err, p->why);
	memcpy(uid, p->record.uid, sizeof uid);
	pod_drop(p);
	loop_defer(e->loop, &e->behind, behind_begin);
	enrol_changed(e, uid);
}

static void tunnels_told(void *arg, int err, const char *why, int socket[ZDS_SOCKETS])
{
	struct enrol_pod *p = arg;

	if (err && !p->err) {
		p->err = err;
		snprintf(p->why, sizeof p->why, "un-enrolled, but the tunnel says: %s", why);
	}
	pod_out(p);
	enrol_pod_put(p);
}

static void pod_detached(void *arg, int err)
{
	struct enrol_pod *p = arg;

	p->steering = NULL;
	if (err && !p->err) {
		p->err = err;
		snprintf(p->why, sizeof p->why,
			 "un-enrolled, but its steering could not be removed without a trace: %s", strerror(-err));
	}
	steer_sockets_close(&p->socks);
	p->refs++;
	if (!p->told || zds_del(p->enrol->zds, p->record.uid, tunnels_told, p) < 0)
		tunnels_told(p, 0, "", NULL);
}

void enrol_pod_leave(struct enrol_pod *p, unsigned drain_ms)
{
	p->state = POD_LEAVING;
	timer_cancel(&p->wait);
	timer_cancel(&p->limit);
	if (p->steering)
		steer_detach(p->steering, drain_ms, pod_detached, p);
	else
		pod_detached(p, 0);
}

void enrol_pod_fail(struct enrol_pod *p, int err, const char *fmt, ...)
{
	va_list ap;

	p->err = err;
	va_start(ap, fmt);
	vsnprintf(p->why, sizeof p->why, fmt, ap);
	va_end(ap);
	enrol_pod_leave(p, 0);
}

/* --- in ------------------------------------------------------------------------------------------------- */

static void join_answered(void *arg, int err, const char *why, int socket[ZDS_SOCKETS])
{
	struct enrol_pod *p = arg;

	if (p->state == POD_JOINING && !err) {
		p->state = POD_ENROLLED;
		timer_cancel(&p->limit);
		log_info(target, "pod %s/%s is enrolled, uid %s, steered by %s", p->record.identity.ns,
			 p->record.identity.name, p->record.uid, p->record.mode == STEER_BPF ? "BPF" : "iptables");
		pod_answer(p, 0, "");
		enrol_changed(p->enrol, p->record.uid);
	} else if (p->state == POD_JOINING) {
		enrol_pod_fail(p, err, "the tunnel cannot serve it: %s", why);
	}
	enrol_pod_put(p);
}

void enrol_pod_join(struct enrol_pod *p, struct zds_client *c)
{
	char why[POD_WHY_MAX] = "";
	int err;

	timer_cancel(&p->wait);
	p->record.foreign = !zds_client_ours(c);
	p->record.mode = p->record.foreign ? STEER_IPTABLES : p->enrol->o.mode;
	p->recorded = true;
	err = pods_save(p->enrol->pods_folder, &p->record, why);
	if (!err)
		err = enrol_pod_attach(p, why);
	if (!err) {
		err = enrol_pod_tell(p, c, join_answered);
		snprintf(why, sizeof why, "%s", strerror(-err));
	}
	if (err)
		enrol_pod_fail(p, err, "%s", why);
}

static void join_expired(struct timer *t)
{
	struct enrol_pod *p = container_of(t, struct enrol_pod, wait);

	enrol_pod_fail(p, -ENOTCONN, "no tunnel is connected to the keeper; see culvertctl status");
}

void enrol_pod_begin(struct enrol_pod *p)
{
	struct zds_client *c = zds_server_newest(p->enrol->zds);

	if (c)
		enrol_pod_join(p, c);
	else
		timer_set(p->enrol->loop, &p->wait, ENROL_TUNNEL_MS, join_expired);
}

/* --- all of them ---------------------------------------------------------------------------------------- */

struct enrol *enrol_new(struct loop *l, struct steer *s, struct pods *p, const struct enrol_options *o)
{
	struct enrol *e = calloc(1, sizeof *e);
	struct stat st;

	if (!e)
		return NULL;
	e->loop = l;
	e->steer = s;
	e->pods_folder = p;
	e->o = *o;
	list_init(&e->pods);
	if (stat("/proc/self/ns/net", &st) == 0)
		e->own_inode = st.st_ino;
	if (stat("/proc/1/ns/net", &st) == 0)
		e->init_inode = st.st_ino;
	return e;
}

void enrol_free(struct enrol *e)
{
	if (!e)
		return;
	timer_cancel(&e->recover);
	timer_cancel(&e->collect);
	timer_cancel(&e->sweep);
	timer_cancel(&e->mend);
	task_cancel(&e->behind);
	list_for_each_safe (l, tmp, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		p->refs = 1;
		pod_drop(p);
	}
	free(e);
}

void enrol_serve(struct enrol *e, struct zds_server *z)
{
	e->zds = z;
	enrol_sweep_start(e);
	enrol_mend_start(e);
}

unsigned enrol_count(const struct enrol *e, enum pod_state state)
{
	unsigned n = 0;

	list_for_each (l, &e->pods)
		n += list_entry(l, struct enrol_pod, link)->state == state;
	return n;
}

void enrol_each(struct enrol *e, void (*each)(void *arg, const struct enrol_pod *p), void *arg)
{
	list_for_each (l, &e->pods)
		each(arg, list_entry(l, struct enrol_pod, link));
}
