/* SPDX-License-Identifier: Apache-2.0 */
/* What the pods of a node share: maps, keyed by the pod, and the programs that their devices' entries go on to. They are
 * pinned once, in v1-node, and outlive keepers. A keeper of another version puts its programs in the place of those that
 * are there, one by one and each at once; maps that do not fit it are made anew, and until each pod is attached over them
 * nothing of it passes. */
#include <bpf/bpf.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "steer/steer_internal.h"

enum { KEY_MAX = 64, KEYS_MAX = 1 << 20 };

static const enum steer_prog programs[STEER_PROGRAMS] = {
	[STEER_P_EGRESS] = PROG_EGRESS,
	[STEER_P_EGRESS_L3] = PROG_EGRESS_L3,
	[STEER_P_INGRESS] = PROG_INGRESS,
	[STEER_P_INGRESS_L3] = PROG_INGRESS_L3,
};

/* --- opening -------------------------------------------------------------------------------------------- */

static int map_open(const struct shared *s, enum node_map map, const char *dir, char why[STEER_WHY_MAX])
{
	char path[PIN_PATH_MAX];
	int fd = -ENOENT, e = 0;

	snprintf(path, sizeof path, "%s/map-%s", dir ? dir : "", template_map_name(map));
	if (dir)
		fd = pin_get_path(path, PIN_MAP, why);
	if (fd >= 0 && template_map_fits(s->template, map, fd))
		return fd;
	if (fd >= 0)
		close(fd);
	else if (fd != -ENOENT)
		return fd;
	fd = template_map(s->template, map);
	if (fd < 0)
		return failed(why, fd, "cannot make the BPF map %s", template_map_name(map));
	if (dir)
		e = pin_put_path(path, fd, why);
	if (e)
		close(fd);
	return e ? e : fd;
}

static int program_put(const struct shared *s, uint32_t which, char why[STEER_WHY_MAX])
{
	int fd = template_prog(s->template, programs[which], 0, s->map, why), e = 0;
	uint32_t there = 0;

	if (fd < 0)
		return fd;
	if (bpf_map_lookup_elem(s->map[MAP_PROGRAMS], &which, &there) < 0 || object_same(fd, there) != 1)
		e = bpf_map_update_elem(s->map[MAP_PROGRAMS], &which, &fd, BPF_ANY);
	close(fd);
	return e ? failed(why, e, "cannot put the BPF program %u into its place", which) : 0;
}

void shared_init(struct shared *s)
{
	s->template = NULL;
	for (unsigned i = 0; i < NODE_MAPS; i++)
		s->map[i] = -1;
}

int shared_open(struct shared *s, const char *pin_dir, char why[STEER_WHY_MAX])
{
	char dir[PIN_PATH_MAX];
	int e;

	if (pin_dir && (size_t)snprintf(dir, sizeof dir, "%s/v1-node", pin_dir) >= sizeof dir - PIN_NAME_MAX)
		return failed(why, -ENAMETOOLONG, "%.64s...", pin_dir);
	if (pin_dir && mkdir(dir, 0700) < 0 && errno != EEXIST)
		return failed(why, -errno, "cannot make %s", dir);
	e = template_make(&s->template, why);
	for (unsigned i = 0; i < NODE_MAPS && !e; i++) {
		s->map[i] = map_open(s, i, pin_dir ? dir : NULL, why);
		e = s->map[i] < 0 ? s->map[i] : 0;
	}
	for (unsigned i = 0; i < STEER_PROGRAMS && !e; i++)
		e = program_put(s, i, why);
	return e;
}

void shared_close(struct shared *s)
{
	for (unsigned i = 0; i < NODE_MAPS; i++)
		if (s->map[i] >= 0)
			close(s->map[i]);
	template_free(s->template);
	shared_init(s);
}

/* --- forgetting ------------------------------------------------------------------------------------------ */

uint64_t shared_owner(const char *uid)
{
	uint64_t h = 14695981039346656037ull; /* FNV-1a */

	for (; *uid; uid++)
		h = (h ^ (uint8_t)*uid) * 1099511628211ull;
	return h;
}

/* Programs may add and remove keys meanwhile, after which the kernel begins again: hence the bound. */
void shared_prune(int map, bool (*drop)(void *arg, const void *key), void *arg)
{
	uint64_t a[KEY_MAX / 8], b[KEY_MAX / 8], *key = a, *next = b;
	bool more = bpf_map_get_next_key(map, NULL, key) == 0;

	for (unsigned i = 0; more && i < KEYS_MAX; i++) {
		uint64_t *done = key;

		more = bpf_map_get_next_key(map, key, next) == 0;
		if (drop(arg, key))
			bpf_map_delete_elem(map, key);
		key = next;
		next = done;
	}
}

static bool is_of(void *arg, const void *key)
{
	return !memcmp(arg, key, sizeof(uint64_t));
}

static bool prefix_is_of(void *arg, const void *key)
{
	return !memcmp(arg, ((const struct steer_prefix *)key)->pod, sizeof(uint64_t));
}

void shared_forget(const struct shared *s, uint64_t pod, uint64_t owner)
{
	struct steer_socket_key listener = {.pod = pod};
	struct steer_conf conf;

	if (bpf_map_lookup_elem(s->map[MAP_CONFS], &pod, &conf) < 0 || conf.owner != owner)
		return;
	bpf_map_delete_elem(s->map[MAP_CONFS], &pod);
	bpf_map_delete_elem(s->map[MAP_COUNTERS], &pod);
	for (; listener.which < STEER_LISTENERS; listener.which++)
		bpf_map_delete_elem(s->map[MAP_LISTENERS], &listener);
	shared_prune(s->map[MAP_ADDRS], is_of, &pod);
	shared_prune(s->map[MAP_RETURNING], is_of, &pod);
	shared_prune(s->map[MAP_EXCLUDED], prefix_is_of, &pod);
}
