/* SPDX-License-Identifier: Apache-2.0 */
/* Owns name lookups in helper threads.
 *
 * A lookup has two owners, the loop's side and its thread, since getaddrinfo cannot be stopped: whoever lets go last
 * frees it. The thread tells through an eventfd of the lookup, so it never touches a loop that may be gone. */
#include "net/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct resolve {
	struct loop *loop;
	struct io io;
	void (*done)(void *arg, const struct endpoint *at, unsigned n, const char *why);
	void *arg;
	int owners; /* atomic */
	bool ready; /* atomic: what the thread wrote may be read */
	uint16_t port;
	unsigned n;
	const char *why;
	struct endpoint at[RESOLVE_ADDRS_MAX];
	char host[];
};

static unsigned threads; /* atomic */

static void let_go(struct resolve *r)
{
	if (__atomic_sub_fetch(&r->owners, 1, __ATOMIC_ACQ_REL))
		return;
	close(r->io.fd);
	free(r);
}

static void *lookup(void *arg)
{
	struct resolve *r = arg;
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *list = NULL;
	int err = getaddrinfo(r->host, NULL, &hints, &list);

	for (struct addrinfo *a = err ? NULL : list; a && r->n < RESOLVE_ADDRS_MAX; a = a->ai_next) {
		struct sockaddr_storage ss = {0};

		memcpy(&ss, a->ai_addr, a->ai_addrlen);
		if (endpoint_from_sockaddr(&r->at[r->n], &ss) == 0)
			r->at[r->n++].port = r->port;
	}
	if (list)
		freeaddrinfo(list);
	r->why = err ? gai_strerror(err) : r->n ? NULL : "no addresses";
	__atomic_store_n(&r->ready, true, __ATOMIC_RELEASE);
	eventfd_write(r->io.fd, 1);
	let_go(r);
	__atomic_sub_fetch(&threads, 1, __ATOMIC_RELAXED);
	return NULL;
}

static bool thread_start(struct resolve *r)
{
	pthread_t thread;

	if (__atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED) <= RESOLVE_THREADS_MAX &&
	    pthread_create(&thread, NULL, lookup, r) == 0) {
		pthread_detach(thread);
		return true;
	}
	__atomic_sub_fetch(&threads, 1, __ATOMIC_RELAXED);
	return false;
}

static void looked_up(struct io *io, uint32_t events)
{
	struct resolve *r = container_of(io, struct resolve, io);

	if (!__atomic_load_n(&r->ready, __ATOMIC_ACQUIRE))
		return;
	io_stop(r->loop, io);
	r->done(r->arg, r->at, r->n, r->why);
	let_go(r);
}

struct resolve *resolve_new(struct loop *l, const char *host, uint16_t port,
			    void (*done)(void *arg, const struct endpoint *at, unsigned n, const char *why), void *arg)
{
	struct resolve *r = calloc(1, sizeof *r + strlen(host) + 1);
	int fd = r ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;

	if (fd < 0) {
		free(r);
		return NULL;
	}
	*r = (struct resolve){.loop = l, .done = done, .arg = arg, .owners = 2, .port = port};
	strcpy(r->host, host);
	io_init(&r->io, fd, looked_up);
	if (io_want(l, &r->io, EPOLLIN) || !thread_start(r)) {
		io_stop(l, &r->io);
		close(fd);
		free(r);
		return NULL;
	}
	return r;
}

void resolve_cancel(struct resolve *r)
{
	if (!r)
		return;
	io_stop(r->loop, &r->io);
	let_go(r);
}
