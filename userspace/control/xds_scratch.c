// SPDX-License-Identifier: Apache-2.0
/* Memory of messages: blocks, the newest first; a reset keeps the oldest one. */
#include "control/xds_scratch.h"

#include <stdint.h>
#include <stdlib.h>

enum { BLOCK = 32 << 10, ALIGN = 16 };

struct xds_scratch_block {
	struct xds_scratch_block *next;
	size_t size, used;
	_Alignas(ALIGN) uint8_t bytes[];
};

static struct xds_scratch_block *block_new(struct xds_scratch *s, size_t size)
{
	size_t room = size > BLOCK ? size : BLOCK;
	struct xds_scratch_block *b = malloc(sizeof *b + room);

	if (!b)
		return NULL;
	b->size = room;
	b->used = 0;
	b->next = s->blocks;
	s->blocks = b;
	return b;
}

static void *take(void *arg, size_t size)
{
	struct xds_scratch *s = arg;
	struct xds_scratch_block *b = s->blocks;
	void *p;

	if (size > s->max)
		return NULL;
	size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (s->used + size > s->max)
		return NULL;
	if (!b || b->size - b->used < size)
		b = block_new(s, size);
	if (!b)
		return NULL;
	p = b->bytes + b->used;
	b->used += size;
	s->used += size;
	return p;
}

static void leave(void *arg, void *p)
{
}

void xds_scratch_init(struct xds_scratch *s, size_t max)
{
	*s = (struct xds_scratch){.allocator = {take, leave, s}, .max = max};
}

static void drop_until(struct xds_scratch *s, const struct xds_scratch_block *last)
{
	while (s->blocks && s->blocks != last) {
		struct xds_scratch_block *next = s->blocks->next;

		free(s->blocks);
		s->blocks = next;
	}
}

void xds_scratch_reset(struct xds_scratch *s)
{
	struct xds_scratch_block *first = s->blocks;

	while (first && first->next)
		first = first->next;
	drop_until(s, first);
	if (first && first->size > BLOCK)
		drop_until(s, NULL);
	else if (first)
		first->used = 0;
	s->used = 0;
}

void xds_scratch_free(struct xds_scratch *s)
{
	drop_until(s, NULL);
}
