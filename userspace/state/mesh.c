/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the memory of the mesh's objects: arenas, references, and versions of services. */
#include "state/arena.h"

#include <stdlib.h>
#include <string.h>

#include "state/intern.h"

enum {
	WORKLOAD_MORE = 184, /* bytes that a common workload needs beyond its struct */
	SERVICE_MORE = 72,
	POLICY_MORE = 512,
	CHUNK_MIN = 96,
	ID_BYTES = 3,
};

/* --- arenas --------------------------------------------------------------------------------------------- */

static void chunk_init(struct chunk *c, size_t size)
{
	c->next = NULL;
	c->size = (uint32_t)size;
	c->used = c->n_ids = 0;
}

struct arena *arena_new(size_t size, size_t more)
{
	struct arena *a = malloc(sizeof *a + size + more);

	if (!a)
		return NULL;
	a->order = a->generation = 0;
	a->version = 0;
	chunk_init(&a->first, size + more);
	a->first.used = (uint32_t)size;
	memset(a->first.bytes, 0, size);
	return a;
}

/* Identifiers take three bytes, the first one the last in the chunk. */
static uint8_t *id_at(struct chunk *c, uint32_t i)
{
	return (uint8_t *)c->bytes + c->size - (i + 1) * ID_BYTES;
}

static uint32_t id_get(struct chunk *c, uint32_t i)
{
	const uint8_t *p = id_at(c, i);

	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
}

static void id_add(struct chunk *c, uint32_t id)
{
	uint8_t *p = id_at(c, c->n_ids++);

	for (unsigned i = 0; i < ID_BYTES; i++)
		p[i] = (uint8_t)(id >> 8 * i);
}

static bool id_has(struct chunk *c, uint32_t id)
{
	for (uint32_t i = 0; i < c->n_ids; i++)
		if (id_get(c, i) == id)
			return true;
	return false;
}

static void chunk_release(struct chunk *c)
{
	for (uint32_t i = 0; i < c->n_ids; i++)
		intern_put(id_get(c, i));
}

void arena_free(struct arena *a)
{
	struct chunk *next;

	if (!a)
		return;
	for (struct chunk *c = a->first.next; c; c = next) {
		next = c->next;
		chunk_release(c);
		free(c);
	}
	chunk_release(&a->first);
	free(a);
}

static size_t room(const struct chunk *c)
{
	return c->size - c->used - c->n_ids * ID_BYTES;
}

static struct chunk *newest(struct arena *a)
{
	return a->first.next ? a->first.next : &a->first;
}

/* The newest chunk, with at least `size` bytes left. */
static struct chunk *chunk_with(struct arena *a, size_t size)
{
	size_t n = size < CHUNK_MIN ? CHUNK_MIN : (size + 7) & ~(size_t)7;
	struct chunk *c = newest(a);

	if (room(c) >= size)
		return c;
	if (n > UINT32_MAX / 2)
		return NULL;
	c = malloc(sizeof *c + n);
	if (!c)
		return NULL;
	chunk_init(c, n);
	c->next = a->first.next;
	a->first.next = c;
	return c;
}

static void *take(struct arena *a, size_t n, size_t align)
{
	struct chunk *c = newest(a);
	size_t at = (c->used + align - 1) & ~(align - 1);

	if (at + n > c->used + room(c)) {
		c = chunk_with(a, n + align);
		if (!c)
			return NULL;
		at = (c->used + align - 1) & ~(align - 1);
	}
	c->used = (uint32_t)(at + n);
	return c->bytes + at;
}

void *arena_alloc(struct arena *a, size_t n, size_t size)
{
	size_t align = size & -size, bytes;
	void *p;

	if (__builtin_mul_overflow(n, size, &bytes) || bytes > UINT32_MAX / 2)
		return NULL;
	p = take(a, bytes, align > 8 ? 8 : align ? align : 1);
	if (p)
		memset(p, 0, bytes);
	return p;
}

const char *arena_copy(struct arena *a, const char *s, size_t len)
{
	char *p;

	len = len ? strnlen(s, len) : 0;
	if (!len)
		return "";
	p = len < UINT32_MAX / 2 ? take(a, len + 1, 1) : NULL;
	if (p) {
		memcpy(p, s, len);
		p[len] = 0;
	}
	return p;
}

const char *arena_str(struct arena *a, const char *s, size_t len)
{
	struct chunk *c;
	const char *text;
	uint32_t id;

	len = len ? strnlen(s, len) : 0;
	if (!len || len > INTERN_MAX)
		return arena_copy(a, s, len);
	c = chunk_with(a, ID_BYTES);
	if (!c)
		return NULL;
	text = intern_get(s, len, &id);
	if (!text)
		return NULL;
	if (id_has(c, id)) {
		intern_put(id); /* one reference of the object's will do */
	} else if (id >> 8 * ID_BYTES) {
		intern_put(id);
		text = arena_copy(a, s, len);
	} else {
		id_add(c, id);
	}
	return text;
}

/* --- references ----------------------------------------------------------------------------------------- */

static void take_ref(unsigned *refs)
{
	__atomic_fetch_add(refs, 1, __ATOMIC_RELAXED);
}

/* True for the last one. */
static bool drop_ref(unsigned *refs)
{
	return __atomic_fetch_sub(refs, 1, __ATOMIC_ACQ_REL) == 1;
}

struct workload *workload_ref(struct workload *w)
{
	take_ref(&w->refs);
	return w;
}

void workload_unref(struct workload *w)
{
	if (w && drop_ref(&w->refs))
		arena_free(arena_of(w));
}

void policy_unref(struct policy *p)
{
	if (p && drop_ref(&p->refs))
		arena_free(arena_of(p));
}

struct service *service_ref(struct service *s)
{
	take_ref(&s->refs);
	return s;
}

void service_unref(struct service *s)
{
	struct service_head *h;

	if (!s || !drop_ref(&s->refs))
		return;
	h = service_head(s);
	if (!h->description) {
		arena_free(arena_of(h));
		return;
	}
	for (unsigned i = 0; i < s->n_endpoints; i++)
		workload_unref(s->endpoints[i].workload);
	service_unref(h->description);
	free(h);
}

/* --- new objects ---------------------------------------------------------------------------------------- */

static void gateway_init(struct gateway *g)
{
	g->ns = g->hostname = "";
}

struct workload *workload_new(struct arena **a)
{
	struct workload *w;

	*a = arena_new(sizeof *w, WORKLOAD_MORE);
	if (!*a)
		return NULL;
	w = arena_object(*a);
	w->refs = 1;
	w->uid = w->name = w->ns = w->trust_domain = w->service_account = "";
	w->network = w->node = w->cluster_id = w->hostname = "";
	w->canonical_name = w->canonical_revision = w->workload_name = w->workload_type = "";
	w->region = w->zone = w->subzone = "";
	w->healthy = true;
	w->capacity = 1;
	gateway_init(&w->waypoint);
	gateway_init(&w->network_gateway);
	return w;
}

struct service *service_new(struct arena **a)
{
	struct service_head *h;

	*a = arena_new(sizeof *h, SERVICE_MORE);
	if (!*a)
		return NULL;
	h = arena_object(*a);
	h->v.refs = 1;
	h->v.name = h->v.ns = h->v.hostname = "";
	gateway_init(&h->v.waypoint);
	return &h->v;
}

struct policy *policy_new(struct arena **a)
{
	struct policy *p;

	*a = arena_new(sizeof *p, POLICY_MORE);
	if (!*a)
		return NULL;
	p = arena_object(*a);
	p->refs = 1;
	p->name = p->ns = "";
	return p;
}

struct service *service_version(struct service *description, unsigned n)
{
	struct service_head *h = malloc(sizeof *h + n * sizeof(struct endpoint_ref));

	if (!h)
		return NULL;
	h->description = service_ref(description);
	h->order = service_head(description)->order;
	h->capacity = 0;
	h->v = *description;
	h->v.refs = 1;
	h->v.endpoints = (struct endpoint_ref *)(h + 1);
	h->v.n_endpoints = 0;
	return &h->v;
}
