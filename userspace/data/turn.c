/* SPDX-License-Identifier: Apache-2.0 */
/* Whose handshake is next. OpenSSL takes tens of kilobytes for one. So it begins when the client has said enough (hello.c), and
 * only so many are under way, of all and of each source: who gets stuck in the middle makes room for those who wait.
 * Sources take turns, so that a crowd delays only itself.
 *
 * A step of a handshake takes up to a millisecond. A turn of the loop has time for one or a few, the others wait for the
 * next: who talks already is not held up by a crowd whose handshakes all go on at once. Those that go on and those that
 * begin alternate: neither crowd keeps the other waiting. */
#include "base/monotonic.h"
#include "data/server.h"
#include "net/tls.h"

enum { STEPS_NS = 1000000 }; /* of a turn; what has begun is finished */

static void turns_go_on(struct task *t);

static void go_on(struct worker *w)
{
	if (!list_empty(&w->sources->turn) || !list_empty(&w->stepping))
		loop_defer(w->loop, &w->shaking_turn, turns_go_on);
}

void turn_leave(struct server *s)
{
	if (s->tls) {
		s->w->n_shaking--;
		s->source->n_shaking--;
	}
	tls_handshake_free(s->tls);
	s->tls = NULL;
	list_del(&s->turn);
	list_del(&s->step);
	source_waited(s->source, &s->pending);
	if (list_empty(&s->source->queued))
		list_del(&s->source->turn);
	go_on(s->w);
}

void turn_begin(struct server *s)
{
	s->w->n_shaking++;
	s->source->n_shaking++;
	s->began = loop_now(s->w->loop);
	list_add_tail(&s->w->shaking, &s->turn);
}

/* Of `source`, or of all. */
static bool make_room(struct worker *w, const struct source *source)
{
	list_for_each (pos, &w->shaking) {
		struct server *s = list_entry(pos, struct server, turn);

		if (source && s->source != source)
			continue;
		if (loop_now(w->loop) - s->began < SERVER_STUCK_MS)
			return false;
		server_end(s, "too many handshakes at once, and this one is slow");
		return true;
	}
	return false;
}

static void turns_tick(struct timer *t)
{
	go_on(container_of(t, struct worker, shaking_timer));
}

static bool has_room(struct worker *w, struct source *source)
{
	/* Not all at once, and not whenever it can be: who is thrown out comes again. */
	if (source->n_shaking >= SOURCE_HANDSHAKES_MAX && loop_now(w->loop) >= source->place_at && make_room(w, source))
		source->place_at = loop_now(w->loop) + SOURCE_PLACE_MS;
	return source_may_begin(source) && (w->n_shaking < SERVER_HANDSHAKES_MAX || make_room(w, NULL));
}

/* Begins one handshake of the source, its newest: a crowd delays only itself. */
static void turn_take(struct source *source)
{
	struct server *s = list_entry(source->queued.next, struct server, turn);

	list_del(&s->turn);
	if (list_empty(&source->queued))
		list_del(&source->turn);
	server_shake(s); /* which may be the end of its source */
}

/* The next one that has room; it is the last one then. NULL: none of those that wait. */
static struct source *next_source(struct worker *w)
{
	struct list *all = &w->sources->turn;

	list_for_each (pos, all) {
		struct source *source = list_entry(pos, struct source, turn);

		if (!has_room(w, source))
			continue;
		list_del(&source->turn);
		list_add_tail(all, &source->turn);
		return source;
	}
	return NULL;
}

static bool begin_one(struct worker *w)
{
	struct source *source = next_source(w);

	if (source)
		turn_take(source);
	return source;
}

/* The one that has waited longest for it. */
static bool continue_one(struct worker *w)
{
	struct server *s;

	if (list_empty(&w->stepping))
		return false;
	s = list_entry(w->stepping.next, struct server, step);
	list_del(&s->step);
	server_step(s);
	return true;
}

/* False: there is nothing to do. */
static bool step_one(struct worker *w)
{
	w->shaking_begins = !w->shaking_begins;
	return w->shaking_begins ? begin_one(w) || continue_one(w) : continue_one(w) || begin_one(w);
}

static void turns_go_on(struct task *t)
{
	struct worker *w = container_of(t, struct worker, shaking_turn);
	int64_t until = monotonic_ns() + STEPS_NS;
	bool more;

	do
		more = step_one(w);
	while (more && monotonic_ns() < until);
	if (more)
		loop_next_turn(w->loop, &w->shaking_turn, turns_go_on);
	else if (!list_empty(&w->sources->turn)) /* until somebody is stuck */
		timer_set(w->loop, &w->shaking_timer, SERVER_TURN_MS, turns_tick);
}

void turn_step(struct server *s)
{
	if (list_empty(&s->step))
		list_add_tail(&s->w->stepping, &s->step);
	go_on(s->w);
}

void turn_await(struct server *s)
{
	struct list *turn = &s->source->turn;

	list_add(&s->source->queued, &s->turn);
	list_del(turn);
	list_add_tail(&s->w->sources->turn, turn);
	go_on(s->w);
}
