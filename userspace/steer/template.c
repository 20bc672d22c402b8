/* SPDX-License-Identifier: Apache-2.0 */
/* The BPF object as the kernel takes it. libbpf reads and relocates it and gives its types to the kernel, once. What is
 * loaded after that is steer_lookup, for each pod, and at the start the programs that pods share. For each of them the kernel needs to be told where its
 * functions begin and of which type they are: the first can be seen in the code, the second it has told when libbpf
 * loaded the program. Maps are named by their place in an array of descriptors (Linux 5.14), so that the code is the same
 * over whichever maps. Never changes once it is made: any thread may use it. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/steer_internal.h"
#include "steer.skel.h"

enum { FUNCTIONS_MAX = 64 };

static const char *const prog_names[PROGS] = {
	[PROG_EGRESS] = "steer_egress",		[PROG_EGRESS_L3] = "steer_egress_l3", [PROG_INGRESS] = "steer_ingress",
	[PROG_INGRESS_L3] = "steer_ingress_l3", [PROG_LOOKUP] = "steer_lookup",
};
static const char *const map_names[NODE_MAPS] = {
	[MAP_NODE] = "node",	       [MAP_PROBES] = "probes",	      [MAP_AGENTS] = "agents",
	[MAP_CONFS] = "confs",	       [MAP_ADDRS] = "addrs",	      [MAP_EXCLUDED] = "excluded",
	[MAP_LISTENERS] = "listeners", [MAP_FLOWS] = "flows",	      [MAP_COUNTERS] = "counters",
	[MAP_ASKING] = "asking",       [MAP_RETURNING] = "returning", [MAP_PROGRAMS] = "programs",
};

struct prog {
	enum bpf_prog_type type;
	enum bpf_attach_type attach;
	struct bpf_insn *code;
	size_t n;
	unsigned n_functions;
	struct bpf_func_info function[FUNCTIONS_MAX];
	size_t place; /* of the instruction that names the pod; 0: there is none */
};

struct template
{
	int types; /* BTF */
	struct prog prog[PROGS];
	struct bpf_map_info map[NODE_MAPS];
};

/* Of libbpf, which tells what went wrong by lines of text only. */
static char last_words[STEER_WHY_MAX];

/* Verifier logs are for those who ask. */
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

/* --- the code ------------------------------------------------------------------------------------------- */

static bool loads_map(const struct bpf_insn *i)
{
	return i->code == (BPF_LD | BPF_DW | BPF_IMM) && i->src_reg == BPF_PSEUDO_MAP_FD;
}

static int name_maps(struct prog *p, const struct bpf_object *obj)
{
	for (size_t i = 0; i < p->n; i++) {
		unsigned m = 0;

		if (!loads_map(&p->code[i]))
			continue;
		while (m < NODE_MAPS && bpf_map__fd(bpf_object__find_map_by_name(obj, map_names[m])) != p->code[i].imm)
			m++;
		if (m == NODE_MAPS)
			return -ENOENT;
		p->code[i].src_reg = BPF_PSEUDO_MAP_IDX;
		p->code[i].imm = (int)m;
	}
	return 0;
}

/* Where a function begins that this instruction calls, or names; 0: it does neither. */
static uint32_t callee(const struct bpf_insn *code, size_t at)
{
	const struct bpf_insn *i = &code[at];

	if ((i->code == (BPF_JMP | BPF_CALL) && i->src_reg == BPF_PSEUDO_CALL) ||
	    (i->code == (BPF_LD | BPF_DW | BPF_IMM) && i->src_reg == BPF_PSEUDO_FUNC))
		return (uint32_t)(at + 1 + i->imm);
	return 0;
}

static void function_add(struct prog *p, uint32_t at)
{
	unsigned i = p->n_functions;

	for (unsigned k = 0; k < p->n_functions; k++)
		if (p->function[k].insn_off == at)
			return;
	if (p->n_functions++ >= FUNCTIONS_MAX)
		return; /* too many, which is found out below */
	for (; i && p->function[i - 1].insn_off > at; i--)
		p->function[i] = p->function[i - 1];
	p->function[i].insn_off = at;
}

/* In the kernel's answer they stand in the same order, at places that have moved. */
static int functions_find(struct prog *p, int fd)
{
	struct bpf_func_info told[FUNCTIONS_MAX] = {0};
	struct bpf_prog_info info = {
		.func_info = (uintptr_t)told, .nr_func_info = FUNCTIONS_MAX, .func_info_rec_size = sizeof *told};
	uint32_t len = sizeof info;

	function_add(p, 0);
	for (size_t i = 0; i < p->n; i++)
		if (callee(p->code, i))
			function_add(p, callee(p->code, i));
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	if (info.nr_func_info != p->n_functions || p->n_functions > FUNCTIONS_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < p->n_functions; i++)
		p->function[i].type_id = told[i].type_id;
	return 0;
}

static bool is_place(const struct bpf_insn *i)
{
	return i->code == (BPF_LD | BPF_DW | BPF_IMM) && !i->src_reg &&
	       (uint32_t)i[0].imm == (uint32_t)STEER_POD_PLACE &&
	       (uint32_t)i[1].imm == (uint32_t)(STEER_POD_PLACE >> 32);
}

static void place_find(struct prog *p)
{
	for (size_t i = 0; i + 1 < p->n; i++)
		if (is_place(&p->code[i]))
			p->place = i;
}

static int prog_take(struct prog *p, const struct bpf_object *obj, const char *name)
{
	const struct bpf_program *from = bpf_object__find_program_by_name(obj, name);
	int e;

	p->type = bpf_program__type(from);
	p->attach = bpf_program__expected_attach_type(from);
	p->n = bpf_program__insn_cnt(from);
	p->code = malloc(p->n * sizeof *p->code);
	if (!p->code)
		return -ENOMEM;
	memcpy(p->code, bpf_program__insns(from), p->n * sizeof *p->code);
	place_find(p);
	e = functions_find(p, bpf_program__fd(from));
	return e ? e : name_maps(p, obj);
}

/* --- making --------------------------------------------------------------------------------------------- */

static int take(struct template *t, const struct bpf_object *obj)
{
	int e = 0;

	t->types = fcntl(bpf_object__btf_fd(obj), F_DUPFD_CLOEXEC, 3);
	if (t->types < 0)
		return -errno;
	for (unsigned i = 0; i < PROGS && !e; i++)
		e = prog_take(&t->prog[i], obj, prog_names[i]);
	for (unsigned i = 0; i < NODE_MAPS && !e; i++) {
		uint32_t len = sizeof t->map[i];

		e = bpf_obj_get_info_by_fd(bpf_map__fd(bpf_object__find_map_by_name(obj, map_names[i])), &t->map[i],
					   &len);
	}
	return e;
}

int template_make(struct template **out, char why[STEER_WHY_MAX])
{
	struct template *t = calloc(1, sizeof *t);
	struct steer_bpf *skel;
	int e;

	libbpf_set_print(on_libbpf);
	last_words[0] = 0;
	skel = t ? steer_bpf__open() : NULL;
	if (!skel) {
		e = failed(why, -errno, "cannot read the BPF object");
		free(t);
		return e;
	}
	t->types = -1;
	e = steer_bpf__load(skel);
	if (!e)
		e = take(t, skel->obj);
	steer_bpf__destroy(skel);
	if (e) {
		template_free(t);
		return failed(why, e, "cannot load the BPF programs (%.120s)", last_words);
	}
	*out = t;
	return 0;
}

void template_free(struct template *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < PROGS; i++)
		free(t->prog[i].code);
	if (t->types >= 0)
		close(t->types);
	free(t);
}

/* --- using ---------------------------------------------------------------------------------------------- */

const char *template_map_name(unsigned map)
{
	return map_names[map];
}

int template_map(const struct template *t, unsigned map)
{
	const struct bpf_map_info *m = &t->map[map];
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = m->map_flags, .btf_fd = m->btf_id ? t->types : 0,
		    .btf_key_type_id = m->btf_key_type_id, .btf_value_type_id = m->btf_value_type_id);

	return bpf_map_create((enum bpf_map_type)m->type, map_names[map], m->key_size, m->value_size, m->max_entries,
			      &opts);
}

bool template_map_fits(const struct template *t, unsigned map, int fd)
{
	const struct bpf_map_info *want = &t->map[map];
	struct bpf_map_info info = {};
	uint32_t len = sizeof info;

	return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == want->type &&
	       info.key_size == want->key_size && info.value_size == want->value_size &&
	       info.max_entries == want->max_entries && info.map_flags == want->map_flags;
}

int template_prog(const struct template *t, enum steer_prog prog, uint64_t pod, const int *maps,
		  char why[STEER_WHY_MAX])
{
	const struct prog *p = &t->prog[prog];
	struct bpf_insn *code = malloc(p->n * sizeof *code);
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = p->attach, .prog_btf_fd = t->types,
		    .fd_array = maps, .func_info = p->function, .func_info_cnt = p->n_functions,
		    .func_info_rec_size = sizeof *p->function);
	int fd = -ENOMEM;

	if (code) {
		memcpy(code, p->code, p->n * sizeof *code);
		if (p->place) {
			code[p->place].imm = (int32_t)pod;
			code[p->place + 1].imm = (int32_t)(pod >> 32);
		}
		fd = bpf_prog_load(p->type, prog_names[prog], "Dual BSD/GPL", code, p->n, &opts);
		free(code);
	}
	return fd < 0 ? failed(why, fd, "cannot load the BPF program %s", prog_names[prog]) : fd;
}

/* MOV of 32 bits, and a store of them to the context. */
#define WORD(value, field)                                                                     \
	{.code = BPF_ALU | BPF_MOV | BPF_K, .dst_reg = BPF_REG_2, .imm = (int32_t)(value)},    \
	{                                                                                      \
		.code = BPF_STX | BPF_MEM | BPF_W, .dst_reg = BPF_REG_1, .src_reg = BPF_REG_2, \
		.off = offsetof(struct __sk_buff, field)                                       \
	}

int template_entry(enum steer_prog prog, uint64_t pod, int programs, char why[STEER_WHY_MAX])
{
	static const enum steer_program next[PROGS] = {
		[PROG_EGRESS] = STEER_P_EGRESS,
		[PROG_EGRESS_L3] = STEER_P_EGRESS_L3,
		[PROG_INGRESS] = STEER_P_INGRESS,
		[PROG_INGRESS_L3] = STEER_P_INGRESS_L3,
	};
	const struct bpf_insn code[] = {
		WORD(pod, cb[0]),
		WORD(pod >> 32, cb[1]),
		{.code = BPF_LD | BPF_DW | BPF_IMM,
		 .dst_reg = BPF_REG_2,
		 .src_reg = BPF_PSEUDO_MAP_FD,
		 .imm = programs},
		{.code = 0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = (int32_t)next[prog]},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_tail_call},
		/* Only if the node's program is not there: nothing passes. */
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = TC_ACT_SHOT},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, prog_names[prog], "Dual BSD/GPL", code,
			       sizeof code / sizeof *code, NULL);

	return fd < 0 ? failed(why, fd, "cannot load the BPF program %s", prog_names[prog]) : fd;
}
