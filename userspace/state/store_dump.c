/* SPDX-License-Identifier: Apache-2.0 */
/* Owns iteration for dumps: pointers first, sorted by key, then the caller's function. */
#include "state/store_internal.h"

#include <errno.h>
#include <stdlib.h>

typedef int compare(const void *a, const void *b);

static int two(const char *a, const char *b, const char *c, const char *d)
{
	int e = strcmp(a, c);

	return e ? e : strcmp(b, d);
}

static int by_uid(const void *a, const void *b)
{
	return strcmp((*(struct workload *const *)a)->uid, (*(struct workload *const *)b)->uid);
}

static int by_hostname(const void *a, const void *b)
{
	const struct service *x = *(struct service *const *)a, *y = *(struct service *const *)b;

	return two(x->hostname, x->ns, y->hostname, y->ns);
}

static int by_name(const void *a, const void *b)
{
	const struct policy *x = *(struct policy *const *)a, *y = *(struct policy *const *)b;

	return two(x->ns, x->name, y->ns, y->name);
}

static int collect(const struct index *ix, void ***out, size_t *n)
{
	struct index_cursor c = {0};
	size_t size = 0;
	void *p, **all = NULL, **more;

	*n = 0;
	while ((p = index_each(ix, &c))) {
		if (*n == size) {
			size = size ? size * 2 : 64;
			more = realloc(all, size * sizeof *all);
			if (!more) {
				free(all);
				return -ENOMEM;
			}
			all = more;
		}
		all[(*n)++] = p;
	}
	*out = all;
	return 0;
}

static int each(const struct index *ix, compare *order, int (*call)(void *arg, void *object), void *arg)
{
	void **all;
	size_t n;
	int e;

	store_read_lock();
	e = collect(ix, &all, &n);
	if (e == 0 && n) {
		qsort(all, n, sizeof *all, order);
		for (size_t i = 0; i < n && e == 0; i++)
			e = call(arg, all[i]);
		free(all);
	}
	store_read_unlock();
	return e;
}

struct typed {
	int (*workload)(void *arg, struct workload *w);
	int (*service)(void *arg, struct service *v);
	int (*policy)(void *arg, struct policy *p);
	void *arg;
};

static int call_workload(void *arg, void *object)
{
	const struct typed *t = arg;

	return t->workload(t->arg, object);
}

static int call_service(void *arg, void *object)
{
	const struct typed *t = arg;

	return t->service(t->arg, object);
}

static int call_policy(void *arg, void *object)
{
	const struct typed *t = arg;

	return t->policy(t->arg, object);
}

int store_each_workload(struct store *s, int (*call)(void *arg, struct workload *w), void *arg)
{
	return each(&s->workloads, by_uid, call_workload, &(struct typed){.workload = call, .arg = arg});
}

int store_each_service(struct store *s, int (*call)(void *arg, struct service *v), void *arg)
{
	return each(&s->services, by_hostname, call_service, &(struct typed){.service = call, .arg = arg});
}

int store_each_policy(struct store *s, int (*call)(void *arg, struct policy *p), void *arg)
{
	return each(&s->policies, by_name, call_policy, &(struct typed){.policy = call, .arg = arg});
}
