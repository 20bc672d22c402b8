/* SPDX-License-Identifier: Apache-2.0 */
/* Enrolment as tunnels see it: what a tunnel that comes is told, and how pods of an earlier keeper are regained.
 *
 * A pod that is RECOVERING has its record, its pins or rules, and perhaps listening sockets in a tunnel that lives on.
 * Such a tunnel is asked for them (Keep). When it has none, or when nobody comes (enrol_recover), new ones are opened;
 * while a tunnel that has not come yet holds the old ones this fails, and is tried again. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "node/enrol_internal.h"
#include "steer_abi.h"

static const char target[] = "enrol";

static void recover_again(struct timer *t);

static void told(void *arg, int err, const char *why, int socket[ZDS_SOCKETS])
{
	struct enrol_pod *p = arg;

	if (err == -EREMOTEIO)
		log_warn(target, "the tunnel cannot serve pod %s/%s yet: %s", p->record.identity.ns,
			 p->record.identity.name, why);
	enrol_pod_put(p);
}

static void tell(struct enrol_pod *p, struct zds_client *c)
{
	if (c && enrol_pod_tell(p, c, told) < 0)
		log_error(target, "out of memory: the tunnel does not learn of pod %s", p->record.uid);
}

static void regain(struct enrol_pod *p)
{
	char why[POD_WHY_MAX] = "";
	int err = enrol_pod_attach(p, why);

	if (!err) {
		p->state = POD_ENROLLED;
		p->record.abi = STEER_ABI_VERSION;
		p->why[0] = '\0';
		if (pods_save(p->enrol->pods_folder, &p->record, why) < 0)
			log_error(target, "%s", why);
		log_info(target, "pod %s/%s is regained", p->record.identity.ns, p->record.identity.name);
		if (enrol_pod_dns_later(p))
			log_warn(target, "pod %s/%s: DNS capture begins when its sandbox is made anew",
				 p->record.identity.ns, p->record.identity.name);
		enrol_changed(p->enrol, p->record.uid);
		return;
	}
	if (strcmp(p->why, why) != 0)
		log_warn(target, "pod %s/%s is not regained yet: %s", p->record.identity.ns, p->record.identity.name,
			 why);
	snprintf(p->why, sizeof p->why, "%s", why);
	if (!timer_armed(&p->enrol->recover))
		timer_set(p->enrol->loop, &p->enrol->recover, ENROL_RECOVER_MS, recover_again);
}

void enrol_recover(struct enrol *e)
{
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->state != POD_RECOVERING || p->asked)
			continue;
		regain(p);
		if (p->state == POD_ENROLLED)
			tell(p, zds_server_newest(e->zds));
	}
}

const struct enrol_pod *enrol_recovering(const struct enrol *e, bool all)
{
	list_for_each (l, &e->pods) {
		const struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->state == POD_RECOVERING && (all || p->asked))
			return p;
	}
	return NULL;
}

static void recover_again(struct timer *t)
{
	enrol_recover(container_of(t, struct enrol, recover));
}

/* The answer to a Keep. */
static void kept(void *arg, int err, const char *why, int socket[ZDS_SOCKETS])
{
	struct enrol_pod *p = arg;
	bool unknown = err == -EREMOTEIO, regained;
	struct zds_client *newest = zds_server_newest(p->enrol->zds);
	bool elsewhere = p->asked != newest;

	p->asked = NULL;
	for (unsigned i = 0; i < STEER_SOCKETS; i++) {
		if (socket[i] >= 0 && p->state == POD_RECOVERING && p->socks.fd[i] < 0)
			p->socks.fd[i] = socket[i];
		else if (socket[i] >= 0)
			close(socket[i]);
	}
	regained = p->state == POD_RECOVERING;
	if (regained)
		regain(p);
	if (p->state == POD_ENROLLED && (unknown || (regained && elsewhere)))
		tell(p, newest);
	enrol_pod_put(p);
}

static void ask(struct enrol_pod *p, struct zds_client *c)
{
	if (zds_keep(c, p->record.uid, kept, p) < 0) {
		log_error(target, "out of memory: pod %s is not asked back", p->record.uid);
		return;
	}
	p->asked = c;
	p->refs++;
}

/* A tunnel that opens its own sockets cannot do it beside ours. What BPF steers leads to our sockets, so such a pod
 * waits for a tunnel of ours. */
static bool hand_over(struct enrol_pod *p)
{
	char why[POD_WHY_MAX];

	if (p->record.foreign)
		return true;
	if (p->record.mode == STEER_BPF) {
		log_warn(target,
			 "pod %s/%s is steered by BPF, which this tunnel cannot serve; un-enrol and enrol it again",
			 p->record.identity.ns, p->record.identity.name);
		return false;
	}
	steer_sockets_close(&p->socks);
	p->record.foreign = true;
	if (pods_save(p->enrol->pods_folder, &p->record, why) < 0)
		log_error(target, "%s", why);
	return true;
}

/* One that drains keeps what it has, of the pods that are still there. */
static void keep_all(struct enrol *e, struct zds_client *c)
{
	list_for_each (l, &e->pods)
		if (zds_keep(c, list_entry(l, struct enrol_pod, link)->record.uid, NULL, NULL) < 0)
			log_error(target, "out of memory: an old tunnel forgets a pod");
}

void enrol_again(struct enrol *e, struct zds_client *c)
{
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->steering && p->state != POD_LEAVING && (zds_client_ours(c) || p->record.foreign))
			tell(p, c);
	}
}

void enrol_hello(struct enrol *e, struct zds_client *c)
{
	if (zds_client_draining(c)) {
		keep_all(e, c);
		return;
	}
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->state == POD_JOINING && !p->steering)
			continue; /* it waits for this, and comes with enrol_live() */
		if (p->state == POD_RECOVERING && zds_client_ours(c) && !p->record.foreign) {
			ask(p, c);
			continue;
		}
		if (!zds_client_ours(c) && !hand_over(p))
			continue;
		if (p->state == POD_RECOVERING)
			regain(p);
		if (p->steering)
			tell(p, c);
	}
}

void enrol_live(struct enrol *e)
{
	struct zds_client *c = zds_server_newest(e->zds);

	list_for_each_safe (l, tmp, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->state == POD_JOINING && timer_armed(&p->wait))
			enrol_pod_join(p, c);
	}
}

void enrol_hold(struct enrol *e)
{
	struct steer_sockets none;
	char why[POD_WHY_MAX];

	timer_cancel(&e->mend); /* it would put them back */
	for (unsigned i = 0; i < STEER_SOCKETS; i++)
		none.fd[i] = -1;
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (p->steering && steer_set_sockets(p->steering, &none, why) < 0)
			log_warn(target, "pod %s: %s", p->record.uid, why);
	}
}

void enrol_close_sockets(struct enrol *e)
{
	list_for_each (l, &e->pods)
		steer_sockets_close(&list_entry(l, struct enrol_pod, link)->socks);
}

/* --- records of an earlier keeper ----------------------------------------------------------------------- */

/* The namespace may live on without the name that it had: its processes keep it, and its steering must stay. A
 * descriptor; -ENOENT: it is gone; any other error: it may be there. */
static int record_netns(const struct enrol *e, const struct pod_record *r, struct netns_id *ns)
{
	int fd, err;

	if (strcmp(r->boot, pods_boot(e->pods_folder)) != 0)
		return -ENOENT;
	fd = netns_open(r->netns);
	if (fd >= 0 && netns_identify(fd, ns) == 0 && ns->cookie == r->cookie)
		return fd;
	if (fd >= 0)
		close(fd);
	fd = netns_find(0, r->cookie);
	err = fd < 0 ? fd : netns_identify(fd, ns);
	if (fd >= 0 && err)
		close(fd);
	return err ? err : fd;
}

static void record_drop(struct enrol *e, const struct pod_record *r)
{
	enrol_collect_later(e);
	log_info(target, "pod %s/%s is gone", r->identity.ns, r->identity.name);
	if (pods_remove(e->pods_folder, r->uid) < 0)
		log_error(target, "cannot remove the record of pod %s", r->uid);
}

static void record_take(void *arg, const struct pod_record *r)
{
	struct enrol *e = arg;
	struct netns_id ns = {0};
	int fd = record_netns(e, r, &ns);
	struct enrol_pod *p = fd >= 0 ? enrol_pod_new(e, r, fd, &ns) : NULL;

	if (p) {
		p->state = POD_RECOVERING;
		p->told = p->recorded = true;
	} else if (fd == -ENOENT) {
		record_drop(e, r);
	} else {
		log_error(target, "pod %s/%s: %s; it stays steered, without a tunnel, until the keeper starts again",
			  r->identity.ns, r->identity.name, strerror(fd < 0 ? -fd : ENOMEM));
		if (fd >= 0)
			close(fd);
	}
}

static bool is_known(void *arg, const char *uid)
{
	struct enrol *e = arg;

	return enrol_pod_find(e, uid) != NULL || pods_has(e->pods_folder, uid);
}

static void collect_now(struct timer *t);

static void collect(struct enrol *e)
{
	unsigned dying;
	int n = steer_collect(e->steer, is_known, e, &dying);

	if (n > 0)
		log_info(target, "removed what was left of %d pods", n);
	e->collect_ms = n > 0 || !e->collect_ms ? ENROL_COLLECT_MS : 2 * e->collect_ms;
	if (e->collect_ms > ENROL_COLLECT_MAX_MS)
		e->collect_ms = ENROL_COLLECT_MAX_MS;
	if (!dying)
		return;
	log_debug(target, "namespaces of %u pods that are gone are not dead yet", dying);
	timer_set(e->loop, &e->collect, e->collect_ms, collect_now);
}

static void collect_now(struct timer *t)
{
	collect(container_of(t, struct enrol, collect));
}

void enrol_collect_later(struct enrol *e)
{
	if (!timer_armed(&e->collect) || e->collect_ms > ENROL_COLLECT_MS)
		timer_set(e->loop, &e->collect, ENROL_COLLECT_MS, collect_now);
	e->collect_ms = 0;
}

int enrol_load(struct enrol *e, char why[POD_WHY_MAX])
{
	int err = pods_load(e->pods_folder, record_take, e, why);

	if (!err)
		collect(e);
	return err;
}
