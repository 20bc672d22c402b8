// SPDX-License-Identifier: Apache-2.0
/* Paths of the admin interface. To add one: a row in the table below. */
#include "admin/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/dump.h"
#include "admin/profile.h"
#include "admin/see.h"
#include "admin/trace.h"
#include "base/log.h"

struct page {
	const char *path, *help;
	void (*serve)(struct admin *a, const struct http_request *rq, struct http_response *out);
};

static bool is_post(const struct http_request *rq)
{
	return !strcmp(rq->method, "POST");
}

/* --- /logging ------------------------------------------------------------------------------------------- */

static const char logging_help[] = "usage: POST /logging\t\t\t\t(the current level)\n"
				   "       POST /logging?level=LEVEL\t\t(off, error, warn, info, debug, trace)\n"
				   "       POST /logging?level=TARGET=LEVEL,...\t(by target)\n"
				   "       POST /logging?reset\t\t\t(back to what the start had)\n";

/* istioctl sends TARGET:LEVEL as it was typed, and its help says to type it so. */
static void take_colons(char *spec)
{
	for (char *p = spec; *p;) {
		size_t len = strcspn(p, ",");
		char *colon = memrchr(p, ':', len);

		if (colon && colon > p && colon[-1] != ':' && !memchr(p, '=', len))
			*colon = '=';
		p += len + (p[len] == ',');
	}
}

static void logging(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	char spec[LOG_SPEC_MAX], now[LOG_SPEC_MAX], ignored[2];
	bool reset = http_query(rq, "reset", ignored, sizeof ignored);
	const char *level = http_query(rq, "level", spec, sizeof spec);

	if (!is_post(rq)) {
		http_text(out, 405, "use POST\n%s", logging_help);
		return;
	}
	if (level)
		take_colons(spec);
	/* One that fills the buffer was longer, and is cut. */
	if (level && *level &&
	    (strlen(spec) == sizeof spec - 1 || log_change_filter(reset ? a->log_default : NULL, spec) < 0)) {
		http_text(out, 400, "\"%s\" is no log filter\n%s", level, logging_help);
		return;
	}
	if (reset && !(level && *level))
		log_set_filter(a->log_default);
	http_text(out, 200, "current log level is %s\n", log_filter(now));
}

/* --- other pages ---------------------------------------------------------------------------------------- */

static void quit(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	if (!is_post(rq)) {
		http_text(out, 405, "use POST\n");
		return;
	}
	a->quit(a->arg);
	http_text(out, 200, "shutdown now\n");
}

static void no_heap_profile(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	http_text(out, 404,
		  "there is no heap profile: the allocator keeps no call stacks. /metrics has the process's totals; "
		  "heaptrack(1) on the process, or valgrind --tool=massif, show who holds memory\n");
}

/* A profile has all names that there are; `go tool pprof` asks for those of the rest all the same, and gives up at a 404. */
static void no_symbols(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	http_text(out, 200, "num_symbols: 0\n");
}

static void dump(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	char mesh[8] = "";

	http_query(rq, "mesh", mesh, sizeof mesh);
	config_dump(a, strcmp(mesh, "counts") != 0, out);
}

/* For culvertctl, which asks each process of a run directory. */
static void generation(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	bool draining = a->draining && __atomic_load_n(a->draining, __ATOMIC_RELAXED);

	out->content_type = "application/json";
	http_text(out, 200, "{\"pid\": %d, \"state\": \"%s\", \"connections\": %u}\n", (int)getpid(),
		  draining ? "draining" : "serving", data_connections(a->data));
}

static void index_page(struct admin *a, const struct http_request *rq, struct http_response *out);

static const struct page pages[] = {
	{"/", NULL, index_page},
	{"/config_dump", "the mesh (?mesh=counts: how large it is), certificates, pods, connections, settings, as JSON",
	 dump},
	{"/logging", "POST: query and change the log level (?level=..., ?reset)", logging},
	{"/generation", "this process: whether it drains, and how many connections it carries, as JSON", generation},
	{"/quitquitquit", "POST: drain connections and end", quit},
	{"/trace", "what a connection would get, and why (?src=POD&dst=ADDRESS-OR-NAME&port=NUMBER), as JSON",
	 trace_serve},
	{"/failures", "the last connections that failed, with reasons, as JSON", failures_serve},
	{"/debug/pprof/profile", "where CPU time goes, for pprof (?seconds=10&frequency=100)", profile_serve},
	{"/debug/pprof/symbol", NULL, no_symbols},
	{"/debug/pprof/heap", NULL, no_heap_profile},
	{"/debug/pprof/heap/profiling", NULL, no_heap_profile},
};
enum { PAGES = sizeof pages / sizeof *pages };

static void index_page(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	size_t len;
	FILE *f = open_memstream(&out->body, &len);

	if (!f) {
		http_text(out, 500, "out of memory\n");
		return;
	}
	fprintf(f, "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>Culvert</title></head>\n"
		   "<body><h1>Culvert tunnel</h1>\n<table>\n");
	for (unsigned i = 0; i < PAGES; i++)
		if (pages[i].help)
			fprintf(f, "<tr><td><a href=\"%s\">%s</a></td><td>%s</td></tr>\n", pages[i].path + 1,
				pages[i].path + 1, pages[i].help);
	fprintf(f, "</table></body></html>\n");
	if (fclose(f) == 0)
		out->body_len = len;
	out->content_type = "text/html; charset=utf-8";
}

void admin_serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (!strcmp(pages[i].path, rq->path)) {
			pages[i].serve(arg, rq, out);
			return;
		}
	http_text(out, 404, "no such page; / lists them\n");
}
