/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the watch over pods' steering: whoever has the capabilities can remove it or come before it, and the pod then talks
 * in plaintext. What shows at once is put back within a second; the rest when it is the pod's turn. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/enrol_internal.h"

static const char target[] = "enrol";

static void mended(struct enrol_pod *p, const char *why)
{
	p->mended.times++;
	snprintf(p->mended.what, sizeof p->mended.what, "%s", why);
	p->why[0] = '\0';
	p->enrol->n_mended++;
	log_error(target, "pod %s/%s was not steered as it should be: %s; it is again, somebody changed it",
		  p->record.identity.ns, p->record.identity.name, why);
}

static void not_mended(struct enrol_pod *p, const char *why)
{
	if (strcmp(p->why, why) != 0)
		log_error(target,
			  "pod %s/%s is not steered as it should be, its traffic may be in plaintext: %s; it is tried "
			  "again",
			  p->record.identity.ns, p->record.identity.name, why);
	snprintf(p->why, sizeof p->why, "%s", why);
}

static void mend(struct enrol_pod *p)
{
	char why[POD_WHY_MAX] = "";
	int err = steer_mend(p->steering, &p->socks, why);

	if (err > 0)
		mended(p, why);
	else if (err < 0)
		not_mended(p, why);
	else
		p->why[0] = '\0';
}

static void look(struct timer *t)
{
	struct enrol *e = container_of(t, struct enrol, mend);
	unsigned turn = e->mend_turn++;

	list_for_each (l, &e->pods) {
		struct enrol_pod *p = list_entry(l, struct enrol_pod, link);
		unsigned turns = p->record.mode == STEER_BPF ? ENROL_MEND_TURNS : ENROL_MEND_TURNS_IPTABLES;

		if (p->state == POD_ENROLLED && p->steering &&
		    (turn++ % turns == 0 || p->why[0] || steer_suspect(p->steering)))
			mend(p);
	}
	timer_set(e->loop, &e->mend, ENROL_MEND_MS, look);
}

void enrol_mend_start(struct enrol *e)
{
	timer_set(e->loop, &e->mend, ENROL_MEND_MS, look);
}

const struct pod_mended *enrol_pod_mended(const struct enrol_pod *p)
{
	return &p->mended;
}

uint64_t enrol_mended(const struct enrol *e)
{
	return e->n_mended;
}

unsigned enrol_broken(const struct enrol *e)
{
	unsigned n = 0;

	list_for_each (l, &e->pods) {
		const struct enrol_pod *p = list_entry(l, struct enrol_pod, link);

		n += p->state == POD_ENROLLED && p->why[0];
	}
	return n;
}
