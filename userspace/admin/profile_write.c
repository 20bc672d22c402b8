// SPDX-License-Identifier: Apache-2.0
/* Stacks to pprof's message: equal ones are counted together, each address is one location, and has its function's name
 * where that is known. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/gzip.h"
#include "admin/profile.h"
#include "proto/profile.pb-c.h"

enum { STRINGS_MAX = 65536, NS = 1000000000 };

/* Everything lives until the message is packed; one allocation of each kind. */
struct writer {
	Perftools__Profiles__Profile message;
	struct profile_object object[PROFILE_OBJECTS_MAX];
	struct profile_names *names;
	uint64_t *address; /* of the locations, sorted, each once */
	size_t n_addresses;
	Perftools__Profiles__Sample *sample, **samples;
	uint64_t *ids;
	int64_t (*values)[2];
	Perftools__Profiles__Location *location, **locations;
	Perftools__Profiles__Line *line, **lines;
	Perftools__Profiles__Function *function, **functions;
	Perftools__Profiles__Mapping mapping[PROFILE_OBJECTS_MAX], *mappings[PROFILE_OBJECTS_MAX];
	char **string;
	size_t n_strings, cap_strings;
	bool failed;
};

/* --- helpers -------------------------------------------------------------------------------------------- */

static int64_t string_add(struct writer *w, const char *s)
{
	size_t cap = w->cap_strings ? 2 * w->cap_strings : 256;
	char **more;

	if (w->n_strings == w->cap_strings) {
		more = cap <= STRINGS_MAX ? realloc(w->string, cap * sizeof *more) : NULL;
		if (!more) {
			w->failed = true;
			return 0;
		}
		w->string = more;
		w->cap_strings = cap;
	}
	w->string[w->n_strings] = strdup(s);
	w->failed |= !w->string[w->n_strings];
	return w->string[w->n_strings] ? (int64_t)w->n_strings++ : 0;
}

static void *array(struct writer *w, size_t n, size_t size)
{
	void *p = calloc(n + 1, size);

	w->failed |= !p;
	return p;
}

/* A caller's address is where it goes on: the call is before that. */
static uint64_t place(const struct profile_sample *s, unsigned i)
{
	return (uint64_t)(uintptr_t)s->pc[i] - (i != 0);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int by_stack(const void *a, const void *b)
{
	const struct profile_sample *x = a, *y = b;

	if (x->depth != y->depth)
		return x->depth < y->depth ? -1 : 1;
	return memcmp(x->pc, y->pc, x->depth * sizeof *x->pc);
}

/* --- parts ---------------------------------------------------------------------------------------------- */

static void collect_addresses(struct writer *w, const struct profile *p)
{
	size_t total = 0, n = 0;

	for (unsigned i = 0; i < p->n; i++)
		total += p->sample[i].depth;
	w->address = array(w, total, sizeof *w->address);
	if (w->failed)
		return;
	for (unsigned i = 0; i < p->n; i++)
		for (unsigned k = 0; k < p->sample[i].depth; k++)
			w->address[n++] = place(&p->sample[i], k);
	qsort(w->address, n, sizeof *w->address, by_value);
	for (size_t i = 0; i < n; i++)
		if (!w->n_addresses || w->address[i] != w->address[w->n_addresses - 1])
			w->address[w->n_addresses++] = w->address[i];
}

static void add_mappings(struct writer *w)
{
	unsigned n = profile_objects(w->object);

	for (unsigned i = 0; i < n; i++) {
		const struct profile_object *o = &w->object[i];
		Perftools__Profiles__Mapping *m = &w->mapping[i];

		perftools__profiles__mapping__init(m);
		m->id = i + 1;
		m->memory_start = o->start;
		m->memory_limit = o->limit;
		m->file_offset = o->offset;
		m->filename = string_add(w, o->file);
		m->build_id = string_add(w, o->build_id);
		m->has_functions = o->program && w->names;
		w->mappings[i] = m;
	}
	w->message.mapping = w->mappings;
	w->message.n_mapping = n;
}

static const struct profile_object *object_of(const struct writer *w, uint64_t address)
{
	for (size_t i = 0; i < w->message.n_mapping; i++)
		if (address >= w->object[i].start && address < w->object[i].limit)
			return &w->object[i];
	return NULL;
}

static void add_location(struct writer *w, size_t i)
{
	Perftools__Profiles__Location *l = &w->location[i];
	const struct profile_object *o = object_of(w, w->address[i]);
	const char *name = o ? profile_name(w->names, o, w->address[i]) : NULL;
	Perftools__Profiles__Function *f = &w->function[w->message.n_function];

	perftools__profiles__location__init(l);
	l->id = i + 1;
	l->address = w->address[i];
	l->mapping_id = o ? (uint64_t)(o - w->object) + 1 : 0;
	w->locations[i] = l;
	if (!name)
		return;
	perftools__profiles__function__init(f);
	f->id = w->message.n_function + 1;
	f->name = f->system_name = string_add(w, name);
	w->functions[w->message.n_function++] = f;
	perftools__profiles__line__init(&w->line[i]);
	w->line[i].function_id = f->id;
	w->lines[i] = &w->line[i];
	l->line = &w->lines[i];
	l->n_line = 1;
}

static void add_locations(struct writer *w)
{
	size_t n = w->n_addresses;

	w->location = array(w, n, sizeof *w->location);
	w->locations = array(w, n, sizeof(void *));
	w->line = array(w, n, sizeof *w->line);
	w->lines = array(w, n, sizeof(void *));
	w->function = array(w, n, sizeof *w->function);
	w->functions = array(w, n, sizeof(void *));
	for (size_t i = 0; i < n && !w->failed; i++)
		add_location(w, i);
	w->message.location = w->locations;
	w->message.n_location = n;
	w->message.function = w->functions;
}

static uint64_t location_of(const struct writer *w, uint64_t address)
{
	const uint64_t *at = bsearch(&address, w->address, w->n_addresses, sizeof address, by_value);

	return (uint64_t)(at - w->address) + 1;
}

static void add_samples(struct writer *w, const struct profile *p)
{
	uint64_t *id = w->ids;
	size_t n = 0;

	for (unsigned i = 0; i < p->n && !w->failed; i++) {
		const struct profile_sample *s = &p->sample[i];
		Perftools__Profiles__Sample *m = &w->sample[n];

		if (!s->depth)
			continue;
		if (n && by_stack(s, &p->sample[i - 1]) == 0) {
			w->values[n - 1][0]++;
			w->values[n - 1][1] += NS / p->asked.hz;
			continue;
		}
		perftools__profiles__sample__init(m);
		m->location_id = id;
		m->n_location_id = s->depth;
		for (unsigned k = 0; k < s->depth; k++)
			*id++ = location_of(w, place(s, k));
		w->values[n][0] = 1;
		w->values[n][1] = NS / p->asked.hz;
		m->value = w->values[n];
		m->n_value = 2;
		w->samples[n++] = m;
	}
	w->message.sample = w->samples;
	w->message.n_sample = n;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static void fill(struct writer *w, struct profile *p)
{
	size_t total = 0;

	if (p->n)
		qsort(p->sample, p->n, sizeof *p->sample, by_stack);
	for (unsigned i = 0; i < p->n; i++)
		total += p->sample[i].depth;
	w->names = profile_names_read();
	w->sample = array(w, p->n, sizeof *w->sample);
	w->samples = array(w, p->n, sizeof(void *));
	w->ids = array(w, total, sizeof *w->ids);
	w->values = array(w, p->n, sizeof *w->values);
	collect_addresses(w, p);
	if (w->failed)
		return;
	add_mappings(w);
	add_locations(w);
	add_samples(w, p);
	w->message.time_nanos = p->began_ns;
	w->message.duration_nanos = p->took_ns;
	w->message.period = NS / p->asked.hz;
}

static int pack(struct writer *w, char **out, size_t *len)
{
	size_t n;
	uint8_t *raw;
	int e;

	w->message.string_table = w->string;
	w->message.n_string_table = w->n_strings;
	n = perftools__profiles__profile__get_packed_size(&w->message);
	raw = malloc(n + 1);
	if (!raw)
		return -ENOMEM;
	perftools__profiles__profile__pack(&w->message, raw);
	e = gzip(raw, n, out, len);
	free(raw);
	return e;
}

static void writer_free(struct writer *w)
{
	for (size_t i = 0; i < w->n_strings; i++)
		free(w->string[i]);
	free(w->string);
	free(w->address);
	free(w->sample);
	free(w->samples);
	free(w->ids);
	free(w->values);
	free(w->location);
	free(w->locations);
	free(w->line);
	free(w->lines);
	free(w->function);
	free(w->functions);
	profile_names_free(w->names);
	free(w);
}

int profile_write(struct profile *p, char **out, size_t *len)
{
	struct writer *w = calloc(1, sizeof *w);
	Perftools__Profiles__ValueType count, cpu, *types[] = {&count, &cpu};
	int64_t comment[2];
	char lost[64];
	int e;

	if (!w)
		return -ENOMEM;
	perftools__profiles__profile__init(&w->message);
	perftools__profiles__value_type__init(&count);
	perftools__profiles__value_type__init(&cpu);
	string_add(w, "");
	count.type = string_add(w, "samples");
	count.unit = string_add(w, "count");
	cpu.type = string_add(w, "cpu");
	cpu.unit = string_add(w, "nanoseconds");
	w->message.sample_type = types;
	w->message.n_sample_type = 2;
	w->message.period_type = &cpu;
	w->message.comment = comment;
	if (*p->asked.cut)
		comment[w->message.n_comment++] = string_add(w, p->asked.cut);
	snprintf(lost, sizeof lost, "%u samples did not fit", p->lost);
	if (p->lost)
		comment[w->message.n_comment++] = string_add(w, lost);
	fill(w, p);
	e = w->failed ? -ENOMEM : pack(w, out, len);
	writer_free(w);
	return e;
}
