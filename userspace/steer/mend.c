/* SPDX-License-Identifier: Apache-2.0 */
/* Puts back what somebody took from a pod that is steered: until then its traffic may leave in plaintext. In the order of
 * attachment, egress last. What the kernel tells of (rules, routes, filters) only says "look"; of links that are detached
 * it tells nobody, so they are asked. Of one that comes before ours nobody is told either: that waits for steer_mend(). */
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/iptables.h"
#include "steer/rtnl.h"
#include "steer/steer_internal.h"

bool steer_suspect(const struct steer_pod *p)
{
	if (p->mode != STEER_BPF || p->stopping)
		return false;
	if (p->touched || !link_attached(p->lookup))
		return true;
	for (unsigned i = 0; i < p->n_devices; i++)
		for (int d = INGRESS; d < DIRECTIONS; d++)
			if (p->device[i].hook[d].kind == HOOK_LINK && !link_attached(p->device[i].hook[d].link))
				return true;
	return false;
}

/* Whoever deletes the folder deletes a name only: our descriptor is of the old one. */
static int repin(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct pins fresh;
	int e = 0;

	if (!pins_hold(&p->pins)) {
		e = pins_open(&fresh, p->steer->pin_dir, p->uid, why);
		if (e)
			return e;
		pins_close(&p->pins);
		p->pins = fresh;
	}
	e = object_pin(&p->object, &p->pins, why);
	if (!e)
		e = existing_pin(p, why);
	if (!e && link_attached(p->lookup))
		e = pin_put(&p->pins, PIN_LOOKUP, p->lookup, why);
	for (unsigned i = 0; i < p->n_devices; i++)
		for (int d = INGRESS; d < DIRECTIONS && !e; d++)
			e = hook_pin(&p->device[i].hook[d], &p->pins, p->device[i].ifindex, d,
				     pod_prog(p, &p->device[i], d), why);
	return e;
}

struct lost { /* hooks that do not steer */
	unsigned gone, behind;
};

/* Forgotten, they are attached anew. */
static struct lost count_lost(struct steer_pod *p, bool forget)
{
	struct lost n = {0};

	for (unsigned i = 0; i < p->n_devices; i++)
		for (int d = INGRESS; d < DIRECTIONS; d++) {
			struct device *dev = &p->device[i];
			const char *trouble = hook_trouble(&dev->hook[d], dev->ifindex, d);

			if (!trouble)
				continue;
			if (forget)
				hook_forget(&dev->hook[d]);
			n.gone += !strcmp(trouble, HOOK_GONE);
			n.behind += !strcmp(trouble, HOOK_BEHIND);
		}
	return n;
}

static int attach_anew(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int e = object_renew(&p->object, &p->steer->shared, p->ns.cookie, why);

	if (e)
		return e;
	count_lost(p, true);
	return pod_look(p, true, why);
}

/* What left the pod meanwhile is reset. Where ours were only behind another, those that ours had let go before this are not:
 * the other may be one that only watches. They are noted first, since what it let past ours looks like them afterwards. */
static int attach_lost(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	struct lost lost = count_lost(p, false), left;
	int spared = -1, e;

	if (!lost.gone && !lost.behind)
		return pod_look(p, true, why);
	if (!lost.gone) {
		spared = existing_direct(p, why);
		if (spared < 0)
			return spared;
	}
	e = attach_anew(p, why);
	left = count_lost(p, false);
	if (!e && !left.gone && !left.behind)
		e = existing_reset_others(p, spared, why);
	if (spared >= 0)
		close(spared);
	return e;
}

static int put_back(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	uint32_t value;
	int e;

	e = repin(p, why);
	if (!e)
		e = steer_set_sockets(p, socks, why);
	if (!e && (rtnl_accept_local_get(&value) < 0 || !value)) {
		e = rtnl_accept_local_set(1);
		if (e)
			failed(why, e, "cannot set net.ipv4.conf.lo.accept_local");
	}
	if (!e)
		e = pod_route(why);
	if (!e)
		e = lookup_renew(p, why);
	return e ? e : attach_lost(p, why);
}

static int mend(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	int e;

	if (p->mode == STEER_IPTABLES)
		return iptables_apply(p->netns, &p->ns, &p->config, true, why);
	e = pod_enter(p, why);
	if (!e)
		e = put_back(p, socks, why);
	netns_home();
	return e;
}

int steer_mend(struct steer_pod *p, const struct steer_sockets *socks, char why[STEER_WHY_MAX])
{
	char more[STEER_WHY_MAX] = "";
	size_t len;
	int e;

	p->touched = false;
	e = p->stopping ? 0 : steer_check(p, socks, why);
	if (e != -ENOENT)
		return e;
	e = mend(p, socks, more);
	if (!e)
		e = steer_check(p, socks, more);
	if (!e)
		return 1;
	len = strlen(why);
	snprintf(why + len, STEER_WHY_MAX - len, ", and cannot be put back: %s", more);
	return e;
}
