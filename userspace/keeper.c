/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper: enrols pods, holds their listening sockets and their steering, and serves them to the tunnel over ZDS;
 * started as plain culvertd it runs the tunnel as well.
 *
 * Start is a ladder: configuration, sockets of its own, steering, pods of an earlier keeper, control socket; a step that
 * fails is one line, and what was done before it is undone. Then it waits KEEPER_WAIT_MS for a tunnel that may live from
 * an earlier keeper's time, since that one has the pods' sockets. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/version.h"
#include "ctl_abi.h"
#include "keeper_config.h"
#include "keeper_install.h"
#include "keeper_kube.h"
#include "node/cni_plain.h"
#include "node/ctl.h"
#include "node/enrol.h"
#include "node/supervise.h"
#include "node/zds_server.h"

enum {
	KEEPER_WAIT_MS = 1000,	  /* for a tunnel that lives on */
	KEEPER_HOLD_MS = 250,	  /* for connections that wait to be accepted, before the tunnel is to end */
	KEEPER_MARGIN_MS = 10000, /* the tunnel gets its own deadline and this much to end */
	KEEPER_REGAIN_MS = 100,	  /* between looks whether pods are being regained that a successor must have */
};

static const char target[] = "keeper";

struct keeper {
	struct keeper_config config;
	struct loop *loop;
	struct pods *pods;
	struct zds_server *zds;
	struct steer *steer;
	struct enrol *enrol;
	struct supervise *supervise; /* NULL: culvertd node */
	struct ctl *ctl;
	struct keeper_kube kube;
	struct cni_plain plain;
	struct cni *cni;
	struct keeper_install install;
	struct io signals;
	struct timer wait; /* for a tunnel that lives on; at the end, before ours is to end */
	struct timer regain;
	char tunnel[PATH_MAX];
	bool holding, ending;
	int status;
};

/* --- the end -------------------------------------------------------------------------------------------- */

static void ctl_closed(void *arg)
{
	struct keeper *k = arg;

	loop_stop(k->loop);
}

static void cni_closed(void *arg)
{
	struct keeper *k = arg;

	ctl_close(k->ctl, ctl_closed, k);
}

static void install_ended(void *arg)
{
	struct keeper *k = arg;

	cni_close(k->cni, cni_closed, k);
}

static void keeper_end(struct keeper *k, int status)
{
	if (k->ending)
		return;
	k->ending = true;
	k->status = status;
	timer_cancel(&k->wait);
	install_end(k->install.install, install_ended, k);
}

static void tunnel_end(struct timer *t)
{
	struct keeper *k = container_of(t, struct keeper, wait);

	enrol_close_sockets(k->enrol);
	supervise_stop(k->supervise, k->config.tunnel_drain_ms + KEEPER_MARGIN_MS);
}

static void signalled(struct io *io, uint32_t events)
{
	struct keeper *k = container_of(io, struct keeper, signals);
	struct signalfd_siginfo s;

	if (read(io->fd, &s, sizeof s) != (ssize_t)sizeof s)
		return;
	log_info(target, "%s received", s.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
	if (!k->supervise) {
		keeper_end(k, 0);
		return;
	}
	supervise_hold(k->supervise);
	enrol_hold(k->enrol);
	timer_set(k->loop, &k->wait, k->holding ? 0 : KEEPER_HOLD_MS, tunnel_end);
	k->holding = true;
}

/* --- the tunnel ----------------------------------------------------------------------------------------- */

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
	if (enrol_count(k->enrol, POD_RECOVERING)) {
		timer_set(k->loop, &k->regain, KEEPER_REGAIN_MS, look_again);
		return false;
	}
	if (refused <= (other ? zds_client_refused(other, &ignored) : 0))
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

	if (!zds_server_newest(k->zds))
		enrol_recover(k->enrol);
	if (k->supervise)
		supervise_start(k->supervise);
}

static void keeper_begin(struct keeper *k)
{
	pid_t living = k->supervise ? tunnel_living(k->config.run_dir) : 0;
	int e = cni_serve(k->cni);

	if (e) {
		log_error(target, "cannot serve the CNI socket: %s", strerror(-e));
		keeper_end(k, 1);
		return;
	}

	if (living && supervise_adopt(k->supervise, living, false) < 0)
		living = 0;
	if (!living && !enrol_count(k->enrol, POD_RECOVERING))
		nobody_came(&k->wait);
	else
		timer_set(k->loop, &k->wait, KEEPER_WAIT_MS, nobody_came);
}

/* --- the beginning -------------------------------------------------------------------------------------- */

static int folder_make(const char *path, char why[POD_WHY_MAX])
{
	if (mkdir(path, 0755) == 0 || errno == EEXIST)
		return 0;
	snprintf(why, POD_WHY_MAX, "cannot make the folder %s: %s", path, strerror(errno));
	return -errno;
}

static int folder_make_of(const char *path, char why[POD_WHY_MAX])
{
	char parent[PATH_MAX], *slash;

	snprintf(parent, sizeof parent, "%s", path);
	slash = strrchr(parent, '/');
	if (slash)
		*slash = '\0';
	return parent[0] ? folder_make(parent, why) : 0;
}

/* Of the run directory, and of the sockets that Istio has elsewhere. */
static int folders_make(struct keeper *k, char why[POD_WHY_MAX])
{
	int e = folder_make(k->config.run_dir, why);

	if (!e)
		e = folder_make_of(k->config.zds_path, why);
	return e ? e : folder_make_of(k->config.cni_path, why);
}

/* Every pod costs up to eight descriptors, and there is no reason to be short of them. */
static void limits_raise(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

static int signals_take(struct keeper *k)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	io_init(&k->signals, fd, signalled);
	return io_want(k->loop, &k->signals, EPOLLIN);
}

static int base_start(struct keeper *k, char why[POD_WHY_MAX])
{
	int e = 0;

	limits_raise();
	k->loop = loop_new();
	if (!k->loop)
		e = -errno;
	if (!e)
		e = signals_take(k);
	if (!e)
		e = netns_init_thread();
	if (e)
		snprintf(why, POD_WHY_MAX, "cannot start: %s", strerror(-e));
	return e ? e : folders_make(k, why);
}

static int steering_start(struct keeper *k, char why[POD_WHY_MAX])
{
	const struct steer_options o = {
		.pin_dir = k->config.bpf_dir, .mode = k->config.mode, .kubelet_cgroup = k->config.kubelet_cgroup};
	int e = steer_open(&k->steer, k->loop, &o, why);

	return e ? e : steer_agent_add(k->steer, getpid(), why);
}

static int pods_start(struct keeper *k, char why[POD_WHY_MAX])
{
	const struct enrol_options o = {
		.mode = k->config.mode,
		.config = {.dns_capture = k->config.dns_capture, .reset_existing = k->config.reset_existing},
		.drain_ms = k->config.drain_ms,
	};
	int e = pods_open(&k->pods, k->config.run_dir, why);

	if (e)
		return e;
	k->enrol = enrol_new(k->loop, k->steer, k->pods, &o);
	if (!k->enrol) {
		snprintf(why, POD_WHY_MAX, "out of memory");
		return -ENOMEM;
	}
	enrol_serve(k->enrol, k->zds);
	return enrol_load(k->enrol, why);
}

static int tunnel_prepare(struct keeper *k, char why[POD_WHY_MAX])
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

static int cni_prepare(struct keeper *k, char why[POD_WHY_MAX])
{
	struct cni_decider d;

	k->plain = (struct cni_plain){!strcmp(k->config.cni_pods, "all"), k->config.exclude_namespaces};
	d = k->kube.kube ? kube_decider(k->kube.kube) : cni_plain_decider(&k->plain);
	return cni_open(&k->cni, k->loop, k->enrol, k->zds, k->config.cni_path, &d, why);
}

static int keeper_start(struct keeper *k, char why[POD_WHY_MAX])
{
	const struct zds_server_handler h = {zds_describe, zds_hello, zds_complete, zds_live, zds_gone, k};
	int e = base_start(k, why);

	if (!e) /* first of all: it tells whether another keeper is there */
		e = zds_server_open(&k->zds, k->loop, k->config.zds_path, &h, why);
	if (!e)
		e = steering_start(k, why);
	if (!e)
		e = pods_start(k, why);
	if (!e && k->config.supervise)
		e = tunnel_prepare(k, why);
	if (!e)
		e = keeper_kube_open(&k->kube, &k->config, k->loop, k->enrol, k->zds, why);
	if (!e)
		e = cni_prepare(k, why);
	if (!e)
		e = keeper_install_open(&k->install, &k->config, k->loop, &k->kube, why);
	if (!e) {
		const struct ctl_sources from = {k->loop,
						 k->steer,
						 k->enrol,
						 k->zds,
						 k->supervise,
						 k->config.run_dir,
						 k->config.bpf_dir,
						 k->config.mode,
						 k->kube.kube,
						 (uint16_t)k->config.monitoring_port,
						 k->cni,
						 k->install.install};

		e = ctl_open(&k->ctl, &from, why);
	}
	return e;
}

/* The mirror of keeper_start(), also of half of it. Pods stay steered. */
static void keeper_free(struct keeper *k)
{
	timer_cancel(&k->regain);
	supervise_free(k->supervise);
	zds_server_free(k->zds);
	enrol_free(k->enrol);
	cni_free(k->cni);
	install_free(k->install.install);
	keeper_kube_close(&k->kube);
	ctl_free(k->ctl);
	pods_close(k->pods);
	if (k->steer)
		steer_close(k->steer);
	if (k->signals.fd > 0)
		close(k->signals.fd);
	loop_free(k->loop);
}

static int fail(const char *why)
{
	fprintf(stderr, "culvertd: %s\n", why);
	return 1;
}

int main(int argc, char **argv)
{
	static struct keeper k;
	char why[POD_WHY_MAX] = "";
	int e = keeper_config_read(&k.config, argc, argv, why);

	if (e)
		return e > 0 ? 0 : fail(why);
	if (geteuid() != 0)
		return fail("must run as root: it enters pods' network namespaces and steers their traffic");
	e = log_start(k.config.log_json);
	if (e)
		snprintf(why, sizeof why, "cannot start the log: %s", strerror(-e));
	else
		e = keeper_start(&k, why);
	if (e) {
		keeper_free(&k);
		log_stop();
		return fail(why);
	}
	log_info(target, "culvert %s, run directory %s, steering by %s", CULVERT_VERSION, k.config.run_dir,
		 k.config.steering);
	if (!k.config.ipv6)
		log_warn(target, "AMBIENT_IPV6=false is not followed: IPv6 is captured wherever a pod has it");
	keeper_begin(&k);
	loop_run(k.loop);
	log_info(target, "ends");
	keeper_free(&k);
	log_stop();
	return k.status;
}
