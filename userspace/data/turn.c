/* SPDX-License-Identifier: Apache-2.0 */
/* Whose handshake is next. OpenSSL takes tens of kilobytes for one. So it begins when the client has said something, and
 * only so many are under way, of all and of each source: who gets stuck in the middle makes room for those who wait.
 * Sources take turns, so that a crowd delays only itself. */
#include "data/server.h"
#include "net/tls.h"

static void turns_go_on(struct task *t);

static void go_on(struct worker *w)
{
	if (!list_empty(&w->sources->turn))
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
	if (!list_empty(&s->pending))
		s->source->n_waiting--;
	list_del(&s->pending);
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
	struct worker *w = container_of(t, struct worker, shaking_timer);

	loop_defer(w->loop, &w->shaking_turn, turns_go_on);
}

static bool has_room(struct worker *w, struct source *source)
{
	if (source->n_shaking >= SOURCE_HANDSHAKES_MAX)
		make_room(w, source);
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

/* Begins the handshakes that wait, as far as there is room, one of each source after the other. */
static void turns_go_on(struct task *t)
{
	struct worker *w = container_of(t, struct worker, shaking_turn);
	bool more = true;

	while (more) {
		struct list now;

		more = false;
		list_init(&now);
		list_move_all(&now, &w->sources->turn);
		while (!list_empty(&now)) {
			struct source *source = list_entry(now.next, struct source, turn);

			list_del(&source->turn);
			list_add_tail(&w->sources->turn, &source->turn);
			if (!has_room(w, source))
				continue;
			turn_take(source);
			more = true;
		}
	}
	if (!list_empty(&w->sources->turn))
		timer_set(w->loop, &w->shaking_timer, SERVER_TURN_MS, turns_tick);
}

void turn_await(struct server *s)
{
	struct list *turn = &s->source->turn;

	list_add(&s->source->queued, &s->turn);
	list_del(turn);
	list_add_tail(&s->w->sources->turn, turn);
	go_on(s->w);
}
