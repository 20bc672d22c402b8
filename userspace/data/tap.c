// SPDX-License-Identifier: Apache-2.0
/* The life of a tap, and its reader's side.
 *
 * A tap is held by its reader and by each worker, from the message that begins it to the one that ends it; the last one
 * frees it. Messages to a loop that has stopped are handled when the loop is freed. */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "data/plane.h"
#include "data/tap_internal.h"

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
