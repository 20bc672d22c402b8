/* SPDX-License-Identifier: Apache-2.0 */
/* Programs on devices: tcx links (Linux 6.6), below that clsact filters (tc_filter.c). Which of the two a kernel has is
 * found by trying. Pins: a link, or the filter's program.
 *
 * Ours is the first at its place: one before it that says "pass" is the last that is asked. Ours says "next". Where another
 * has come before it, a second of ours is put before that, then the old one goes; neither kind can be moved.
 *
 * To attach a link the kernel waits for an RCU grace period with all of rtnetlink locked, eight milliseconds mostly; for a
 * filter it does not. Hence `swift`: a filter first, whose place a link takes when nobody waits (settle.c). */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include "steer/steer_internal.h"

enum { IFINDEX_LO = 1 };

/* BPF_F_BEFORE (without another: before all), BPF_TCX_INGRESS and BPF_TCX_EGRESS; not in Debian 12's headers. */
enum { TCX_BEFORE = 1 << 3 };
static const int tcx_types[DIRECTIONS] = {[INGRESS] = 46, [EGRESS] = 47};

static const char *const words[DIRECTIONS] = {[INGRESS] = "ingress", [EGRESS] = "egress"};

void hook_pin_name(char name[PIN_NAME_MAX], const char *what, unsigned ifindex)
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

static uint32_t link_id(int link)
{
	struct bpf_link_info info = {};
	uint32_t len = sizeof info;

	return bpf_obj_get_info_by_fd(link, &info, &len) < 0 ? 0 : info.id;
}

/* The first of the links there, 0 if there is none: they are asked before filters. */
static uint32_t first_link_prog(unsigned ifindex, enum direction d)
{
	uint32_t flags = 0, n = 1, id = 0;
	int e = bpf_prog_query(ifindex, (enum bpf_attach_type)tcx_types[d], 0, &flags, &id, &n);

	return !e || e == -ENOSPC ? id : 0; /* ENOSPC: there are more */
}

/* The pinned link, with our program in it: kept, or updated. -ENOENT: none that can be used, or is the first. */
static int link_adopt(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog,
		      bool *adopted)
{
	char name[PIN_NAME_MAX], ignored[STEER_WHY_MAX];
	uint32_t id;
	int fd;

	hook_pin_name(name, words[d], ifindex);
	fd = pin_get(pins, name, PIN_LINK, ignored);
	if (fd < 0) /* none, or a program: the filter of a keeper that had no tcx */
		return -ENOENT;
	id = link_prog_id(fd, ifindex, d);
	id = id == first_link_prog(ifindex, d) ? id : 0;
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
	LIBBPF_OPTS(bpf_link_create_opts, first, .flags = TCX_BEFORE);
	char name[PIN_NAME_MAX];
	int fd, e;

	e = link_adopt(h, pins, ifindex, d, prog, adopted);
	if (e != -ENOENT)
		return e;
	hook_pin_name(name, words[d], ifindex);
	fd = bpf_link_create(prog, ifindex, (enum bpf_attach_type)tcx_types[d], &first);
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

/* --- either --------------------------------------------------------------------------------------------- */

/* What the pin stood for, of the other kind or behind others, goes after ours is in place. But the qdisc stays until the pod
 * is un-enrolled: with it the device would drop for a moment what the pod sends. */
static void drop_other(unsigned ifindex, enum direction d, const struct hook *h, int old_link)
{
	if (h->kind == HOOK_LINK)
		filter_detach(ifindex, d);
	if (old_link >= 0) {
		if (h->kind == HOOK_FILTER || link_id(old_link) != link_id(h->link))
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
	hook_pin_name(name, words[d], ifindex);
	old = pin_get(pins, name, PIN_LINK, ignored);
	swift = swift && old < 0 && !first_link_prog(ifindex, d);
	if (swift && *how != STEER_HOOK_CLSACT) {
		e = filter_attach(h, pins, ifindex, d, prog, adopted, why);
		swift = !e; /* another's has the place, but none has one before a link */
	}
	if (*how != STEER_HOOK_CLSACT && !swift)
		e = link_attach(h, pins, ifindex, d, prog, adopted, why);
	if (*how == STEER_HOOK_CLSACT || (*how == STEER_HOOK_AUTO && e == -EINVAL))
		e = filter_attach(h, pins, ifindex, d, prog, adopted, why);
	if (e < 0) {
		if (old >= 0)
			close(old);
		return e;
	}
	if (!swift)
		*how = h->kind == HOOK_LINK ? STEER_HOOK_TCX : STEER_HOOK_CLSACT;
	drop_other(ifindex, d, h, old);
	hook_pin_name(name, "qdisc", ifindex);
	h->qdisc = pin_there(pins, name);
	return 0;
}

void hook_adopt(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d)
{
	char name[PIN_NAME_MAX], ignored[STEER_WHY_MAX];

	hook_pin_name(name, words[d], ifindex);
	h->link = pin_get(pins, name, PIN_LINK, ignored);
	h->kind = h->link >= 0 ? HOOK_LINK : HOOK_FILTER;
}

void hook_detach(struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d)
{
	char name[PIN_NAME_MAX];

	hook_pin_name(name, words[d], ifindex);
	if (h->kind == HOOK_NONE && pin_there(pins, name)) /* forgotten, and not attached anew */
		hook_adopt(h, pins, ifindex, d);
	if (h->kind == HOOK_NONE)
		return;
	/* Closing or unlinking alone would detach later, from a work queue. */
	if (h->kind == HOOK_LINK)
		bpf_link_detach(h->link);
	else
		filter_detach(ifindex, d);
	qdisc_detach(pins, ifindex, d);
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

const char *hook_trouble(const struct hook *h, unsigned ifindex, enum direction d)
{
	uint32_t first = first_link_prog(ifindex, d), id;

	if (h->kind == HOOK_FILTER)
		return filter_trouble(ifindex, d, first);
	id = h->kind == HOOK_LINK ? link_prog_id(h->link, ifindex, d) : 0;
	return !id || !prog_is_ours(id) ? HOOK_GONE : id != first ? HOOK_BEHIND : NULL;
}

bool hook_pinned(const struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d)
{
	char name[PIN_NAME_MAX];

	if (h->kind == HOOK_NONE)
		return true;
	hook_pin_name(name, words[d], ifindex);
	if (!pin_there(pins, name))
		return false;
	hook_pin_name(name, "qdisc", ifindex);
	return !h->qdisc || pin_there(pins, name);
}

int hook_pin(const struct hook *h, const struct pins *pins, unsigned ifindex, enum direction d, int prog,
	     char why[STEER_WHY_MAX])
{
	char name[PIN_NAME_MAX];
	int e;

	if (hook_pinned(h, pins, ifindex, d))
		return 0;
	hook_pin_name(name, words[d], ifindex);
	e = pin_put(pins, name, h->kind == HOOK_LINK ? h->link : prog, why);
	hook_pin_name(name, "qdisc", ifindex);
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
	int e = bpf_link_create(prog, IFINDEX_LO, (enum bpf_attach_type)tcx_types[INGRESS], NULL);

	if (e >= 0) {
		close(e);
		return 0;
	}
	e = filter_probe(IFINDEX_LO, prog);
	return e ? failed(why, e,
			  "this kernel has neither tcx (Linux 6.6) nor clsact (CONFIG_NET_SCH_INGRESS, "
			  "CONFIG_NET_CLS_BPF)")
		 : 0;
}
