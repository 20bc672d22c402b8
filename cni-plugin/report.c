/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the plugin's log lines. */
#include "report.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

static const char *const words[] = {"debug", "info", "warn", "error"};

static enum report_level threshold = REPORT_INFO;
static const char *container = "";
static json_t *lines;

void report_setup(const char *level, const char *about)
{
	container = about;
	if (!strcmp(level, "none") || !strcmp(level, "fatal"))
		threshold = REPORT_NONE;
	for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(level, words[i]))
			threshold = (enum report_level)i;
}

void report(enum report_level level, const char *fmt, ...)
{
	time_t now = time(NULL);
	char msg[FAILURE_MAX], at[32];
	struct tm tm;
	va_list ap;
	json_t *o;
	char *text;

	if (level < threshold)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof msg, fmt, ap);
	va_end(ap);
	strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	o = json_pack("{ss ss ss ss}", "level", words[level], "time", at, "msg", msg, "container", container);
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	if (text) {
		fprintf(stderr, "%s\n", text);
		if (!lines)
			lines = json_array();
		if (json_array_size(lines) < REPORT_LINES_MAX)
			json_array_append_new(lines, json_string(text));
	}
	free(text);
	json_decref(o);
}

void report_flush(const char *socket)
{
	const char *slash = strrchr(socket, '/');
	char path[CONF_PATH_MAX + 16];
	struct agent_answer ignored;
	char *body;

	if (!json_array_size(lines) || !slash)
		return;
	snprintf(path, sizeof path, "%.*s/log.sock", (int)(slash - socket), socket);
	body = json_dumps(lines, JSON_COMPACT);
	if (body && access(path, F_OK) == 0)
		agent_call(path, "/log", body, now_ms() + REPORT_FLUSH_MS, &ignored);
	free(body);
	json_decref(lines);
	lines = NULL;
}
