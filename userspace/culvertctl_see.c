/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what culvertctl asks and shows of single connections: traces and failures. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/values.h"
#include "ctl_abi.h"
#include "culvertctl.h"

enum { QUERY_MAX = 2048 };

/* --- trace ---------------------------------------------------------------------------------------------- */

/* Appends, with what a query may not hold written as %XX; false: no room. */
static bool encode(char *to, size_t size, const char *text)
{
	size_t n = strlen(to);

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool plain = strchr("-._~:", c) || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');

		if (n + 4 > size)
			return false;
		n += (size_t)snprintf(to + n, size - n, plain ? "%c" : "%%%02X", c);
	}
	return true;
}

json_t *trace_ask(const char *run_dir, const char *src, const char *dst, const char *port, char why[CALL_WHY_MAX])
{
	const char *const parts[] = {"/trace?src=", src, "&dst=", dst, "&port=", port};
	char path[QUERY_MAX] = "";
	unsigned long n;

	if (value_number(port, &n) < 0 || !n || n > 65535) {
		snprintf(why, CALL_WHY_MAX, "\"%.64s\" is no port", port);
		return NULL;
	}
	for (unsigned i = 0; i < 6; i++) {
		size_t len = strlen(path);

		if (i % 2 ? !encode(path, sizeof path, parts[i])
			  : snprintf(path + len, sizeof path - len, "%s", parts[i]) >= (int)(sizeof path - len)) {
			snprintf(why, CALL_WHY_MAX, "the names are too long");
			return NULL;
		}
	}
	return call_json(run_dir, CTL_TUNNEL_SOCKET, "GET", path, NULL, why);
}

static void show_route(json_t *r)
{
	const char *via = text_of(r, "authority");

	printf("%-13s %s", "route", text_of(r, "kind"));
	if (*text_of(r, "nextHop"))
		printf(" to %s", text_of(r, "nextHop"));
	if (*via)
		printf(" for %s", via);
	if (json_is_true(json_object_get(r, "waypoint")))
		printf(", a waypoint");
	putchar('\n');
}

void show_trace(json_t *t)
{
	json_t *src = json_object_get(t, "source"), *cert = json_object_get(t, "certificate"), *s;
	const char *outcome = text_of(t, "outcome");
	size_t i;

	printf("%-13s %s/%s%s%s, %s\n", "from", text_of(src, "namespace"), text_of(src, "name"),
	       *text_of(src, "node") ? " on node " : "", text_of(src, "node"),
	       json_is_true(json_object_get(src, "local")) ? "a pod of this node" : "elsewhere");
	printf("%-13s %s\n", "to", text_of(t, "destination"));
	json_array_foreach(json_object_get(t, "steps"), i, s)
		printf("%-13s %s\n", text_of(s, "topic"), text_of(s, "text"));
	if (number_of(t, "stepsLeftOut"))
		printf("%-13s %lld more steps\n", "", number_of(t, "stepsLeftOut"));
	show_route(json_object_get(t, "route"));
	if (*text_of(cert, "expirationTime"))
		printf("%-13s valid until %s\n", "certificate", text_of(cert, "expirationTime"));
	printf("%-13s %s", "outcome", outcome);
	if (strcmp(outcome, "carried") != 0)
		printf(": %s (flag %s)", text_of(t, "reason"), text_of(t, "flag"));
	putchar('\n');
}

/* --- failures ------------------------------------------------------------------------------------------- */

static bool is_named(json_t *pod, const char *text)
{
	const char *slash = strchr(text, '/'), *ns = text_of(pod, "namespace"), *name = text_of(pod, "name");

	if (!slash)
		return !strcmp(name, text);
	return strlen(ns) == (size_t)(slash - text) && !strncmp(ns, text, strlen(ns)) && !strcmp(name, slash + 1);
}

static void add_process(void *arg, int process, json_t *answer)
{
	json_t *f;
	size_t i;

	json_array_foreach(json_object_get(answer, "failures"), i, f)
	{
		json_object_set_new(f, "process", json_integer(process));
		json_array_append(arg, f);
	}
}

json_t *failures_ask(const char *run_dir, const char *pod, const char *since, char why[CALL_WHY_MAX])
{
	json_t *answer, *all, *some, *f;
	double seconds = 0;
	size_t i;

	if (since && value_seconds(since, &seconds) < 0) {
		snprintf(why, CALL_WHY_MAX, "--since: \"%.64s\" is not a time such as 90s, 10m or 2h", since);
		return NULL;
	}
	answer = call_json(run_dir, CTL_TUNNEL_SOCKET, "GET", "/failures", NULL, why);
	if (!answer)
		return NULL;
	all = json_array();
	draining_each(run_dir, "/failures", add_process, all); /* which are the older ones */
	json_array_extend(all, json_object_get(answer, "failures"));
	some = json_array();
	json_array_foreach(all, i, f)
	{
		if (pod && !is_named(json_object_get(f, "pod"), pod))
			continue;
		if (!since || (double)time(NULL) - (double)number_of(f, "unixTime") <= seconds)
			json_array_append(some, f);
	}
	json_decref(all);
	json_object_set_new(answer, "failures", some);
	return answer;
}

void show_failures(json_t *answer)
{
	static const char *const headings[] = {"TIME",	      "POD",  "DIRECTION", "SOURCE",
					       "DESTINATION", "FLAG", "PEER",	   "REASON"};
	struct table t = table_begin(8, headings);
	json_t *f;
	size_t i;

	json_array_foreach(json_object_get(answer, "failures"), i, f)
	{
		bool inbound = !strcmp(text_of(f, "direction"), "inbound");
		json_t *pod = json_object_get(f, "pod");

		table_add(&t, text_of(f, "time"));
		table_cell(&t, "%s/%s", text_of(pod, "namespace"), text_of(pod, "name"));
		table_add(&t, text_of(f, "direction"));
		table_add(&t, text_of(f, "source"));
		table_add(&t, text_of(f, "destination"));
		table_add(&t, text_of(f, "flag"));
		table_add(&t, text_of(f, inbound ? "sourceIdentity" : "destinationIdentity"));
		table_add(&t, text_of(f, "reason"));
	}
	table_end(&t, "no connection failed");
}
