/* SPDX-License-Identifier: Apache-2.0 */
/* What arrives on a connection, from its record to nghttp2, and how much of it in one event.
 *
 * A read is worked on before anybody else has a turn. Its bytes are bounded; the frames in them, which are the work, can be
 * 30,000 and are not known before. So a peer that has filled a read with small ones is read in small pieces for a
 * while, on all of its connections. */
#include "net/h2_internal.h"

#include <errno.h>
#include <string.h>

enum {
	READS_PER_EVENT = 4,
	TOO_MANY_CONTINUATIONS = -905, /* NGHTTP2_ERR_TOO_MANY_CONTINUATIONS, which distributions add to older ones */
};

static ssize_t parse(struct h2 *h, uint8_t *p, size_t len)
{
	ssize_t n = 0;

	for (size_t used; len && n >= 0; p += used, len -= used) {
		size_t some = h2_look(h, p, len, &used);

		n = nghttp2_session_mem_recv(h->session, p, some);
	}
	return n;
}

/* nghttp2 goes on with no more of it. */
static void note_refusal(struct h2 *h, int code)
{
	if (code == NGHTTP2_ERR_FLOODED) { /* answers that it does not read */
		h2_limited(h, H2_LIMIT_CONTROL);
		h->why = h2_too_many_frames;
	} else if (code == TOO_MANY_CONTINUATIONS) {
		h2_limited(h, H2_LIMIT_BLOCK);
		h->why = h2_endless_block;
	} else if (code != NGHTTP2_ERR_CALLBACK_FAILURE && code != NGHTTP2_ERR_NOMEM) { /* not ours */
		h2_limited(h, H2_LIMIT_PROTOCOL);
	}
	if (!h->why)
		h->why = nghttp2_strerror(code);
}

static int on_plaintext(void *arg, uint8_t *p, size_t len)
{
	struct h2 *h = arg;
	ssize_t n;

	if (h->lingering)
		return 0;
	if (!len) { /* the batch is over: its pieces must not outlive it */
		h2_streams_settle(h);
		return 0;
	}
	if (!h2_session_begin(h))
		return -ENOMEM;
	n = parse(h, p, len);
	if (n < 0) {
		note_refusal(h, (int)n);
		h2_streams_settle(h);
		return -EPROTO;
	}
	return 0;
}

static void read_some(struct h2 *h)
{
	for (int i = 0; i < READS_PER_EVENT && h->frames < H2_FRAMES_PER_EVENT && !h->dead && !h->ending; i++) {
		ssize_t n = record_recv(h->record, on_plaintext, h);

		if (n >= 0) {
			h->seen = loop_now(h->loop);
			h->pinged = false;
		}
		h->unreadable = n == -EAGAIN && i == 0;
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			const char *e = record_error(h->record);

			h2_die(h, h->why ? h->why : n == -ENODATA ? "closed by peer" : *e ? e : strerror((int)-n));
			return;
		}
		if (!record_more(h->record))
			return;
	}
}

void h2_read(struct h2 *h)
{
	uint64_t now = loop_now(h->loop);
	bool dense = now < h->share->dense_until;

	record_read_max(h->record, dense ? H2_DENSE_READ : RECORD_RX_BYTES);
	h->frames = 0;
	read_some(h);
	if (h->frames > (dense ? H2_FRAMES_PER_EVENT : H2_FRAMES_DENSE))
		h->share->dense_until = now + H2_DENSE_MS;
}
