// SPDX-License-Identifier: Apache-2.0
/* Header blocks: the fields that we read, until they make a request or a response, and how large a block may be. */
#include "net/h2_internal.h"

#include <stdlib.h>
#include <string.h>

enum { HEADERS_KEPT = 4 };

int h2_headers_begin(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
	struct h2 *h = user;

	free(h->collect);
	h->too_large = false;
	h->collect = malloc(sizeof *h->collect + HEADERS_KEPT * (H2_HEADER_VALUE_MAX + 1));
	if (!h->collect)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	*h->collect = (struct h2_headers){0};
	char *text = (char *)(h->collect + 1);
	char **field[HEADERS_KEPT] = {&h->collect->authority, &h->collect->baggage, &h->collect->forwarded,
				      &h->collect->network};

	for (unsigned i = 0; i < HEADERS_KEPT; i++) {
		*field[i] = text + i * (H2_HEADER_VALUE_MAX + 1);
		**field[i] = '\0';
	}
	return 0;
}

/* Values beyond the limit are left out as a whole: half a value would be another one. Repeated fields are joined. */
static void keep(char *dst, const uint8_t *value, size_t len)
{
	size_t had = strlen(dst), sep = had ? 1 : 0;

	if (memchr(value, 0, len) || had + sep + len > H2_HEADER_VALUE_MAX)
		return;
	if (sep)
		dst[had] = ',';
	memcpy(dst + had + sep, value, len);
	dst[had + sep + len] = '\0';
}

int h2_headers_field(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
	struct h2 *h = user;
	struct h2_headers *c = h->collect;

	if (!c || frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	c->list_size += name_len + value_len + 32;
	if (c->list_size > H2_HEADERS_MAX) {
		h->too_large = true;
		if (c->list_size <= H2_HEADERS_END * H2_HEADERS_MAX)
			return 0;
		h2_limited(h, H2_LIMIT_BLOCK);
		h->why = h2_endless_block;
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	const struct {
		const char *name;
		char *dst;
	} known[HEADERS_KEPT] = {
		{":authority", c->authority},
		{"baggage", c->baggage},
		{"forwarded", c->forwarded},
		{"x-forwarded-network", c->network},
	};

	for (size_t i = 0; i < HEADERS_KEPT; i++) {
		if (name_len != strlen(known[i].name) || memcmp(name, known[i].name, name_len))
			continue;
		keep(known[i].dst, value, value_len);
		c->has_network |= known[i].dst == c->network;
	}
	if (name_len == 7 && !memcmp(name, ":method", 7))
		c->connect = value_len == 7 && !memcmp(value, "CONNECT", 7);
	if (name_len == 7 && !memcmp(name, ":status", 7) && value_len == 3)
		c->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
	return 0;
}

void h2_headers_done(struct h2 *h, const nghttp2_frame *frame)
{
	struct h2_headers *c = h->collect;
	struct h2_stream *s = nghttp2_session_get_stream_user_data(h->session, frame->hd.stream_id);

	h->collect = NULL;
	if (!c)
		return;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		if (h->too_large) {
			h2_limited(h, H2_LIMIT_HEADERS);
			h2_refuse(h, frame->hd.stream_id, 431);
		} else if (!h->dead) {
			h->ops->request(h, frame->hd.stream_id, c);
		}
	} else if (s && !h->server && c->status >= 200 && !s->answered) {
		s->answered = true;
		s->ops->response(s, c);
	}
	free(c);
}
