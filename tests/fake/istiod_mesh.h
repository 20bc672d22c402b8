/* SPDX-License-Identifier: Apache-2.0 */
/* The resources that a stand-in for istiod has: made from a mesh file, sorted by name, each with a hash for a version as
 * istiod gives addresses, and the names by which it may be asked for. */
#pragma once
#include <inttypes.h>

#include "control/local.h"
#include "control/xds_apply.h"
#include "fake/istiod_encode.h"

enum { FAKE_VERSION_MAX = 20, FAKE_NAME_MAX = 4608 };

struct fake_resource {
	char *name, *node; /* node: of a workload, else "" */
	char version[FAKE_VERSION_MAX];
	char **alias, **service; /* service: names of the services that a workload belongs to */
	unsigned n_alias, n_service;
	uint8_t *value;
	size_t len;
};

struct fake_mesh { /* by type */
	struct {
		struct fake_resource *all;
		size_t n, cap;
	} of[XDS_TYPES];
};

static inline struct fake_resource *fake_add(struct fake_mesh *m, enum xds_type t, const char *ns, const char *name,
					     uint8_t *value, size_t len)
{
	struct fake_resource *r;
	uint64_t hash = 14695981039346656037ull;
	char whole[FAKE_NAME_MAX];

	if (m->of[t].n == m->of[t].cap) {
		m->of[t].cap = m->of[t].cap ? 2 * m->of[t].cap : 64;
		m->of[t].all = realloc(m->of[t].all, m->of[t].cap * sizeof *r);
	}
	r = &m->of[t].all[m->of[t].n++];
	*r = (struct fake_resource){.value = value, .len = len};
	snprintf(whole, sizeof whole, "%s%s%s", ns ? ns : "", ns ? "/" : "", name);
	r->name = strdup(whole);
	r->node = strdup("");
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ value[i]) * 1099511628211ull;
	if (t == XDS_ADDRESS)
		snprintf(r->version, sizeof r->version, "%" PRIx64, hash);
	return r;
}

static inline void fake_text(char ***list, unsigned *n, const char *a, const char *b)
{
	char text[FAKE_NAME_MAX];

	snprintf(text, sizeof text, "%s/%s", a, b);
	*list = realloc(*list, (*n + 1) * sizeof **list);
	(*list)[(*n)++] = strdup(text);
}

static inline int fake_workload(void *arg, struct workload *w)
{
	char ip[ADDR_STRLEN];
	size_t len;
	uint8_t *value = encode_workload(w, &len);
	struct fake_resource *r = fake_add(arg, XDS_ADDRESS, NULL, w->uid, value, len);

	free(r->node);
	r->node = strdup(w->node);
	for (unsigned i = 0; i < w->n_ips; i++)
		fake_text(&r->alias, &r->n_alias, w->network, addr_str(&w->ips[i], ip));
	for (unsigned i = 0; i < w->n_services; i++)
		fake_text(&r->service, &r->n_service, w->services[i].ns, w->services[i].hostname);
	return 0;
}

static inline int fake_service(void *arg, struct service *v)
{
	char ip[ADDR_STRLEN];
	size_t len;
	uint8_t *value = encode_service(v, &len);
	struct fake_resource *r = fake_add(arg, XDS_ADDRESS, v->ns, v->hostname, value, len);

	for (unsigned i = 0; i < v->n_vips; i++)
		fake_text(&r->alias, &r->n_alias, v->vips[i].addr.network, addr_str(&v->vips[i].addr.ip, ip));
	return 0;
}

static inline int fake_policy(void *arg, struct policy *p)
{
	size_t len;
	uint8_t *value = encode_policy(p, &len);

	fake_add(arg, XDS_AUTHORIZATION, p->ns, p->name, value, len);
	return 0;
}

static inline int fake_order(const void *a, const void *b)
{
	return strcmp(((const struct fake_resource *)a)->name, ((const struct fake_resource *)b)->name);
}

static inline struct fake_resource *fake_find(const struct fake_mesh *m, enum xds_type t, const char *name)
{
	struct fake_resource key = {.name = (char *)name};

	return m->of[t].n ? bsearch(&key, m->of[t].all, m->of[t].n, sizeof key, fake_order) : NULL;
}

static inline void fake_mesh_free(struct fake_mesh *m)
{
	for (unsigned t = 0; t < XDS_TYPES; t++) {
		for (size_t i = 0; i < m->of[t].n; i++) {
			struct fake_resource *r = &m->of[t].all[i];

			for (unsigned k = 0; k < r->n_alias; k++)
				free(r->alias[k]);
			for (unsigned k = 0; k < r->n_service; k++)
				free(r->service[k]);
			free(r->alias);
			free(r->service);
			free(r->name);
			free(r->node);
			free(r->value);
		}
		free(m->of[t].all);
	}
	*m = (struct fake_mesh){0};
}

/* A mesh file's path, or its text. 0 or -errno with a line in `why`. */
static inline int fake_mesh_load(struct fake_mesh *m, const char *path, const char *text, char why[LOCAL_REASON_MAX])
{
	struct store *s = store_new("");
	int e = path ? local_load_file(s, path, why) : local_load_text(s, "mesh", text, text ? strlen(text) : 0, why);

	*m = (struct fake_mesh){0};
	if (!e) {
		store_each_workload(s, fake_workload, m);
		store_each_service(s, fake_service, m);
		store_each_policy(s, fake_policy, m);
		for (unsigned t = 0; t < XDS_TYPES; t++)
			if (m->of[t].n)
				qsort(m->of[t].all, m->of[t].n, sizeof *m->of[t].all, fake_order);
	}
	store_free(s);
	return e;
}
