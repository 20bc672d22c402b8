// SPDX-License-Identifier: Apache-2.0
/* Loaded objects by dl_iterate_phdr(), the program's symbols from its own file (ELF), those of libraries by dladdr(). */
#include "admin/profile.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- objects -------------------------------------------------------------------------------------------- */

struct objects {
	struct profile_object *out;
	unsigned n;
};

static void read_build_id(const struct dl_phdr_info *i, const ElfW(Phdr) * p, struct profile_object *o)
{
	const char *at = (const char *)(i->dlpi_addr + p->p_vaddr), *end = at + p->p_memsz;

	while (end - at >= (ssize_t)sizeof(ElfW(Nhdr))) {
		const ElfW(Nhdr) *n = (const void *)at;
		const char *name = at + sizeof *n;
		const unsigned char *id = (const unsigned char *)name + ((n->n_namesz + 3) & ~3u);

		if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
			for (unsigned k = 0; k < n->n_descsz && 2 * k + 2 < sizeof o->build_id; k++)
				snprintf(o->build_id + 2 * k, 3, "%02x", id[k]);
			return;
		}
		at = (const char *)id + ((n->n_descsz + 3) & ~3u);
	}
}

static int add_object(struct dl_phdr_info *i, size_t size, void *arg)
{
	struct objects *l = arg;
	struct profile_object *o = &l->out[l->n];
	ssize_t n;

	if (l->n == PROFILE_OBJECTS_MAX)
		return 1;
	*o = (struct profile_object){.base = i->dlpi_addr, .program = !*i->dlpi_name};
	snprintf(o->file, sizeof o->file, "%s", i->dlpi_name);
	if (o->program && (n = readlink("/proc/self/exe", o->file, sizeof o->file - 1)) > 0)
		o->file[n] = '\0';
	for (unsigned k = 0; k < i->dlpi_phnum; k++) {
		const ElfW(Phdr) *p = &i->dlpi_phdr[k];

		if (p->p_type == PT_NOTE)
			read_build_id(i, p, o);
		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
			continue;
		o->start = i->dlpi_addr + p->p_vaddr;
		o->limit = o->start + p->p_memsz;
		o->offset = p->p_offset;
	}
	l->n += o->limit != 0;
	return 0;
}

unsigned profile_objects(struct profile_object out[PROFILE_OBJECTS_MAX])
{
	struct objects l = {out, 0};

	dl_iterate_phdr(add_object, &l);
	return l.n;
}

/* --- names ---------------------------------------------------------------------------------------------- */

struct symbol {
	uint64_t address, size;
	const char *name; /* in the mapped file */
};

struct profile_names {
	const char *file;
	size_t len;
	struct symbol *symbol;
	size_t n;
};

static int by_address(const void *a, const void *b)
{
	uint64_t x = ((const struct symbol *)a)->address, y = ((const struct symbol *)b)->address;

	return x < y ? -1 : x > y;
}

/* The file is the one that runs, but what a header says is checked all the same. */
static const void *part(const struct profile_names *n, uint64_t off, uint64_t size)
{
	return off <= n->len && size <= n->len - off ? n->file + off : NULL;
}

static void read_symbols(struct profile_names *n, const ElfW(Shdr) * table, const ElfW(Shdr) * texts)
{
	const ElfW(Sym) *s = part(n, table->sh_offset, table->sh_size);
	const char *text = part(n, texts->sh_offset, texts->sh_size);
	size_t count = table->sh_size / sizeof *s;

	if (!s || !text || !texts->sh_size || text[texts->sh_size - 1])
		return;
	n->symbol = malloc((count + 1) * sizeof *n->symbol);
	for (size_t i = 0; n->symbol && i < count; i++)
		if ((s[i].st_info & 0xf) == STT_FUNC && s[i].st_value && s[i].st_name < texts->sh_size)
			n->symbol[n->n++] = (struct symbol){s[i].st_value, s[i].st_size, text + s[i].st_name};
	if (n->n)
		qsort(n->symbol, n->n, sizeof *n->symbol, by_address);
}

static void read_sections(struct profile_names *n)
{
	const ElfW(Ehdr) *h = part(n, 0, sizeof *h);
	const ElfW(Shdr) *s = h ? part(n, h->e_shoff, (uint64_t)h->e_shnum * sizeof *s) : NULL;

	for (unsigned i = 0; s && i < h->e_shnum && !n->symbol; i++)
		if (s[i].sh_type == SHT_SYMTAB && s[i].sh_link < h->e_shnum)
			read_symbols(n, &s[i], &s[s[i].sh_link]);
}

struct profile_names *profile_names_read(void)
{
	struct profile_names *n = calloc(1, sizeof *n);
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p = MAP_FAILED;

	if (n && fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0)
		p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED) {
		free(n);
		return NULL;
	}
	n->file = p;
	n->len = (size_t)st.st_size;
	read_sections(n);
	if (n->n)
		return n;
	profile_names_free(n);
	return NULL;
}

void profile_names_free(struct profile_names *n)
{
	if (!n)
		return;
	munmap((void *)n->file, n->len);
	free(n->symbol);
	free(n);
}

static const char *own_name(const struct profile_names *n, uint64_t address)
{
	size_t from = 0, to = n->n; /* the last one that begins at or before the address */

	while (from < to) {
		size_t mid = from + (to - from) / 2;

		if (n->symbol[mid].address <= address)
			from = mid + 1;
		else
			to = mid;
	}
	if (!from || address >= n->symbol[from - 1].address + n->symbol[from - 1].size)
		return NULL;
	return n->symbol[from - 1].name;
}

const char *profile_name(const struct profile_names *n, const struct profile_object *o, uint64_t address)
{
	Dl_info i;

	if (o->program)
		return n ? own_name(n, address - o->base) : NULL;
	return dladdr((void *)(uintptr_t)address, &i) ? i.dli_sname : NULL;
}
