/* SPDX-License-Identifier: Apache-2.0 */
/* One YAML (or JSON) document, read front to back without a tree: a cursor over libyaml's events. The first error ends the
 * reading: every function, of local_value.h as well, then does nothing, so callers check once, at the end. Private to
 * control/local*.c. */
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <yaml.h>

#include "control/local.h"

struct doc {
	yaml_parser_t parser;
	yaml_event_t event; /* where the cursor is */
	bool at_event;
	unsigned depth;
	const char *name;
	const char *text, *end; /* with `file` NULL: what is left */
	FILE *file;
	size_t size; /* bytes so far */
	int error;   /* -errno, or 0 */
	char *why;   /* LOCAL_REASON_MAX */
};

/* Puts the cursor on the root. 0 or -errno. doc_close() is owed in any case. */
int doc_open(struct doc *d, const char *name, FILE *file, const char *text, size_t len, char *why);
void doc_close(struct doc *d);
/* After the root: checks that nothing follows. */
void doc_finish(struct doc *d);
/* The first error counts. Returns -errno. */
int doc_fail(struct doc *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same about a line that has been read before, as doc_line() told it. */
int doc_fail_at(struct doc *d, size_t line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
size_t doc_line(const struct doc *d);
int doc_no_memory(struct doc *d);

/* --- moving --------------------------------------------------------------------------------------------- */

/* To the next event; false after an error. */
bool doc_next(struct doc *d);
/* Is the cursor at the start of a map or a list? If not that is an error, with `what` in its line. */
bool doc_map(struct doc *d, const char *what);
bool doc_list(struct doc *d, const char *what);
/* To the next key of the map, or the next item of the list, that the cursor is in; false at its end. The item before
 * must have been read whole. After doc_key() the cursor is on the key; doc_next() leads to its value. */
bool doc_key(struct doc *d);
bool doc_item(struct doc *d);
/* To the end of the node that the cursor is on. */
void doc_skip(struct doc *d);
/* The node's own tag ("!Exact"), or NULL. */
const char *doc_tag(const struct doc *d);
