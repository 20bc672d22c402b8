/* SPDX-License-Identifier: Apache-2.0 */
/* Owns how culvertctl sets answers in type: aligned tables, headings in bold on a terminal, fields as text. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "culvertctl.h"

/* --- tables --------------------------------------------------------------------------------------------- */

void table_add(struct table *t, const char *text)
{
	size_t len = strlen(text);

	if (t->n == t->cap) {
		unsigned cap = t->cap ? 2 * t->cap : 64;
		char **cell = realloc(t->cell, cap * sizeof *cell);

		if (!cell)
			abort();
		t->cell = cell;
		t->cap = cap;
	}
	if (len > t->width[t->n % t->columns])
		t->width[t->n % t->columns] = len;
	t->cell[t->n++] = strdup(*text ? text : "-");
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char text[CELL_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	table_add(t, text);
}

struct table table_begin(unsigned columns, const char *const *headings)
{
	struct table t = {.columns = columns};

	for (unsigned i = 0; i < columns; i++)
		table_add(&t, headings[i]);
	return t;
}

void table_end(struct table *t, const char *none)
{
	bool bold = isatty(STDOUT_FILENO);

	if (t->n <= t->columns)
		printf("%s\n", none);
	for (unsigned i = 0; i < t->n; i++) {
		unsigned c = i % t->columns;

		if (t->n > t->columns)
			printf("%s%-*s%s%s", bold && i < t->columns ? "\033[1m" : "",
			       c + 1 < t->columns ? (int)t->width[c] : 0, t->cell[i],
			       bold && i < t->columns ? "\033[0m" : "", c + 1 < t->columns ? "  " : "\n");
		free(t->cell[i]);
	}
	free(t->cell);
}

/* --- fields --------------------------------------------------------------------------------------------- */

const char *text_of(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

long long number_of(json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

bool flag_of(json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

const char *joined(json_t *list, const char *key, char buf[CELL_MAX])
{
	size_t len = 0, i;
	json_t *v;

	buf[0] = '\0';
	json_array_foreach(list, i, v)
	{
		const char *s = key ? text_of(v, key) : json_string_value(v);
		int n = snprintf(buf + len, CELL_MAX - len, "%s%s", len ? "," : "", s ? s : "");

		if (n < 0 || len + (size_t)n >= CELL_MAX)
			break;
		len += (size_t)n;
	}
	return buf;
}

const char *duration(long long s, char buf[32])
{
	if (s < 120)
		snprintf(buf, 32, "%lld s", s);
	else if (s < 7200)
		snprintf(buf, 32, "%lld min", s / 60);
	else
		snprintf(buf, 32, "%lld h", s / 3600);
	return buf;
}
