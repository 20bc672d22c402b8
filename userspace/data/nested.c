/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an inner tunnel: outer stream answered -> a tunnel's client (client.h) within it -> its one stream has
 * ended -> outer stream ended. A gateway that ends or resets the outer stream cuts the inner TLS short, which resets the
 * application. */
#include "data/nested.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "data/client.h"
#include "data/revoke.h"

enum { NESTED_WHY_MAX = 320 };

struct nested {
	struct list link;
	struct worker *w;
	const struct nested_ops *ops;
	void *owner; /* NULL: it has gone */
	char *self;
	struct leg outer;
	bool outer_open;
	struct client client;
	bool h2_over;
	struct timer timer; /* for the answer; at the end for the outer stream */
	struct task turn;
};

/* --- the end -------------------------------------------------------------------------------------------- */

static struct nested *nested_of(struct client *c)
{
	return container_of(c, struct nested, client);
}

static void nested_free(struct nested *n)
{
	list_del(&n->link);
	timer_cancel(&n->timer);
	task_cancel(&n->turn);
	client_free(&n->client);
	free(n->self);
	free(n);
}

static void outer_late(struct timer *t)
{
	struct nested *n = container_of(t, struct nested, timer);

	leg_kill(&n->outer, NGHTTP2_CANCEL);
	n->outer_open = false;
	nested_free(n);
}

/* Frees what is over: the inner tunnel, then all of it. */
static void settle(struct task *t)
{
	struct nested *n = container_of(t, struct nested, turn);

	if (n->client.h2 && n->h2_over && !h2_streams(n->client.h2)) {
		h2_free(n->client.h2); /* closes its end of the pair: the outer stream ends too */
		n->client.h2 = NULL;
		if (n->outer_open)
			timer_set(n->w->loop, &n->timer, NESTED_LINGER_MS, outer_late);
	}
	if (!n->owner && !n->client.h2 && !n->outer_open)
		nested_free(n);
}

static void settle_soon(struct nested *n)
{
	loop_defer(n->w->loop, &n->turn, settle);
}

/* Before the inner tunnel is up. */
static void abandon(struct nested *n)
{
	n->owner = NULL;
	timer_cancel(&n->timer);
	client_stop(&n->client);
	if (n->outer_open)
		leg_kill(&n->outer, NGHTTP2_CANCEL);
	n->outer_open = false;
	settle_soon(n);
}

static void fail(struct nested *n, enum traffic_flag flag, const char *why, bool refused)
{
	const struct nested_ops *ops = n->ops;
	void *owner = n->owner;

	abandon(n);
	ops->failed(owner, flag, why, refused);
}

void nested_close(struct nested *n)
{
	if (!n)
		return;
	if (!n->client.h2) {
		abandon(n);
		return;
	}
	n->owner = NULL;
	h2_shutdown(n->client.h2, false);
	settle_soon(n);
}

static void cut(struct nested *n)
{
	if (!n->client.h2) {
		if (n->owner)
			fail(n, FLAG_CERT_REVOKED, REVOKED_TEXT, false);
		return;
	}
	h2_cut(n->client.h2);
	if (n->outer_open)
		leg_kill(&n->outer, NGHTTP2_CANCEL);
	n->outer_open = false;
	settle_soon(n);
}

void nested_revoke(struct worker *w)
{
	list_for_each_safe (pos, tmp, &w->nested) {
		struct nested *n = list_entry(pos, struct nested, link);
		const struct h2 *outer = n->outer_open ? n->outer.stream.h2 : NULL;

		if ((outer && h2_is_cut(outer)) ||
		    (n->client.h2 && !h2_is_cut(n->client.h2) && revoke_due(REPORT_SOURCE, n->client.path)))
			cut(n);
	}
}

void nested_free_all(struct worker *w)
{
	while (!list_empty(&w->nested)) {
		struct nested *n = list_entry(w->nested.next, struct nested, link);

		h2_free(n->client.h2);
		n->client.h2 = NULL;
		abandon(n);
		nested_free(n);
	}
}

/* --- the inner tunnel ----------------------------------------------------------------------------------- */

static void on_closed(struct h2 *h, const char *why)
{
	struct nested *n = nested_of(h2_owner(h));

	n->h2_over = true;
	settle_soon(n);
}

static void on_idle(struct h2 *h)
{
	settle_soon(nested_of(h2_owner(h)));
}

static const struct h2_ops h2_ops = {.closed = on_closed, .idle = on_idle};

static void client_up(struct client *c)
{
	struct nested *n = nested_of(c);

	n->ops->up(n->owner, c->h2, c->peer);
}

static void client_failed(struct client *c, enum traffic_flag flag, const char *why)
{
	fail(nested_of(c), flag, why, false);
}

static void client_ready(struct client *c)
{
	struct nested *n = nested_of(c);
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
		fail(n, FLAG_CONNECT, strerror(errno), false);
		return;
	}
	leg_join(&n->outer, pair[1]);
	client_connected(c, pair[0]);
}

static const struct client_ops client_ops = {.h2 = &h2_ops,
					     .where = " beyond the network gateway",
					     .ready = client_ready,
					     .up = client_up,
					     .failed = client_failed};

/* --- the outer stream ----------------------------------------------------------------------------------- */

static void outer_response(void *owner, const struct h2_headers *h)
{
	struct nested *n = owner;
	char why[NESTED_WHY_MAX];

	timer_cancel(&n->timer);
	if (h->status == 200) {
		client_start(&n->client, n->self);
		return;
	}
	snprintf(why, sizeof why, "http status of the network gateway: %d", h->status);
	fail(n, FLAG_CONNECT, why, false);
}

/* What the application says is counted, and tapped, inside. */
static void outer_moved(void *owner, bool from_app, const struct iovec *iov, size_t bytes)
{
}

/* With the inner tunnel up its own end follows: its descriptor was closed just now. */
static void outer_done(void *owner, const char *why, bool refused)
{
	struct nested *n = owner;

	n->outer_open = false;
	if (n->owner && !n->client.h2)
		fail(n, FLAG_CONNECT, why ? why : "the network gateway has closed the stream", refused);
	else
		settle_soon(n);
}

static const struct leg_ops outer_ops = {.moved = outer_moved, .response = outer_response, .done = outer_done};

static void response_late(struct timer *t)
{
	fail(container_of(t, struct nested, timer), FLAG_CONNECT,
	     "no answer to CONNECT from the network gateway in time", false);
}

/* --- the beginning -------------------------------------------------------------------------------------- */

struct nested *nested_new(struct worker *w, const char *self, const struct route_peers *expect,
			  const struct nested_ops *ops, void *owner)
{
	struct nested *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->w = w;
	n->ops = ops;
	n->owner = owner;
	list_add_tail(&w->nested, &n->link);
	n->self = strdup(self);
	if (client_init(&n->client, w, &client_ops, expect) < 0 || !n->self) {
		nested_free(n);
		return NULL;
	}
	return n;
}

int nested_start(struct nested *n, struct h2 *outer, const char *authority, const nghttp2_nv *nv, size_t n_nv)
{
	int e = leg_connect(&n->outer, n->w, outer, authority, nv, n_nv, &outer_ops, n);

	if (e < 0)
		return e;
	n->outer_open = true;
	timer_set(n->w->loop, &n->timer, DATA_RESPONSE_MS, response_late);
	return 0;
}
