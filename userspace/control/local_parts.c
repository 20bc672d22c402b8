// SPDX-License-Identifier: Apache-2.0
/* Readers of values that several objects of the local file have. */
#include "control/local_parts.h"

#include <stdlib.h>
#include <string.h>

/* --- lists ---------------------------------------------------------------------------------------------- */

void local_list_init(struct local_list *l, size_t size)
{
	l->n = 0;
	l->size = size;
	l->p = l->first;
	l->cap = sizeof l->first / size;
}

static int grow(struct local_list *l)
{
	size_t cap = l->cap ? l->cap * 2 : 4;
	char *p = l->p == l->first ? malloc(cap * l->size) : realloc(l->p, cap * l->size);

	if (!p)
		return -ENOMEM;
	if (l->p == l->first)
		memcpy(p, l->first, l->n * l->size);
	l->p = p;
	l->cap = cap;
	return 0;
}

void *local_list_add(struct doc *d, struct local_list *l)
{
	void *one;

	if (d->error)
		return NULL;
	if (l->n == l->cap && grow(l) < 0) {
		doc_no_memory(d);
		return NULL;
	}
	one = l->p + l->n++ * l->size;
	memset(one, 0, l->size);
	return one;
}

void *local_list_end(struct doc *d, struct local_list *l, struct arena *a, unsigned *n)
{
	void *all = NULL;

	*n = 0;
	if (!d->error && l->n) {
		all = arena_alloc(a, l->n, l->size);
		if (all) {
			memcpy(all, l->p, l->n * l->size);
			*n = (unsigned)l->n;
		} else {
			doc_no_memory(d);
		}
	}
	if (l->p != l->first)
		free(l->p);
	return all;
}

/* --- values --------------------------------------------------------------------------------------------- */

static const char *checked(struct doc *d, const char *s)
{
	if (!s)
		doc_no_memory(d);
	return s ? s : "";
}

const char *local_str(struct doc *d, struct arena *a, const char *what)
{
	struct doc_text t = doc_text(d, what);

	return checked(d, arena_str(a, t.s, t.len));
}

struct addr local_addr(struct doc *d, const char *what)
{
	struct addr a = {0};
	struct doc_text t = doc_text(d, what);

	if (!d->error && addr_parse(&a, t.s) < 0)
		doc_fail(d, "%s: \"%s\" is not an IP address", what, t.s);
	return a;
}

struct net_addr local_net_addr(struct doc *d, struct arena *a, const char *what)
{
	struct net_addr n = {.network = ""};
	struct doc_text t = doc_text(d, what);
	const char *slash = strchr(t.s, '/');

	if (d->error)
		return n;
	if (!slash || addr_parse(&n.ip, slash + 1) < 0)
		doc_fail(d, "%s: \"%s\" is not NETWORK/ADDRESS", what, t.s);
	else
		n.network = checked(d, arena_str(a, t.s, (size_t)(slash - t.s)));
	return n;
}

bool local_split(struct doc *d, struct arena *a, const char *text, const char **ns, const char **hostname)
{
	const char *slash = strchr(text, '/');

	if (!slash)
		return false;
	*ns = checked(d, arena_str(a, text, (size_t)(slash - text)));
	*hostname = checked(d, arena_str(a, slash + 1, strlen(slash + 1)));
	return true;
}

struct port_map *local_ports(struct doc *d, struct arena *a, unsigned *n)
{
	struct local_list l;

	local_list_init(&l, sizeof(struct port_map));
	for (doc_map(d, "ports"); doc_key(d);) {
		struct port_map *p = local_list_add(d, &l);
		uint32_t port = doc_number(d, "a service port", UINT16_MAX);

		if (!d->error && !port)
			doc_fail(d, "a service port cannot be 0");
		if (!doc_next(d))
			break;
		p->service_port = (uint16_t)port;
		p->target_port = (uint16_t)doc_number(d, "a target port", UINT16_MAX);
	}
	return local_list_end(d, &l, a, n);
}

const char **local_texts(struct doc *d, struct arena *a, const char *what, unsigned *n)
{
	struct local_list l;

	local_list_init(&l, sizeof(const char *));
	for (doc_list(d, what); doc_item(d);) {
		const char **one = local_list_add(d, &l);

		if (one)
			*one = local_str(d, a, what);
	}
	return local_list_end(d, &l, a, n);
}

/* --- readers for tables --------------------------------------------------------------------------------- */

static void *place(const struct doc_field *f, void *part)
{
	return (char *)((struct local_part *)part)->object + f->at;
}

void local_text(struct doc *d, const struct doc_field *f, void *part)
{
	*(const char **)place(f, part) = local_str(d, ((struct local_part *)part)->arena, f->name);
}

void local_own(struct doc *d, const struct doc_field *f, void *part)
{
	struct doc_text t = doc_text(d, f->name);

	*(const char **)place(f, part) = checked(d, arena_copy(((struct local_part *)part)->arena, t.s, t.len));
}

void local_word(struct doc *d, const struct doc_field *f, void *part)
{
	*(int *)place(f, part) = doc_word(d, f->name, f->words);
}

void local_bool(struct doc *d, const struct doc_field *f, void *part)
{
	*(bool *)place(f, part) = doc_bool(d, f->name);
}

void local_port(struct doc *d, const struct doc_field *f, void *part)
{
	*(uint16_t *)place(f, part) = (uint16_t)doc_number(d, f->name, UINT16_MAX);
}

void local_u32(struct doc *d, const struct doc_field *f, void *part)
{
	*(uint32_t *)place(f, part) = doc_number(d, f->name, UINT32_MAX);
}

/* "network/ip" or "namespace/hostname". */
static void gateway_destination(struct doc *d, const struct doc_field *f, void *part)
{
	struct local_part *p = part;
	struct gateway *g = p->object;
	struct doc_text t = doc_text(d, f->name);
	const char *slash = strchr(t.s, '/');
	struct addr ip;

	if (slash && addr_parse(&ip, slash + 1) == 0) {
		g->kind = GATEWAY_ADDR;
		g->addr = local_net_addr(d, p->arena, f->name);
	} else if (local_split(d, p->arena, t.s, &g->ns, &g->hostname)) {
		g->kind = GATEWAY_HOST;
	} else {
		doc_fail(d, "%s: \"%s\" is neither NETWORK/ADDRESS nor NAMESPACE/HOSTNAME", f->name, t.s);
	}
}

void local_gateway(struct doc *d, const struct doc_field *f, void *part)
{
	static const struct doc_field fields[] = {
		{"destination", gateway_destination, .required = true},
		{"hboneMtlsPort", local_port, offsetof(struct gateway, hbone_port), .required = true},
		{0},
	};
	struct local_part p = {place(f, part), ((struct local_part *)part)->arena, NULL};

	doc_object(d, f->name, fields, &p);
}
