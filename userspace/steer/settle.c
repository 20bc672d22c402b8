// SPDX-License-Identifier: Apache-2.0
/* From filters to links: a pod that nobody uses yet is steered by filters, so that its start does not wait, and gets
 * links soon after, one at a time: the link is there before the filter goes. What somebody removed meanwhile is not put
 * back here: CHECK is to find it. A keeper that ends first leaves it to the next. */
#include "base/log.h"
#include "steer/steer_internal.h"

/* The next filter of the pod that is still where we put it. */
static struct device *find_filter(struct steer_pod *p, enum direction *d)
{
	for (unsigned i = 0; i < p->n_devices; i++)
		for (int k = INGRESS; k < DIRECTIONS; k++)
			if (p->device[i].hook[k].kind == HOOK_FILTER &&
			    !hook_trouble(&p->device[i].hook[k], p->device[i].ifindex, k)) {
				*d = k;
				return &p->device[i];
			}
	return NULL;
}

/* One filter, or none is left: false. */
static bool settle_pod(struct steer_pod *p)
{
	char why[STEER_WHY_MAX];
	enum direction d;
	struct device *dev;
	bool adopted;
	int e;

	if (p->stopping || pod_enter(p, why) < 0)
		return false;
	dev = find_filter(p, &d);
	e = dev ? hook_attach(&dev->hook[d], &p->steer->hook, false, &p->pins, dev->ifindex, d, pod_prog(p, dev, d),
			      &adopted, why)
		: 0;
	netns_home();
	if (e)
		log_warn(STEER_LOG, "pod %s keeps a filter where a link was due: %s", p->uid, why);
	return dev && !e;
}

static void settle_next(struct timer *t)
{
	struct steer *s = container_of(t, struct steer, settle);
	bool worked = false;

	while (!worked && !list_empty(&s->unsettled)) {
		struct steer_pod *p = list_entry(s->unsettled.next, struct steer_pod, settle);

		worked = settle_pod(p);
		if (!worked)
			list_del(&p->settle);
	}
	if (!list_empty(&s->unsettled))
		timer_set(s->loop, &s->settle, STEER_SETTLE_STEP_MS, settle_next);
}

void settle_later(struct steer_pod *p)
{
	struct steer *s = p->steer;

	if (list_empty(&p->settle))
		list_add_tail(&s->unsettled, &p->settle);
	if (!timer_armed(&s->settle))
		timer_set(s->loop, &s->settle, STEER_SETTLE_MS, settle_next);
}

void settle_stop(struct steer *s)
{
	timer_cancel(&s->settle);
}
