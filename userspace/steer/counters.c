// SPDX-License-Identifier: Apache-2.0
/* Counters of a pod, summed over the processors. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <stdlib.h>

#include "steer/steer_internal.h"

#define DECISION	       STEER_DECISION
#define DROP		       STEER_DROP
#define NAME(name, kind, help) #name,
#define KIND(name, kind, help) kind,
#define HELP(name, kind, help) help,
static const char *const upper[STEER_COUNTERS] = {STEER_COUNTERS_OF(NAME)};
static const enum steer_counter_kind kinds[STEER_COUNTERS] = {STEER_COUNTERS_OF(KIND)};
static const char *const helps[STEER_COUNTERS] = {STEER_COUNTERS_OF(HELP)};

enum { NAME_MAX_ = 32 };

/* Operators see lower case; the table is written once. */
static const char *name_of(unsigned id)
{
	static char lower[STEER_COUNTERS][NAME_MAX_];

	if (!lower[id][0])
		for (unsigned i = 0; upper[id][i] && i < NAME_MAX_ - 1; i++)
			lower[id][i] = tolower((unsigned char)upper[id][i]);
	return lower[id];
}

int counters_begin(const struct steer_pod *p, bool kept, char why[STEER_WHY_MAX])
{
	int cpus = libbpf_num_possible_cpus(), e;
	struct steer_counts *none = cpus > 0 ? calloc(cpus, sizeof *none) : NULL;

	if (!none)
		return failed(why, -ENOMEM, "counters");
	e = bpf_map_update_elem(p->steer->shared.map[MAP_COUNTERS], &p->ns.cookie, none, kept ? BPF_NOEXIST : BPF_ANY);
	free(none);
	return e && e != -EEXIST ? failed(why, e, "cannot make counters") : 0;
}

unsigned steer_counters(struct steer_pod *p, struct steer_counter *out, unsigned max)
{
	int cpus = libbpf_num_possible_cpus();
	struct steer_counts *counts;

	if (p->mode != STEER_BPF || cpus <= 0)
		return 0;
	counts = calloc(cpus, sizeof *counts);
	if (!counts)
		return 0;
	bpf_map_lookup_elem(p->steer->shared.map[MAP_COUNTERS], &p->ns.cookie, counts);
	for (uint32_t id = 0; id < STEER_COUNTERS && id < max; id++) {
		out[id] = (struct steer_counter){name_of(id), helps[id], kinds[id], 0};
		for (int i = 0; i < cpus; i++)
			out[id].value += counts[i].n[id];
	}
	free(counts);
	return STEER_COUNTERS;
}
