/* SPDX-License-Identifier: Apache-2.0 */
/* The BPF objects of a pod: its configuration, and the programs that are attached in it. Programs are always loaded anew
 * and compared with what is attached, so a keeper of another version replaces what differs. */
#include <bpf/bpf.h>
#include <unistd.h>

#include "steer/steer_internal.h"

static const char conf_pin[] = "map-conf", older_pin[] = "map-existing";

void object_init(struct object *o)
{
	for (unsigned i = 0; i < PROGS; i++)
		o->prog[i] = -1;
	o->conf = -1;
}

void object_close(struct object *o)
{
	for (unsigned i = 0; i < PROGS; i++)
		if (o->prog[i] >= 0)
			close(o->prog[i]);
	if (o->conf >= 0)
		close(o->conf);
	object_init(o);
}

static int conf_make(char why[STEER_WHY_MAX])
{
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "conf", sizeof(uint32_t), sizeof(struct steer_conf), 1, NULL);

	return fd < 0 ? failed(why, fd, "cannot make the BPF map conf") : fd;
}

/* Another version's may be larger: the kernel would write past `out`. */
static int conf_read(int fd, struct steer_conf *out)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof info, first = 0;

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	if (info.type != BPF_MAP_TYPE_ARRAY || info.value_size != sizeof *out)
		return -EINVAL;
	return bpf_map_lookup_elem(fd, &first, out);
}

int object_conf(const struct object *o, struct steer_conf *out)
{
	return o->conf < 0 ? -ENOENT : conf_read(o->conf, out);
}

int object_conf_read(const struct pins *pins, struct steer_conf *out)
{
	char ignored[STEER_WHY_MAX];
	int fd = pin_get(pins, conf_pin, PIN_MAP, ignored), e;

	if (fd < 0)
		return fd;
	e = conf_read(fd, out);
	close(fd);
	return e;
}

void object_open(struct object *o, const struct pins *pins)
{
	char ignored[STEER_WHY_MAX];

	object_init(o);
	o->conf = pin_get(pins, conf_pin, PIN_MAP, ignored);
}

/* --- loading -------------------------------------------------------------------------------------------- */

static int conf_find(struct object *o, const struct pins *pins, bool *kept, char why[STEER_WHY_MAX])
{
	struct steer_conf conf;

	o->conf = pin_get(pins, conf_pin, PIN_MAP, why);
	if (o->conf < 0 && o->conf != -ENOENT)
		return o->conf;
	*kept = o->conf >= 0 && conf_read(o->conf, &conf) == 0 && conf.abi == STEER_ABI_VERSION;
	if (*kept)
		return 0;
	if (o->conf >= 0)
		close(o->conf);
	o->conf = conf_make(why);
	return o->conf < 0 ? o->conf : 0;
}

static int entries_load(struct object *o, const struct shared *s, uint64_t pod, enum steer_prog one,
			enum steer_prog two, char why[STEER_WHY_MAX])
{
	const enum steer_prog both[] = {one, two};

	for (unsigned i = 0; i < 2; i++) {
		if (o->prog[both[i]] >= 0)
			continue;
		o->prog[both[i]] = template_entry(both[i], pod, s->map[MAP_PROGRAMS], why);
		if (o->prog[both[i]] < 0)
			return o->prog[both[i]];
	}
	return 0;
}

int object_load(struct object *o, const struct shared *s, const struct pins *pins, uint64_t pod, bool *kept,
		char why[STEER_WHY_MAX])
{
	int e;

	object_init(o);
	e = conf_find(o, pins, kept, why);
	if (!e)
		e = entries_load(o, s, pod, PROG_EGRESS, PROG_INGRESS, why);
	if (!e) {
		o->prog[PROG_LOOKUP] = template_prog(s->template, PROG_LOOKUP, pod, s->map, why);
		e = o->prog[PROG_LOOKUP] < 0 ? o->prog[PROG_LOOKUP] : 0;
	}
	if (e)
		object_close(o);
	return e;
}

int object_load_l3(struct object *o, const struct shared *s, uint64_t pod, char why[STEER_WHY_MAX])
{
	return entries_load(o, s, pod, PROG_EGRESS_L3, PROG_INGRESS_L3, why);
}

int object_renew(struct object *o, const struct shared *s, uint64_t pod, char why[STEER_WHY_MAX])
{
	for (unsigned i = 0; i < PROGS; i++) {
		int fd;

		if (i == PROG_LOOKUP || o->prog[i] < 0)
			continue;
		fd = template_entry(i, pod, s->map[MAP_PROGRAMS], why);
		if (fd < 0)
			return fd;
		close(o->prog[i]);
		o->prog[i] = fd;
	}
	return 0;
}

static void drop_older(void *arg, const char *name)
{
	if (!strncmp(name, "map-", 4) && strcmp(name, conf_pin) != 0 && strcmp(name, older_pin) != 0)
		pin_drop(arg, name);
}

int object_pin(const struct object *o, const struct pins *pins, char why[STEER_WHY_MAX])
{
	int e = pin_put(pins, conf_pin, o->conf, why);

	if (!e && pins->existed)
		pins_each(pins, drop_older, (void *)pins);
	return e;
}

bool object_pinned(const struct pins *pins)
{
	return pin_there(pins, conf_pin);
}

/* --- comparing ------------------------------------------------------------------------------------------ */

struct prog_identity {
	uint8_t tag[BPF_TAG_SIZE];
	uint32_t n, maps[NODE_MAPS];
};

static int identify(int fd, struct prog_identity *out)
{
	struct bpf_prog_info info = {.map_ids = (uintptr_t)out->maps, .nr_map_ids = NODE_MAPS};
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
