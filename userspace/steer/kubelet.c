// SPDX-License-Identifier: Apache-2.0
/* The kubelet's probes reach the app without the agent: a program on the kubelet's cgroup writes down its connection
 * attempts, and steer_ingress lets those through. Looked for by name in /proc, and again when its cgroup is made anew
 * (a restarted service). Never at the root of cgroups, where every process of the host would be exempt. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/steer_internal.h"
#include "probe.skel.h"

enum { CHECK_MS = 10000, CGROUP_ROOT_ID = 1 };

static bool is_kubelet(const char *pid)
{
	static const char *const names[] = {"kubelet\n", "kubelite\n", "k3s-server\n", "k3s-agent\n", "k3s\n"};
	char path[64], comm[32] = "";
	FILE *f;

	snprintf(path, sizeof path, "/proc/%.16s/comm", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(comm, sizeof comm, f))
		comm[0] = 0;
	fclose(f);
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(comm, names[i]))
			return true;
	return false;
}

static bool same_namespace(const char *pid, const char *kind)
{
	char a[64], b[64];
	struct stat x, y;

	snprintf(a, sizeof a, "/proc/%.16s/ns/%s", pid, kind);
	snprintf(b, sizeof b, "/proc/1/ns/%s", kind);
	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

/* A user of the host may call a program what he likes as well. */
static bool is_roots(const char *pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof path, "/proc/%.16s", pid);
	return stat(path, &st) == 0 && st.st_uid == 0;
}

/* The cgroup of the one that is the host's: a container may call its process what it likes, but it sits in namespaces
 * of its own. Two that differ are one too many. */
static int find_host_kubelet(struct steer *s, char path[PATH_MAX], uint64_t *id)
{
	DIR *d = opendir("/proc");
	struct dirent *entry;
	struct stat st;
	int e = stat("/proc/1/ns/pid", &st) == 0 ? -ESRCH : -EACCES;

	while (d && (!e || e == -ESRCH) && (entry = readdir(d))) {
		char other[PATH_MAX];
		uint64_t other_id;
		int f;

		if (!isdigit((unsigned char)entry->d_name[0]) || !is_kubelet(entry->d_name) ||
		    !is_roots(entry->d_name) || !same_namespace(entry->d_name, "pid") ||
		    !same_namespace(entry->d_name, "mnt"))
			continue;
		f = cgroup_of(s, atoi(entry->d_name), other, &other_id);
		if (e == -ESRCH) {
			e = f;
			memcpy(path, other, sizeof other);
			*id = other_id;
		} else if (f || e || other_id != *id) {
			e = -EEXIST;
		}
	}
	if (d)
		closedir(d);
	return e;
}

/* The cgroup to attach to; in words for `status` where there is none. */
static int find_cgroup(struct steer *s, char path[PATH_MAX], uint64_t *id)
{
	const char *how = "its cgroup2 folder cannot be found";
	int e;

	if (s->kubelet_cgroup) {
		snprintf(path, PATH_MAX, "%s", s->kubelet_cgroup);
		e = cgroup_id(path, id);
	} else {
		e = find_host_kubelet(s, path, id);
	}
	if (!e && *id == CGROUP_ROOT_ID) {
		how = "it is in the root cgroup, with others";
		e = -EINVAL;
	} else if (e == -ESRCH) {
		how = "no kubelet in /proc";
	} else if (e == -EEXIST) {
		how = "several processes are called kubelet";
	} else if (e == -EACCES) {
		how = "the namespaces of process 1 cannot be read";
	}
	if (e)
		snprintf(s->kubelet.how, sizeof s->kubelet.how, "%s", how);
	return e;
}

static int load(struct steer *s, const char *path, char why[STEER_WHY_MAX])
{
	struct probe_bpf *skel = probe_bpf__open();
	int cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), e = 0, link = -1;

	if (!skel || cgroup < 0)
		e = -errno;
	if (!e)
		e = bpf_map__reuse_fd(skel->maps.node, s->shared.map[MAP_NODE]);
	if (!e)
		e = bpf_map__reuse_fd(skel->maps.probes, s->shared.map[MAP_PROBES]);
	if (!e)
		e = probe_bpf__load(skel);
	if (!e)
		e = link = bpf_link_create(bpf_program__fd(skel->progs.probe_egress), cgroup, BPF_CGROUP_INET_EGRESS,
					   NULL);
	if (cgroup >= 0)
		close(cgroup);
	probe_bpf__destroy(skel);
	if (e < 0)
		return failed(why, e, "cannot attach to the kubelet's cgroup %s", path);
	s->kubelet.link = link;
	return 0;
}

static const char *pin_path(const struct steer *s, char path[PIN_PATH_MAX])
{
	snprintf(path, PIN_PATH_MAX, "%s/v1-node/kubelet", s->pin_dir);
	return path;
}

static void detach(struct steer *s)
{
	if (s->kubelet.link >= 0) {
		bpf_link_detach(s->kubelet.link);
		close(s->kubelet.link);
	}
	s->kubelet.link = -1;
	s->kubelet.exempt = false;
	s->kubelet.cgroup = 0;
}

/* The new link is pinned in the place of the old one, which so goes away. */
static int attach(struct steer *s, const char *path, uint64_t id, char why[STEER_WHY_MAX])
{
	char pin[PIN_PATH_MAX];
	int e;

	detach(s);
	e = load(s, path, why);
	if (!e)
		e = pin_put_path(pin_path(s, pin), s->kubelet.link, why);
	if (e) {
		detach(s);
		return e;
	}
	s->kubelet.exempt = true;
	s->kubelet.cgroup = id;
	snprintf(s->kubelet.how, sizeof s->kubelet.how, "%.*s", (int)sizeof s->kubelet.how - 1, path);
	return 0;
}

static void look(struct steer *s, bool first)
{
	char path[PATH_MAX], why[STEER_WHY_MAX], was[sizeof s->kubelet.how];
	uint64_t id;

	memcpy(was, s->kubelet.how, sizeof was);
	if (find_cgroup(s, path, &id) < 0) {
		detach(s);
	} else if (!s->kubelet.exempt || s->kubelet.cgroup != id) {
		if (attach(s, path, id, why) < 0)
			snprintf(s->kubelet.how, sizeof s->kubelet.how, "%.*s", (int)sizeof s->kubelet.how - 1, why);
	}
	if (node_write(s, why) < 0)
		log_error(STEER_LOG, "%s", why);
	if (!strcmp(was, s->kubelet.how) && !first)
		return;
	if (s->kubelet.exempt)
		log_info(STEER_LOG, "the kubelet's probes are exempt: %s", s->kubelet.how);
	else
		log_warn(STEER_LOG,
			 "the kubelet cannot be told apart (%s): its probes are captured, or exempt by the node's "
			 "address and the pod's probe ports where these are known",
			 s->kubelet.how);
}

static void on_check(struct timer *t)
{
	struct steer *s = container_of(t, struct steer, kubelet.check);

	look(s, false);
	timer_set(s->loop, &s->kubelet.check, CHECK_MS, on_check);
}

void kubelet_start(struct steer *s)
{
	s->kubelet.link = -1;
	s->kubelet.wanted = !s->kubelet_cgroup || s->kubelet_cgroup[0];
	if (!s->kubelet.wanted) {
		char pin[PIN_PATH_MAX], why[STEER_WHY_MAX];

		snprintf(s->kubelet.how, sizeof s->kubelet.how, "switched off");
		unlink(pin_path(s, pin));
		if (node_write(s, why) < 0)
			log_error(STEER_LOG, "%s", why);
		return;
	}
	look(s, true);
	timer_set(s->loop, &s->kubelet.check, CHECK_MS, on_check);
}

/* The pinned link stays. */
void kubelet_stop(struct steer *s)
{
	timer_cancel(&s->kubelet.check);
	if (s->kubelet.link >= 0)
		close(s->kubelet.link);
	s->kubelet.link = -1;
}
