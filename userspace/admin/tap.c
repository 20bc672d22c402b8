// SPDX-License-Identifier: Apache-2.0
/* The socket of taps: who may have one, and the threads that serve them. */
#include "admin/tap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/tap_session.h"
#include "base/log.h"
#include "net/seqpacket.h"
#include "net/unix_path.h"

static const char target[] = "tap";

struct tap_server {
	struct loop *control;
	struct data_plane *data;
	struct io listener;
	int stop; /* readable: all sessions end */
	char path[sizeof((struct sockaddr_un *)0)->sun_path];
	struct tap_session session[TAPS_MAX];
};

/* --- the socket ----------------------------------------------------------------------------------------- */

static void join(struct tap_session *s)
{
	pthread_join(s->thread, NULL);
	close(s->fd);
	s->used = false;
}

static struct tap_session *free_session(struct tap_server *s)
{
	struct tap_session *found = NULL;

	for (unsigned i = 0; i < TAPS_MAX; i++) {
		struct tap_session *k = &s->session[i];

		if (k->used && __atomic_load_n(&k->over, __ATOMIC_ACQUIRE))
			join(k);
		if (!k->used)
			found = k;
	}
	return found;
}

/* Signals are the main thread's. */
static int start(struct tap_session *s)
{
	sigset_t all, before;
	int e;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&s->thread, NULL, tap_session_main, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!e)
		pthread_setname_np(s->thread, "tap");
	return e;
}

static void turn_away(int fd, const char *why)
{
	char text[256];
	int n = snprintf(text, sizeof text, "{\"error\": \"%s\"}\n", why);

	send(fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL); /* into an empty buffer */
	close(fd);
}

static void take(struct tap_server *s, int fd)
{
	struct tap_session *k;
	pid_t pid = 0;
	uid_t uid = 1;

	if (seqpacket_peer(fd, &pid, &uid) < 0 || uid != 0) {
		log_msg(LOG_WARN, target, "a tap is refused to process %d of user %u: only root may", (int)pid, uid);
		turn_away(fd, "only root may tap");
		return;
	}
	k = free_session(s);
	if (!k) {
		turn_away(fd, "as many taps as may be are under way; end one");
		return;
	}
	*k = (struct tap_session){.data = s->data, .stop = s->stop, .fd = fd, .pid = pid, .uid = uid};
	k->used = start(k) == 0;
	if (!k->used)
		turn_away(fd, "cannot start a thread");
}

static void accept_ready(struct io *io, uint32_t events)
{
	struct tap_server *s = container_of(io, struct tap_server, listener);
	int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		take(s, fd);
}

static int listen_at(struct tap_server *s)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), e;

	if (fd < 0)
		return -errno;
	io_init(&s->listener, fd, accept_ready);
	unix_path_take(s->path); /* what cannot be taken, bind() reports */
	memcpy(at.sun_path, s->path, sizeof at.sun_path);
	/* The file has the socket's mode from its first moment. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
		return -errno;
	if (chmod(s->path, 0600) < 0 || listen(fd, TAPS_MAX) < 0)
		return -errno;
	e = io_want(s->control, &s->listener, EPOLLIN);
	return e;
}

struct tap_server *tap_server_new(struct loop *control, struct data_plane *data, const char *path, char *why,
				  size_t len)
{
	struct tap_server *s = calloc(1, sizeof *s);
	int e = s ? 0 : -ENOMEM;

	if (s) {
		*s = (struct tap_server){.control = control, .data = data, .listener.fd = -1};
		s->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		e = s->stop < 0 ? -errno : 0;
		if (!e && snprintf(s->path, sizeof s->path, "%s", path) >= (int)sizeof s->path)
			e = -ENAMETOOLONG;
		if (!e)
			e = listen_at(s);
	}
	if (!e)
		return s;
	snprintf(why, len, "%s: %s", path, strerror(-e));
	tap_server_free(s);
	return NULL;
}

/* The path may be a successor's by now: it stays. */
void tap_server_drain(struct tap_server *s)
{
	if (s && s->listener.fd >= 0)
		io_close(s->control, &s->listener);
}

void tap_server_free(struct tap_server *s)
{
	if (!s)
		return;
	tap_server_drain(s);
	if (s->stop >= 0)
		eventfd_write(s->stop, 1);
	for (unsigned i = 0; i < TAPS_MAX; i++)
		if (s->session[i].used)
			join(&s->session[i]);
	if (s->stop >= 0)
		close(s->stop);
	free(s);
}
