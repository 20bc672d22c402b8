/* SPDX-License-Identifier: Apache-2.0 */
/* The BPF objects of a pod: maps, its own or those that are pinned, and programs over them. Programs are always loaded
 * anew and compared with what is attached, so a keeper of another version replaces what differs. */
#include <bpf/bpf.h>
#include <sys/stat.h>
#include <unistd.h>

#include "steer/steer_internal.h"

void object_init(struct object *o)
{
	for (unsigned i = 0; i < PROGS; i++)
		o->prog[i] = -1;
	for (unsigned i = 0; i < POD_MAPS; i++)
		o->map[i] = -1;
}

static void maps_close(struct object *o)
{
	for (unsigned i = 0; i < POD_MAPS; i++) {
		if (o->map[i] >= 0)
			close(o->map[i]);
		o->map[i] = -1;
	}
}

void object_close(struct object *o)
{
	for (unsigned i = 0; i < PROGS; i++)
		if (o->prog[i] >= 0)
			close(o->prog[i]);
	maps_close(o);
	object_init(o);
}

static void pin_name(char name[PIN_NAME_MAX], unsigned map)
{
	snprintf(name, PIN_NAME_MAX, "map-%s", template_map_name(map));
}

bool map_has_size(int fd, uint32_t value_size)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof info;

	return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.value_size == value_size;
}

static bool conf_fits(int fd)
{
	struct steer_conf conf;
	uint32_t first = 0;

	return bpf_map_lookup_elem(fd, &first, &conf) == 0 && conf.abi == STEER_ABI_VERSION;
}

/* --- loading -------------------------------------------------------------------------------------------- */

/* All or none: flags of sockets and counters belong to one generation. */
static int maps_find(struct object *o, const struct template *t, const struct pins *pins, bool *kept,
		     char why[STEER_WHY_MAX])
{
	*kept = true;
	for (unsigned i = 0; i < POD_MAPS; i++) {
		char name[PIN_NAME_MAX];

		pin_name(name, i);
		o->map[i] = pin_get(pins, name, PIN_MAP, why);
		if (o->map[i] < 0 && o->map[i] != -ENOENT)
			return o->map[i];
		if (o->map[i] < 0 || !template_map_fits(t, i, o->map[i]) || (i == MAP_CONF && !conf_fits(o->map[i])))
			*kept = false;
	}
	return 0;
}

static int maps_make(struct object *o, const struct template *t, char why[STEER_WHY_MAX])
{
	maps_close(o);
	for (unsigned i = 0; i < POD_MAPS; i++) {
		o->map[i] = template_map(t, i);
		if (o->map[i] < 0)
			return failed(why, o->map[i], "cannot make the BPF map %s", template_map_name(i));
	}
	return 0;
}

static bool is_l3(unsigned prog)
{
	return prog == PROG_EGRESS_L3 || prog == PROG_INGRESS_L3;
}

/* Those for devices without Ethernet headers, or the others. */
static int progs_load(struct object *o, const struct template *t, const int *node_maps, bool l3,
		      char why[STEER_WHY_MAX])
{
	for (unsigned i = 0; i < PROGS; i++) {
		if (is_l3(i) != l3 || o->prog[i] >= 0)
			continue;
		o->prog[i] = template_prog(t, i, o->map, node_maps, why);
		if (o->prog[i] < 0)
			return o->prog[i];
	}
	return 0;
}

int object_load(struct object *o, const struct template *t, const struct pins *pins, const int *node_maps, bool *kept,
		char why[STEER_WHY_MAX])
{
	int e;

	object_init(o);
	e = maps_find(o, t, pins, kept, why);
	if (!e && !*kept)
		e = maps_make(o, t, why);
	if (!e)
		e = progs_load(o, t, node_maps, false, why);
	if (e)
		object_close(o);
	return e;
}

int object_load_new(struct object *o, const struct template *t, const int *node_maps, char why[STEER_WHY_MAX])
{
	int e;

	object_init(o);
	e = maps_make(o, t, why);
	if (!e)
		e = progs_load(o, t, node_maps, false, why);
	if (e)
		object_close(o);
	return e;
}

int object_load_l3(struct object *o, const struct template *t, const int *node_maps, char why[STEER_WHY_MAX])
{
	return progs_load(o, t, node_maps, true, why);
}

void object_maps(struct object *o, const struct pins *pins)
{
	object_init(o);
	for (unsigned i = 0; i < POD_MAPS; i++) {
		char name[PIN_NAME_MAX], ignored[STEER_WHY_MAX];

		pin_name(name, i);
		o->map[i] = pin_get(pins, name, PIN_MAP, ignored);
	}
}

int object_pin(const struct object *o, const struct pins *pins, char why[STEER_WHY_MAX])
{
	int e = 0;

	for (unsigned i = 0; i < POD_MAPS && !e; i++) {
		char name[PIN_NAME_MAX];

		pin_name(name, i);
		e = pin_put(pins, name, o->map[i], why);
	}
	return e;
}

bool object_pinned(const struct object *o, const struct pins *pins)
{
	bool all = true;

	for (unsigned i = 0; i < POD_MAPS && all; i++) {
		char name[PIN_NAME_MAX];

		pin_name(name, i);
		all = pin_there(pins, name);
	}
	return all;
}

/* --- comparing ------------------------------------------------------------------------------------------ */

struct prog_identity {
	uint8_t tag[BPF_TAG_SIZE];
	uint32_t n, maps[POD_MAPS + NODE_MAPS];
};

static int identify(int fd, struct prog_identity *out)
{
	struct bpf_prog_info info = {.map_ids = (uintptr_t)out->maps, .nr_map_ids = POD_MAPS + NODE_MAPS};
	uint32_t len = sizeof info;

	memset(out->maps, 0, sizeof out->maps);
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	memcpy(out->tag, info.tag, sizeof out->tag);
	out->n = info.nr_map_ids;
	return 0;
}

int object_same(int prog_fd, uint32_t other_id)
{
	struct prog_identity a, b;
	int other = bpf_prog_get_fd_by_id(other_id), e;

	if (other < 0)
		return -errno;
	e = identify(prog_fd, &a);
	if (!e)
		e = identify(other, &b);
	close(other);
	if (e)
		return e;
	return !memcmp(a.tag, b.tag, sizeof a.tag) && a.n == b.n && !memcmp(a.maps, b.maps, sizeof a.maps);
}

bool prog_is_ours(uint32_t id)
{
	struct bpf_prog_info info = {};
	uint32_t len = sizeof info;
	int fd = bpf_prog_get_fd_by_id(id), e;

	if (fd < 0)
		return false;
	e = bpf_obj_get_info_by_fd(fd, &info, &len);
	close(fd);
	return !e && !strncmp(info.name, "steer_", 6);
}

/* --- the node's maps ------------------------------------------------------------------------------------ */

static int node_map_open(const struct template *t, unsigned map, const char *dir, char why[STEER_WHY_MAX])
{
	char path[PIN_PATH_MAX];
	int fd, e;

	snprintf(path, sizeof path, "%s/map-%s", dir, template_map_name(map));
	fd = pin_get_path(path, PIN_MAP, why);
	if (fd >= 0 && template_map_fits(t, map, fd))
		return fd;
	if (fd >= 0)
		close(fd);
	else if (fd != -ENOENT)
		return fd;
	fd = template_map(t, map);
	if (fd < 0)
		return failed(why, fd, "cannot make the BPF map %s", template_map_name(map));
	e = pin_put_path(path, fd, why);
	if (e)
		close(fd);
	return e ? e : fd;
}

int node_maps_open(int node_maps[NODE_MAPS], const struct template *t, const char *pin_dir, char why[STEER_WHY_MAX])
{
	char dir[PIN_PATH_MAX];

	for (unsigned i = 0; i < NODE_MAPS; i++)
		node_maps[i] = -1;
	if ((size_t)snprintf(dir, sizeof dir, "%s/v1-node", pin_dir) >= sizeof dir - PIN_NAME_MAX)
		return failed(why, -ENAMETOOLONG, "%.64s...", pin_dir);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return failed(why, -errno, "cannot make %s", dir);
	for (unsigned i = 0; i < NODE_MAPS; i++) {
		node_maps[i] = node_map_open(t, POD_MAPS + i, dir, why);
		if (node_maps[i] < 0)
			return node_maps[i];
	}
	return 0;
}
