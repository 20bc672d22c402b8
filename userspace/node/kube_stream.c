/* SPDX-License-Identifier: Apache-2.0 */
/* Takes apart what the API server sends. Bytes may come in any pieces. */
#include "node/kube_stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES_STEP = 8192 };

/* --- lines ---------------------------------------------------------------------------------------------- */

static int keep(struct kube_lines *l, const char *p, size_t n)
{
	if (l->len + n > KUBE_LINE_MAX)
		return -EMSGSIZE;
	if (l->len + n > l->cap) {
		size_t cap = 2 * l->cap > l->len + n ? 2 * l->cap : l->len + n + LINES_STEP;
		char *more = realloc(l->buf, cap);

		if (!more)
			return -ENOMEM;
		l->buf = more;
		l->cap = cap;
	}
	if (n)
		memcpy(l->buf + l->len, p, n);
	l->len += n;
	return 0;
}

/* A long line's room is given back: most are short. */
static void forget(struct kube_lines *l)
{
	l->len = 0;
	if (l->cap <= 4 * LINES_STEP)
		return;
	free(l->buf);
	l->buf = NULL;
	l->cap = 0;
}

int kube_lines_feed(struct kube_lines *l, const char *p, size_t n, void (*line)(void *arg, const char *p, size_t n),
		    void *arg)
{
	const char *end;
	int e = 0;

	l->stop = false;
	while (!e && !l->stop && n && (end = memchr(p, '\n', n))) {
		size_t part = (size_t)(end - p);

		if (!l->len && part <= KUBE_LINE_MAX) {
			if (part)
				line(arg, p, part);
		} else {
			e = keep(l, p, part);
			if (!e)
				line(arg, l->buf, l->len);
			forget(l);
		}
		p = end + 1;
		n -= part + 1;
	}
	return e || l->stop ? e : keep(l, p, n);
}

void kube_lines_free(struct kube_lines *l)
{
	free(l->buf);
	*l = (struct kube_lines){.buf = NULL};
}

/* --- events --------------------------------------------------------------------------------------------- */

static bool version_take(char out[KUBE_VERSION_MAX], const json_t *object)
{
	const char *v = json_string_value(json_object_get(json_object_get(object, "metadata"), "resourceVersion"));

	if (!v || strlen(v) >= KUBE_VERSION_MAX)
		return false;
	for (const char *p = v; *p; p++) /* it goes into a query */
		if (!strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.", *p))
			return false;
	snprintf(out, KUBE_VERSION_MAX, "%s", v);
	return *v != '\0';
}

static json_t *json_parse(const char *text, size_t len, char why[POD_WHY_MAX])
{
	json_error_t error;
	json_t *o = json_loadb(text, len, 0, &error);

	if (!o)
		snprintf(why, POD_WHY_MAX, "the API server sent what is no JSON: %.100s", error.text);
	return o;
}

int kube_event_read(struct kube_event *out, const char *line, size_t len, char why[POD_WHY_MAX])
{
	static const char *const types[] = {"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"};
	json_t *o = json_parse(line, len, why), *object = json_object_get(o, "object");
	const char *type = json_string_value(json_object_get(o, "type")), *said;
	unsigned t = 0;

	if (!o)
		return -EBADMSG;
	while (type && t < sizeof types / sizeof *types && strcmp(type, types[t]) != 0)
		t++;
	if (!type || t == sizeof types / sizeof *types || !json_is_object(object)) {
		snprintf(why, POD_WHY_MAX, "the API server sent an event without a known type and an object");
		json_decref(o);
		return -EBADMSG;
	}
	*out = (struct kube_event){.type = (enum kube_event_type)t};
	if (t == KUBE_ERROR) {
		said = json_string_value(json_object_get(object, "message"));
		out->code = (int)json_integer_value(json_object_get(object, "code"));
		snprintf(why, POD_WHY_MAX, "the API server ended the watch: %.400s", said ? said : "no reason given");
	} else if (!version_take(out->version, object)) {
		snprintf(why, POD_WHY_MAX, "the API server sent an object without a resourceVersion");
		json_decref(o);
		return -EBADMSG;
	} else if (t != KUBE_BOOKMARK) {
		out->object = json_incref(object);
	}
	json_decref(o);
	return 0;
}

/* --- pages ---------------------------------------------------------------------------------------------- */

int kube_page_read(struct kube_page *out, const char *text, size_t len, char why[POD_WHY_MAX])
{
	json_t *o = json_parse(text, len, why);
	const json_t *items = json_object_get(o, "items");
	const char *next = json_string_value(json_object_get(json_object_get(o, "metadata"), "continue"));
	struct kube_page page = {.document = o, .items = items};

	if (!o)
		return -EBADMSG;
	if (!version_take(page.version, o) || (items && !json_is_array(items) && !json_is_null(items)) ||
	    (next && strlen(next) >= KUBE_CONTINUE_MAX)) {
		snprintf(why, POD_WHY_MAX, "the API server sent a list without items and a resourceVersion");
		json_decref(o);
		return -EBADMSG;
	}
	snprintf(page.next, sizeof page.next, "%s", next ? next : "");
	*out = page;
	return 0;
}
