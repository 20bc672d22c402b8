// SPDX-License-Identifier: Apache-2.0
/* Owns what of istiod's cannot be taken at present, for people to see: a line for each resource, until a good one of its name
 * comes, or its removal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/xds_internal.h"

struct refusal {
	struct list link;
	enum xds_type type;
	bool closed;
	char name[XDS_REFUSED_NAME_MAX], line[XDS_LINE_MAX];
};

static void drop(struct xds_refused *r, struct refusal *one)
{
	list_del(&one->link);
	free(one);
	r->n--;
}

static struct refusal *find(const struct xds_refused *r, enum xds_type type, const char *name)
{
	list_for_each (p, &r->all) {
		struct refusal *one = list_entry(p, struct refusal, link);

		if (one->type == type && !strncmp(one->name, name, sizeof one->name - 1))
			return one;
	}
	return NULL;
}

void xds_refused_init(struct xds_refused *r)
{
	list_init(&r->all);
	r->n = 0;
}

void xds_refused_clear(struct xds_refused *r)
{
	while (!list_empty(&r->all))
		drop(r, list_entry(r->all.next, struct refusal, link));
}

void xds_refused_judged(struct xds_refused *r, enum xds_type type, const char *name, const char *line, bool closed)
{
	struct refusal *one = r->n ? find(r, type, name) : NULL;

	if (one)
		drop(r, one);
	one = line ? calloc(1, sizeof *one) : NULL;
	if (!one)
		return;
	if (r->n == XDS_REFUSED_MAX)
		drop(r, list_entry(r->all.next, struct refusal, link));
	one->type = type;
	one->closed = closed;
	snprintf(one->name, sizeof one->name, "%s", name);
	snprintf(one->line, sizeof one->line, "%s", line);
	list_add_tail(&r->all, &one->link);
	r->n++;
}

void xds_refused_restart(struct xds_refused *r, unsigned whole)
{
	list_for_each_safe (p, tmp, &r->all) {
		struct refusal *one = list_entry(p, struct refusal, link);

		if (!one->closed || whole >> one->type & 1)
			drop(r, one);
	}
}

unsigned xds_refused_say(const struct xds_refused *r, char out[XDS_WHY_MAX])
{
	unsigned closed = 0, unsaid = 0;
	size_t at = 0;

	*out = '\0';
	list_for_each (p, &r->all) {
		const struct refusal *one = list_entry(p, struct refusal, link);
		size_t len = strlen(one->line);

		closed += one->closed;
		if (at + len + sizeof "; ; and 99 more" > XDS_WHY_MAX)
			unsaid++;
		else
			at += (size_t)snprintf(out + at, XDS_WHY_MAX - at, "%s%s", at ? "; " : "", one->line);
	}
	if (unsaid)
		snprintf(out + at, XDS_WHY_MAX - at, "; and %u more", unsaid);
	return closed;
}
