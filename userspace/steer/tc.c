/* SPDX-License-Identifier: Apache-2.0 */
/* Programs on devices: tcx links (Linux 6.6), below that clsact filters of fixed priority and handle. Which of the
 * two a kernel has is found by trying. Pins: a link, or the filter's program.
 *
 * To attach a link the kernel waits for an RCU grace period with all of rtnetlink locked, eight milliseconds mostly; for a
 * filter it does not. Hence `swift`: a filter first, whose place a link takes when nobody waits (settle.c). */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include "steer/rtnl.h"
#include "steer/steer_internal.h"

enum { IFINDEX_LO = 1 };

/* BPF_TCX_INGRESS and BPF_TCX_EGRESS; not in Debian 12's headers. */
static const int tcx_types[DIRECTIONS] = {[INGRESS] = 46, [EGRESS] = 47};

static const char *const words[DIRECTIONS] = {[INGRESS] = "ingress", [EGRESS] = "egress"};

static void pin_name(char name[PIN_NAME_MAX], const char *what, unsigned ifindex)
{
	snprintf(name, PIN_NAME_MAX, "%s-%u", what, ifindex);
}

/* The link's program, 0 if it is not at this place: it outlives its device, and numbers are used again. */
static uint32_t link_prog_id(int link, unsigned ifindex, enum direction d)
{
	struct bpf_link_info info = {};
	uint32_t len = sizeof info;

	/* Older headers have no `tcx`, which is laid out like `netns`: a number, 0 when detached, then the type. */
	if (bpf_obj_get_info_by_fd(link, &info, &len) < 0 || info.netns.netns_ino != ifindex ||
	    info.netns.attach_type != (uint32_t)tcx_types[d])
		return 0;
	return info.prog_id;
}

/* --- tcx ------------------------------------------------------------------------------------------------ */

/* The pinned link, with our program in it: kept, or updated. -ENOENT: none that can be used. */
static int link_adopt(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog,
		      bool *adopted)
{
	char name[PIN_NAME_MAX], ignored[STEER_WHY_MAX];
	uint32_t id;
	int fd;

	pin_name(name, words[d], ifindex);
	fd = pin_get(pins, name, PIN_LINK, ignored);
	if (fd < 0) /* none, or a program: the filter of a keeper that had no tcx */
		return -ENOENT;
	id = link_prog_id(fd, ifindex, d);
	*adopted = id && object_same(prog, id) == 1;
	if (!id || (!*adopted && bpf_link_update(fd, prog, NULL) < 0)) {
		close(fd);
		return -ENOENT;
	}
	h->kind = HOOK_LINK;
	h->link = fd;
	return 0;
}

static int link_attach(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog,
		       bool *adopted, char why[STEER_WHY_MAX])
{
	char name[PIN_NAME_MAX];
	int fd, e;

	e = link_adopt(h, pins, ifindex, d, prog, adopted);
	if (e != -ENOENT)
		return e;
	pin_name(name, words[d], ifindex);
	fd = bpf_link_create(prog, ifindex, (enum bpf_attach_type)tcx_types[d], NULL);
	if (fd < 0)
		return failed(why, fd, "cannot attach to %s of device %u", words[d], ifindex);
	e = pin_put(pins, name, fd, why);
	if (e < 0) {
		close(fd);
		return e;
	}
	h->kind = HOOK_LINK;
	h->link = fd;
	return 0;
}

/* --- clsact --------------------------------------------------------------------------------------------- */

static struct bpf_tc_hook filter_place(unsigned ifindex, enum direction d)
{
	return (struct bpf_tc_hook){.sz = sizeof(struct bpf_tc_hook),
				    .ifindex = ifindex,
				    .attach_point = d == INGRESS ? BPF_TC_INGRESS : BPF_TC_EGRESS};
}

static struct bpf_tc_opts filter_name(void)
{
	return (struct bpf_tc_opts){
		.sz = sizeof(struct bpf_tc_opts), .handle = STEER_FILTER_HANDLE, .priority = STEER_FILTER_PRIORITY};
}

/* The program of the filter at our place, 0 if there is none. */
static uint32_t filter_prog_id(unsigned ifindex, enum direction d)
{
	struct bpf_tc_hook place = filter_place(ifindex, d);
	struct bpf_tc_opts opts = filter_name();

	return bpf_tc_query(&place, &opts) == 0 ? opts.prog_id : 0;
}

static int filter_attach(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog,
			 bool *adopted, char why[STEER_WHY_MAX])
{
	struct bpf_tc_hook place = filter_place(ifindex, d), both = place;
	struct bpf_tc_opts opts = filter_name();
	uint32_t there = filter_prog_id(ifindex, d);
	char name[PIN_NAME_MAX];
	int e;

	if (there && !prog_is_ours(there))
		return failed(why, -EEXIST, "device %u has a filter that is not ours at priority %d", ifindex,
			      STEER_FILTER_PRIORITY);
	both.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	e = bpf_tc_hook_create(&both);
	if (!e) {
		pin_name(name, "qdisc", ifindex);
		e = pin_put(pins, name, prog, why);
		if (e < 0)
			return e;
	} else if (e != -EEXIST) {
		return failed(why, e, "cannot add clsact to device %u", ifindex);
	}
	*adopted = there && object_same(prog, there) == 1;
	if (!*adopted) {
		opts.prog_fd = prog;
		opts.flags = BPF_TC_F_REPLACE;
		e = bpf_tc_attach(&place, &opts);
		if (e < 0)
			return failed(why, e, "cannot attach to %s of device %u", words[d], ifindex);
	}
	h->kind = HOOK_FILTER;
	pin_name(name, words[d], ifindex);
	return pin_put(pins, name, prog, why);
}

static void filter_detach(unsigned ifindex, enum direction d)
{
	struct bpf_tc_hook place = filter_place(ifindex, d);
	struct bpf_tc_opts opts = filter_name();
	uint32_t there = filter_prog_id(ifindex, d);

	if (there && prog_is_ours(there))
		bpf_tc_detach(&place, &opts);
}

/* The qdisc goes with the second direction, if it was made here and nobody else has filters in it. */
static void qdisc_detach(const struct pins *pins, unsigned ifindex, enum direction d)
{
	struct bpf_tc_hook place = filter_place(ifindex, d);
	char name[PIN_NAME_MAX];

	pin_name(name, "qdisc", ifindex);
	if (pin_there(pins, name) && !filter_prog_id(ifindex, d == INGRESS ? EGRESS : INGRESS)) {
		if (rtnl_has_filters(ifindex) == 0) {
			place.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
			bpf_tc_hook_destroy(&place);
		}
		pin_drop(pins, name);
	}
}

/* --- either --------------------------------------------------------------------------------------------- */

/* What the pin of the other kind stands for goes after ours is in place. But the qdisc stays until the pod is
 * un-enrolled: with it the device would drop for a moment what the pod sends. */
static void drop_other(unsigned ifindex, enum direction d, const struct hook *h, int old_link)
{
	if (h->kind == HOOK_LINK)
		filter_detach(ifindex, d);
	if (old_link >= 0) {
		if (h->kind == HOOK_FILTER)
			bpf_link_detach(old_link);
		close(old_link);
	}
}

int hook_attach(struct hook *h, enum steer_hook *how, bool swift, const struct pins *pins, unsigned ifindex,
		enum direction d, int prog, bool *adopted, char why[STEER_WHY_MAX])
{
	char name[PIN_NAME_MAX], ignored[STEER_WHY_MAX];
	int old, e = -EINVAL;

	*adopted = false;
	pin_name(name, words[d], ifindex);
	old = pin_get(pins, name, PIN_LINK, ignored);
	swift = swift && old < 0;
	if (*how != STEER_HOOK_CLSACT && !swift)
		e = link_attach(h, pins, ifindex, d, prog, adopted, why);
	if (*how == STEER_HOOK_CLSACT || swift || (*how == STEER_HOOK_AUTO && e == -EINVAL))
		e = filter_attach(h, pins, ifindex, d, prog, adopted, why);
	if (e < 0) {
		if (old >= 0)
			close(old);
		return e;
	}
	if (!swift)
		*how = h->kind == HOOK_LINK ? STEER_HOOK_TCX : STEER_HOOK_CLSACT;
	drop_other(ifindex, d, h, old);
	pin_name(name, "qdisc", ifindex);
	h->qdisc = pin_there(pins, name);
	return 0;
}

void hook_adopt(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d)
{
	char name[PIN_NAME_MAX], ignored[STEER_WHY_MAX];

	pin_name(name, words[d], ifindex);
	h->link = pin_get(pins, name, PIN_LINK, ignored);
	h->kind = h->link >= 0 ? HOOK_LINK : HOOK_FILTER;
}

void hook_detach(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d)
{
	char name[PIN_NAME_MAX];

	if (h->kind == HOOK_NONE)
		return;
	/* Closing or unlinking alone would detach later, from a work queue. */
	if (h->kind == HOOK_LINK)
		bpf_link_detach(h->link);
	else
		filter_detach(ifindex, d);
	qdisc_detach(pins, ifindex, d);
	pin_name(name, words[d], ifindex);
	pin_drop(pins, name);
	hook_forget(h);
}

void hook_forget(struct hook *h)
{
	if (h->kind == HOOK_LINK)
		close(h->link);
	h->kind = HOOK_NONE;
	h->link = -1;
}

bool hook_holds(const struct hook *h, unsigned ifindex, enum direction d)
{
	uint32_t id = h->kind == HOOK_LINK ? link_prog_id(h->link, ifindex, d) : filter_prog_id(ifindex, d);

	return h->kind != HOOK_NONE && id && prog_is_ours(id);
}

bool hook_pinned(const struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d)
{
	char name[PIN_NAME_MAX];

	if (h->kind == HOOK_NONE)
		return true;
	pin_name(name, words[d], ifindex);
	if (!pin_there(pins, name))
		return false;
	pin_name(name, "qdisc", ifindex);
	return !h->qdisc || pin_there(pins, name);
}

int hook_pin(const struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog,
	     char why[STEER_WHY_MAX])
{
	char name[PIN_NAME_MAX];
	int e;

	if (hook_pinned(h, pins, ifindex, d))
		return 0;
	pin_name(name, words[d], ifindex);
	e = pin_put(pins, name, h->kind == HOOK_LINK ? h->link : prog, why);
	pin_name(name, "qdisc", ifindex);
	return e || !h->qdisc ? e : pin_put(pins, name, prog, why);
}

bool link_attached(int link)
{
	struct bpf_link_info info = {};
	uint32_t len = sizeof info;

	return link >= 0 && bpf_obj_get_info_by_fd(link, &info, &len) == 0 && info.netns.netns_ino != 0;
}

bool hook_has_tcx(void)
{
	uint32_t flags = 0, n = 0;

	return bpf_prog_query(IFINDEX_LO, (enum bpf_attach_type)tcx_types[INGRESS], 0, &flags, NULL, &n) == 0;
}

int hook_probe(int prog, char why[STEER_WHY_MAX])
{
	struct bpf_tc_hook place = filter_place(IFINDEX_LO, INGRESS), both = place;
	struct bpf_tc_opts opts = filter_name();
	int e = bpf_link_create(prog, IFINDEX_LO, (enum bpf_attach_type)tcx_types[INGRESS], NULL);

	if (e >= 0) {
		close(e);
		return 0;
	}
	both.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	opts.prog_fd = prog;
	e = bpf_tc_hook_create(&both);
	if (!e || e == -EEXIST)
		e = bpf_tc_attach(&place, &opts);
	return e ? failed(why, e,
			  "this kernel has neither tcx (Linux 6.6) nor clsact (CONFIG_NET_SCH_INGRESS, "
			  "CONFIG_NET_CLS_BPF)")
		 : 0;
}
