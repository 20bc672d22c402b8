// SPDX-License-Identifier: Apache-2.0
/* The workers' side of taps: which connections are meant, and what of them goes into the worker's ring. */
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>

#include "base/qualified.h"
#include "data/tap_hooks.h"
#include "data/tap_internal.h"

/* --- who is meant -------------------------------------------------------------------- */

static bool names(const char *text, const char *ns, const char *name)
{
	return strcmp(text, name) == 0 || qualified_is(text, ns, name);
}

static bool is_peer(const struct tap *t, const struct conn *c)
{
	const struct workload *w = c->inbound ? c->source : c->destination;
	const char *peer = t->filter.peer, *id = rstr_text(c->inbound ? c->src_identity : c->dst_identity);

	if (!*peer)
		return true;
	if (t->has_ip)
		return c->inbound ? addr_eq(&c->src.ip, &t->peer_ip)
				  : addr_eq(&c->original.ip, &t->peer_ip) || addr_eq(&c->dst.ip, &t->peer_ip);
	return (id && !strcmp(id, peer)) || (w && names(peer, w->ns, w->name)) ||
	       (!c->inbound && c->service && !strcmp(c->service->hostname, peer));
}

/* --- the ring ------------------------------------------------------------------------ */

static void ring_put(struct tap_post *p, uint64_t *at, const void *from, size_t n)
{
	size_t off = *at % p->size, first = n < p->size - off ? n : p->size - off;

	memcpy(p->ring + off, from, first);
	memcpy(p->ring, (const uint8_t *)from + first, n - first);
	*at += n;
}

static void wake(struct tap *t)
{
	/* Behind the new head, which the reader looks at once more after it has said that it sleeps. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&t->sleeps, __ATOMIC_RELAXED) && __atomic_exchange_n(&t->sleeps, false, __ATOMIC_RELAXED))
		eventfd_write(t->fd, 1); /* does not block: the count is far from its limit */
}

struct piece { /* of data that lies in several places */
	const struct iovec *iov;
	size_t off; /* in the first */
};

static void put_data(struct tap_post *p, uint64_t *at, struct piece *from, size_t n)
{
	while (n) {
		size_t k = from->iov->iov_len - from->off;

		k = k < n ? k : n;
		ring_put(p, at, (const uint8_t *)from->iov->iov_base + from->off, k);
		from->off += k;
		n -= k;
		if (from->off == from->iov->iov_len) {
			from->iov++;
			from->off = 0;
		}
	}
}

static void lose(struct tap_post *p, size_t n)
{
	__atomic_store_n(&p->lost_records, p->lost_records + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&p->lost_bytes, p->lost_bytes + n, __ATOMIC_RELAXED);
}

static void put(struct tap_post *p, const struct tap_head *h, const char *const text[TAP_TEXTS], struct piece data)
{
	uint64_t at = p->head, used = at - __atomic_load_n(&p->tail, __ATOMIC_ACQUIRE);
	size_t len = sizeof *h + h->data_len;

	for (unsigned i = 0; i < TAP_TEXTS; i++)
		len += h->text_len[i];
	if (len > p->size - used) {
		lose(p, h->data_len);
		return;
	}
	ring_put(p, &at, h, sizeof *h);
	for (unsigned i = 0; i < TAP_TEXTS; i++)
		ring_put(p, &at, text[i], h->text_len[i]);
	put_data(p, &at, &data, h->data_len);
	__atomic_store_n(&p->head, at, __ATOMIC_RELEASE);
	wake(p->tap);
}

/* --- records ------------------------------------------------------------------------- */

struct words {
	const char *text[TAP_TEXTS];
	char client[TAP_TEXT_MAX], server[TAP_TEXT_MAX];
};

static const char *workload_name(const struct workload *w, const struct pod *own, char buf[TAP_TEXT_MAX])
{
	buf[0] = '\0';
	if (w || own)
		snprintf(buf, TAP_TEXT_MAX, "%s/%s", w ? w->ns : own->ns, w ? w->name : own->name);
	return buf;
}

static void describe(const struct conn *c, struct tap_head *h, struct words *s, const char *error)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	*h = (struct tap_head){.conn = c->id,
			       .time_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000,
			       .client = c->src,
			       .server = c->original,
			       .inbound = c->inbound,
			       .hbone = c->hbone,
			       .local = c->local};
	s->text[TAP_CLIENT_ID] = rstr_text(c->src_identity);
	s->text[TAP_SERVER_ID] = rstr_text(c->dst_identity);
	s->text[TAP_CLIENT] = workload_name(c->source, c->inbound ? NULL : c->pod, s->client);
	s->text[TAP_SERVER] = workload_name(c->destination, c->inbound ? c->pod : NULL, s->server);
	s->text[TAP_SERVICE] = c->service ? c->service->hostname : NULL;
	s->text[TAP_ERROR] = error;
	for (unsigned i = 0; i < TAP_TEXTS; i++) {
		s->text[i] = s->text[i] ? s->text[i] : "";
		h->text_len[i] = (uint16_t)strnlen(s->text[i], TAP_TEXT_MAX - 1);
	}
}

static bool is_meant(const struct tap_post *p, const struct conn *c)
{
	return strcmp(c->pod->uid, p->tap->filter.uid) == 0 && is_peer(p->tap, c);
}

static void tell(const struct conn *c, enum tap_event event, const char *error)
{
	list_for_each (pos, &c->w->taps) {
		struct tap_post *p = list_entry(pos, struct tap_post, link);
		struct tap_head h;
		struct words s;

		if (!is_meant(p, c))
			continue;
		describe(c, &h, &s, error);
		h.event = (uint8_t)event;
		h.offset = c->received;
		h.other = c->sent;
		put(p, &h, s.text, (struct piece){0});
	}
}

void tap_opened(const struct conn *c)
{
	tell(c, TAP_OPENED, NULL);
}

void tap_closed(const struct conn *c, const char *error)
{
	tell(c, TAP_CLOSED, error);
}

void tap_bytes(const struct conn *c, bool received, const struct iovec *iov, size_t n)
{
	list_for_each (pos, &c->w->taps) {
		struct tap_post *p = list_entry(pos, struct tap_post, link);
		struct piece from = {iov, 0};
		struct tap_head h;
		struct words s;

		if (!is_meant(p, c))
			continue;
		describe(c, &h, &s, NULL);
		h.event = TAP_DATA;
		h.to_server = received;
		h.offset = received ? c->received : c->sent;
		h.other = received ? c->sent : c->received;
		for (size_t left = n; left; left -= h.data_len) {
			h.data_len = (uint32_t)(left < TAP_PIECE_MAX ? left : TAP_PIECE_MAX);
			put(p, &h, s.text, from);
			h.offset += h.data_len;
			for (from.off += h.data_len; left > h.data_len && from.off >= from.iov->iov_len; from.iov++)
				from.off -= from.iov->iov_len;
		}
	}
}
