/* SPDX-License-Identifier: Apache-2.0 */
/* A server's streams that are no more, and frames that come for them all the same. They may have been on their way when we
 * ended one; a client that has ended its side itself may not go on (RFC 9113, 5.1), and new streams have higher numbers
 * (5.1.1). Of DATA for such a stream nghttp2 says nothing, so headers of frames come here before it has them (h2_look.c). */
#include "net/h2_internal.h"

#define H2_BY_PEER UINT32_C(0x80000000)

void h2_closed_add(struct h2 *h, int32_t id)
{
	bool by_peer = id == h->reset_by_peer || nghttp2_session_get_stream_remote_close(h->session, id) == 1;

	if (h->server)
		h->closed[h->n_closed++ % H2_CLOSED_KEPT] = (uint32_t)id | (by_peer ? H2_BY_PEER : 0);
}

static uint32_t *find(struct h2 *h, uint32_t id)
{
	for (unsigned i = 0; i < H2_CLOSED_KEPT; i++)
		if ((h->closed[i] & ~H2_BY_PEER) == id)
			return &h->closed[i];
	return NULL;
}

static void refuse(struct h2 *h, uint32_t code, const char *why)
{
	h2_limited(h, H2_LIMIT_PROTOCOL);
	h2_terminate(h, code, why);
}

static void refuse_closed(struct h2 *h)
{
	refuse(h, NGHTTP2_STREAM_CLOSED, "a frame on a stream that the client has ended");
}

void h2_closed_headers(struct h2 *h, int32_t id)
{
	const uint32_t *seen;

	if (!h->server || h->ending || !(id & 1))
		return;
	if (id > h->last_id) {
		h->last_id = id;
		return;
	}
	if (nghttp2_session_find_stream(h->session, id))
		return;
	seen = find(h, (uint32_t)id);
	if (seen && *seen & H2_BY_PEER)
		refuse_closed(h);
	else if (!seen && h->n_closed < H2_CLOSED_KEPT)
		refuse(h, NGHTTP2_PROTOCOL_ERROR, "a stream's number is lower than one before");
}

static void data_for(struct h2 *h, uint32_t id)
{
	const uint32_t *seen;

	if (h->ending)
		return;
	if (id != h->last_reset) {
		if (id > (uint32_t)h->last_id || nghttp2_session_find_stream(h->session, (int32_t)id))
			return;
		seen = find(h, id);
		if (!seen || !(*seen & H2_BY_PEER))
			return;
	}
	refuse_closed(h);
}

static void reset_of(struct h2 *h, uint32_t id)
{
	uint32_t *seen = find(h, id);

	h->last_reset = id;
	if (seen) /* by us as well, a moment before */
		*seen |= H2_BY_PEER;
}

void h2_closed_look(struct h2 *h, const uint8_t *head)
{
	uint32_t id = (uint32_t)(head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];

	if (!h->server || !(id & 1))
		return;
	if (head[3] == NGHTTP2_DATA)
		data_for(h, id);
	else if (head[3] == NGHTTP2_RST_STREAM)
		reset_of(h, id);
}
