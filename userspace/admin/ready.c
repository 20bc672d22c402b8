// SPDX-License-Identifier: Apache-2.0
/* GET /healthz/ready. */
#include "admin/ready.h"

#include <stdio.h>
#include <string.h>

void ready_set(struct ready *r, bool pods)
{
	__atomic_store_n(&r->pods, pods, __ATOMIC_RELAXED);
}

void ready_await_mesh(struct ready *r, bool awaits)
{
	__atomic_store_n(&r->awaits_mesh, awaits, __ATOMIC_RELAXED);
}

void ready_set_lists(struct ready *r, bool usable)
{
	__atomic_store_n(&r->no_lists, !usable, __ATOMIC_RELAXED);
}

void ready_serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	const struct ready *r = arg;
	const char *const pending[] = {
		__atomic_load_n(&r->no_lists, __ATOMIC_RELAXED) ? "revocation lists" : "",
		__atomic_load_n(&r->awaits_mesh, __ATOMIC_RELAXED) ? "state manager" : "",
		__atomic_load_n(&r->pods, __ATOMIC_RELAXED) ? "" : "workload proxy manager",
	};
	char list[128] = "";
	size_t n = 0;

	for (unsigned i = 0; i < sizeof pending / sizeof *pending; i++)
		if (*pending[i])
			n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", pending[i]);

	if (strcmp(rq->path, "/healthz/ready") != 0)
		http_text(out, 404, "try /healthz/ready\n");
	else if (strcmp(rq->method, "GET") != 0)
		http_text(out, 405, "use GET\n");
	else if (!n)
		http_text(out, 200, "ready\n");
	else
		http_text(out, 500, "not ready, pending: %s\n", list);
}
