/* SPDX-License-Identifier: Apache-2.0 */
/* Owns clsact filters, where there is no tcx or nobody may wait for it. Ours is the first of a fixed priority. Where
 * another has come before it, one of another handle is put before that: the kernel asks the newest of a priority first. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "steer/rtnl.h"
#include "steer/steer_internal.h"

enum {
	FILTERS_OURS_MAX = 4,
	FILTER_HANDLES = 32,
	OLDER_PRIORITY = 1337, /* what keepers of earlier versions attached at, with the first handle */
};

static const char *const words[DIRECTIONS] = {[INGRESS] = "ingress", [EGRESS] = "egress"};

static struct bpf_tc_hook filter_place(unsigned ifindex, enum direction d)
{
	return (struct bpf_tc_hook){.sz = sizeof(struct bpf_tc_hook),
				    .ifindex = ifindex,
				    .attach_point = d == INGRESS ? BPF_TC_INGRESS : BPF_TC_EGRESS};
}

static const struct rtnl_filter older_place = {.priority = OLDER_PRIORITY, .handle = STEER_FILTER_HANDLE};

struct filters {
	unsigned n, n_ours;
	struct rtnl_filter first, ours[FILTERS_OURS_MAX];
	uint32_t taken; /* handles of our priority, from ours on */
};

static bool same_filter(const struct rtnl_filter *a, const struct rtnl_filter *b)
{
	return a->priority == b->priority && a->handle == b->handle;
}

static bool is_our_place(const struct rtnl_filter *f)
{
	return f->priority == STEER_FILTER_PRIORITY ? f->handle - STEER_FILTER_HANDLE < FILTER_HANDLES
						    : same_filter(f, &older_place);
}

static void on_filter(void *arg, const struct rtnl_filter *f)
{
	struct filters *all = arg;

	if (!all->n++)
		all->first = *f;
	if (!is_our_place(f))
		return;
	if (f->priority == STEER_FILTER_PRIORITY)
		all->taken |= 1u << (f->handle - STEER_FILTER_HANDLE);
	if (all->n_ours < FILTERS_OURS_MAX && f->prog && prog_is_ours(f->prog))
		all->ours[all->n_ours++] = *f;
}

static int filters_read(struct filters *all, unsigned ifindex, enum direction d)
{
	memset(all, 0, sizeof *all);
	return rtnl_filters(ifindex, d == EGRESS, on_filter, all);
}

static bool ours_is_first(const struct filters *all)
{
	return all->n_ours && same_filter(&all->ours[0], &all->first);
}

static int filter_put(unsigned ifindex, enum direction d, const struct rtnl_filter *f, int prog)
{
	struct bpf_tc_hook place = filter_place(ifindex, d);
	struct bpf_tc_opts opts = {.sz = sizeof opts,
				   .handle = f->handle,
				   .priority = f->priority,
				   .prog_fd = prog,
				   .flags = BPF_TC_F_REPLACE};

	return bpf_tc_attach(&place, &opts);
}

/* All of ours, or all but one. */
static void filters_drop(const struct filters *all, unsigned ifindex, enum direction d, const struct rtnl_filter *but)
{
	struct bpf_tc_hook place = filter_place(ifindex, d);

	for (unsigned i = 0; i < all->n_ours; i++) {
		struct bpf_tc_opts opts = {
			.sz = sizeof opts, .handle = all->ours[i].handle, .priority = all->ours[i].priority};

		if (!but || !same_filter(but, &all->ours[i]))
			bpf_tc_detach(&place, &opts);
	}
}

void filter_detach(unsigned ifindex, enum direction d)
{
	struct filters all;

	if (filters_read(&all, ifindex, d) == 0)
		filters_drop(&all, ifindex, d, NULL);
}

/* Of the same priority the one that came last is asked first. */
static int filter_first(unsigned ifindex, enum direction d, int prog, bool anywhere, bool *adopted,
			char why[STEER_WHY_MAX])
{
	struct rtnl_filter f = {.priority = STEER_FILTER_PRIORITY, .handle = STEER_FILTER_HANDLE};
	struct filters all;
	int e = filters_read(&all, ifindex, d);

	if (e)
		return failed(why, e, "cannot read the filters of device %u", ifindex);
	if (ours_is_first(&all) && all.first.priority == f.priority)
		f = all.first;
	else if (all.taken == UINT32_MAX)
		return failed(why, -EEXIST, "device %u has no room for a filter", ifindex);
	else
		f.handle += __builtin_ctz(~all.taken);
	*adopted = same_filter(&f, &all.first) && object_same(prog, all.first.prog) == 1;
	e = *adopted ? 0 : filter_put(ifindex, d, &f, prog);
	if (e &&
	    (all.n_ours || anywhere)) { /* filters of another kind have the priority: better behind them than none */
		f = all.n_ours ? all.ours[0] : older_place;
		e = filter_put(ifindex, d, &f, prog);
	}
	if (e)
		return failed(why, e, "cannot attach to %s of device %u%s", words[d], ifindex,
			      all.n && all.first.priority == f.priority ? ", where another's filter is first" : "");
	filters_drop(&all, ifindex, d, &f);
	return 0;
}

int filter_attach(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog, bool *adopted,
		  char why[STEER_WHY_MAX])
{
	struct bpf_tc_hook both = filter_place(ifindex, d);
	char name[PIN_NAME_MAX];
	int e;

	both.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	e = bpf_tc_hook_create(&both);
	if (!e) {
		hook_pin_name(name, "qdisc", ifindex);
		e = pin_put(pins, name, prog, why);
		if (e < 0)
			return e;
	} else if (e != -EEXIST) {
		return failed(why, e, "cannot add clsact to device %u", ifindex);
	}
	e = filter_first(ifindex, d, prog, h->anywhere, adopted, why);
	if (e)
		return e;
	h->kind = HOOK_FILTER;
	hook_pin_name(name, words[d], ifindex);
	return pin_put(pins, name, prog, why);
}

/* The qdisc goes with the second direction, if it was made here and nobody else has filters in it. */
void qdisc_detach(const struct pins *pins, unsigned ifindex, enum direction d)
{
	struct bpf_tc_hook both = filter_place(ifindex, d);
	enum direction other = d == INGRESS ? EGRESS : INGRESS;
	struct filters here, there;
	char name[PIN_NAME_MAX];

	hook_pin_name(name, "qdisc", ifindex);
	if (!pin_there(pins, name) || filters_read(&there, ifindex, other) < 0 || there.n_ours)
		return;
	both.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	if (filters_read(&here, ifindex, d) == 0 && !here.n && !there.n)
		bpf_tc_hook_destroy(&both);
	pin_drop(pins, name);
}

const char *filter_trouble(unsigned ifindex, enum direction d, bool links)
{
	struct filters all;

	if (filters_read(&all, ifindex, d) < 0 || !all.n_ours)
		return HOOK_GONE;
	return links || !ours_is_first(&all) ? HOOK_BEHIND : NULL;
}

int filter_probe(unsigned ifindex, int prog)
{
	struct rtnl_filter f = {.priority = STEER_FILTER_PRIORITY, .handle = STEER_FILTER_HANDLE};
	struct bpf_tc_hook both = filter_place(ifindex, INGRESS);
	int e;

	both.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	e = bpf_tc_hook_create(&both);
	return !e || e == -EEXIST ? filter_put(ifindex, INGRESS, &f, prog) : e;
}
