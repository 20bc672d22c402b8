/* SPDX-License-Identifier: Apache-2.0 */
/* Follows one kind of object: a complete list, then changes as they come; for ever, whatever happens to the API server.
 *
 *   LISTING  page after page; `begin` before the first, `end` after the last
 *   WATCHING from the list's version on; what ends by itself is opened anew from the last version that was heard of
 *   PAUSED   after a failure, with growing pauses; then whichever of the two it was
 *
 * A version that the server has forgotten (410) means a new list: objects that it lacks are gone. A token that is refused
 * (401) is a failure like others: each request reads the token anew. */
#pragma once
#include "node/kube_api.h"
#include "node/kube_stream.h"

enum {
	KUBE_PAGE_ITEMS = 100,
	KUBE_LIST_MS = 30000,	 /* for a page */
	KUBE_WATCH_S = 290,	 /* the server is asked to end a watch after this */
	KUBE_PIECE_MS = 30000,	 /* for a line, once it has begun */
	KUBE_PAUSE_MIN_MS = 200, /* doubles with each failure in a row, give or take half */
	KUBE_PAUSE_MAX_MS = 10000,
	KUBE_RETRY_AFTER_MS = 60000, /* longest pause that a server may ask for */
	KUBE_SHORT_MS = 1000,	     /* a watch that ends before this without an event counts as a failure */
};

struct kube_watch_handler {
	void (*begin)(void *arg);
	void (*put)(void *arg, const json_t *object); /* listed, added or changed */
	void (*del)(void *arg, const json_t *object);
	void (*end)(void *arg);
	void *arg;
};

struct kube_watch_options {
	const char *name;    /* for the log: "pods" */
	const char *path;    /* /api/v1/pods */
	const char *query;   /* "fieldSelector=...", encoded; "" */
	bool cached;	     /* the first list may come from the server's cache, which is cheap for it */
	unsigned silence_ms; /* a watch without a byte for so long is opened anew */
};

struct kube_watch;
/* Begins at once. Texts must live as long. NULL: no memory. */
struct kube_watch *kube_watch_new(struct loop *l, struct kube_api *a, const struct kube_watch_options *o,
				  const struct kube_watch_handler *h);
void kube_watch_free(struct kube_watch *w); /* takes NULL */

struct kube_watch_status {
	bool listed;   /* a list was complete once */
	bool watching; /* now */
	uint64_t lists, failures;
	const char *trouble; /* the last failure, until something works again; "" */
};
void kube_watch_status(const struct kube_watch *w, struct kube_watch_status *out);
/* A pause with jitter, for the nth failure in a row (from 1). */
unsigned kube_pause_ms(unsigned failures, unsigned min_ms, unsigned max_ms);
