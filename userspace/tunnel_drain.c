/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel's end: the signals that ask for it, and the drain.
 *
 * A drain (SIGTERM, SIGINT, /quitquitquit; or the keeper says that a successor serves, which leaves more time) closes
 * all listeners, waits for the connections that there are, and ends the loop. All else goes on meanwhile: the mesh, its
 * policies, certificates, and what ZDS tells of pods that leave. */
#include "tunnel.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"

static const char target[] = "tunnel";

static void part_drained(struct tunnel *t)
{
	if (--t->draining == 0)
		loop_stop(t->loop);
}

static void connections_drained(void *arg)
{
	part_drained(arg);
}

static void servers_closed(struct loop *l, struct msg *m)
{
	part_drained(container_of(m, struct tunnel, closed));
}

/* A request that is being answered may need the control thread, so that one cannot wait for it. */
static void *close_servers(void *arg)
{
	struct tunnel *t = arg;

	http_server_free(t->admin_http);
	http_server_free(t->probe_http);
	t->admin_http = t->probe_http = NULL;
	loop_post(t->loop, &t->closed, servers_closed);
	return NULL;
}

static void drain(struct tunnel *t, const char *cause, unsigned limit_ms, bool succeeded)
{
	if (t->ending) {
		data_drain_limit(t->data, limit_ms);
		return;
	}
	__atomic_store_n(&t->ending, true, __ATOMIC_RELAXED);
	log_info(target, "%s: draining for up to %u s", cause, limit_ms / 1000);
	t->draining = 2;
	if (t->zds)
		zds_drain(t->zds);
	t->closer_runs = pthread_create(&t->closer, NULL, close_servers, t) == 0;
	if (!t->closer_runs)
		part_drained(t);
	data_drain(t->data, limit_ms, succeeded, connections_drained, t);
	ports_drain(t);
}

void tunnel_retire(struct tunnel *t)
{
	drain(t, "a successor serves", t->c.drain_limit_ms, true);
}

/* From the admin interface, on its thread. */
void tunnel_quit(void *arg)
{
	kill(getpid(), SIGTERM);
}

/* --- signals -------------------------------------------------------------------------------------------- */

static void on_signal(struct io *io, uint32_t events)
{
	struct tunnel *t = container_of(io, struct tunnel, signals);
	struct signalfd_siginfo s;

	while (read(io->fd, &s, sizeof s) == sizeof s) {
		if (s.ssi_signo == SIGINT && t->interrupted) {
			log_stop();
			_exit(0);
		}
		t->interrupted |= s.ssi_signo == SIGINT;
		drain(t, s.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM", t->c.drain_ms, false);
	}
}

static sigset_t ending_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return set;
}

void tunnel_signals_block(void)
{
	sigset_t set = ending_signals();

	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int tunnel_signals_open(struct tunnel *t)
{
	sigset_t set = ending_signals();

	io_init(&t->signals, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), on_signal);
	return t->signals.fd < 0 ? -errno : io_want(t->loop, &t->signals, EPOLLIN);
}

void tunnel_signals_close(struct tunnel *t)
{
	io_stop(t->loop, &t->signals);
	close(t->signals.fd);
}
