/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the plugin's lines in the keeper's log: its message, the time it had, and what else it says. */
#include "node/cni_log.h"

#include <jansson.h>
#include <string.h>

#include "base/log.h"

static const char target[] = "cni-plugin";

static bool is_ours(const char *key)
{
	return !strcmp(key, "msg") || !strcmp(key, "level");
}

static bool line_take(const char *text)
{
	json_t *o = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL, *v;
	const char *msg = json_string_value(json_object_get(o, "msg")), *key;
	const char *word = json_string_value(json_object_get(o, "level"));
	bool good = msg && word && json_is_string(json_object_get(o, "time"));
	enum log_level level = LOG_INFO;
	struct log_line line;

	good = good && log_level_parse(word, strlen(word), &level) == 0 && level != LOG_OFF;
	if (good && log_enabled(level, target)) {
		log_begin(&line, level, target, msg);
		json_object_foreach(o, key, v) if (!is_ours(key)) log_str(&line, key, json_string_value(v));
		log_end(&line);
	}
	json_decref(o);
	return good;
}

unsigned cni_log_take(const char *body, size_t len)
{
	json_t *list = json_loadb(body, len, 0, NULL);
	unsigned n = 0;

	for (size_t i = 0; i < json_array_size(list) && i < CNI_LOG_LINES_MAX; i++)
		n += line_take(json_string_value(json_array_get(list, i)));
	json_decref(list);
	return n;
}
