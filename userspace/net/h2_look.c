/* SPDX-License-Identifier: Apache-2.0 */
/* Frames before nghttp2 has them. Their headers are read for what it does not tell (h2_closed.c), and small frames close
 * ranks: to nghttp2 a frame with one byte of data is as much work as one with 16 KiB, so a run of small DATA frames of one
 * stream becomes a single one, where it lies. */
#include "net/h2_internal.h"

#include <string.h>

enum { PREFACE = 24 }; /* RFC 9113, 3.4 */

void h2_look_init(struct h2 *h)
{
	h->look.skip = h->server ? PREFACE : 0;
}

static size_t length_of(const uint8_t *head)
{
	return (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
}

/* Bytes of data in the frame at `p`, if it may be put together with another: it is DATA, small, all here and without flags.
 * Else 0, as for an empty frame: those are counted one by one. */
static size_t small_data(const uint8_t *p, const uint8_t *end)
{
	size_t n;

	if (end - p < H2_FRAME_HEADER || p[3] != NGHTTP2_DATA || p[4])
		return 0;
	n = length_of(p);
	return n <= H2_TINY && n <= (size_t)(end - p) - H2_FRAME_HEADER ? n : 0;
}

/* Where the run that begins at `p` ends, and in `out` where its single frame does; NULL: there is no run. */
static uint8_t *gather(struct h2 *h, uint8_t *p, const uint8_t *end, uint8_t **out)
{
	size_t len = small_data(p, end), n;
	uint8_t *to = p + H2_FRAME_HEADER + len, *from = to;

	if (!len)
		return NULL;
	while ((n = small_data(from, end)) && !memcmp(from + 5, p + 5, 4) && len + n <= H2_FRAME_MAX) {
		memmove(to, from + H2_FRAME_HEADER, n);
		to += n;
		len += n;
		from += H2_FRAME_HEADER + n;
	}
	if (from == to)
		return NULL;
	p[1] = (uint8_t)(len >> 8);
	p[2] = (uint8_t)len;
	h->frames += (unsigned)(from - to) / H2_FRAME_HEADER / H2_FRAMES_JOINED;
	*out = to;
	return from;
}

/* Up to the end of this frame's header or payload. */
static size_t step(struct h2 *h, const uint8_t *p, size_t n)
{
	struct h2_look *look = &h->look;
	size_t want = look->skip ? look->skip : (size_t)H2_FRAME_HEADER - look->have;

	n = n < want ? n : want;
	if (look->skip) {
		look->skip -= (uint32_t)n;
		return n;
	}
	memcpy(look->head + look->have, p, n);
	look->have = (uint8_t)(look->have + n);
	if (look->have == H2_FRAME_HEADER) {
		look->have = 0;
		look->skip = (uint32_t)length_of(look->head);
		h2_closed_look(h, look->head);
	}
	return n;
}

size_t h2_look(struct h2 *h, uint8_t *p, size_t len, size_t *used)
{
	uint8_t *at = p, *end = p + len, *out, *next;

	while (at < end) {
		next = h->look.skip || h->look.have ? NULL : gather(h, at, end, &out);
		if (next) {
			h2_closed_look(h, at);
			*used = (size_t)(next - p);
			return (size_t)(out - p);
		}
		at += step(h, at, (size_t)(end - at));
	}
	*used = len;
	return len;
}
