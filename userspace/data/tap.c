// SPDX-License-Identifier: Apache-2.0
/* Taps and their rings.
 *
 * A ring is written by its worker alone and read by the tap's reader alone: `head` is how much was ever written, `tail` how
 * much was read. The reader says that it is about to sleep, looks once more, and sleeps on the eventfd; the first
 * worker that has something for it then takes the word back and wakes it.
 *
 * A tap is held by its reader and by each worker, from the message that begins it to the one that ends it; the last one
 * frees it. Messages to a loop that has stopped are handled when the loop is freed. */
#include "data/tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "data/plane.h"
#include "data/tap_hooks.h"

struct tap_post { /* a worker's part */
	struct list link;
	struct tap *tap;
	struct worker *w;
	struct msg begin, end;
	uint8_t *ring;
	size_t size;
	uint64_t head, tail;		   /* atomic */
	uint64_t lost_records, lost_bytes; /* atomic; written by the worker */
};

struct tap {
	unsigned refs;	/* atomic */
	unsigned begun; /* workers that have joined; atomic */
	int fd;
	bool sleeps; /* atomic */
	struct tap_filter filter;
	struct addr peer_ip;
	bool has_ip;
	unsigned posts, turn;
	struct tap_post post[];
};

/* --- the worker's side: who is meant -------------------------------------------------------------------- */

static bool names(const char *text, const char *ns, const char *name)
{
	size_t n = strlen(ns);

	return strcmp(text, name) == 0 || (strncmp(text, ns, n) == 0 && text[n] == '/' && !strcmp(text + n + 1, name));
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

/* --- the worker's side: the ring ------------------------------------------------------------------------ */

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

/* --- the worker's side: records ------------------------------------------------------------------------- */

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

/* --- life ----------------------------------------------------------------------------------------------- */

static void unref(struct tap *t)
{
	if (__atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (unsigned i = 0; i < t->posts; i++)
		free(t->post[i].ring);
	if (t->fd >= 0)
		close(t->fd);
	free(t);
}

static void begin(struct loop *l, struct msg *m)
{
	struct tap_post *p = container_of(m, struct tap_post, begin);

	list_add_tail(&p->w->taps, &p->link);
	if (__atomic_add_fetch(&p->tap->begun, 1, __ATOMIC_ACQ_REL) == p->tap->posts)
		eventfd_write(p->tap->fd, 1);
}

static void end(struct loop *l, struct msg *m)
{
	struct tap_post *p = container_of(m, struct tap_post, end);

	list_del(&p->link);
	unref(p->tap);
}

static size_t ring_size(unsigned workers)
{
	size_t share = TAP_RINGS_BYTES / workers;

	return share < TAP_RING_BYTES ? share : TAP_RING_BYTES;
}

struct tap *tap_new(struct data_plane *d, const struct tap_filter *f)
{
	unsigned n = d->o.workers;
	struct tap *t = calloc(1, sizeof *t + n * sizeof *t->post);
	bool complete = t != NULL;

	if (!t)
		return NULL;
	t->refs = 1;
	t->posts = n;
	t->filter = *f;
	t->has_ip = addr_parse(&t->peer_ip, f->peer) == 0;
	t->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < n; i++) {
		struct tap_post *p = &t->post[i];

		*p = (struct tap_post){.tap = t, .w = d->worker[i], .size = ring_size(n)};
		list_init(&p->link);
		p->ring = malloc(p->size);
		complete &= p->ring != NULL;
	}
	if (!complete || t->fd < 0) {
		unref(t);
		return NULL;
	}
	t->refs = n + 1;
	for (unsigned i = 0; i < n; i++)
		loop_post(t->post[i].w->loop, &t->post[i].begin, begin);
	return t;
}

bool tap_begun(const struct tap *t)
{
	return __atomic_load_n(&t->begun, __ATOMIC_ACQUIRE) == t->posts;
}

void tap_free(struct tap *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < t->posts; i++)
		loop_post(t->post[i].w->loop, &t->post[i].end, end);
	unref(t);
}

/* --- the reader's side ---------------------------------------------------------------------------------- */

int tap_fd(const struct tap *t)
{
	return t->fd;
}

static void ring_get(const struct tap_post *p, uint64_t *at, void *to, size_t n)
{
	size_t off = *at % p->size, first = n < p->size - off ? n : p->size - off;

	memcpy(to, p->ring + off, first);
	memcpy((uint8_t *)to + first, p->ring, n - first);
	*at += n;
}

static bool get(struct tap_post *p, struct tap_record *out)
{
	uint64_t at = p->tail;

	if (at == __atomic_load_n(&p->head, __ATOMIC_ACQUIRE))
		return false;
	ring_get(p, &at, &out->head, sizeof out->head);
	for (unsigned i = 0; i < TAP_TEXTS; i++) {
		ring_get(p, &at, out->text[i], out->head.text_len[i]);
		out->text[i][out->head.text_len[i]] = '\0';
	}
	ring_get(p, &at, out->data, out->head.data_len);
	__atomic_store_n(&p->tail, at, __ATOMIC_RELEASE);
	return true;
}

/* From the rings in turn: none has to wait for a busy one. */
static bool get_any(struct tap *t, struct tap_record *out)
{
	for (unsigned i = 0; i < t->posts; i++)
		if (get(&t->post[t->turn++ % t->posts], out))
			return true;
	return false;
}

bool tap_next(struct tap *t, struct tap_record *out)
{
	eventfd_t n;

	if (get_any(t, out))
		return true;
	eventfd_read(t->fd, &n);
	__atomic_store_n(&t->sleeps, true, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return get_any(t, out);
}

void tap_lost(const struct tap *t, struct tap_lost *out)
{
	*out = (struct tap_lost){0};
	for (unsigned i = 0; i < t->posts; i++) {
		out->records += __atomic_load_n(&t->post[i].lost_records, __ATOMIC_RELAXED);
		out->bytes += __atomic_load_n(&t->post[i].lost_bytes, __ATOMIC_RELAXED);
	}
}
