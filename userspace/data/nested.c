/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an inner tunnel: outer stream answered -> credential -> TLS -> HTTP/2 -> its one stream has ended -> outer
 * stream ended. A gateway that ends or resets the outer stream cuts the inner TLS short, which resets the application. */
#include "data/nested.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "data/certs.h"
#include "data/revoke.h"
#include "net/tls.h"

enum { NESTED_WHY_MAX = 320 };

struct nested {
	struct list link;
	struct worker *w;
	const struct nested_ops *ops;
	void *owner; /* NULL: it has gone */
	char *self, *expect[ROUTE_SANS_MAX];
	unsigned n_expect;
	struct leg outer;
	bool outer_open;
	struct cert_request *cert;
	struct tls_id *id;
	struct io io; /* the inner end of the pair, until the record has it */
	struct tls_handshake *tls;
	struct rstr *peer;
	struct crl_path *path; /* of the peer; or NULL */
	struct h2 *h2;
	bool h2_over;
	struct timer timer; /* for the answer, the handshake; at the end for the outer stream */
	struct task turn;
};

/* --- the end -------------------------------------------------------------------------------------------- */

static void nested_free(struct nested *n)
{
	list_del(&n->link);
	timer_cancel(&n->timer);
	task_cancel(&n->turn);
	for (unsigned i = 0; i < n->n_expect; i++)
		free(n->expect[i]);
	rstr_unref(n->peer);
	crl_path_free(n->path);
	tls_id_unref(n->id);
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

	if (n->h2 && n->h2_over && !h2_streams(n->h2)) {
		h2_free(n->h2); /* closes its end of the pair: the outer stream ends too */
		n->h2 = NULL;
		if (n->outer_open)
			timer_set(n->w->loop, &n->timer, NESTED_LINGER_MS, outer_late);
	}
	if (!n->owner && !n->h2 && !n->outer_open)
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
	if (n->cert)
		n->cert->owner = NULL;
	n->cert = NULL;
	tls_handshake_free(n->tls);
	n->tls = NULL;
	if (n->io.fd >= 0)
		io_close(n->w->loop, &n->io);
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
	if (!n->h2) {
		abandon(n);
		return;
	}
	n->owner = NULL;
	h2_shutdown(n->h2, false);
	settle_soon(n);
}

static void cut(struct nested *n)
{
	if (!n->h2) {
		if (n->owner)
			fail(n, FLAG_CERT_REVOKED, REVOKED_TEXT, false);
		return;
	}
	h2_cut(n->h2);
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

		if ((outer && h2_is_cut(outer)) || (n->h2 && !h2_is_cut(n->h2) && revoke_due(REPORT_SOURCE, n->path)))
			cut(n);
	}
}

void nested_free_all(struct worker *w)
{
	while (!list_empty(&w->nested)) {
		struct nested *n = list_entry(w->nested.next, struct nested, link);

		h2_free(n->h2);
		n->h2 = NULL;
		abandon(n);
		nested_free(n);
	}
}

/* --- the inner tunnel ----------------------------------------------------------------------------------- */

static void on_closed(struct h2 *h, const char *why)
{
	struct nested *n = h2_owner(h);

	n->h2_over = true;
	settle_soon(n);
}

static void on_idle(struct h2 *h)
{
	settle_soon(h2_owner(h));
}

static const struct h2_ops h2_ops = {.closed = on_closed, .idle = on_idle};

static void handshake_done(struct nested *n)
{
	struct record *r;

	io_stop(n->w->loop, &n->io);
	if (!revoke_follow(REPORT_SOURCE, n->tls, &n->path)) {
		fail(n, FLAG_CERT_REVOKED, REVOKED_TEXT, false);
		return;
	}
	n->peer = rstr_new(tls_peer(n->tls));
	r = n->peer ? tls_handshake_finish(n->tls, n->w->records) : NULL;
	if (!r) {
		fail(n, FLAG_TLS_FAILURE, "out of memory", false);
		return;
	}
	n->io.fd = -1;
	tls_handshake_free(n->tls);
	n->tls = NULL;
	timer_cancel(&n->timer);
	n->h2 = h2_new(n->w->loop, r, false, NULL, &h2_ops, n);
	if (!n->h2) {
		record_free(r);
		fail(n, FLAG_H2_FAILURE, "out of memory", false);
		return;
	}
	n->ops->up(n->owner, n->h2, n->peer);
}

static void tls_ready(struct io *io, uint32_t events)
{
	struct nested *n = container_of(io, struct nested, io);
	char why[NESTED_WHY_MAX];
	uint32_t want = 0;
	int e = tls_handshake_step(n->tls, &want);

	if (e == 0) {
		handshake_done(n);
	} else if (e != -EAGAIN || io_want(n->w->loop, io, want) < 0) {
		revoke_refused(REPORT_SOURCE, n->tls);
		snprintf(why, sizeof why, "TLS handshake beyond the network gateway failed: %s", tls_reason(n->tls));
		fail(n, FLAG_TLS_FAILURE, why, false);
	}
}

static void tls_late(struct timer *t)
{
	fail(container_of(t, struct nested, timer), FLAG_TLS_FAILURE,
	     "TLS handshake beyond the network gateway timed out", false);
}

static void handshake(struct nested *n)
{
	n->tls = tls_client(n->io.fd, n->id, (const char *const *)n->expect, n->n_expect);
	if (!n->tls) {
		fail(n, FLAG_TLS_FAILURE, "out of memory", false);
		return;
	}
	timer_set(n->w->loop, &n->timer, DATA_HANDSHAKE_MS, tls_late);
	tls_ready(&n->io, 0);
}

static void have_cert(struct cert_request *r)
{
	struct nested *n = cert_owner(r);
	char why[CERT_ANSWER_MAX];

	if (!n)
		return;
	n->cert = NULL;
	n->id = cert_answer(r, why);
	if (n->id)
		handshake(n);
	else
		fail(n, FLAG_IDENTITY, why, false);
}

/* --- the outer stream ----------------------------------------------------------------------------------- */

static void join(struct nested *n)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
		fail(n, FLAG_CONNECT, strerror(errno), false);
		return;
	}
	io_init(&n->io, pair[0], tls_ready);
	leg_join(&n->outer, pair[1]);
	if (cert_ask(n->w->o->certs, n->self, n->w->loop, n, have_cert, &n->id, &n->cert) < 0)
		fail(n, FLAG_IDENTITY, "out of memory", false);
	else if (n->id)
		handshake(n);
}

static void outer_response(void *owner, const struct h2_headers *h)
{
	struct nested *n = owner;
	char why[NESTED_WHY_MAX];

	timer_cancel(&n->timer);
	if (h->status == 200) {
		join(n);
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
	if (n->owner && !n->h2)
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

static bool copy_peers(struct nested *n, const struct route_peers *expect)
{
	for (; n->n_expect < expect->n; n->n_expect++) {
		n->expect[n->n_expect] = strdup(expect->id[n->n_expect]);
		if (!n->expect[n->n_expect])
			return false;
	}
	return true;
}

struct nested *nested_new(struct worker *w, const char *self, const struct route_peers *expect,
			  const struct nested_ops *ops, void *owner)
{
	struct nested *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->w = w;
	n->ops = ops;
	n->owner = owner;
	n->io.fd = -1;
	list_add_tail(&w->nested, &n->link);
	n->self = strdup(self);
	if (!n->self || !copy_peers(n, expect)) {
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
