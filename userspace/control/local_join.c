// SPDX-License-Identifier: Apache-2.0
/* What is between the objects of one file. Endpoints of a /config_dump: there a service tells the ports of its workloads;
 * here each workload has its own. And policies that workloads name. */
#include <stdlib.h>
#include <string.h>

#include "control/local_parts.h"
#include "state/arena.h"

static int by_uid(const void *a, const void *b)
{
	return strcmp(((const struct local_endpoint *)a)->uid, ((const struct local_endpoint *)b)->uid);
}

static struct membership *membership_find(struct workload *w, const struct service *v)
{
	for (unsigned i = 0; i < w->n_services; i++)
		if (!strcmp(w->services[i].ns, v->ns) && !strcmp(w->services[i].hostname, v->hostname))
			return &w->services[i];
	return NULL;
}

static struct membership *membership_add(struct doc *d, struct workload *w, const struct service *v)
{
	struct arena *a = arena_of(w);
	struct membership *all = arena_alloc(a, w->n_services + 1, sizeof *all), *m = all ? &all[w->n_services] : NULL;

	if (m) {
		if (w->n_services)
			memcpy(all, w->services, w->n_services * sizeof *all);
		m->ns = arena_str(a, v->ns, strlen(v->ns));
		m->hostname = arena_str(a, v->hostname, strlen(v->hostname));
	}
	if (!m || !m->ns || !m->hostname) {
		doc_no_memory(d);
		return NULL;
	}
	w->services = all;
	w->n_services++;
	return m;
}

static void join_one(struct doc *d, struct workload *w, const struct local_endpoint *e)
{
	struct membership *m = membership_find(w, e->service);

	if (!m)
		m = membership_add(d, w, e->service);
	if (!m || m->n_ports || !e->n_ports)
		return;
	m->ports = arena_alloc(arena_of(w), e->n_ports, sizeof *m->ports);
	if (!m->ports) {
		doc_no_memory(d);
		return;
	}
	memcpy(m->ports, e->ports, e->n_ports * sizeof *m->ports);
	m->n_ports = e->n_ports;
}

/* The first endpoint with this uid. */
static size_t endpoint_first(const struct local_endpoint *all, size_t n, const char *uid)
{
	size_t low = 0;

	while (low < n) {
		size_t middle = low + (n - low) / 2;

		if (strcmp(all[middle].uid, uid) < 0)
			low = middle + 1;
		else
			n = middle;
	}
	return low;
}

void local_join(struct doc *d, struct local_state *s)
{
	struct local_endpoint *all = (struct local_endpoint *)s->endpoints.p;
	struct workload **w = (struct workload **)s->workloads.p;

	if (!s->endpoints.n || d->error)
		return;
	qsort(all, s->endpoints.n, sizeof *all, by_uid);
	for (size_t i = 0; i < s->workloads.n && !d->error; i++)
		for (size_t k = endpoint_first(all, s->endpoints.n, w[i]->uid);
		     k < s->endpoints.n && !strcmp(all[k].uid, w[i]->uid); k++)
			join_one(d, w[i], &all[k]);
}

/* --- policies that workloads name ----------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
	const struct policy *p = *(struct policy *const *)a, *q = *(struct policy *const *)b;
	int ns = strcmp(p->ns, q->ns);

	return ns ? ns : strcmp(p->name, q->name);
}

/* `name` is "ns/name". */
static bool is_known(struct policy *const *sorted, size_t n, const char *name)
{
	const char *slash = strchr(name, '/');
	size_t low = 0;

	while (slash && low < n) {
		size_t middle = low + (n - low) / 2;
		const struct policy *p = sorted[middle];
		size_t len = (size_t)(slash - name);
		int ns = strncmp(p->ns, name, len), order = ns ? ns : p->ns[len] ? 1 : strcmp(p->name, slash + 1);

		if (!order)
			return true;
		if (order < 0)
			low = middle + 1;
		else
			n = middle;
	}
	return false;
}

static void check_one(struct doc *d, const struct local_mention *m, struct policy *const *sorted, size_t n)
{
	const struct workload *w = m->workload;

	for (unsigned i = 0; i < w->n_policies; i++)
		if (!is_known(sorted, n, w->policies[i]))
			doc_fail_at(d, m->line, "workload %s/%s names the policy \"%s\", which is not in the file",
				    w->ns, w->name, w->policies[i]);
}

void local_check_policies(struct doc *d, struct local_state *s)
{
	const struct local_mention *all = (const struct local_mention *)s->mentions.p;
	size_t n = s->policies.n;
	struct policy **sorted;

	if (!s->mentions.n || d->error)
		return;
	sorted = malloc(n * sizeof *sorted + 1);
	if (!sorted) {
		doc_no_memory(d);
		return;
	}
	memcpy(sorted, s->policies.p, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, by_key);
	for (size_t i = 0; i < s->mentions.n && !d->error; i++)
		check_one(d, &all[i], sorted, n);
	free(sorted);
}
