/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the states of a list and watch. */
#include "node/kube_watch.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"

static const char target[] = "kube";

struct kube_watch {
	struct loop *loop;
	struct kube_api *api;
	struct kube_watch_options o;
	struct kube_watch_handler h;
	struct kube_call *call;
	struct timer pause, piece;
	struct kube_lines lines;
	char version[KUBE_VERSION_MAX]; /* "": list */
	char next[KUBE_CONTINUE_MAX];	/* of the list that is under way */
	bool listing, forgotten;
	unsigned failed; /* in a row */
	uint64_t began_ms, events;
	struct kube_watch_status status;
	char trouble[POD_WHY_MAX];
};

static void step(struct kube_watch *w);

unsigned kube_pause_ms(unsigned failures, unsigned min_ms, unsigned max_ms)
{
	unsigned ms = min_ms, r = 0;

	while (--failures && ms < max_ms)
		ms *= 2;
	ms = ms < max_ms ? ms : max_ms;
	if (getrandom(&r, sizeof r, GRND_NONBLOCK) < 0)
		r = 0;
	return ms / 2 + r % (ms + 1);
}

/* --- failures ------------------------------------------------------------------------------------------- */

static void pause_over(struct timer *t)
{
	step(container_of(t, struct kube_watch, pause));
}

static void works(struct kube_watch *w)
{
	if (w->trouble[0])
		log_info(target, "%s: the API server answers again", w->o.name);
	w->trouble[0] = '\0';
	w->failed = 0;
}

/* The same line is not written twice in a row. */
static void fails(struct kube_watch *w, const char *why, unsigned after_ms)
{
	unsigned ms = kube_pause_ms(++w->failed, KUBE_PAUSE_MIN_MS, KUBE_PAUSE_MAX_MS);

	if (strcmp(w->trouble, why) != 0)
		log_warn(target, "%s: %s; trying again", w->o.name, why);
	snprintf(w->trouble, sizeof w->trouble, "%s", why);
	w->status.failures++;
	after_ms = after_ms < KUBE_RETRY_AFTER_MS ? after_ms : KUBE_RETRY_AFTER_MS;
	timer_set(w->loop, &w->pause, ms > after_ms ? ms : after_ms, pause_over);
}

static void list_anew(struct kube_watch *w)
{
	w->version[0] = w->next[0] = '\0';
	w->listing = false;
}

static void failed(struct kube_watch *w, const struct kube_reply *r)
{
	if (r->status == 410) {
		w->forgotten = true;
		list_anew(w);
	}
	fails(w, r->why, r->retry_after_ms);
}

/* --- the list ------------------------------------------------------------------------------------------- */

static void page_take(struct kube_watch *w, const struct kube_page *page)
{
	size_t i;
	json_t *o;

	json_array_foreach(page->items, i, o) w->h.put(w->h.arg, o);
	snprintf(w->next, sizeof w->next, "%s", page->next);
	if (w->next[0])
		return;
	snprintf(w->version, sizeof w->version, "%s", page->version);
	w->listing = false;
	w->status.listed = true;
	w->status.lists++;
	log_debug(target, "%s: listed, version %s", w->o.name, w->version);
	w->h.end(w->h.arg);
}

static void page_came(void *arg, const struct kube_reply *r)
{
	struct kube_watch *w = arg;
	char why[POD_WHY_MAX];
	struct kube_page page;

	w->call = NULL;
	if (r->err || r->status != 200) {
		failed(w, r);
		return;
	}
	if (kube_page_read(&page, r->body, r->len, why) < 0) {
		list_anew(w);
		fails(w, why, 0);
		return;
	}
	works(w);
	page_take(w, &page);
	json_decref(page.document);
	malloc_trim(0); /* a list is the largest thing that the keeper ever holds */
	step(w);
}

/* --- the watch ------------------------------------------------------------------------------------------ */

static void break_off(struct kube_watch *w, const char *why)
{
	kube_call_cancel(w->call);
	w->call = NULL;
	timer_cancel(&w->piece);
	w->lines.stop = true;
	w->lines.len = 0;
	fails(w, why, 0);
}

static void line_came(void *arg, const char *p, size_t n)
{
	struct kube_watch *w = arg;
	char why[POD_WHY_MAX];
	struct kube_event ev;

	if (kube_event_read(&ev, p, n, why) < 0) {
		list_anew(w);
		break_off(w, why);
		return;
	}
	if (ev.type == KUBE_ERROR) {
		/* Of what a server cannot do just now the version is still good; else it may not be. */
		if (ev.code != 429 && ev.code / 100 != 5)
			list_anew(w);
		w->forgotten |= ev.code == 410;
		break_off(w, why);
		return;
	}
	works(w);
	w->events++;
	snprintf(w->version, sizeof w->version, "%s", ev.version);
	if (ev.type == KUBE_DELETED)
		w->h.del(w->h.arg, ev.object);
	else if (ev.type != KUBE_BOOKMARK)
		w->h.put(w->h.arg, ev.object);
	json_decref(ev.object);
}

static void piece_over(struct timer *t)
{
	break_off(container_of(t, struct kube_watch, piece), "an event began and did not end in time");
}

static void bytes_came(void *arg, const char *p, size_t n)
{
	struct kube_watch *w = arg;
	uint64_t before = w->events;
	int e = kube_lines_feed(&w->lines, p, n, line_came, w);

	if (!w->call)
		return;
	if (e) {
		list_anew(w);
		break_off(w, e == -EMSGSIZE ? "the API server sent an event that is too large" : "out of memory");
		return;
	}
	if (!kube_lines_waiting(&w->lines))
		timer_cancel(&w->piece);
	else if (before != w->events || !timer_armed(&w->piece))
		timer_set(w->loop, &w->piece, KUBE_PIECE_MS, piece_over);
}

static void watch_ended(void *arg, const struct kube_reply *r)
{
	struct kube_watch *w = arg;
	bool soon = !w->events && loop_now(w->loop) - w->began_ms < KUBE_SHORT_MS;

	w->call = NULL;
	timer_cancel(&w->piece);
	w->lines.len = 0;
	/* Silence alone is no failure: a server without bookmarks has nothing to say. */
	if (r->status == 200 && (r->err ? r->err == -ETIMEDOUT : !soon)) {
		works(w);
		step(w);
	} else if (!r->err && r->status == 200) {
		fails(w, "the API server ends the watch at once", 0);
	} else if (w->events && r->err) { /* it worked for a while: no reason to wait long */
		works(w);
		fails(w, r->why, 0);
	} else {
		failed(w, r);
	}
}

/* --- requests ------------------------------------------------------------------------------------------- */

static int list_path(struct kube_watch *w, char path[KUBE_PATH_MAX])
{
	bool cached = w->o.cached && !w->forgotten && !w->next[0];
	int n = snprintf(path, KUBE_PATH_MAX, "%s?%s%slimit=%d%s%s", w->o.path, w->o.query, w->o.query[0] ? "&" : "",
			 KUBE_PAGE_ITEMS, cached ? "&resourceVersion=0" : "", w->next[0] ? "&continue=" : "");

	return kube_escape(path + n, KUBE_PATH_MAX - (size_t)n, w->next);
}

static void begin_list(struct kube_watch *w, struct kube_request *rq, char path[KUBE_PATH_MAX])
{
	if (!w->listing)
		w->h.begin(w->h.arg);
	w->listing = true;
	rq->body_max = KUBE_PAGE_MAX;
	rq->deadline_ms = KUBE_LIST_MS;
	rq->done = page_came;
	if (list_path(w, path) < 0)
		path[0] = '\0';
}

static void begin_watch(struct kube_watch *w, struct kube_request *rq, char path[KUBE_PATH_MAX])
{
	snprintf(path, KUBE_PATH_MAX, "%s?%s%swatch=1&allowWatchBookmarks=true&timeoutSeconds=%d&resourceVersion=%s",
		 w->o.path, w->o.query, w->o.query[0] ? "&" : "", KUBE_WATCH_S, w->version);
	rq->body_max = KUBE_LINE_MAX;
	rq->silence_ms = w->o.silence_ms;
	rq->bytes = bytes_came;
	rq->done = watch_ended;
	w->began_ms = loop_now(w->loop);
	w->events = 0;
	w->forgotten = false;
}

/* Asks for what comes next. */
static void step(struct kube_watch *w)
{
	char path[KUBE_PATH_MAX], why[POD_WHY_MAX];
	struct kube_request rq = {.method = "GET", .path = path, .arg = w};

	if (w->version[0])
		begin_watch(w, &rq, path);
	else
		begin_list(w, &rq, path);
	if (kube_call_new(&w->call, w->api, &rq, why) < 0) {
		w->call = NULL;
		fails(w, why, 0);
	}
}

struct kube_watch *kube_watch_new(struct loop *l, struct kube_api *a, const struct kube_watch_options *o,
				  const struct kube_watch_handler *h)
{
	struct kube_watch *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->loop = l;
	w->api = a;
	w->o = *o;
	w->h = *h;
	step(w);
	return w;
}

void kube_watch_free(struct kube_watch *w)
{
	if (!w)
		return;
	kube_call_cancel(w->call);
	timer_cancel(&w->pause);
	timer_cancel(&w->piece);
	kube_lines_free(&w->lines);
	free(w);
}

void kube_watch_status(const struct kube_watch *w, struct kube_watch_status *out)
{
	*out = w->status;
	out->watching = w->version[0] && kube_call_is_open(w->call);
	out->trouble = out->watching ? "" : w->trouble;
}
