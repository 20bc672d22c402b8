/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel, as the keeper sees it: it is started and replaced by node/supervise, and served by node/zds_server; here
 * the one is told of what the other sees. At first KEEPER_WAIT_MS are waited for a tunnel that may live from an earlier
 * keeper's time, since that one has the pods' sockets. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl_abi.h"
#include "keeper.h"

enum {
	KEEPER_WAIT_MS = 1000,	      /* for a tunnel that lives on */
	KEEPER_REGAIN_MS = 100,	      /* between looks whether pods are being regained that a successor must have */
	KEEPER_REGAIN_MAX_MS = 10000, /* for a tunnel to come that may have their sockets */
};

static const char target[] = "keeper";

/* --- one of our own ------------------------------------------------------------------------------------- */

static void tunnel_started(void *arg, pid_t pid)
{
	struct keeper *k = arg;
	char why[STEER_WHY_MAX];

	if (steer_agent_add(k->steer, pid, why) < 0)
		log_error(target, "the tunnel's packets will not be known as the agent's: %s", why);
}

static void tunnel_refused(void *arg, int status)
{
	keeper_end(arg, status);
}

/* One that is not connected is told when it comes. */
static void tunnel_retire(void *arg, pid_t pid)
{
	struct keeper *k = arg;
	struct zds_client *c = zds_server_find(k->zds, pid);
	int e = c ? zds_retire(c) : 0;

	if (e == -EOPNOTSUPP)
		kill(pid, SIGTERM);
	else if (e)
		log_error(target, "process %d is not told to drain: %s", (int)pid, strerror(-e));
}

/* Where it was killed it has left its socket. */
static void tunnel_ended(void *arg, pid_t pid)
{
	struct keeper *k = arg;
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/" CTL_DRAINING_SOCKET, k->config.run_dir, (int)pid) < PATH_MAX)
		unlink(path);
}

static void tunnel_stopped(void *arg)
{
	keeper_end(arg, 0);
}

int keeper_tunnel_open(struct keeper *k, char why[POD_WHY_MAX])
{
	static char *argv[] = {(char *)"culvert-tunnel", NULL};
	const struct supervise_handler h = {tunnel_started, tunnel_refused, tunnel_retire,
					    tunnel_ended,   tunnel_stopped, k};
	char limit[32];
	int e = 0;
	ssize_t n = readlink("/proc/self/exe", k->tunnel, sizeof k->tunnel);

	while (n > 0 && k->tunnel[n - 1] != '/')
		n--;
	if (n <= 0 || (size_t)n + sizeof "culvert-tunnel" > sizeof k->tunnel) {
		snprintf(why, POD_WHY_MAX, "cannot find culvert-tunnel beside this program");
		return -ENOENT;
	}
	strcpy(k->tunnel + n, "culvert-tunnel");
	snprintf(limit, sizeof limit, "%ums", k->config.drain_limit_ms);
	unsetenv(SUPERVISE_SUCCEEDS);
	if (setenv("CULVERT_DRAIN_LIMIT", limit, 1) < 0 || setenv("CULVERT_RUN_DIR", k->config.run_dir, 1) < 0 ||
	    setenv("INPOD_UDS", k->config.zds_path, 1) < 0 || setenv("CULVERT_LOG", k->config.log_filter, 1) < 0 ||
	    setenv("LOG_FORMAT", k->config.log_format, 1) < 0)
		return -ENOMEM;
	k->supervise = supervise_new(k->loop, k->tunnel, argv, environ, k->config.drain_limit_ms, &h);
	if (!k->supervise)
		return -ENOMEM;
	if (k->config.upgrade_on_change)
		e = supervise_follow(k->supervise);
	if (e)
		snprintf(why, POD_WHY_MAX, "cannot watch %.256s: %s (--upgrade-on-change=false does without)",
			 k->tunnel, strerror(-e));
	return e;
}

/* --- those that connect --------------------------------------------------------------------------------- */

/* A foreign tunnel beside ours is not ours to watch: it does not take our pods' sockets. */
static void tunnel_watch(struct keeper *k, struct zds_client *c)
{
	struct supervise_status s;
	int e = 0;

	supervise_status(k->supervise, &s);
	if (zds_client_ours(c) || !s.pid)
		e = supervise_adopt(k->supervise, zds_client_pid(c), zds_client_draining(c));
	if (e)
		log_error(target, "cannot watch process %d: %s", (int)zds_client_pid(c), strerror(-e));
}

static void zds_hello(void *arg, struct zds_client *c)
{
	struct keeper *k = arg;

	if (k->supervise)
		tunnel_watch(k, c);
	tunnel_started(k, zds_client_pid(c));
	enrol_hello(k->enrol, c);
}

static void look_again(struct timer *t)
{
	struct keeper *k = container_of(t, struct keeper, regain);
	struct zds_client *c = zds_server_newest(k->zds);

	if (c)
		zds_continue(c);
}

/* What the tunnel that serves may have is asked back from it before it is retired. A pod that cannot be regained for
 * another reason, say an application has our ports, keeps the node from no upgrade. */
static bool regaining(struct keeper *k, const struct zds_client *c, bool serving_is_here)
{
	const struct enrol_pod *p;

	if (k->regain_for != zds_client_pid(c))
		k->regain_until = loop_now(k->loop) + KEEPER_REGAIN_MAX_MS;
	k->regain_for = zds_client_pid(c);
	if (enrol_recovering(k->enrol, !serving_is_here && loop_now(k->loop) < k->regain_until)) {
		timer_set(k->loop, &k->regain, KEEPER_REGAIN_MS, look_again);
		return true;
	}
	p = enrol_recovering(k->enrol, true);
	if (p)
		log_warn(target,
			 "pod %s/%s is not regained (%s): the new tunnel serves without it, and without %u others",
			 enrol_pod_record(p)->identity.ns, enrol_pod_record(p)->identity.name, enrol_pod_trouble(p),
			 enrol_count(k->enrol, POD_RECOVERING) - 1);
	return false;
}

/* A successor must be able to serve what the other one serves, before anything is taken from that one. */
static bool zds_complete(void *arg, struct zds_client *c)
{
	struct keeper *k = arg;
	struct supervise_status s = {.pid = 0};
	struct zds_client *other;
	const char *why, *ignored;
	char text[SUPERVISE_WHY_MAX];
	unsigned refused = zds_client_refused(c, &why);

	if (k->supervise)
		supervise_status(k->supervise, &s);
	other = zds_server_find(k->zds, s.pid);
	if (!s.upgrading || c != zds_server_newest(k->zds) || c == other)
		return true;
	if (regaining(k, c, other != NULL))
		return false;
	if (s.silent || refused <= (other ? zds_client_refused(other, &ignored) : 0))
		return true;
	snprintf(text, sizeof text, "the new tunnel cannot serve %u pods: %s", refused, why);
	supervise_fails(k->supervise, zds_client_pid(c), text);
	return false;
}

static void zds_live(void *arg, struct zds_client *c)
{
	struct keeper *k = arg;

	if (zds_client_draining(c))
		return;
	if (k->supervise)
		supervise_serves(k->supervise, zds_client_pid(c));
	enrol_live(k->enrol);
	if (k->kube.kube)
		kube_tunnel_came(k->kube.kube);
}

static void zds_gone(void *arg, struct zds_client *c)
{
	struct keeper *k = arg;
	struct zds_client *newest = zds_server_newest(k->zds);

	if (k->supervise)
		supervise_lost(k->supervise, zds_client_pid(c));
	if (newest && zds_client_live(newest) && !zds_client_draining(c))
		enrol_again(k->enrol, newest);
	if (!newest)
		log_warn(target, "no tunnel is connected; connection attempts of %u pods wait",
			 enrol_count(k->enrol, POD_ENROLLED));
}

static int zds_describe(void *arg, const char *uid, struct zds_workload *out)
{
	struct keeper *k = arg;

	return enrol_describe(k->enrol, uid, out);
}

struct zds_server_handler keeper_zds_handler(struct keeper *k)
{
	return (struct zds_server_handler){zds_describe, zds_hello, zds_complete, zds_live, zds_gone, k};
}

/* --- the first one -------------------------------------------------------------------------------------- */

/* The process that listens on the tunnel's own socket, or 0: a tunnel that lives from an earlier keeper's time. */
static pid_t tunnel_living(const char *run_dir)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct ucred cred = {.pid = 0, .uid = (uid_t)-1};
	socklen_t len = sizeof cred;

	if (fd < 0)
		return 0;
	if (snprintf(at.sun_path, sizeof at.sun_path, "%s/%s", run_dir, CTL_TUNNEL_SOCKET) < (int)sizeof at.sun_path &&
	    (connect(fd, (struct sockaddr *)&at, sizeof at) == 0 || errno == EAGAIN))
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	close(fd);
	return cred.uid == 0 ? cred.pid : 0;
}

static void nobody_came(struct timer *t)
{
	struct keeper *k = container_of(t, struct keeper, wait);
	struct supervise_status s = {.pid = 0};

	if (!zds_server_newest(k->zds)) {
		enrol_recover(k->enrol);
		if (k->supervise)
			supervise_status(k->supervise, &s);
	}
	if (s.pid) /* it listens on the tunnel's own socket, and does not come */
		supervise_lost(k->supervise, s.pid);
	if (k->supervise)
		supervise_start(k->supervise);
}

void keeper_tunnel_await(struct keeper *k)
{
	pid_t living = k->supervise ? tunnel_living(k->config.run_dir) : 0;

	if (living && supervise_adopt(k->supervise, living, false) < 0)
		living = 0;
	if (!living && !enrol_count(k->enrol, POD_RECOVERING))
		nobody_came(&k->wait);
	else
		timer_set(k->loop, &k->wait, KEEPER_WAIT_MS, nobody_came);
}
