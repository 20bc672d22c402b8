/* SPDX-License-Identifier: Apache-2.0 */
/* Log filters from the admin interface, and lines made of what peers send. A filter that is accepted is written back and
 * accepted again; a line is one line, bounded, valid UTF-8, and in JSON one object. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void fuzz_filter(const char *text)
{
	char once[LOG_SPEC_MAX], twice[LOG_SPEC_MAX];

	if (log_set_filter(text))
		return;
	log_filter(once);
	require(log_set_filter(once) == 0 && strcmp(log_filter(twice), once) == 0);
	log_enabled(LOG_DEBUG, text);
}

static void fuzz_line(const char *text, size_t n)
{
	struct log_line l;
	json_t *o;

	log_begin(&l, LOG_INFO, "fuzz", text);
	log_str(&l, "a", text + n / 2);
	log_bare(&l, "b", text + n / 3);
	log_u64(&l, "n", n);
	log_finish(&l);
	require(l.len <= sizeof l.text && memchr(l.text, '\n', l.len) == l.text + l.len - 1);
	if (!l.json)
		return;
	o = json_loadb(l.text, l.len, 0, NULL);
	require(json_is_object(o));
	json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool json;
	char *text;

	if (!size)
		return 0;
	if (json != (data[0] & 1)) { /* the shape is that of the last log that was started */
		json = !json;
		log_start(json);
		log_stop();
	}
	text = strndup((const char *)data + 1, size - 1);
	if (data[0] & 2)
		fuzz_filter(text);
	else
		fuzz_line(text, strlen(text));
	free(text);
	return 0;
}
