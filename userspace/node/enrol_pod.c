/* SPDX-License-Identifier: Apache-2.0 */
/* Owns a pod: what is held for it, and the steps that enrolling and regaining have in common. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "node/enrol_internal.h"

_Static_assert((int)STEER_SOCKETS == (int)ZDS_SOCKETS, "ZDS names the sockets in steer's order");

struct enrol_pod *enrol_pod_new(struct enrol *e, const struct pod_record *r, int netns_fd, const struct netns_id *ns)
{
	struct enrol_pod *p = e->n_pods < PODS_MAX ? calloc(1, sizeof *p) : NULL;

	if (!p)
		return NULL;
	p->enrol = e;
	p->refs = 1;
	p->record = *r;
	p->netns_fd = netns_fd;
	p->ns = *ns;
	for (unsigned i = 0; i < STEER_SOCKETS; i++)
		p->socks.fd[i] = -1;
	list_init(&p->link);
	list_add_tail(&e->pods, &p->link);
	e->n_pods++;
	return p;
}

struct enrol_pod *enrol_pod_find(struct enrol *e, const char *uid)
{
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		if (!strcmp(p->record.uid, uid))
			return p;
	}
	return NULL;
}

void enrol_pod_put(struct enrol_pod *p)
{
	if (--p->refs)
		return;
	timer_cancel(&p->wait);
	timer_cancel(&p->limit);
	steer_pod_free(p->steering);
	steer_sockets_close(&p->socks);
	close(p->netns_fd);
	free(p);
}

const struct enrol_pod *enrol_find(struct enrol *e, const char *uid)
{
	return enrol_pod_find(e, uid);
}

void enrol_watch(struct enrol *e, void (*changed)(void *arg, const char *uid), void *arg)
{
	e->changed = changed;
	e->changed_arg = arg;
}

void enrol_changed(struct enrol *e, const char *uid)
{
	if (e->changed)
		e->changed(e->changed_arg, uid);
}

static struct steer_config wanted(const struct enrol_pod *p)
{
	struct steer_config c = p->enrol->o.config;

	pod_overlay_apply(&c, &p->record.overlay);
	c.reset_existing |= p->found;
	return c;
}

bool enrol_pod_dns_later(const struct enrol_pod *p)
{
	return wanted(p).dns_capture && p->socks.fd[STEER_TCP15001] >= 0 && p->socks.fd[STEER_TCP15053] < 0;
}

struct steer_config enrol_pod_config(const struct enrol_pod *p)
{
	struct steer_config c = wanted(p);

	c.dns_capture = c.dns_capture && !enrol_pod_dns_later(p);
	return c;
}

int enrol_pod_attach(struct enrol_pod *p, char why[POD_WHY_MAX])
{
	struct steer_config c = enrol_pod_config(p);
	int err = 0;

	if (!p->record.foreign)
		err = steer_sockets_open(&p->socks, &p->ns, p->netns_fd, c.dns_capture, why);
	if (!err)
		err = steer_attach(p->enrol->steer, &p->steering, p->record.uid, p->record.mode, p->netns_fd, &p->ns,
				   &c, &p->socks, why);
	return err;
}

int enrol_pod_tell(struct enrol_pod *p, struct zds_client *c, zds_done done)
{
	int err = zds_add(c, p->record.uid, done, p);

	if (!err) {
		p->told = true;
		p->refs++;
	}
	return err;
}

int enrol_describe(void *arg, const char *uid, struct zds_workload *out)
{
	struct enrol_pod *p = enrol_pod_find(arg, uid);

	if (!p)
		return -ENOENT;
	*out = (struct zds_workload){.uid = p->record.uid,
				     .name = p->record.identity.name,
				     .ns = p->record.identity.ns,
				     .sa = p->record.identity.sa,
				     .netns_fd = p->netns_fd,
				     .socket = p->record.foreign ? NULL : p->socks.fd};
	return 0;
}

void enrol_node(struct enrol *e, const struct addr *addrs, unsigned n)
{
	struct steer_config *c = &e->o.config;

	c->n_node_addrs = n < STEER_NODE_ADDRS_MAX ? n : STEER_NODE_ADDRS_MAX;
	memcpy(c->node_addrs, addrs, c->n_node_addrs * sizeof *addrs);
	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);
		struct steer_config own = enrol_pod_config(p);
		char why[POD_WHY_MAX];

		if (p->steering && p->state == POD_ENROLLED && steer_configure(p->steering, &own, why) < 0)
			log_warn("enrol", "pod %s/%s: probes of its node: %s", p->record.identity.ns,
				 p->record.identity.name, why);
	}
}

int enrol_check(struct enrol *e, const struct enrol_pod *p, char why[POD_WHY_MAX])
{
	if (p->state == POD_ENROLLED && p->steering)
		return steer_check(p->steering, &p->socks, why);
	snprintf(why, POD_WHY_MAX, "the pod is not enrolled yet%s%.512s", p->why[0] ? ": " : "", p->why);
	return -EAGAIN;
}

const struct pod_record *enrol_pod_record(const struct enrol_pod *p)
{
	return &p->record;
}

enum pod_state enrol_pod_state(const struct enrol_pod *p)
{
	return p->state;
}

const struct steer_sockets *enrol_pod_sockets(const struct enrol_pod *p)
{
	return &p->socks;
}

struct steer_pod *enrol_pod_steering(const struct enrol_pod *p)
{
	return p->steering;
}

const char *enrol_pod_trouble(const struct enrol_pod *p)
{
	return p->state == POD_RECOVERING || p->state == POD_ENROLLED ? p->why : "";
}
