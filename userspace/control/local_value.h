/* SPDX-License-Identifier: Apache-2.0 */
/* The value under a document's cursor: scalars, and objects whose keys are described by tables. What is not as it must be
 * is the document's error. Private to control/local*.c. */
#pragma once
#include "control/local_doc.h"

static inline bool doc_is_scalar(const struct doc *d)
{
	return !d->error && d->event.type == YAML_SCALAR_EVENT;
}
struct doc_text {
	const char *s; /* terminated; good until the cursor moves */
	size_t len;
};
/* A scalar's text, with any tag; "" and an error if it is none. */
struct doc_text doc_scalar(struct doc *d, const char *what);
/* The same without a tag. */
struct doc_text doc_text(struct doc *d, const char *what);
/* null, ~ or nothing at all. */
bool doc_is_null(const struct doc *d);
uint32_t doc_number(struct doc *d, const char *what, uint32_t max);
bool doc_bool(struct doc *d, const char *what);
struct doc_word {
	const char *name;
	int value;
};
/* An enum's value by name. */
int doc_word(struct doc *d, const char *what, const struct doc_word *words);

/* --- objects -------------------------------------------------------------------------------------------- */

struct doc_field {
	const char *name;
	/* Reads the value under the cursor. `object` as given to doc_object(). */
	void (*read)(struct doc *d, const struct doc_field *f, void *object);
	size_t at; /* for `read`: offset of the result */
	const struct doc_word *words;
	bool required;
};
enum { DOC_FIELDS_MAX = 32 };

/* A map with these keys and no others, each at most once; a null value counts as absent. `fields` ends with a nameless
 * one; give them in the usual order, which makes them quick to find. */
void doc_object(struct doc *d, const char *what, const struct doc_field *fields, void *object);
