// SPDX-License-Identifier: Apache-2.0
/* The link of steer_lookup to a pod's namespace: the one attachment that each steered namespace has exactly once. */
#include <bpf/bpf.h>
#include <unistd.h>

#include "steer/steer_internal.h"

int lookup_pinned(const struct pins *pins, uint64_t *inode)
{
	char ignored[STEER_WHY_MAX];
	struct bpf_link_info info = {};
	uint32_t len = sizeof info;
	int fd = pin_get(pins, PIN_LOOKUP, PIN_LINK, ignored), e;

	if (fd < 0)
		return fd;
	e = bpf_obj_get_info_by_fd(fd, &info, &len);
	close(fd);
	if (e < 0)
		return e;
	*inode = info.netns.netns_ino;
	return info.prog_id;
}

/* part_from_strangers() has seen to it that a pinned link is in this namespace. */
int lookup_attach(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int prog = p->object.prog[PROG_LOOKUP], fd, e;
	uint64_t inode;
	int id = lookup_pinned(&p->pins, &inode);

	if (id >= 0) {
		bool same = object_same(prog, id) == 1;

		fd = pin_get(&p->pins, PIN_LOOKUP, PIN_LINK, why);
		if (fd < 0)
			return fd;
		p->lookup = fd;
		p->adopted = p->adopted && same;
		e = same ? 0 : bpf_link_update(fd, prog, NULL);
		return e ? failed(why, e, "cannot replace the lookup program") : 0;
	}
	p->adopted = false;
	fd = bpf_link_create(prog, p->netns, BPF_SK_LOOKUP, NULL);
	if (fd < 0)
		return failed(why, fd, "cannot attach the lookup program");
	p->lookup = fd;
	return pin_put(&p->pins, PIN_LOOKUP, fd, why);
}

bool lookup_holds(const struct steer_pod *p)
{
	struct bpf_link_info info = {};
	uint32_t len = sizeof info;

	return p->lookup >= 0 && bpf_obj_get_info_by_fd(p->lookup, &info, &len) == 0 &&
	       info.netns.netns_ino == p->ns.inode && prog_is_ours(info.prog_id);
}

int lookup_renew(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	if (lookup_holds(p))
		return 0;
	if (p->lookup >= 0)
		close(p->lookup);
	p->lookup = -1;
	pin_drop(&p->pins, PIN_LOOKUP);
	return lookup_attach(p, why);
}

/* Two sets of programs in one namespace would steer the agent's packets in circles. */
int lookup_refuse_second(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	uint32_t ids[16], n = 16, flags = 0;
	uint64_t inode;
	int ours = lookup_pinned(&p->pins, &inode);

	if (bpf_prog_query(p->netns, BPF_SK_LOOKUP, 0, &flags, ids, &n) < 0)
		return 0;
	for (unsigned i = 0; i < n; i++)
		if ((int)ids[i] != ours && prog_is_ours(ids[i]))
			return failed(why, -EBUSY, "the namespace is steered already under another name (program %u)",
				      ids[i]);
	return 0;
}
