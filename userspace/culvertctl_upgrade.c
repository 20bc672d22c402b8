/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what culvertctl does with several processes of the tunnel: an upgrade, and what those that drain still carry. */
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/monotonic.h"
#include "ctl_abi.h"
#include "culvertctl.h"

enum { POLL_MS = 200 };

/* --- those that drain ----------------------------------------------------------------------------------- */

int draining_each(const char *run_dir, const char *path, void (*each)(void *arg, int process, json_t *answer),
		  void *arg)
{
	char pattern[PATH_MAX], why[CALL_WHY_MAX];
	glob_t found = {.gl_pathc = 0};

	snprintf(pattern, sizeof pattern, "%s/draining-*.sock", run_dir);
	if (glob(pattern, 0, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *name = strrchr(found.gl_pathv[i], '/') + 1;
		json_t *o = call_json(run_dir, name, "GET", path, NULL, why); /* NULL: it has ended meanwhile */

		if (o)
			each(arg, atoi(name + strlen("draining-")), o);
		json_decref(o);
	}
	globfree(&found);
	return 0;
}

static void connections_add(void *arg, int process, json_t *answer)
{
	json_t *g;
	size_t i;

	json_array_foreach(arg, i, g) if (json_integer_value(json_object_get(g, "pid")) == process)
		json_object_set(g, "connections", json_object_get(answer, "connections"));
}

void draining_connections(const char *run_dir, json_t *generations)
{
	draining_each(run_dir, "/generation", connections_add, generations);
}

/* --- upgrade -------------------------------------------------------------------------------------------- */

static void say_draining(json_t *generations)
{
	json_t *g;
	size_t i;

	json_array_foreach(generations, i, g) if (!strcmp(text_of(g, "state"), "draining"))
		fprintf(stderr, "culvertctl: process %lld drains, %lld connections\n",
			(long long)json_integer_value(json_object_get(g, "pid")),
			(long long)json_integer_value(json_object_get(g, "connections")));
}

/* A new reference; NULL with `why`. */
static json_t *generations(const char *run_dir, char why[CALL_WHY_MAX])
{
	json_t *status = call_json(run_dir, CTL_SOCKET, "GET", CTL_STATUS, NULL, why);
	json_t *list = json_incref(json_object_get(json_object_get(status, "tunnel"), "generations"));

	json_decref(status);
	if (list)
		draining_connections(run_dir, list);
	return list;
}

static bool any_drains(json_t *list)
{
	json_t *g;
	size_t i;

	json_array_foreach(list, i, g) if (!strcmp(text_of(g, "state"), "draining")) return true;
	return false;
}

json_t *upgrade_run(const char *run_dir, bool wait, char why[CALL_WHY_MAX])
{
	int64_t said = monotonic_ms();
	json_t *list;

	if (call_operation(run_dir, CTL_UPGRADE, json_object(), "the new tunnel is starting", why) < 0)
		return NULL;
	for (list = generations(run_dir, why); list && wait && any_drains(list); list = generations(run_dir, why)) {
		if (monotonic_ms() - said >= CALL_PROGRESS_S * 1000) {
			said = monotonic_ms();
			say_draining(list);
		}
		json_decref(list);
		nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000l}, NULL);
	}
	return list ? json_pack("{ss so}", "state", "done", "generations", list) : NULL;
}
