// SPDX-License-Identifier: Apache-2.0
/* How a connection ends other than by a failure: GOAWAY, for what the peer did or since we want to leave, in two steps
 * where requests may be on their way; and after the last byte, until the peer has it. */
#include "net/h2_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "net/sock.h"

enum { GOAWAY_STEP_MS = 1000 };

const uint8_t h2_goaway_ping[8] = "goaway";

/* --- for what the peer did ------------------------------------------------------------------------------ */

static void ending_late(struct timer *t)
{
	struct h2 *h = container_of(t, struct h2, timer);

	h2_die(h, h->why);
}

void h2_terminate(struct h2 *h, uint32_t code, const char *why)
{
	h->why = why;
	h->ending = true;
	nghttp2_session_terminate_session(h->session, code);
	timer_set(h->loop, &h->timer, GOAWAY_STEP_MS, ending_late);
	h2_touch(h);
}

/* --- since we want to leave ----------------------------------------------------------------------------- */

static void goaway_finish(struct h2 *h)
{
	timer_cancel(&h->goaway);
	h->goaway_sent = true;
	nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->session),
			      NGHTTP2_NO_ERROR, NULL, 0);
	h2_touch(h);
}

void h2_goaway_pong(struct h2 *h, const uint8_t payload[8])
{
	if (h->shutdown && !h->goaway_sent && !memcmp(payload, h2_goaway_ping, sizeof h2_goaway_ping))
		goaway_finish(h);
}

static void goaway_late(struct timer *t)
{
	goaway_finish(container_of(t, struct h2, goaway));
}

void h2_shutdown(struct h2 *h, bool graceful)
{
	if (h->dead || h->shutdown || !h2_session_begin(h))
		return;
	h->shutdown = true;
	if (h->server && graceful) {
		nghttp2_submit_shutdown_notice(h->session);
		nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, h2_goaway_ping);
		timer_set(h->loop, &h->goaway, GOAWAY_STEP_MS, goaway_late);
		h2_touch(h);
	} else {
		goaway_finish(h);
	}
}

void h2_cut(struct h2 *h)
{
	h->cut = true;
	if (h->lingering)
		h2_die(h, h->why);
	if (h->dead || (h->shutdown && h->goaway_sent) || !h2_session_begin(h))
		return;
	h->shutdown = true;
	goaway_finish(h);
}

bool h2_is_cut(const struct h2 *h)
{
	return h->cut;
}

/* --- after the last byte -------------------------------------------------------------------------------- */

bool h2_takes(struct h2 *h)
{
	size_t before = h->unsent;

	h->unsent = record_tx_unsent(h->record) + sock_unacked(record_fd(h->record));
	return h->unsent < before;
}

static void linger_late(struct timer *t)
{
	struct h2 *h = container_of(t, struct h2, timer);

	if (!h2_takes(h) || loop_now(h->loop) >= h->linger_until) {
		h2_die(h, h->why);
		return;
	}
	timer_set(h->loop, t, H2_LINGER_MS, linger_late);
}

/* A socket that is closed while the peer still talks throws away what has not reached it: a frame of his is answered by a
 * reset. So our direction ends, his is read until he closes. */
static void linger(struct h2 *h)
{
	h->lingering = true;
	shutdown(record_fd(h->record), SHUT_WR);
	timer_cancel(&h->goaway);
	h2_takes(h);
	h->linger_until = loop_now(h->loop) + H2_LINGER_MAX_MS;
	timer_set(h->loop, &h->timer, H2_LINGER_MS, linger_late);
}

void h2_end_if_finished(struct h2 *h)
{
	bool over = h->session && !nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session);
	int e;

	if (h->dead || h->lingering || record_tx_pending(h->record))
		return;
	if (!over && !(h->shutdown && h->goaway_sent && !h->n_streams))
		return;
	record_close_notify(h->record);
	e = h2_flush(h);
	if (e == -EAGAIN) /* it goes on when the socket takes more */
		return;
	if (!h->why)
		h->why = "closed";
	if (!e && (h->shutdown || h->leaving) && !h->cut && !h->blamed)
		linger(h);
	else /* for what the peer did, or is: streams that he has are over now */
		h2_die(h, h->why);
}
