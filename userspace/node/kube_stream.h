/* SPDX-License-Identifier: Apache-2.0 */
/* What a list and a watch of the API server say: pages, and lines with one event each. No I/O. */
#pragma once
#include <jansson.h>

#include "node/kube_object.h"

enum {
	KUBE_LINE_MAX = 4 << 20,  /* etcd takes objects of 1.5 MiB; managed fields and an envelope come on top */
	KUBE_PAGE_MAX = 64 << 20, /* a server that serves from its cache ignores that we ask for pages */
	KUBE_CONTINUE_MAX = 1024, /* three bytes for each in a path */
};

/* --- lines ---------------------------------------------------------------------------------------------- */

struct kube_lines { /* zero-initialised: empty */
	char *buf;
	size_t len, cap;
	bool stop; /* set by `line`: the rest is not wanted any more */
};
/* Calls `line` for each that is complete, without its end. 0; -EMSGSIZE for a line longer than KUBE_LINE_MAX,
 * -ENOMEM. */
int kube_lines_feed(struct kube_lines *l, const char *p, size_t n, void (*line)(void *arg, const char *p, size_t n),
		    void *arg);
static inline bool kube_lines_waiting(const struct kube_lines *l) /* part of a line is there */
{
	return l->len > 0;
}
void kube_lines_free(struct kube_lines *l);

/* --- events --------------------------------------------------------------------------------------------- */

enum kube_event_type { KUBE_ADDED, KUBE_MODIFIED, KUBE_DELETED, KUBE_BOOKMARK, KUBE_ERROR };

struct kube_event {
	enum kube_event_type type;
	json_t *object;			/* the caller's reference; not with BOOKMARK and ERROR */
	char version[KUBE_VERSION_MAX]; /* the object's; "" with ERROR */
	int code;			/* of an ERROR, as an HTTP status */
};
/* -EBADMSG, with one line in `why`: the stream cannot be trusted any more. With ERROR `why` is its message. */
int kube_event_read(struct kube_event *out, const char *line, size_t len, char why[POD_WHY_MAX]);

/* --- pages ---------------------------------------------------------------------------------------------- */

struct kube_page {
	json_t *document; /* the caller's reference, which owns the items */
	const json_t *items;
	char version[KUBE_VERSION_MAX], next[KUBE_CONTINUE_MAX]; /* "" next: the last page */
};
int kube_page_read(struct kube_page *out, const char *text, size_t len, char why[POD_WHY_MAX]);
