/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what culvertctl asks and shows of log filters: those of keeper and tunnel are one to the operator. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_abi.h"
#include "culvertctl.h"

/* A filter goes into a query: nothing but what filters are made of. */
static bool is_filter(const char *s)
{
	return *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:.,=-") == strlen(s);
}

static const char targets[] = LOG_TARGETS;

static bool is_target(const char *s, size_t len)
{
	for (const char *p = targets; *p; p += strcspn(p, " "), p += *p == ' ')
		if (strcspn(p, " ") == len && !strncmp(p, s, len))
			return true;
	return false;
}

/* A target that is none would change nothing, in silence. */
static int filter_check(const char *filter, char why[CALL_WHY_MAX])
{
	if (!is_filter(filter) || strlen(filter) > 900) {
		snprintf(why, CALL_WHY_MAX, "\"%.256s\" is not LEVEL or TARGET=LEVEL", filter);
		return -EINVAL;
	}
	for (const char *p = filter; *p; p += strcspn(p, ","), p += *p == ',') {
		size_t n = strcspn(p, ","), len = strcspn(p, "=");

		if (len >= n || is_target(p, len))
			continue;
		snprintf(why, CALL_WHY_MAX, "\"%.*s\" is no target; there are: %s", (int)(len < 64 ? len : 64), p,
			 targets);
		return -EINVAL;
	}
	return 0;
}

void show_log(json_t *o)
{
	printf("keeper  %s\ntunnel  %s\n", json_string_value(json_object_get(o, "keeper")),
	       json_string_value(json_object_get(o, "tunnel")));
}

json_t *log_ask(const char *run_dir, const char *filter, bool reset, char why[CALL_WHY_MAX])
{
	const char *level = reset ? "reset" : filter ? filter : "", *is;
	char keeper_path[1024] = CTL_LOG, tunnel_path[1024] = "/logging";
	struct call_answer a = {.body = NULL};
	json_t *keeper, *both;

	if (filter && !reset && filter_check(level, why) < 0)
		return NULL;
	if (*level) {
		snprintf(keeper_path, sizeof keeper_path, "%s?level=%s", CTL_LOG, level);
		snprintf(tunnel_path, sizeof tunnel_path, reset ? "/logging?%s" : "/logging?level=%s", level);
	}
	keeper = call_json(run_dir, CTL_SOCKET, *level ? "POST" : "GET", keeper_path, NULL, why);
	if (!keeper)
		return NULL;
	if (call(run_dir, CTL_TUNNEL_SOCKET, "POST", tunnel_path, NULL, &a, why) == 0) {
		a.body[strcspn(a.body, "\n")] = '\0';
		is = strstr(a.body, " is ") ? strstr(a.body, " is ") + 4 : a.body;
	} else {
		is = why;
	}
	both = json_pack("{sO ss}", "keeper", json_object_get(keeper, "filter"), "tunnel", is);
	json_decref(keeper);
	free(a.body);
	return both;
}
