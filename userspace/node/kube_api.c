/* SPDX-License-Identifier: Apache-2.0 */
/* Owns libcurl's handle, its sockets and its timer on the loop. The keeper's thread enters pods' namespaces; sockets
 * are opened at home. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/netns.h"
#include "node/kube_api_internal.h"

struct watch { /* a socket of libcurl */
	struct list link;
	struct io io;
	struct kube_api *api;
};

static void turn(struct kube_api *a, curl_socket_t fd, int what)
{
	CURLMsg *m;
	int left;

	netns_home(); /* a name is looked up by a thread of libcurl's, which is born where this one is */
	a->curl.multi_socket_action(a->multi, fd, what, &left);
	while ((m = a->curl.multi_info_read(a->multi, &left))) {
		struct kube_call *c = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		a->curl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
		c->code = m->data.result;
		kube_call_end(c, 0);
	}
}

static void timer_over(struct timer *t)
{
	turn(container_of(t, struct kube_api, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int timer_wanted(CURLM *multi, long ms, void *arg)
{
	struct kube_api *a = arg;

	if (ms < 0)
		timer_cancel(&a->timer);
	else
		timer_set(a->loop, &a->timer, (uint64_t)ms, timer_over);
	return 0;
}

static void socket_ready(struct io *io, uint32_t events)
{
	struct watch *w = container_of(io, struct watch, io);

	turn(w->api, io->fd,
	     (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		     (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
}

static void watch_drop(struct watch *w)
{
	io_stop(w->api->loop, &w->io);
	list_del(&w->link);
	free(w);
}

static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct kube_api *a = arg;
	struct watch *w = known;

	if (what == CURL_POLL_REMOVE) {
		if (w)
			watch_drop(w);
		return 0;
	}
	if (!w) {
		w = calloc(1, sizeof *w);
		if (!w)
			return -1;
		w->api = a;
		list_init(&w->link);
		list_add_tail(&a->watches, &w->link);
		io_init(&w->io, fd, socket_ready);
		a->curl.multi_assign(a->multi, fd, w);
	}
	return io_want(a->loop, &w->io, (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0));
}

/* Not left to the programs that the keeper starts. */
curl_socket_t kube_socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *at)
{
	int fd;

	netns_home();
	fd = socket(at->family, at->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->protocol);
	return fd; /* CURL_SOCKET_BAD is -1 */
}

int kube_api_open(struct kube_api **out, struct loop *l, const struct kube_config *config, char why[POD_WHY_MAX])
{
	struct kube_api *a = calloc(1, sizeof *a);

	int e = a ? kube_curl_load(&a->curl, why) : -ENOMEM;

	if (!e && a->curl.global_init(CURL_GLOBAL_DEFAULT) == 0)
		a->multi = a->curl.multi_init();
	if (!a || (!e && !a->multi)) {
		snprintf(why, POD_WHY_MAX, "out of memory");
		e = -ENOMEM;
	}
	if (e) {
		free(a);
		return e;
	}
	a->loop = l;
	a->config = config;
	list_init(&a->calls);
	list_init(&a->watches);
	a->curl.multi_setopt(a->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
	a->curl.multi_setopt(a->multi, CURLMOPT_SOCKETDATA, a);
	a->curl.multi_setopt(a->multi, CURLMOPT_TIMERFUNCTION, timer_wanted);
	a->curl.multi_setopt(a->multi, CURLMOPT_TIMERDATA, a);
	a->curl.multi_setopt(a->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)KUBE_CONNECTIONS_MAX);
	a->curl.multi_setopt(a->multi, CURLMOPT_MAXCONNECTS, (long)KUBE_CONNECTIONS_MAX);
	a->curl.multi_setopt(a->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	*out = a;
	return 0;
}

void kube_api_close(struct kube_api *a)
{
	if (!a)
		return;
	list_for_each_safe (p, tmp, &a->calls)
		kube_call_free(list_entry(p, struct kube_call, link));
	a->curl.multi_cleanup(a->multi);
	list_for_each_safe (p, tmp, &a->watches)
		watch_drop(list_entry(p, struct watch, link));
	timer_cancel(&a->timer);
	free(a);
}

/* --- paths ---------------------------------------------------------------------------------------------- */

int kube_escape(char *out, size_t cap, const char *text)
{
	static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.~";
	size_t n = 0;

	for (; *text; text++) {
		bool as_is = strchr(plain, *text) != NULL;

		if (n + 4 > cap)
			return -EMSGSIZE;
		n += (size_t)snprintf(out + n, cap - n, as_is ? "%c" : "%%%02X", (unsigned char)*text);
	}
	out[n] = '\0';
	return 0;
}
