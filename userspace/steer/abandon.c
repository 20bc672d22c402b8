// SPDX-License-Identifier: Apache-2.0
/* Pods that nobody knows any more and whose un-enrolment did not end: their namespace is found by its inode, and they
 * are un-enrolled as their keeper would have done. Taking the pins away alone would leave filters without their lookup. */
#include <fcntl.h>
#include <stdlib.h>

#include "base/log.h"
#include "steer/diag.h"
#include "steer/rtnl.h"
#include "steer/steer_internal.h"

static void adopt_hook(void *arg, const char *name)
{
	static const char *const words[DIRECTIONS] = {[INGRESS] = "ingress-%u", [EGRESS] = "egress-%u"};
	struct steer_pod *p = arg;
	unsigned ifindex, i;

	for (int d = INGRESS; d < DIRECTIONS; d++) {
		if (sscanf(name, words[d], &ifindex) != 1)
			continue;
		for (i = 0; i < p->n_devices && p->device[i].ifindex != ifindex; i++)
			;
		if (i == STEER_DEVICES_MAX)
			return;
		if (i == p->n_devices)
			p->device[p->n_devices++] = (struct device){.ifindex = ifindex};
		hook_adopt(&p->device[i].hook[d], &p->pins, ifindex, d);
	}
}

/* Nothing is removed unless captured connections were reset: detached, they would send plaintext. */
static int unsteer(struct steer_pod *p)
{
	char why[STEER_WHY_MAX];
	int e;

	object_open(&p->object, &p->pins);
	pins_each(&p->pins, adopt_hook, p);
	p->lookup = pin_get(&p->pins, "lookup", PIN_LINK, why);
	p->stopping = p->routed = true;
	e = pod_enter(p, why);
	if (e) {
		log_warn(STEER_LOG, "pod %s: %s", p->uid, why);
		return e;
	}
	if (pod_addrs(p, why) < 0 || pod_conf_write(p, why) < 0)
		log_warn(STEER_LOG, "pod %s: %s", p->uid, why);
	e = pod_reset(p);
	if (!e)
		pod_unwind(p);
	netns_home();
	return e;
}

unsigned pod_abandon(struct steer *s, const char *uid, struct pins *pins, int netns)
{
	static const struct steer_config none;
	struct netns_id ns;
	struct steer_pod *p =
		netns >= 0 && netns_identify(netns, &ns) == 0 ? pod_new(s, uid, STEER_BPF, &ns, &none) : NULL;
	int e;

	if (!p) {
		/* Something holds it that has no name; the next collection sees. */
		log_debug(STEER_LOG, "pod %s: its namespace cannot be found", uid);
		pins_close(pins);
		return 0;
	}
	p->netns = fcntl(netns, F_DUPFD_CLOEXEC, 3);
	p->pins = *pins;
	e = p->netns < 0 ? -errno : unsteer(p);
	if (!e)
		log_info(STEER_LOG, "pod %s: its un-enrolment had not ended; it has now", uid);
	pod_release(p);
	return !e;
}
