// SPDX-License-Identifier: Apache-2.0
/* The cursor over one document. libyaml gets its input by a callback, so that a large file is never in memory as a
 * whole. */
#include "control/local_doc.h"

#include <stdarg.h>
#include <string.h>

size_t doc_line(const struct doc *d)
{
	return d->at_event ? d->event.start_mark.line + 1 : 1;
}

static int fail_at(struct doc *d, size_t line, const char *fmt, va_list ap)
{
	size_t n;

	if (d->error)
		return d->error;
	d->error = -EINVAL;
	n = (size_t)snprintf(d->why, LOCAL_REASON_MAX, "%s:%zu: ", d->name, line);
	if (n >= LOCAL_REASON_MAX)
		return d->error;
	vsnprintf(d->why + n, LOCAL_REASON_MAX - n, fmt, ap);
	for (char *p = d->why; *p; p++) /* it is one line, whatever the document has in its texts */
		if ((unsigned char)*p < ' ')
			*p = ' ';
	return d->error;
}

int doc_fail_at(struct doc *d, size_t line, const char *fmt, ...)
{
	va_list ap;
	int e;

	va_start(ap, fmt);
	e = fail_at(d, line, fmt, ap);
	va_end(ap);
	return e;
}

int doc_fail(struct doc *d, const char *fmt, ...)
{
	va_list ap;
	int e;

	va_start(ap, fmt);
	e = fail_at(d, doc_line(d), fmt, ap);
	va_end(ap);
	return e;
}

int doc_no_memory(struct doc *d)
{
	doc_fail(d, "out of memory");
	return d->error = -ENOMEM;
}

/* --- input ---------------------------------------------------------------------------------------------- */

static int input(void *arg, unsigned char *buf, size_t size, size_t *got)
{
	struct doc *d = arg;

	*got = (size_t)(d->end - d->text);
	if (d->file)
		*got = fread(buf, 1, size, d->file);
	else
		memcpy(buf, d->text, *got = *got < size ? *got : size);
	d->text += d->file ? 0 : *got;
	d->size += *got;
	if (d->file && ferror(d->file)) {
		d->error = -EIO;
		snprintf(d->why, LOCAL_REASON_MAX, "%s: cannot be read: %s", d->name, strerror(errno));
		return 0;
	}
	if (d->size > LOCAL_FILE_MAX) {
		doc_fail(d, "more than %d MiB", LOCAL_FILE_MAX >> 20);
		return 0;
	}
	return 1;
}

static int parser_failed(struct doc *d)
{
	const yaml_parser_t *p = &d->parser;

	if (d->error)
		return d->error;
	if (p->error == YAML_MEMORY_ERROR)
		return doc_no_memory(d);
	d->at_event = true;
	d->event.start_mark.line = p->problem_mark.line;
	return doc_fail(d, "not YAML: %s%s%s", p->problem ? p->problem : "unreadable", p->context ? ", " : "",
			p->context ? p->context : "");
}

/* --- moving --------------------------------------------------------------------------------------------- */

bool doc_next(struct doc *d)
{
	if (d->error)
		return false;
	if (d->at_event)
		yaml_event_delete(&d->event);
	d->at_event = false;
	if (!yaml_parser_parse(&d->parser, &d->event)) {
		parser_failed(d);
		return false;
	}
	d->at_event = true;
	switch (d->event.type) {
	case YAML_ALIAS_EVENT:
		doc_fail(d, "*%s: aliases are not supported; write the value out", d->event.data.alias.anchor);
		break;
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		if (++d->depth > LOCAL_DEPTH_MAX)
			doc_fail(d, "more than %d levels deep", LOCAL_DEPTH_MAX);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		d->depth--;
		break;
	default:
		break;
	}
	return !d->error;
}

int doc_open(struct doc *d, const char *name, FILE *file, const char *text, size_t len, char *why)
{
	memset(d, 0, sizeof *d);
	d->name = name;
	d->file = file;
	d->text = text;
	d->end = text + len;
	d->why = why;
	if (!yaml_parser_initialize(&d->parser))
		return doc_no_memory(d);
	yaml_parser_set_input(&d->parser, input, d);
	yaml_parser_set_encoding(&d->parser, YAML_UTF8_ENCODING);
	if (!doc_next(d) || !doc_next(d)) /* the stream, the document */
		return d->error;
	if (d->event.type == YAML_STREAM_END_EVENT)
		return doc_fail(d, "the document is empty; a mesh without anything is \"{}\"");
	return doc_next(d) ? 0 : d->error;
}

void doc_close(struct doc *d)
{
	if (d->at_event)
		yaml_event_delete(&d->event);
	yaml_parser_delete(&d->parser);
}

void doc_finish(struct doc *d)
{
	if (doc_next(d) && doc_next(d) && d->event.type != YAML_STREAM_END_EVENT)
		doc_fail(d, "a second document; there must be one");
}

const char *doc_tag(const struct doc *d)
{
	const char *tag = NULL;

	if (d->event.type == YAML_SCALAR_EVENT)
		tag = (const char *)d->event.data.scalar.tag;
	else if (d->event.type == YAML_SEQUENCE_START_EVENT)
		tag = (const char *)d->event.data.sequence_start.tag;
	else if (d->event.type == YAML_MAPPING_START_EVENT)
		tag = (const char *)d->event.data.mapping_start.tag;
	return tag && strncmp(tag, "tag:yaml.org,2002:", 18) ? tag : NULL;
}

static bool at(struct doc *d, yaml_event_type_t type, const char *what, const char *kind)
{
	if (d->error)
		return false;
	if (d->event.type != type)
		doc_fail(d, "%s must be a %s", what, kind);
	else if (doc_tag(d))
		doc_fail(d, "%s: the tag %s means nothing here", what, doc_tag(d));
	return !d->error;
}

bool doc_map(struct doc *d, const char *what)
{
	return at(d, YAML_MAPPING_START_EVENT, what, "map");
}

bool doc_list(struct doc *d, const char *what)
{
	return at(d, YAML_SEQUENCE_START_EVENT, what, "list");
}

bool doc_key(struct doc *d)
{
	if (!doc_next(d) || d->event.type == YAML_MAPPING_END_EVENT)
		return false;
	if (d->event.type != YAML_SCALAR_EVENT)
		doc_fail(d, "a key must be plain text");
	return !d->error;
}

bool doc_item(struct doc *d)
{
	return doc_next(d) && d->event.type != YAML_SEQUENCE_END_EVENT;
}

void doc_skip(struct doc *d)
{
	unsigned outside = d->depth - 1;

	if (d->error || d->event.type == YAML_SCALAR_EVENT)
		return;
	while (d->depth > outside && doc_next(d))
		;
}
