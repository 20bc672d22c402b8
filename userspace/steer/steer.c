// SPDX-License-Identifier: Apache-2.0
/* The node: the pin directory, what pods share, the kubelet's exemption. */
#include "steer/steer.h"

#include <bpf/bpf.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/steer_internal.h"

static char *copy(const char *s)
{
	return s ? strdup(s) : NULL;
}

/* BPF is needed by the default mode; a node of iptables pods lives without. */
static int open_bpf(struct steer *s, char why[STEER_WHY_MAX])
{
	int e = pins_mount(s->pin_dir, why);

	if (!e)
		e = shared_open(&s->shared, s->pin_dir, why);
	if (!e)
		e = node_write(s, why);
	if (e)
		shared_close(&s->shared);
	if (e && s->mode == STEER_IPTABLES) {
		log_debug(STEER_LOG, "no BPF steering: %s", why);
		return 0;
	}
	return e;
}

int steer_open(struct steer **out, struct loop *l, const struct steer_options *o, char why[STEER_WHY_MAX])
{
	struct steer *s = calloc(1, sizeof *s);
	int e;

	if (!s)
		return failed(why, -ENOMEM, "steering");
	agents_see_node();
	s->loop = l;
	s->mode = o->mode;
	s->hook = o->hook;
	list_init(&s->unsettled);
	s->kubelet.link = -1;
	s->pin_dir = copy(o->pin_dir);
	s->kubelet_cgroup = copy(o->kubelet_cgroup);
	s->cgroup_root = copy(o->cgroup_root);
	shared_init(&s->shared);
	if (!s->pin_dir || !s->kubelet_cgroup != !o->kubelet_cgroup || !s->cgroup_root != !o->cgroup_root)
		e = failed(why, -ENOMEM, "steering");
	else
		e = open_bpf(s, why);
	if (e) {
		steer_close(s);
		return e;
	}
	if (s->shared.map[MAP_NODE] >= 0)
		kubelet_start(s);
	if (s->hook == STEER_HOOK_AUTO && hook_has_tcx()) {
		s->hook = STEER_HOOK_TCX;
		s->swift = true;
	}
	*out = s;
	return 0;
}

void steer_close(struct steer *s)
{
	if (!s)
		return;
	kubelet_stop(s);
	settle_stop(s);
	shared_close(&s->shared);
	free(s->pin_dir);
	free(s->kubelet_cgroup);
	free(s->cgroup_root);
	free(s);
}

void steer_facts(const struct steer *s, struct steer_facts *out)
{
	memset(out, 0, sizeof *out);
	out->mark_only = s->mark_only;
	out->tcx = s->hook == STEER_HOOK_TCX;
	out->kubelet_exempt = s->kubelet.exempt;
	memcpy(out->kubelet_how, s->kubelet.how, sizeof out->kubelet_how);
}
