/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper: enrols pods, holds their listening sockets and their steering, and serves them to the tunnel over ZDS;
 * started as plain culvertd it runs the tunnel as well.
 *
 * Start is a ladder: configuration, sockets of its own, steering, pods of an earlier keeper, control socket; a step that
 * fails is one line, and what was done before it is undone. */
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rights.h"
#include "base/version.h"
#include "keeper.h"

enum {
	KEEPER_HOLD_MS = 250,	  /* for connections that wait to be accepted, before the tunnel is to end */
	KEEPER_MARGIN_MS = 10000, /* the tunnel gets its own deadline and this much to end */
};

static const char target[] = "keeper";

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

void keeper_end(struct keeper *k, int status)
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

static int cni_prepare(struct keeper *k, char why[POD_WHY_MAX])
{
	struct cni_decider d;

	k->plain = (struct cni_plain){!strcmp(k->config.cni_pods, "all"), k->config.exclude_namespaces};
	d = k->kube.kube ? kube_decider(k->kube.kube) : cni_plain_decider(&k->plain);
	return cni_open(&k->cni, k->loop, k->enrol, k->zds, k->config.cni_path, &d, why);
}

static int keeper_start(struct keeper *k, char why[POD_WHY_MAX])
{
	const struct zds_server_handler h = keeper_zds_handler(k);
	int e = base_start(k, why);

	if (!e) /* first of all: it tells whether another keeper is there */
		e = zds_server_open(&k->zds, k->loop, k->config.zds_path, &h, why);
	if (!e)
		e = steering_start(k, why);
	if (!e)
		e = pods_start(k, why);
	if (!e && k->config.supervise)
		e = keeper_tunnel_open(k, why);
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
						 k->config.log_filter,
						 k->kube.kube,
						 (uint16_t)k->config.monitoring_port,
						 k->cni,
						 k->install.install};

		e = ctl_open(&k->ctl, &from, why);
	}
	return e;
}

static void keeper_begin(struct keeper *k)
{
	int e = cni_serve(k->cni);

	if (!e) {
		keeper_tunnel_await(k);
		return;
	}
	log_error(target, "cannot serve the CNI socket: %s", strerror(-e));
	keeper_end(k, 1);
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

/* Pods' namespaces, steering and sockets; the processes of others, to know whose they are; folders that are not root's,
 * in which files keep their owners where the last two are there. Programs that it starts have no more. */
static int rights_give_up(void)
{
	static const int wanted[] = {CAP_NET_ADMIN,    CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_PTRACE,
				     CAP_DAC_OVERRIDE, CAP_CHOWN,   CAP_FOWNER};

	return rights_keep(wanted, sizeof wanted / sizeof *wanted);
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
	e = rights_give_up();
	if (e) {
		snprintf(why, sizeof why, "cannot give up capabilities: %s", strerror(-e));
		return fail(why);
	}
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
