// SPDX-License-Identifier: Apache-2.0
/* Un-enrolment: first no new captures, then captured connections may finish, then what is left is reset (detached,
 * their sockets would send plaintext to peers that never heard of them), and at last everything is removed. */
#include <arpa/inet.h>
#include <stdlib.h>

#include "base/log.h"
#include "steer/diag.h"
#include "steer/iptables.h"
#include "steer/steer_internal.h"

static bool is_agents(const struct diag_socket *s)
{
	return (s->mark & CULVERT_MARK_MASK) == CULVERT_MARK_AGENT;
}

/* Is it, or carries it, a captured connection that goes on? The app's end has our flag. The agent's own are one for one
 * with captured ones, and may have bytes to deliver when the app's end is gone; but tunnels are kept when nothing is in
 * them. */
static bool holds_up(const struct diag_socket *s)
{
	if (s->orphan && s->state == DIAG_FIN_WAIT2)
		return false; /* nobody has it open, and all that it sent is acknowledged */
	if (s->flow == STEER_FLOW_CAPTURED)
		return true;
	if (!is_agents(s))
		return false;
	return s->unsent || (ntohs(s->id.idiag_sport) != PORT_HBONE && ntohs(s->id.idiag_dport) != PORT_HBONE);
}

struct sweep {
	unsigned n;
	int e;
};

static bool on_left(void *arg, const struct diag_socket *s)
{
	struct sweep *sweep = arg;

	sweep->n += holds_up(s);
	return true;
}

/* The agent's other connections as well: without steering nobody uses them. */
static bool on_reset(void *arg, const struct diag_socket *s)
{
	struct sweep *sweep = arg;
	int e;

	if (s->flow != STEER_FLOW_CAPTURED && !is_agents(s))
		return true;
	e = diag_destroy(s);
	sweep->n++;
	if (e && !sweep->e)
		sweep->e = e;
	return true;
}

static void finish(struct steer_pod *p, int e)
{
	void (*done)(void *arg, int err) = p->done;
	void *arg = p->done_arg;

	pod_release(p);
	if (done)
		done(arg, e);
}

int pod_reset(struct steer_pod *p)
{
	struct sweep sweep = {0};
	int e = diag_each(p->steer->shared.map[MAP_FLOWS], DIAG_CONNECTED, on_reset, &sweep);

	if (!e)
		e = sweep.e;
	if (e)
		log_error(STEER_LOG, "pod %s: captured connections could not be reset: %s", p->uid, strerror(-e));
	return e;
}

/* Rules and programs are still there while connections are reset: the app's ends must hear of it. Where that fails
 * they stay, without new captures, and the next collection tries again. */
static void end_steering(struct steer_pod *p)
{
	char why[STEER_WHY_MAX];
	int e = pod_enter(p, why);

	if (e)
		log_error(STEER_LOG, "%s", why);
	else
		e = pod_reset(p);
	netns_home();
	if (e || p->mode == STEER_BPF) {
		if (!e)
			pod_unwind(p);
		finish(p, e);
		return;
	}
	e = iptables_remove(p->netns, &p->ns, why);
	if (e)
		log_error(STEER_LOG, "pod %s: %s", p->uid, why);
	finish(p, e);
}

static void on_drain(struct timer *t)
{
	struct steer_pod *p = container_of(t, struct steer_pod, drain);
	struct sweep sweep = {0};
	char ignored[STEER_WHY_MAX];
	int e = pod_enter(p, ignored);

	if (!e)
		e = diag_each(p->steer->shared.map[MAP_FLOWS], DIAG_CONNECTED, on_left, &sweep);
	netns_home();
	/* What cannot be counted may still be there. */
	p->quiet = e || sweep.n ? 0 : p->quiet + 1;
	if (p->quiet < STEER_DRAIN_QUIET && loop_now(p->steer->loop) < p->drain_until)
		timer_set(p->steer->loop, &p->drain, STEER_DRAIN_TICK_MS, on_drain);
	else
		end_steering(p);
}

static int stop_captures(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int e;

	if (p->mode == STEER_IPTABLES)
		return iptables_stop(p->netns, &p->ns, why);
	e = pod_enter(p, why);
	if (!e)
		e = pod_conf_write(p, why);
	netns_home();
	return e;
}

void steer_detach(struct steer_pod *p, unsigned drain_ms, void (*done)(void *arg, int err), void *arg)
{
	char why[STEER_WHY_MAX];

	p->done = done;
	p->done_arg = arg;
	p->stopping = true;
	if (stop_captures(p, why) < 0)
		log_error(STEER_LOG, "pod %s: %s", p->uid, why);
	p->drain_until = loop_now(p->steer->loop) + drain_ms;
	timer_set(p->steer->loop, &p->drain, 0, on_drain);
}
