/* SPDX-License-Identifier: Apache-2.0 */
/* Loading the BPF object of a pod. The skeleton lives for the load only: what stays are descriptors. Programs are
 * always loaded anew and compared with what is attached, so a keeper of another version replaces what differs. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/steer_internal.h"
#include "steer.skel.h"

static const char *const prog_names[PROGS] = {
	[PROG_EGRESS] = "steer_egress",		[PROG_EGRESS_L3] = "steer_egress_l3", [PROG_INGRESS] = "steer_ingress",
	[PROG_INGRESS_L3] = "steer_ingress_l3", [PROG_LOOKUP] = "steer_lookup",
};
static const char *const map_names[POD_MAPS] = {
	[MAP_CONF] = "conf",   [MAP_ADDRS] = "addrs",	    [MAP_EXCLUDED] = "excluded", [MAP_LISTENERS] = "listeners",
	[MAP_FLOWS] = "flows", [MAP_COUNTERS] = "counters", [MAP_ASKING] = "asking",	 [MAP_RETURNING] = "returning",
};
static const char *const node_map_names[NODE_MAPS] = {
	[MAP_NODE] = "node",
	[MAP_PROBES] = "probes",
	[MAP_AGENTS] = "agents",
};

/* Spares are loaded by a thread of their own. */
static __thread char last_words[STEER_WHY_MAX];

/* libbpf tells what went wrong by lines of text only; verifier logs are for those who ask. */
static int on_libbpf(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char line[LOG_LINE_MAX / 2];

	if (level == LIBBPF_DEBUG)
		return 0;
	vsnprintf(line, sizeof line, fmt, ap);
	line[strcspn(line, "\n")] = 0;
	if (level == LIBBPF_WARN)
		snprintf(last_words, sizeof last_words, "%.*s", (int)sizeof last_words - 1, line);
	log_debug(STEER_LOG, "%s", line);
	return 0;
}

static int object_open(struct steer_bpf **out, char why[STEER_WHY_MAX])
{
	libbpf_set_print(on_libbpf);
	last_words[0] = 0;
	*out = steer_bpf__open();
	return *out ? 0 : failed(why, -errno, "cannot read the BPF object");
}

void object_init(struct object *o)
{
	for (unsigned i = 0; i < PROGS; i++)
		o->prog[i] = -1;
	for (unsigned i = 0; i < POD_MAPS; i++)
		o->map[i] = -1;
}

void object_close(struct object *o)
{
	for (unsigned i = 0; i < PROGS; i++)
		if (o->prog[i] >= 0)
			close(o->prog[i]);
	for (unsigned i = 0; i < POD_MAPS; i++)
		if (o->map[i] >= 0)
			close(o->map[i]);
	object_init(o);
}

static void pin_name(char name[PIN_NAME_MAX], unsigned map)
{
	snprintf(name, PIN_NAME_MAX, "map-%s", map_names[map]);
}

static bool map_fits(const struct bpf_map *want, int fd)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof info;

	return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == bpf_map__type(want) &&
	       info.key_size == bpf_map__key_size(want) && info.value_size == bpf_map__value_size(want) &&
	       info.max_entries == bpf_map__max_entries(want) && info.map_flags == bpf_map__map_flags(want);
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

/* All or none: flags of sockets and counters belong to one generation. */
static int find_maps(struct bpf_object *obj, const struct pins *pins, int fds[POD_MAPS], bool *kept,
		     char why[STEER_WHY_MAX])
{
	*kept = true;
	for (unsigned i = 0; i < POD_MAPS; i++) {
		const struct bpf_map *want = bpf_object__find_map_by_name(obj, map_names[i]);
		char name[PIN_NAME_MAX];

		pin_name(name, i);
		fds[i] = pin_get(pins, name, PIN_MAP, why);
		if (fds[i] < 0 && fds[i] != -ENOENT)
			return fds[i];
		if (fds[i] < 0 || !map_fits(want, fds[i]) || (i == MAP_CONF && !conf_fits(fds[i])))
			*kept = false;
	}
	return 0;
}

static int reuse(struct bpf_object *obj, const char *name, int fd)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, name);

	return map ? bpf_map__reuse_fd(map, fd) : -ENOENT;
}

static int load_over(struct bpf_object *obj, const int fds[POD_MAPS], const int *node_maps, bool kept)
{
	int e = 0;

	for (unsigned i = 0; i < NODE_MAPS && node_maps && !e; i++)
		e = reuse(obj, node_map_names[i], node_maps[i]);
	for (unsigned i = 0; i < POD_MAPS && kept && !e; i++)
		e = reuse(obj, map_names[i], fds[i]);
	return e ? e : bpf_object__load(obj);
}

static int dup_fd(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static bool is_l3(unsigned prog)
{
	return prog == PROG_EGRESS_L3 || prog == PROG_INGRESS_L3;
}

/* Verifying a program is most of what steering a pod costs, and few pods have devices without Ethernet headers. */
static void leave_out(struct bpf_object *obj, bool l3)
{
	for (unsigned i = 0; i < PROGS; i++)
		if (is_l3(i) == l3)
			bpf_program__set_autoload(bpf_object__find_program_by_name(obj, prog_names[i]), false);
}

static int take_progs(struct object *o, struct bpf_object *obj)
{
	int missing = 0;

	for (unsigned i = 0; i < PROGS; i++) {
		const struct bpf_program *prog = bpf_object__find_program_by_name(obj, prog_names[i]);

		if (!bpf_program__autoload(prog))
			continue;
		o->prog[i] = dup_fd(bpf_program__fd(prog));
		missing |= o->prog[i] < 0;
	}
	return missing ? -EMFILE : 0;
}

static int take(struct object *o, struct bpf_object *obj)
{
	int missing = take_progs(o, obj);

	for (unsigned i = 0; i < POD_MAPS; i++) {
		o->map[i] = dup_fd(bpf_map__fd(bpf_object__find_map_by_name(obj, map_names[i])));
		missing |= o->map[i] < 0;
	}
	return missing ? -EMFILE : 0;
}

static int load(struct object *o, struct bpf_object *obj, const int fds[POD_MAPS], const int *node_maps, bool kept,
		char why[STEER_WHY_MAX])
{
	int e = load_over(obj, fds, node_maps, kept);

	if (!e)
		e = take(o, obj);
	if (!e)
		return 0;
	object_close(o);
	return failed(why, e, "cannot load the BPF programs (%.120s)", last_words);
}

int object_load(struct object *o, const struct pins *pins, const int *node_maps, bool *kept, char why[STEER_WHY_MAX])
{
	struct steer_bpf *skel;
	int fds[POD_MAPS], e;

	object_init(o);
	memset(fds, -1, sizeof fds);
	e = object_open(&skel, why);
	if (e)
		return e;
	leave_out(skel->obj, true);
	e = find_maps(skel->obj, pins, fds, kept, why);
	if (!e)
		e = load(o, skel->obj, fds, node_maps, *kept, why);
	for (unsigned i = 0; i < POD_MAPS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	steer_bpf__destroy(skel);
	return e;
}

int object_load_new(struct object *o, const int *node_maps, bool l3, char why[STEER_WHY_MAX])
{
	struct steer_bpf *skel;
	int e;

	object_init(o);
	e = object_open(&skel, why);
	if (e)
		return e;
	if (!l3)
		leave_out(skel->obj, true);
	e = load(o, skel->obj, NULL, node_maps, false, why);
	steer_bpf__destroy(skel);
	return e;
}

int object_load_l3(struct object *o, const int *node_maps, char why[STEER_WHY_MAX])
{
	struct steer_bpf *skel;
	int e;

	if (o->prog[PROG_EGRESS_L3] >= 0)
		return 0;
	e = object_open(&skel, why);
	if (e)
		return e;
	leave_out(skel->obj, false);
	e = load_over(skel->obj, o->map, node_maps, true);
	if (!e)
		e = take_progs(o, skel->obj);
	steer_bpf__destroy(skel);
	return e ? failed(why, e, "cannot load the BPF programs (%.120s)", last_words) : 0;
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

static int node_maps_make(struct bpf_object *obj, int node_maps[NODE_MAPS], const char *dir, char why[STEER_WHY_MAX])
{
	int e = 0;

	for (unsigned i = 0; i < NODE_MAPS && !e; i++) {
		const struct bpf_map *want = bpf_object__find_map_by_name(obj, node_map_names[i]);
		char path[PIN_PATH_MAX];
		int fd;

		snprintf(path, sizeof path, "%s/map-%s", dir, node_map_names[i]);
		fd = pin_get_path(path, PIN_MAP, why);
		if (fd >= 0 && !map_fits(want, fd)) {
			close(fd);
			fd = -ENOENT;
		}
		if (fd == -ENOENT) {
			LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = bpf_map__map_flags(want));

			fd = bpf_map_create(bpf_map__type(want), node_map_names[i], bpf_map__key_size(want),
					    bpf_map__value_size(want), bpf_map__max_entries(want), &opts);
			if (fd < 0)
				return failed(why, fd, "cannot make the BPF map %s", node_map_names[i]);
			e = pin_put_path(path, fd, why);
		}
		if (fd < 0)
			return fd;
		node_maps[i] = fd;
	}
	return e;
}

int node_maps_open(int node_maps[NODE_MAPS], const char *pin_dir, char why[STEER_WHY_MAX])
{
	struct steer_bpf *skel;
	char dir[PIN_PATH_MAX];
	int e;

	for (unsigned i = 0; i < NODE_MAPS; i++)
		node_maps[i] = -1;
	if ((size_t)snprintf(dir, sizeof dir, "%s/v1-node", pin_dir) >= sizeof dir - PIN_NAME_MAX)
		return failed(why, -ENAMETOOLONG, "%.64s...", pin_dir);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return failed(why, -errno, "cannot make %s", dir);
	e = object_open(&skel, why);
	if (e)
		return e;
	e = node_maps_make(skel->obj, node_maps, dir, why);
	steer_bpf__destroy(skel);
	return e;
}
