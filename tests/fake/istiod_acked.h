/* SPDX-License-Identifier: Apache-2.0 */
/* What each client of the stand-in has acknowledged, by node: so that a test sees when it is sent something again that it
 * has. Off unless a script asks for it. */
#pragma once
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/istiod_mesh.h"

enum { ACKED_CLIENTS_MAX = 8 };

struct acked_one { /* a resource, or its removal */
	char *name;
	char version[FAKE_VERSION_MAX];
	bool removed, in_doubt; /* in_doubt: another version was on its way when a stream ended */
};

struct acked_list { /* of one response */
	struct acked_list *next;
	char nonce[32];
	struct acked_one *all;
	size_t n, cap;
};

struct acked { /* all clients */
	bool on;
	struct {
		char node[128];
		void *tree; /* struct acked_one by name */
	} client[ACKED_CLIENTS_MAX];
	unsigned again;	 /* resources that a stream began with, though the client had acknowledged them */
	char which[256]; /* the first of them */
};

static inline int acked_order(const void *a, const void *b)
{
	return strcmp(((const struct acked_one *)a)->name, ((const struct acked_one *)b)->name);
}

static inline void acked_note(struct acked_list *l, const char *name, const char *version, bool removed)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 8;
		l->all = realloc(l->all, l->cap * sizeof *l->all);
	}
	l->all[l->n] = (struct acked_one){.name = strdup(name), .removed = removed};
	snprintf(l->all[l->n++].version, FAKE_VERSION_MAX, "%s", version);
}

static inline void acked_list_free(struct acked_list *l)
{
	for (size_t k = 0; k < l->n; k++)
		free(l->all[k].name);
	free(l->all);
	free(l);
}

static inline void **acked_tree(struct acked *a, const char *node)
{
	for (unsigned k = 0; k < ACKED_CLIENTS_MAX; k++) {
		if (!a->client[k].node[0])
			snprintf(a->client[k].node, sizeof a->client[k].node, "%s", node);
		if (!strcmp(a->client[k].node, node))
			return &a->client[k].tree;
	}
	abort();
}

/* The response with this nonce, if it is in `sent`, is the client's from now on. */
static inline void acked_take(struct acked *a, struct acked_list **sent, const char *nonce, const char *node)
{
	struct acked_list *l;

	while (*sent && strcmp((*sent)->nonce, nonce) != 0)
		sent = &(*sent)->next;
	l = *sent;
	if (!l)
		return;
	*sent = l->next;
	for (size_t k = 0; k < l->n; k++) {
		struct acked_one *fresh = malloc(sizeof *fresh), *there;

		*fresh = l->all[k];
		there = *(struct acked_one **)tsearch(fresh, acked_tree(a, node), acked_order);
		if (there == fresh) {
			l->all[k].name = NULL; /* the tree has it */
			continue;
		}
		memcpy(there->version, fresh->version, sizeof there->version);
		there->removed = fresh->removed;
		there->in_doubt = false;
		free(fresh);
	}
	acked_list_free(l);
}

/* The stream has ended: whether the client has these nobody knows. */
static inline void acked_lose(struct acked *a, struct acked_list *l, const char *node)
{
	for (size_t k = 0; k < l->n; k++) {
		struct acked_one **have = tfind(&l->all[k], acked_tree(a, node), acked_order);

		if (have)
			(*have)->in_doubt = true;
	}
	acked_list_free(l);
}

/* A stream is about to begin with this resource. */
static inline void acked_check(struct acked *a, const char *node, const struct fake_resource *r)
{
	const struct acked_one key = {.name = r->name};
	struct acked_one **have = tfind(&key, acked_tree(a, node), acked_order);

	if (!have || (*have)->removed || (*have)->in_doubt || strcmp((*have)->version, r->version) != 0)
		return;
	if (!a->again++)
		snprintf(a->which, sizeof a->which, "%s", r->name);
}

static inline void acked_one_free(void *p)
{
	free(((struct acked_one *)p)->name);
	free(p);
}

static inline void acked_free(struct acked *a)
{
	for (unsigned k = 0; k < ACKED_CLIENTS_MAX; k++)
		tdestroy(a->client[k].tree, acked_one_free);
}
