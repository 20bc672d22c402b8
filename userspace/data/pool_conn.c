// SPDX-License-Identifier: Apache-2.0
/* Owns the life of one connection of the pool: a tunnel's client (client.h) over TCP, then closing. Whoever asks for a
 * connection that is being made waits in its list; a failure at any step answers them all, and the next one who asks
 * starts anew.
 *
 * A connection without streams is closed after `pool_idle_ms`, or soon when a sibling would do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/limits.h"
#include "data/pool_internal.h"

/* --- the end of a connection ---------------------------------------------------------------------------- */

static struct pool_conn *conn_of(struct client *client)
{
	return container_of(client, struct pool_conn, client);
}

static void conn_free(struct pool_conn *c)
{
	client_free(&c->client);
	rstr_unref(c->self);
	pool_share_put(c->share);
	free(c);
}

static void bury(struct task *t)
{
	conn_free(container_of(t, struct pool_conn, bury));
}

static void answer_all(struct pool_conn *c, struct h2 *h, enum traffic_flag flag, const char *why)
{
	struct list now;

	list_init(&now);
	list_move_all(&now, &c->waiters);
	c->n_waiters = 0;
	while (!list_empty(&now)) {
		struct pool_request *r = list_entry(now.next, struct pool_request, link);

		list_del(&r->link);
		r->fresh = true;
		r->done(r, h, flag, why);
	}
}

void pool_conn_end(struct pool_conn *c, enum traffic_flag flag, const char *why)
{
	struct worker *w = c->pool->w;

	if (c->stage != STAGE_OVER) {
		if (c->stage == STAGE_UP)
			worker_tunnels(w, -1);
		c->stage = STAGE_OVER;
		list_del(&c->link);
		pool_conn_count(c, -1);
		pool_conn_busy(c);
		timer_cancel(&c->timer);
		dial_cancel(&c->dial);
		client_stop(&c->client);
		answer_all(c, NULL, flag, why);
	}
	if (!c->client.h2 || !h2_streams(c->client.h2))
		loop_defer(w->loop, &c->bury, bury);
}

void pool_conn_kill(struct pool_conn *c)
{
	if (c->stage == STAGE_UP)
		h2_free(c->client.h2); /* answers its streams */
	c->client.h2 = NULL;
	pool_conn_end(c, FLAG_CONNECT, "shutting down");
	task_cancel(&c->bury);
	conn_free(c);
}

/* --- HTTP/2 --------------------------------------------------------------------------------------------- */

static void idle_late(struct timer *t)
{
	struct pool_conn *c = container_of(t, struct pool_conn, timer);

	if (!h2_streams(c->client.h2))
		h2_shutdown(c->client.h2, false);
}

static void on_closed(struct h2 *h, const char *why)
{
	pool_conn_end(conn_of(h2_owner(h)), FLAG_H2_FAILURE, why);
}

static void on_idle(struct h2 *h)
{
	struct pool_conn *c = conn_of(h2_owner(h));
	unsigned idle_ms = c->pool->w->o->pool_idle_ms;

	if (c->stage == STAGE_OVER) {
		loop_defer(c->pool->w->loop, &c->bury, bury);
	} else if (c->pool->w->draining) {
		h2_shutdown(h, false);
	} else {
		pool_conn_idle(c);
		timer_set(c->pool->w->loop, &c->timer,
			  idle_ms > POOL_SPARE_MS && pool_has_sibling(c) ? POOL_SPARE_MS : idle_ms, idle_late);
	}
}

static void on_leaving(struct h2 *h)
{
	if (!h2_streams(h))
		h2_shutdown(h, false);
}

static void on_limited(struct h2 *h, enum h2_limit what)
{
	limit_reached(LIMIT_H2 + what);
}

static const struct h2_ops h2_ops = {
	.closed = on_closed, .leaving = on_leaving, .idle = on_idle, .limited = on_limited};

/* --- the steps up to there ------------------------------------------------------------------------------ */

static void client_up(struct client *client)
{
	struct pool_conn *c = conn_of(client);

	c->stage = STAGE_UP;
	worker_tunnels(c->pool->w, 1);
	answer_all(c, client->h2, FLAG_NONE, NULL);
	if (!h2_streams(client->h2)) /* who asked has gone */
		on_idle(client->h2);
}

static void dialled(struct dial *d, int fd, int err)
{
	struct pool_conn *c = container_of(d, struct pool_conn, dial);
	char why[POOL_WHY_MAX];

	if (fd < 0) {
		if (err == -ETIMEDOUT)
			pool_conn_end(c, FLAG_NETWORK_POLICY,
				      "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008");
		else {
			snprintf(why, sizeof why, "connect to the next hop: %s", strerror(-err));
			pool_conn_end(c, FLAG_CONNECT, why);
		}
		return;
	}
	client_connected(&c->client, fd);
}

static void client_ready(struct client *client)
{
	struct pool_conn *c = conn_of(client);
	char why[POOL_WHY_MAX];
	int e = dial_start(&c->dial, c->pool->w, c->share->pod, &c->to, dialled);

	if (e < 0) {
		snprintf(why, sizeof why, "connect to the next hop: %s", strerror(-e));
		pool_conn_end(c, FLAG_CONNECT, why);
	}
}

static void client_failed(struct client *client, enum traffic_flag flag, const char *why)
{
	pool_conn_end(conn_of(client), flag, why);
}

const struct client_ops pool_client_ops = {
	.h2 = &h2_ops, .where = "", .offload = true, .ready = client_ready, .up = client_up, .failed = client_failed};
