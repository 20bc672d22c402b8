/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are given later, and by other threads. A ticket outlives its client and its server: the request is
 * evhttp's until it is answered, also when the connection has ended meanwhile. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/list.h"
#include "net/http_internal.h"

struct http_tickets {
	pthread_mutex_t lock; /* of all that follows */
	unsigned refs;	      /* the server's, and each ticket's */
	bool closed;
	struct list waiting, answered;
	struct event *wake;
	int fd;
};

struct http_ticket {
	struct list link;
	struct http_tickets *of;
	struct evhttp_request *rq;
	struct http_response out;
};

/* Locked; unlocks. */
static void tickets_put(struct http_tickets *t)
{
	bool last = --t->refs == 0;

	pthread_mutex_unlock(&t->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static struct http_ticket *answered_next(struct http_tickets *t)
{
	struct http_ticket *k = NULL;

	pthread_mutex_lock(&t->lock);
	if (!list_empty(&t->answered)) {
		k = list_entry(t->answered.next, struct http_ticket, link);
		list_del(&k->link);
	}
	pthread_mutex_unlock(&t->lock);
	return k;
}

static void answers_send(evutil_socket_t fd, short what, void *arg)
{
	struct http_tickets *t = arg;
	struct http_ticket *k;
	eventfd_t n;

	eventfd_read(fd, &n);
	while ((k = answered_next(t))) {
		http_respond(k->rq, &k->out);
		free(k);
		pthread_mutex_lock(&t->lock);
		tickets_put(t);
	}
}

struct http_tickets *http_tickets_new(struct event_base *base)
{
	struct http_tickets *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	pthread_mutex_init(&t->lock, NULL);
	t->refs = 1;
	list_init(&t->waiting);
	list_init(&t->answered);
	t->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->wake = t->fd >= 0 ? event_new(base, t->fd, EV_READ | EV_PERSIST, answers_send, t) : NULL;
	if (t->wake && event_add(t->wake, NULL) == 0)
		return t;
	http_tickets_close(t);
	return NULL;
}

void http_tickets_close(struct http_tickets *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->closed = true;
	list_for_each_safe (l, tmp, &t->answered) {
		struct http_ticket *k = list_entry(l, struct http_ticket, link);

		list_del(&k->link);
		list_add_tail(&t->waiting, &k->link);
	}
	/* A request goes with its connection; one that has none any more is ours to release. */
	list_for_each_safe (l, tmp, &t->waiting) {
		struct http_ticket *k = list_entry(l, struct http_ticket, link);

		list_del(&k->link);
		if (!evhttp_request_get_connection(k->rq))
			evhttp_request_free(k->rq);
		k->rq = NULL;
		if (k->out.status) { /* answered: nobody else will release it */
			free(k->out.body);
			free(k);
			t->refs--;
		}
	}
	if (t->wake)
		event_free(t->wake);
	if (t->fd >= 0)
		close(t->fd);
	t->wake = NULL;
	t->fd = -1;
	tickets_put(t);
}

struct http_ticket *http_ticket_take(const struct http_request *rq)
{
	struct http_ticket *k = calloc(1, sizeof *k);
	struct http_tickets *t = rq->place->tickets;

	if (!k)
		return NULL;
	k->of = t;
	k->rq = rq->place->rq;
	rq->place->taken = true;
	pthread_mutex_lock(&t->lock);
	t->refs++;
	list_add_tail(&t->waiting, &k->link);
	pthread_mutex_unlock(&t->lock);
	return k;
}

void http_ticket_answer(struct http_ticket *k, const struct http_response *out)
{
	struct http_tickets *t = k->of;

	pthread_mutex_lock(&t->lock);
	if (t->closed) {
		free(out->body);
		free(k);
		tickets_put(t);
		return;
	}
	k->out = *out;
	list_del(&k->link);
	list_add_tail(&t->answered, &k->link);
	eventfd_write(t->fd, 1);
	pthread_mutex_unlock(&t->lock);
}
