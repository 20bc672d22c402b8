/* SPDX-License-Identifier: Apache-2.0 */
/* Can this node run Culvert? The kernel's parts, rights, settings and clock; needs nothing of ours to run. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "culvertctl.h"
#include "doctor.h"

enum { KERNEL_LEAST = 509, KERNEL_TESTED = 601, KERNEL_TCX = 606 /* major * 100 + minor */ };

/* --- gathering ------------------------------------------------------------------------------------------ */

static bool file_holds(const char *path, const char *text)
{
	FILE *f = fopen(path, "re");
	char line[4096];
	bool found = false;

	while (f && !found && fgets(line, sizeof line, f))
		found = strstr(line, text) != NULL;
	if (f)
		fclose(f);
	return found;
}

static int number_in(const char *path)
{
	FILE *f = fopen(path, "re");
	int n = -1;

	if (f && fscanf(f, "%d", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

static unsigned long long caps_of(int pid)
{
	char path[64], line[256];
	unsigned long long caps = 0;
	FILE *f;

	snprintf(path, sizeof path, pid ? "/proc/%d/status" : "/proc/self/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		sscanf(line, "CapEff: %llx", &caps);
	if (f)
		fclose(f);
	return caps;
}

/* The nearest folder that is there: the keeper makes the rest. */
static bool is_bpffs(const char *path)
{
	char at[512];
	struct statfs fs;

	snprintf(at, sizeof at, "%s", path);
	while (statfs(at, &fs) < 0 && strrchr(at, '/') > at)
		*strrchr(at, '/') = '\0';
	return statfs(at, &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

static int try_inotify(void)
{
	int fd = inotify_init1(IN_CLOEXEC), e = fd < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return e;
}

void doctor_kernel_gather(struct doctor *d)
{
	struct doctor_kernel *k = &d->kernel;
	struct timex clock = {.modes = 0};
	struct utsname u;

	if (uname(&u) == 0)
		snprintf(k->release, sizeof k->release, "%s", u.release);
	k->root = geteuid() == 0;
	k->tried = k->root ? steer_features_try(&k->features) : -EPERM;
	k->bpffs = is_bpffs(d->bpf_dir);
	k->cgroup2 = file_holds("/proc/self/mountinfo", " - cgroup2 ");
	k->tls_module = file_holds("/proc/sys/net/ipv4/tcp_available_ulp", "tls");
	k->jit = number_in("/proc/sys/net/core/bpf_jit_enable");
	k->caps = caps_of(d->keeper.pid);
	if (!k->caps)
		k->caps = caps_of(0);
	k->inotify = try_inotify();
	k->clock_synchronized = adjtimex(&clock) != TIME_ERROR && !(clock.status & STA_UNSYNC);
}

/* --- the kernel's parts --------------------------------------------------------------------------------- */

static const struct part {
	enum steer_feature feature;
	enum finding_level level; /* where it is missing */
	const char *what, *advice;
} parts[] = {
	{STEER_FEATURE_NAMESPACES, FINDING_PROBLEM, "no network namespace can be made, so that nothing else was tried",
	 "run it as root on the node, or in a container that has CAP_SYS_ADMIN and CAP_NET_ADMIN"},
	{STEER_FEATURE_BPF, FINDING_PROBLEM, "bpf(2) is refused",
	 "build the kernel with CONFIG_BPF_SYSCALL; if it is there: CAP_SYS_ADMIN, and no lockdown or seccomp filter "
	 "that forbids it"},
	{STEER_FEATURE_LOOKUP, FINDING_PROBLEM, "no sk_lookup programs (Linux 5.9)",
	 "use a newer kernel, or culvertd --steering=iptables"},
	{STEER_FEATURE_STORAGE, FINDING_PROBLEM, "nothing can be stored in sockets (CONFIG_BPF_SYSCALL, CONFIG_INET)",
	 "use a newer kernel, or culvertd --steering=iptables"},
	{STEER_FEATURE_SOCKMAP, FINDING_PROBLEM, "no maps of sockets (CONFIG_BPF_STREAM_PARSER or CONFIG_NET_SOCK_MSG)",
	 "use a kernel that has them, or culvertd --steering=iptables"},
	{STEER_FEATURE_TC, FINDING_PROBLEM, "no BPF programs for devices (CONFIG_NET_CLS_BPF)",
	 "use a kernel that has them, or culvertd --steering=iptables"},
	{STEER_FEATURE_CGROUP, FINDING_WARNING, "no BPF programs for cgroups (CONFIG_CGROUP_BPF)",
	 "without them the kubelet's probes are told by the node's address; use a kernel that has them"},
	{STEER_FEATURE_LISTENER, FINDING_PROBLEM, "no transparent, marked listener can be opened",
	 "it takes CAP_NET_ADMIN, and CONFIG_NETFILTER_XT_TARGET_TPROXY is not needed: look at what confines root "
	 "here"},
	{STEER_FEATURE_DESTROY, FINDING_WARNING, "sockets cannot be listed and ended (CONFIG_INET_DIAG_DESTROY)",
	 "build the kernel with it: without it pods cannot leave the mesh"},
};

static int version_of(const char *release)
{
	int major = 0, minor = 0;

	return sscanf(release, "%d.%d", &major, &minor) == 2 ? 100 * major + minor : 0;
}

static void check_version(struct doctor *d)
{
	int v = version_of(d->kernel.release);

	if (v < KERNEL_LEAST)
		finding(d, FINDING_PROBLEM, "use Linux 6.1 or later", "Linux %s is too old for BPF steering",
			d->kernel.release);
	else if (v < KERNEL_TESTED)
		finding(d, FINDING_WARNING, "use Linux 6.1 or later", "Linux %s is older than what is tested",
			d->kernel.release);
}

static void check_hooks(struct doctor *d)
{
	const int *err = d->kernel.features.err;

	if (!err[STEER_FEATURE_TCX])
		return;
	if (err[STEER_FEATURE_CLSACT])
		finding(d, FINDING_PROBLEM,
			"build the kernel with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF, or use culvertd "
			"--steering=iptables",
			"programs cannot be attached to devices: neither tcx (%s) nor clsact (%s)",
			strerror(-err[STEER_FEATURE_TCX]), strerror(-err[STEER_FEATURE_CLSACT]));
	else
		finding(d, FINDING_NOTE, "nothing need be done; Linux 6.6 and later have tcx, which others cannot undo",
			"programs are attached by clsact, not by tcx");
}

void check_kernel(struct doctor *d)
{
	const struct doctor_kernel *k = &d->kernel;
	unsigned worse = d->found.count[FINDING_WARNING] + d->found.count[FINDING_PROBLEM];

	check_version(d);
	for (unsigned i = 0; i < sizeof parts / sizeof *parts && !k->tried; i++)
		if (k->features.err[parts[i].feature])
			finding(d, parts[i].level, parts[i].advice, "%s: %s", parts[i].what,
				strerror(-k->features.err[parts[i].feature]));
	if (!k->tried && !k->features.err[STEER_FEATURE_NAMESPACES])
		check_hooks(d);
	if (!k->bpffs)
		finding(d, d->status ? FINDING_WARNING : FINDING_NOTE,
			"mount -t bpf bpf /sys/fs/bpf (systemd does); the keeper does it where it may",
			"%s is not on a bpffs: steering would not outlive the keeper", d->bpf_dir);
	if (!k->cgroup2)
		finding(d, FINDING_WARNING, "mount -t cgroup2 none /sys/fs/cgroup, or the unified hierarchy of systemd",
			"cgroup2 is not mounted: the agent's packets are known by their mark alone, which any process "
			"with CAP_NET_RAW in a pod can set to leave in plaintext");
	if (d->found.count[FINDING_WARNING] + d->found.count[FINDING_PROBLEM] == worse)
		finding(d, FINDING_OK, "",
			k->tried ? "Linux %s; whether it has what steering needs was not tried (kTLS is %s)"
				 : "Linux %s has what steering needs; kTLS, which is needed for CULVERT_KTLS=on alone, "
				   "is %s",
			k->release, k->tls_module ? "there" : "not loaded");
}

/* --- rights --------------------------------------------------------------------------------------------- */

void check_rights(struct doctor *d)
{
	static const struct {
		unsigned cap;
		const char *name, *what;
	} needed[] = {
		{CAP_NET_ADMIN, "CAP_NET_ADMIN", "programs, rules, routes and listeners in pods"},
		{CAP_NET_RAW, "CAP_NET_RAW", "the sockets by which DNS is answered"},
		{CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "entering the pods' namespaces and loading BPF"},
		{CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "seeing which namespaces other processes are in"},
	};

	if (!d->kernel.root)
		finding(d, FINDING_PROBLEM, "run culvertctl doctor as root",
			"not run as root: most could not be looked at");
	for (unsigned i = 0; i < sizeof needed / sizeof *needed && d->kernel.root; i++)
		if (!(d->kernel.caps >> needed[i].cap & 1))
			finding(d, FINDING_PROBLEM, "give it to the keeper (the chart and the systemd unit do)",
				"%s is missing, for %s", needed[i].name, needed[i].what);
}

/* --- settings ------------------------------------------------------------------------------------------- */

void check_settings(struct doctor *d)
{
	const struct doctor_kernel *k = &d->kernel;

	if (k->jit == 0)
		finding(d, FINDING_WARNING, "sysctl -w net.core.bpf_jit_enable=1, and the same in /etc/sysctl.d",
			"net.core.bpf_jit_enable is 0: BPF programs are interpreted, which costs every packet dearly");
	if (k->inotify)
		finding(d, FINDING_PROBLEM,
			"raise fs.inotify.max_user_instances (sysctl), or end what has so many open",
			"no inotify instance can be had (%s): changed files and CNI configurations would not be "
			"noticed",
			strerror(-k->inotify));
}

/* --- the clock ------------------------------------------------------------------------------------------ */

void check_clock(struct doctor *d)
{
	const time_t released = 1735689600; /* 2025: before anything of ours was built */

	if (d->now < released)
		finding(d, FINDING_PROBLEM, "set the clock, and run chrony or systemd-timesyncd",
			"the clock is before 2025: no certificate is valid then");
	else if (!d->kernel.clock_synchronized)
		finding(d, FINDING_NOTE,
			"run chrony or systemd-timesyncd, unless the machine's host keeps the clock: certificates live "
			"for hours",
			"the kernel does not know that its clock is synchronised");
}
