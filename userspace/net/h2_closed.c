/* SPDX-License-Identifier: Apache-2.0 */
/* A server's streams that are no more, and frames that come for them all the same. They may have been on their way when we
 * ended one; a client that has ended its side itself may not go on (RFC 9113, 5.1), and new streams have higher numbers
 * (5.1.1). Of DATA for such a stream nghttp2 says nothing, so headers of frames are read here before it has them. */
#include "net/h2_internal.h"

#include <string.h>

enum { PREFACE = 24 }; /* RFC 9113, 3.4 */
#define H2_BY_PEER UINT32_C(0x80000000)

void h2_closed_init(struct h2 *h)
{
	h->look.skip = h->server ? PREFACE : 0;
}

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

static void refuse(struct h2 *h)
{
	h2_terminate(h, NGHTTP2_STREAM_CLOSED, "a frame on a stream that the client has ended");
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
		refuse(h);
	else if (!seen && h->n_closed < H2_CLOSED_KEPT)
		h2_terminate(h, NGHTTP2_PROTOCOL_ERROR, "a stream's number is lower than one before");
}

static void data_for(struct h2 *h, uint32_t id)
{
	const uint32_t *seen;

	if (h->ending)
		return;
	if (id != h->look.reset) {
		if (id > (uint32_t)h->last_id || nghttp2_session_find_stream(h->session, (int32_t)id))
			return;
		seen = find(h, id);
		if (!seen || !(*seen & H2_BY_PEER))
			return;
	}
	refuse(h);
}

static void reset_of(struct h2 *h, uint32_t id)
{
	uint32_t *seen = find(h, id);

	h->look.reset = id;
	if (seen) /* by us as well, a moment before */
		*seen |= H2_BY_PEER;
}

static void frame(struct h2 *h, const uint8_t *p)
{
	uint32_t id = (uint32_t)(p[5] & 0x7f) << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];

	h->look.skip = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
	if (id & 1 && p[3] == NGHTTP2_DATA)
		data_for(h, id);
	else if (id & 1 && p[3] == NGHTTP2_RST_STREAM)
		reset_of(h, id);
}

void h2_closed_look(struct h2 *h, const uint8_t *p, size_t len)
{
	const uint8_t *end = p + len;

	while (h->server && p < end) {
		size_t n = (size_t)(end - p), want = h->look.skip;

		if (!want)
			want = (size_t)H2_FRAME_HEADER - h->look.have;
		n = n < want ? n : want;
		if (h->look.skip) {
			h->look.skip -= (uint32_t)n;
		} else {
			memcpy(h->look.head + h->look.have, p, n);
			h->look.have = (uint8_t)(h->look.have + n);
		}
		p += n;
		if (h->look.have == H2_FRAME_HEADER) {
			h->look.have = 0;
			frame(h, h->look.head);
		}
	}
}
